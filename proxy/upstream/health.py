"""Checks of health: each peer is asked now and then, and is left out while it does not answer well.

Runs beside the traffic, one task an upstream, in the one worker that holds the seat of its zone:
what it finds stands in the zone, where failed requests are counted too.
"""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxy.base._told import tell
from proxy.conf.directive import STREAM_UPSTREAM
from proxy.conf.report import ConfError
from proxy.conf.values import read_int, read_ms

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token
    from proxy.upstream._balance import Peer, Upstream

AT_ONCE = 64  # questions of one upstream that may be under way
PATH = re.compile(r"/[!-~]*")
NAME = re.compile(r"[!-~]{1,127}")
STATUSES = re.compile(r"(\d{3})(?:-(\d{3}))?")
KINDS = ("http", "grpc", "tcp")
ONLY_FOR = {"uri": "http", "status": "http", "grpc_service": "grpc", "grpc_status": "grpc"}


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """`health_check`: statuses are ranges of good ones, port 0 is the peer's own, host "" the
    upstream's name. tls and tls_name are of who passes to the upstream by TLS: engine's ProbeTls
    (None: nobody does), whom the certificate must name ("": who is asked for)."""

    kind: str = "http"
    uri: str = "/"
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    grpc_service: str = ""
    grpc_status: int = 0
    interval_ms: int = 5000
    jitter_ms: int = 0
    timeout_ms: int = 5000
    fails: int = 1
    passes: int = 1
    port: int = 0
    host: str = ""
    is_mandatory: bool = False
    is_tls: bool = False
    tls: Any = None
    tls_name: str = ""


def read_health_check(args: list[Token], block: Block) -> HealthCheck:
    """The arguments of `health_check`. Raises ConfError."""
    check = HealthCheck("tcp" if block.where == STREAM_UPSTREAM else "http")
    kinds = [word.partition("=")[2] for word in args if word.startswith("type=")]
    if kinds and (kinds[-1] not in KINDS or check.kind == "tcp" and kinds[-1] != "tcp"):
        raise ConfError(args[0], f'invalid type "{kinds[-1]}" of "health_check"')
    if kinds:
        check = replace(check, kind=kinds[-1])
    for word in args:
        name = word.partition("=")[0]
        if ONLY_FOR.get(name, check.kind) != check.kind:
            raise ConfError(word, f'"{name}" needs type={ONLY_FOR[name]}')
        check = replace(check, **_read_parameter(word))
    return check


def _read_parameter(word: Token) -> dict[str, Any]:
    name, equals, text = word.partition("=")
    number = read_int(text) if equals else None
    time_ms = read_ms(text) if equals else None
    if name == "type" and equals:
        return {}
    if word in ("mandatory", "tls"):
        return {f"is_{word}": True}
    if name in ("interval", "timeout") and time_ms or name == "jitter" and time_ms is not None:
        return {f"{name}_ms": time_ms}
    if name in ("fails", "passes") and number and number <= 1000:
        return {name: number}
    if name == "port" and number and number < 65536:
        return {"port": number}
    if name == "uri" and PATH.fullmatch(text):
        return {"uri": text}
    if name in ("host", "grpc_service") and NAME.fullmatch(text):
        return {name: text}
    if name == "grpc_status" and number is not None and number <= 16:
        return {"grpc_status": number}
    if name == "status" and text and all(STATUSES.fullmatch(it) for it in text.split(",")):
        found = [STATUSES.fullmatch(it).groups() for it in text.split(",")]  # type: ignore[union-attr]
        return {"statuses": tuple((int(low), int(high or low)) for low, high in found)}
    raise ConfError(word, f'invalid parameter "{word}"')


class Checker:
    """The checks of one upstream. `say(text)` writes to the error log."""

    def __init__(
        self, upstream: Upstream, check: HealthCheck, say: Callable[[str], None]
    ) -> None:
        self.upstream, self.check, self.say = upstream, check, say
        self.name = upstream.name.decode("latin-1")
        self.context: ssl.SSLContext | None = None
        if check.is_tls:
            is_h2 = check.kind == "grpc"
            self.context = check.tls.context if check.tls is not None else unverified(is_h2)
        self.room = asyncio.Semaphore(AT_ONCE)
        self.runs: dict[bytes, tuple[bool, int]] = {}  # of a peer: how it went, how often

    async def run(self) -> None:
        """Until cancelled. A round begins when the last one is over, an interval after it began;
        `jitter` spreads its questions."""
        from proxy.upstream._health import is_ours, leave

        loop = asyncio.get_running_loop()
        try:
            while True:
                begun_s = loop.time()
                peers = [it for it in self.upstream.peers if not it.is_down and is_ours(it)]
                self.runs = {it.name: self.runs[it.name] for it in peers if it.name in self.runs}
                async with asyncio.TaskGroup() as tasks:
                    for peer in peers:
                        tasks.create_task(self.look(peer))
                left_s = begun_s + self.check.interval_ms / 1000 - loop.time()
                await asyncio.sleep(max(left_s, 0.01))
        finally:
            leave(self.upstream)

    async def look(self, peer: Peer) -> None:
        """Ask one peer, and let what is new be known."""
        if self.check.jitter_ms:
            await asyncio.sleep(random.random() * self.check.jitter_ms / 1000)
        try:
            async with self.room:
                why = await self.ask(peer)
        except Exception as error:  # a fault of ours says nothing of the peer
            tell(f'checking a peer of upstream "{self.name}"', error)
            return
        was_well, count = self.runs.get(peer.name, (not why, 0))
        count = count + 1 if was_well == (not why) else 1
        self.runs[peer.name] = (not why, count)
        if count >= (self.check.fails if why else self.check.passes):
            self.judge(peer, why)

    def judge(self, peer: Peer, why: str) -> None:
        from proxy.upstream._health import judge

        if peer.is_out == bool(why):
            return
        judge(peer, not why)
        how = f"is unhealthy: {why}" if why else "is healthy"
        self.say(f'peer {peer.name.decode("latin-1")} of upstream "{self.name}" {how}')

    async def ask(self, peer: Peer) -> str:
        """Why it is not well, "" if it is."""
        try:
            async with asyncio.timeout(self.check.timeout_ms / 1000):
                return await self.ask_at(self.address_of(peer))
        except TimeoutError:
            return "no answer in time"
        except (OSError, EOFError, ValueError) as error:
            return " ".join(f"{error or type(error).__name__}".split())[:200]

    def address_of(self, peer: Peer) -> str:
        address = peer.name.decode("latin-1")
        if self.check.port and not address.startswith("unix:"):
            address = f"{address.rpartition(':')[0]}:{self.check.port}"
        return address

    async def ask_at(self, address: str) -> str:
        from proxy.upstream.asking import SERVING, ask_health, ask_status, connected

        check, host = self.check, self.check.host or self.name
        async with connected(address, self.context, check.tls_name or host) as (reader, writer):
            if check.kind == "http":
                status = await ask_status(reader, writer, check.uri, host)
                is_good = any(low <= status <= high for low, high in check.statuses)
                return "" if is_good else f"status {status}"
            if check.kind == "grpc":
                code, serving = await ask_health(reader, writer, check.grpc_service, host)
                if code != check.grpc_status:
                    return f"grpc-status {code}"
                return "" if code or serving == SERVING else "it is not serving"
            return ""


def unverified(is_h2: bool) -> ssl.SSLContext:
    """TLS that asks who is there and believes it: no location says what is to be proven."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if is_h2:
        context.set_alpn_protocols(["h2"])
    return context

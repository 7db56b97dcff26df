"""Names become addresses: DNS over our own sockets, as the directive `resolver` says.

dnspython reads and writes the messages; sockets, timing and memory are ours. One question a name
is under way at a time; answers are kept for their TTL (or `valid=`). Every question leaves from a
port and with an id of its own (RFC 5452), by UDP, and by TCP when the answer was cut (RFC 7766).
Neither /etc/hosts nor search domains are read, as in nginx.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dns.message import Message

RESEND_S = 5.0  # an unanswered question goes to the next server
TCP_S = 5.0
GRACE_S = 1.0  # with addresses of one family there, the other is waited for no longer
MAX_TTL_S = 86_400
MAX_NEGATIVE_S = 10.0  # a name that has just been made should be seen soon
MAX_NAMES = 10_000
MAX_QUESTIONS = 256  # under way at once; more wait their turn
MAX_CHAIN = 16  # CNAMEs followed
MAX_ADDRESSES = 256  # of one name
REASONS = {
    1: "Format error",
    2: "Server failure",
    3: "Host not found",
    4: "Unimplemented",
    5: "Operation refused",
    110: "Operation timed out",
}
TIMED_OUT = 110
NOT_FOUND = 3
SERVER_FAILURE = 2


class ResolveError(Exception):
    """A name without addresses: `NAME could not be resolved (3: Host not found)`. code is the
    DNS RCODE, or 110 when time ran out."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(
            f"{name} could not be resolved ({code}: {REASONS.get(code, 'Unknown error')})"
        )
        self.name = name
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses of a name, IPv4 first, and until when they hold (time.monotonic()). code: 0, or
    why there are none."""

    addresses: tuple[str, ...]
    until: float
    code: int = 0


class Resolver:
    """Looks names up at name servers. servers: (IP address, port), asked in turn.

    valid_s: how long every answer is kept, whatever its TTL. timeout_ms: resolver_timeout.
    One Resolver serves one event loop.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        valid_s: float | None = None,
        has_ipv4: bool = True,
        has_ipv6: bool = True,
        timeout_ms: int = 30_000,
    ) -> None:
        if not servers or not (has_ipv4 or has_ipv6):
            raise ValueError("a resolver needs a server and an address family")
        self.servers = list(servers)
        self.valid_s = valid_s
        self.has_ipv4 = has_ipv4
        self.has_ipv6 = has_ipv6
        self.timeout_ms = timeout_ms
        self.questions = 0  # asked so far
        self._next_server = secrets.randbelow(len(servers))
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._room = asyncio.Semaphore(MAX_QUESTIONS)

    def find(self, name: str) -> list[str] | None:
        """The addresses of a name as far as they are known now; never waits.

        None: ask resolve(). Raises ResolveError when it is known that there are none.
        """
        key = _key(name)
        if _is_address(key):
            return [key]
        answer = self._kept.get(key)
        if answer is None:
            return None
        if time.monotonic() >= answer.until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return _turned(name, answer)

    async def resolve(self, name: str, timeout_ms: int | None = None) -> list[str]:
        """The addresses of a name, at least one, begun at a random one. Raises ResolveError."""
        found = self.find(name)
        if found is not None:
            return found
        return _turned(name, await self.answer(name, timeout_ms))

    async def answer(self, name: str, timeout_ms: int | None = None) -> Answer:
        """The Answer itself: kept, under way, or asked for. Raises ResolveError on a timeout."""
        key = _key(name)
        if not key:
            raise ResolveError(name, NOT_FOUND)
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept.until:
            return kept
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MAX_NAMES:
                raise ResolveError(name, SERVER_FAILURE)
            task = asyncio.get_running_loop().create_task(self._look_up(key))
            self._under_way[key] = task
            task.add_done_callback(lambda _task: self._under_way.pop(key, None))
        wait_s = (self.timeout_ms if timeout_ms is None else timeout_ms) / 1000
        # the question goes on for whoever else waits for it
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        if not done or task.cancelled():
            raise ResolveError(name, TIMED_OUT)
        return task.result()

    def close(self) -> None:
        """Drop what is under way; its waiters get a ResolveError."""
        for task in list(self._under_way.values()):
            task.cancel()

    async def _look_up(self, key: str) -> Answer:
        try:
            async with asyncio.timeout(self.timeout_ms / 1000):
                answer = await self._both_families(key)
        except TimeoutError:
            answer = Answer((), 0.0, TIMED_OUT)
        if answer.until > time.monotonic():
            self._kept[key] = answer
            while len(self._kept) > MAX_NAMES:
                self._kept.popitem(last=False)
        return answer

    async def _both_families(self, key: str) -> Answer:
        kinds = ["A"] * self.has_ipv4 + ["AAAA"] * self.has_ipv6
        tasks = [asyncio.ensure_future(self._family(key, kind)) for kind in kinds]
        try:
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                has_some = any(task.result().addresses for task in done)
                await asyncio.wait(waiting, timeout=GRACE_S if has_some else None)
            parts = [task.result() for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
        addresses = tuple(address for part in parts for address in part.addresses)
        good = [part for part in parts if part.addresses]
        if good:
            return Answer(addresses[:MAX_ADDRESSES], min(part.until for part in good))
        # "no such name" is only believed when no family failed for another reason
        worst = next((part for part in parts if part.code != NOT_FOUND), parts[0])
        return Answer((), min(part.until for part in parts), worst.code)

    async def _family(self, key: str, kind: str) -> Answer:
        """Addresses of one family, following CNAMEs over as many answers as it takes."""
        import dns.exception
        import dns.rcode

        name, ttl = key, float(MAX_TTL_S)
        for _ in range(MAX_CHAIN):
            try:
                reply = await self._ask(name, kind)
            except (dns.exception.DNSException, ValueError):
                return Answer((), 0.0, NOT_FOUND)  # a name that cannot be asked for
            code = int(reply.rcode())
            if code and code != dns.rcode.NXDOMAIN:
                return Answer((), 0.0, code)
            addresses, alias, seen_ttl = _read_reply(reply, name, kind)
            ttl = min(ttl, seen_ttl)
            if addresses:
                return Answer(tuple(addresses), self._until(ttl))
            if code or alias == name:
                return Answer((), self._until_negative(reply), NOT_FOUND)
            name = alias
        return Answer((), 0.0, SERVER_FAILURE)

    def _until(self, ttl: float) -> float:
        kept_s = ttl if self.valid_s is None else self.valid_s
        return time.monotonic() + kept_s

    def _until_negative(self, reply: Message) -> float:
        """RFC 2308 §5: the lesser of the SOA's TTL and its minimum; without one, not at all."""
        for rrset in reply.authority:
            for record in rrset:
                minimum = getattr(record, "minimum", None)
                if minimum is not None:
                    ttl = min(rrset.ttl, minimum, MAX_NEGATIVE_S)
                    ttl = ttl if self.valid_s is None else min(ttl, self.valid_s)
                    return time.monotonic() + ttl
        return 0.0

    async def _ask(self, name: str, kind: str) -> Message:
        """The first good reply of any server, else the last one. Silent ones are asked again
        until the caller's time is up."""
        import dns.message

        query = dns.message.make_query(name, kind, use_edns=False)
        failed = 0
        async with self._room:
            while True:
                server = self.servers[self._next_server % len(self.servers)]
                self._next_server += 1
                self.questions += 1
                query.id = secrets.randbelow(1 << 16)
                try:
                    reply = await _exchange(server, query)
                except (TimeoutError, OSError, EOFError):
                    # refused at once is no reason to ask a thousand times a second
                    failed += 1
                    if failed % len(self.servers) == 0:
                        await asyncio.sleep(0.2)
                    continue
                if int(reply.rcode()) in (0, NOT_FOUND):
                    return reply
                failed += 1
                if failed >= len(self.servers):
                    return reply


async def _exchange(server: tuple[str, int], query: Message) -> Message:
    """One question to one server. Raises TimeoutError, OSError, EOFError."""
    import dns.flags

    loop = asyncio.get_running_loop()
    came: asyncio.Future[Message] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Question(query, came), remote_addr=server
    )
    try:
        async with asyncio.timeout(RESEND_S):
            transport.sendto(query.to_wire())
            reply = await came
    finally:
        transport.close()
    if reply.flags & dns.flags.TC:
        async with asyncio.timeout(TCP_S):
            return await _exchange_tcp(server, query)
    return reply


async def _exchange_tcp(server: tuple[str, int], query: Message) -> Message:
    reader, writer = await asyncio.open_connection(*server)
    try:
        wire = query.to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = _read_message(await reader.readexactly(size), query)
    finally:
        writer.close()
    if reply is None:
        raise EOFError("no reply to this question")
    return reply


class _Question(asyncio.DatagramProtocol):
    """One UDP socket, connected to one server: waits for the reply to one question. What is no
    reply to it (another id or name, or no DNS at all) is not even an error: it may be forged."""

    def __init__(self, query: Message, came: asyncio.Future[Message]) -> None:
        self.query = query
        self.came = came

    def datagram_received(self, data: bytes, _sender: tuple[str | int, ...]) -> None:
        reply = _read_message(data, self.query)
        if reply is not None and not self.came.done():
            self.came.set_result(reply)

    def error_received(self, error: Exception) -> None:
        if not self.came.done():
            self.came.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.came.done():
            self.came.set_exception(error or EOFError("closed"))
            self.came.exception()  # nobody may be left to look at it


def _read_message(data: bytes, query: Message) -> Message | None:
    """The reply to query in data, or None."""
    import dns.exception
    import dns.flags
    import dns.message

    reply: Message | None
    try:
        reply = dns.message.from_wire(data, one_rr_per_rrset=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError):
        reply = _cut(data)
    if reply is None or reply.id != query.id or not reply.flags & dns.flags.QR:
        return None
    if reply.question and reply.question != query.question:
        return None
    if not reply.question and not reply.flags & dns.flags.TC and int(reply.rcode()) == 0:
        return None
    return reply


def _cut(data: bytes) -> Message | None:
    """A message of the head alone, when it says that the rest was cut; else None. A cut reply
    may end anywhere: all that counts of it is that flag."""
    import dns.flags
    import dns.message

    if len(data) < 12 or not int.from_bytes(data[2:4], "big") & dns.flags.TC:
        return None
    reply = dns.message.Message(int.from_bytes(data[:2], "big"))
    reply.flags = int.from_bytes(data[2:4], "big")  # type: ignore[assignment]
    return reply


def _read_reply(reply: Message, name: str, kind: str) -> tuple[list[str], str, float]:
    """(addresses, the name that the CNAMEs end at, least TTL met) of a reply."""
    import dns.name
    import dns.rdatatype

    wanted = dns.rdatatype.from_text(kind)
    at = dns.name.from_text(name)
    ttl = float(MAX_TTL_S)
    for _ in range(MAX_CHAIN):
        alias = None
        addresses = []
        for rrset in reply.answer:  # one record each: an address that comes twice counts twice
            if rrset.name != at or not len(rrset):
                continue
            if rrset.rdtype == wanted:
                addresses.append(str(rrset[0].address))
                ttl = min(ttl, rrset.ttl)
            elif rrset.rdtype == dns.rdatatype.CNAME:
                alias = rrset[0].target
                ttl = min(ttl, rrset.ttl)
        if addresses:
            return addresses, at.to_text(), ttl
        if alias is None:
            break
        at = alias
    return [], _key(at.to_text()), ttl


def _key(name: str) -> str:
    return name.rstrip(".").lower()


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _turned(name: str, answer: Answer) -> list[str]:
    """The addresses, begun at a random one, so that they share the load."""
    if not answer.addresses:
        raise ResolveError(name, answer.code)
    at = random.randrange(len(answer.addresses))
    return [*answer.addresses[at:], *answer.addresses[:at]]

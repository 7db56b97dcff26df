"""The result of a call is POSTed to its X-Callback-Url, if the conf allows the address.

A callback makes the gateway send a request where a stranger says, from inside (SSRF). So a name is
resolved here, every address it has is checked, and the connection goes to a checked address, never
to a name: between check and connect nothing is looked up again. Redirects are not followed. What
is not globally routable (loopback, private, link-local with the metadata services, carrier-grade
NAT, multicast, addresses that embed others) is refused unless `callback_allow` lists it.

With a secret, `X-Hub-Signature-256: sha256=HEX` is the HMAC-SHA256 of the body, as GitHub signs
its webhooks, so that any verifier for those works. Headers are not covered by it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING

from proxy.functions.call import CONNECT_S, HOP_BY_HOP, Connection, NoAnswer, Stale, exchange
from proxy.functions.queue.allowed import Allowed, Target
from proxy.functions.queue.calls import Refused, Result
from proxy.functions.queue.retry import DEFAULT, wait_ms

if TYPE_CHECKING:
    import ssl

    from proxy.functions.queue.allowed import Address
    from proxy.functions.queue.calls import Call, Settings

ANSWER_S = 60.0
RESOLVE_S = 5.0
MOST_LOOKUPS = 16
ANSWER_BYTES = 64 * 1024
DELIVERED = "delivered"
NOT_PASSED = HOP_BY_HOP | {
    "content-length", "date", "host", "server", "set-cookie", "x-call-id", "x-duration-seconds",
    "x-function-name", "x-function-status", "x-hub-signature-256",
}  # fmt: skip


class Callbacks:
    """Checks and delivers."""

    def __init__(self, settings: Settings) -> None:
        self.allowed = Allowed(settings.callback_allow)
        self.secret = settings.callback_secret
        self.attempts = settings.callback_attempts
        self._lookups = asyncio.Semaphore(MOST_LOOKUPS)
        self._tls: ssl.SSLContext | None = None

    async def check(self, url: str) -> None:
        """May it be called, as far as can be seen now? Raises Refused."""
        try:
            target = Target(url)
        except ValueError as error:
            raise Refused(400, f"X-Callback-Url is refused: {error}") from None
        try:
            await self.find_addresses(target)
        except PermissionError as error:
            raise Refused(400, f"X-Callback-Url is refused: {error}") from None
        except OSError as error:
            raise Refused(400, f"X-Callback-Url: {target.host} is not found: {error}") from None

    async def find_addresses(self, target: Target) -> list[Address]:
        """All addresses of the host. Raises OSError, and PermissionError if one of them must not
        be called."""
        found: list[Address]
        try:
            found = [ipaddress.ip_address(target.host)]
        except ValueError:
            async with self._lookups, asyncio.timeout(RESOLVE_S):
                rows = await asyncio.get_running_loop().getaddrinfo(
                    target.host, target.port, type=socket.SOCK_STREAM
                )
            found = [ipaddress.ip_address(row[4][0]) for row in rows]
        if not found:
            raise OSError("it has no address")
        if not self.allowed.has_name(target.host):
            for address in found:
                if not self.allowed.has_address(address):
                    raise PermissionError(f"callback_allow does not have {address}")
        return found

    async def deliver(self, call: Call, result: Result, attempts: int) -> tuple[str, int]:
        """POST it once, after `attempts` others. (DELIVERED, 0), or ("", ms until the next try),
        or (why it is given up, 0)."""
        try:
            answer = await self._post(call, result)
        except PermissionError as error:
            return f"refused: {error}", 0
        except (OSError, NoAnswer, Stale, ValueError) as error:
            answer = Result(0, error=str(error) or type(error).__name__)
        if 200 <= answer.status < 300:
            return DELIVERED, 0
        why = f"status {answer.status}" if answer.status else answer.error
        if answer.status and answer.status not in DEFAULT.codes:
            return f"given up: {why}", 0
        if attempts + 1 >= self.attempts:
            return f"given up after {attempts + 1} attempts: {why}", 0
        return "", wait_ms(answer, attempts + 1, DEFAULT)

    async def _post(self, call: Call, result: Result) -> Result:
        target = Target(call.callback)
        connection = await self._connect(target, await self.find_addresses(target))
        try:
            async with asyncio.timeout(ANSWER_S):
                headers = [("Host", target.authority), *self.headers(call, result)]
                answered = await exchange(
                    connection, "POST", target.path, headers, result.body, ANSWER_BYTES
                )
            return Result(answered.status, answered.headers)
        finally:
            connection.close()

    async def _connect(self, target: Target, addresses: list[Address]) -> Connection:
        context = self._context() if target.is_tls else None
        error: OSError = OSError("no address")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(
                        str(address),
                        target.port,
                        ssl=context,
                        server_hostname=target.host if context else None,
                    )
                return Connection(str(address), reader, writer)
            except OSError as it:
                error = it
        raise error

    def _context(self) -> ssl.SSLContext:
        import ssl

        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def headers(self, call: Call, result: Result) -> list[tuple[str, str]]:
        """What goes with the body: the function's own headers, and OpenFaaS' words for the rest."""
        rows = [it for it in result.headers if it[0].lower() not in NOT_PASSED]
        rows += [
            ("X-Call-Id", call.id),
            ("X-Function-Name", call.function),
            ("X-Function-Status", str(result.status or 503)),
            ("X-Duration-Seconds", f"{result.duration_s:.6f}"),
        ]
        if self.secret:
            mark = hmac.digest(self.secret, result.body, "sha256").hex()
            rows.append(("X-Hub-Signature-256", f"sha256={mark}"))
        return rows

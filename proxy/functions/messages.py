"""A message becomes a call of a function, through a worker like anybody's request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.functions.call import Client, NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANSWER_BYTES = 1 << 20  # of a function's answer; what is longer is no message


class Messenger:
    """find_addresses: where workers listen for calls of the gateway's own."""

    def __init__(self, find_addresses: Callable[[], Sequence[str]]) -> None:
        self._client = Client(find_addresses)

    async def ask(
        self, path: str, headers: list[tuple[str, str]], body: bytes, timeout_s: float
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """(status, headers, body) of the answer; status 0: there was none."""
        try:
            got = await self._client.ask("POST", path, headers, body, timeout_s, ANSWER_BYTES)
        except NoAnswer:
            return 0, [], b""
        return got.status, got.headers, b"" if got.is_cut else got.body

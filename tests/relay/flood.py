"""An upstream in a process of its own: /small gets "ok", all else the same large answer.

    python flood.py BYTES        prints the port it listens on
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Conversation(asyncio.Protocol):
    """One connection: every head is answered at once, bodies are read and forgotten."""

    def __init__(self, big: bytes) -> None:
        self.big = big
        self.data = b""
        self.is_in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.is_in_body:
            return
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            if not head.startswith(b"GET"):
                self.is_in_body = True
                return
            answer = SMALL if head.startswith(b"GET /small") else self.big
            self.transport.write(answer)  # type: ignore[attr-defined]


async def main(size: int) -> None:
    """Listen until killed."""
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size
    server = await asyncio.get_running_loop().create_server(
        lambda: Conversation(big), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

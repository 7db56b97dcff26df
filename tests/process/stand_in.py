"""A worker's work in its smallest form, to try the master without the request path.

GET / answers the worker's pid and generation; /slow answers after half a second; /hang never.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import uvloop


def run(model, seat) -> None:
    """What proxy.serve.run does, by asyncio streams."""
    loop = uvloop.new_event_loop()
    loop.run_until_complete(Answerer(loop, model, seat).run())
    loop.close()


class Answerer:
    def __init__(self, loop, model, seat) -> None:
        self.loop, self.model, self.seat = loop, model, seat
        self.servers = []
        self.busy = 0
        self.clients = set()
        self.end = loop.create_future()
        self.is_leaving = False

    async def run(self) -> None:
        for key, fd in self.seat.listeners:
            sock = socket.socket(fileno=os.dup(fd))
            start = asyncio.start_unix_server if key[:5] == "unix:" else asyncio.start_server
            self.servers.append(await start(self.answer, sock=sock))
        self.loop.add_reader(self.seat.control_fd, self.on_order)
        self.seat.tell_ready()
        await self.end

    def on_order(self) -> None:
        for order in self.seat.take_orders():
            if order == "t":
                self.finish()
            elif order in ("q", "p"):
                self.is_leaving = True
                for server in self.servers:
                    server.close()
                limit_ms = self.model.get("worker_shutdown_timeout")
                if limit_ms:
                    self.loop.call_later(limit_ms / 1000, self.finish)
                if not self.busy:
                    # Who is accepted and has not spoken yet is still answered.
                    self.loop.call_later(0.05, lambda: self.busy or self.finish())

    def finish(self) -> None:
        if not self.end.done():
            self.end.set_result(None)

    async def answer(self, reader, writer) -> None:
        self.busy += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1]
            if path != b"/":                     # a test waits for it
                Path(self.model.path(f"logs/asked-{path[1:].decode()}")).touch()
            if path == b"/slow":
                await asyncio.sleep(0.5)
            elif path == b"/hang":
                await asyncio.sleep(60)
            text = f"{os.getpid()} {self.seat.generation} {os.geteuid()}".encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (len(text), text)
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.busy -= 1
            if self.is_leaving and not self.busy:
                self.finish()

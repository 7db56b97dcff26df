"""A worker at work: its loop, its listeners, its orders from the master."""

from __future__ import annotations

import gc
import socket
from typing import TYPE_CHECKING

import uvloop

from proxy import plan
from proxy._fastpath import Worker
from proxy.process import seat as orders

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.process.seat import Seat


class Serving:
    """One worker from its birth to its end."""

    def __init__(self, model: Block, seat: Seat) -> None:
        self.model = model
        self.seat = seat
        self.loop = uvloop.new_event_loop()
        self.worker = Worker(self.loop)
        self.servers: list = []
        self.followers: list = []

    def run(self) -> None:
        made = plan.build(self.model, self.seat)
        self.loop.run_until_complete(self.open(made))
        self.follow_names(made)
        self.loop.add_reader(self.seat.control_fd, self.on_order)
        gc.collect()
        gc.freeze()
        self.seat.tell_ready()
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def open(self, made: plan.Plan) -> None:
        for key, fd in self.seat.listeners:
            listener = made.listeners.get(key)
            if listener is None:  # a socket to be emptied: its address is no more
                continue
            sock = socket.socket(fileno=fd)
            self.servers.append(
                await self.loop.create_server(
                    self.worker.accept(listener), sock=sock, start_serving=True
                )
            )

    def follow_names(self, made: plan.Plan) -> None:
        """Keep the peers of `server NAME resolve` what the name servers say."""
        for upstream, settings in made.upstreams.to_follow() if made.upstreams else ():
            from proxy.upstream.follow import follow

            resolver = made.resolver_of(settings.resolver)
            self.followers.append(self.loop.create_task(follow(upstream, settings, resolver)))

    def on_order(self) -> None:
        for order in self.seat.take_orders():
            if order == orders.TERMINATE:
                self.loop.stop()
            elif order == orders.QUIT:
                self.quit()

    def quit(self) -> None:
        for server in self.servers:
            server.close()
        self.worker.on_empty = self.loop.stop
        self.worker.quit()


def run(model: Block, seat: Seat) -> None:
    """Serve until the master says to leave."""
    Serving(model, seat).run()

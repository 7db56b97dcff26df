"""A worker at work: its loop, its listeners, its orders from the master."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from typing import TYPE_CHECKING, Any

import uvloop

from proxy import plan
from proxy._fastpath import ClientH3, Listener, Worker
from proxy._mqtt import MqttListener, MqttSessions
from proxy._session import Sessions, StreamListener
from proxy.engine._watch import attach, detach
from proxy.functions.table import Table
from proxy.observe import uncaught
from proxy.observe.error_log import WARN
from proxy.process import seat as orders

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.process.seat import Seat

GOING_AWAY, SERVICE_RESTART = 1001, 1012  # what a WebSocket hears (registry of RFC 6455 §11.7)
HANDSHAKES_S = 3.0  # what a leaving worker gives those of QUIC that are under way
LOOK_S = 0.05
TELLING_S = 0.1  # for requests that were cut to be logged
TABLE_LIMIT_S = 1.0  # for the controller, which may be starting itself


class Serving:
    """One worker from its birth to its end."""

    def __init__(self, model: Block, seat: Seat) -> None:
        self.model = model
        self.seat = seat
        self.loop = uvloop.new_event_loop()
        self.worker = Worker(self.loop)
        self.sessions = Sessions(self.worker, self.worker.wheel)
        self.is_accepting = False
        attach(self.loop)
        self.accepting: list = []
        self.worker.max_connections = connections_of(model)
        self.worker.on_full, self.worker.on_room = self.on_full, self.on_room
        self.followers: list = []
        self.checkers: list = []
        self.endpoints: list = []  # of QUIC
        self.mailboxes: Any = None
        self.leave_by_s = 0.0

    def run(self) -> None:
        made = plan.build(self.model, self.seat)
        self.logs = made.logs
        self.logs.open(self.loop.call_later, self.seat.error_log)
        uncaught.watch(self.loop)
        self.worker.count_in(made.numbers.counters)
        self.mqtt = MqttSessions(self.worker, self.worker.wheel, made.numbers.counters)
        self.loop.run_until_complete(self.follow_functions(made))
        self.open(made)
        self.follow_names(made)
        self.check_health(made)
        self.loop.add_reader(self.seat.control_fd, self.on_order)
        gc.collect()
        gc.freeze()
        self.seat.tell_ready()
        try:
            self.loop.run_forever()
        finally:
            self.logs.close()
            detach()
            self.loop.close()

    async def follow_functions(self, made: plan.Plan) -> None:
        """Learn where the functions' replicas are, before the first request if that is soon, and
        before the first order."""
        self.worker.attend(made.functions)
        has_some = len(made.functions) or made.directory.is_open
        if not has_some or not self.seat.controller_path:
            return
        table = Table(made.functions, self.seat.controller_path)
        self.followers.append(self.loop.create_task(table.follow()))
        whole = self.loop.create_task(table.is_whole.wait())
        self.loop.add_reader(self.seat.control_fd, whole.cancel)  # on_order reads it afterwards
        await asyncio.wait([whole], timeout=TABLE_LIMIT_S)
        self.loop.remove_reader(self.seat.control_fd)
        whole.cancel()

    def open(self, made: plan.Plan) -> None:
        """Accept on every address of the seat that the plan knows."""
        for key, fd in self.seat.listeners:
            listener = made.listeners.get(key)
            if isinstance(listener, Listener) and listener.quic is not None:
                self.open_quic(listener, fd)
            elif listener is not None:  # else a socket to be emptied: its address is no more
                self.accepting.append((listener, fd))
        self.accept()

    def open_quic(self, listener: Listener, fd: int) -> None:
        """Speak HTTP/3 on a UDP socket of the seat."""
        from proxy.quic.endpoint import Endpoint
        from proxy.quic.ids import Ids
        from proxy.quic.mailbox import Mailboxes

        post, number = self.seat.post, self.seat.quic_number
        assert post is not None
        if self.mailboxes is None:
            self.mailboxes = Mailboxes(self.loop, post.mailboxes, number, post.note_fd)
        settings, engine = listener.quic

        def begin(connection: Any, address: tuple, fd: int, local: str) -> ClientH3:
            return ClientH3(self.worker, listener, connection, address[0], address[1], fd, local)

        ids = Ids(number, post.key)
        self.endpoints.append(
            Endpoint(
                self.loop, os.dup(fd), listener.key, settings, engine, ids, self.mailboxes, begin
            )
        )

    def accept(self) -> None:
        for it in self.endpoints:
            it.is_accepting = True
        for listener, fd in self.accepting:
            whose: Any = self.worker
            if isinstance(listener, StreamListener):
                whose = self.sessions
            elif isinstance(listener, MqttListener):
                whose = self.mqtt
                self.deliver(listener.server)
            whose.accept(listener, os.dup(fd))  # a pause closes this one, not the seat's
        self.is_accepting = True

    def deliver(self, server: Any) -> None:
        """Messages of clients without a broker go to functions, through our own internal socket."""
        if server.publishing is not None and self.mqtt.deliverer is None:
            from proxy.functions.messages import Messenger
            from proxy.mqtt.publishing import Deliverer

            path = self.seat.internal_path
            messenger = Messenger(lambda: [f"unix:{path}"] if path else [])
            log = self.seat.error_log
            self.mqtt.deliverer = Deliverer(messenger.ask, lambda text: log.write(WARN, text))

    def on_full(self) -> None:
        """worker_connections are reached: new clients wait in the sockets' own queues."""
        self.seat.error_log.write(
            WARN, f"{self.worker.max_connections} worker_connections are not enough"
        )
        self.stop_accepting()

    def on_room(self) -> None:
        if not self.is_accepting:
            self.accept()

    def stop_accepting(self) -> None:
        self.is_accepting = False
        for it in self.endpoints:
            it.is_accepting = False
        for listener, _ in self.accepting:
            listener.close()

    def follow_names(self, made: plan.Plan) -> None:
        """Keep the peers of `server NAME resolve` what the name servers say."""
        for upstream, settings in [pair for it in groups_of(made) for pair in it.to_follow()]:
            from proxy.upstream.follow import follow

            resolver = made.resolver_of(settings.resolver)
            self.followers.append(self.loop.create_task(follow(upstream, settings, resolver)))

    def check_health(self, made: plan.Plan) -> None:
        """Ask the peers of upstreams that say `health_check` how they are."""
        for upstream, check in [pair for it in groups_of(made) for pair in it.checks]:
            from proxy.upstream.health import Checker

            checker = Checker(upstream, check, lambda text: self.seat.error_log.write(WARN, text))
            self.checkers.append(self.loop.create_task(checker.run()))

    def on_order(self) -> None:
        for order in self.seat.take_orders():
            if order == orders.TERMINATE:
                for it in self.endpoints:
                    it.end()
                if self.worker.is_quitting:  # worker_shutdown_timeout is over
                    self.worker.give_up()
                    self.loop.call_later(TELLING_S, self.loop.stop)
                else:
                    self.loop.stop()
            elif order == orders.EMPTY:
                self.is_accepting = False
                for listener, _ in self.accepting:
                    listener.empty()
            elif order == orders.QUIT:
                self.quit(GOING_AWAY)
            elif order == orders.RETIRED:
                self.quit(SERVICE_RESTART)
            elif order == orders.REPLACED:
                self.quit(SERVICE_RESTART)
                for it in self.endpoints:
                    it.leave_socket()
            elif order == orders.REOPEN:
                self.logs.reopen()

    def quit(self, leave_code: int) -> None:
        self.stop_accepting()
        for task in self.checkers:  # somebody who stays may do it
            task.cancel()
        self.leave_by_s = self.loop.time() + HANDSHAKES_S
        self.worker.on_empty = self.on_empty
        self.worker.quit(leave_code)

    def on_empty(self) -> None:
        """The last connection of a leaving worker is over: but some may just be beginning."""
        is_last = self.worker.n_clients == 0 and self.worker.n_guests == 0
        if not is_last:
            return
        if any(it.handshakes for it in self.endpoints) and self.loop.time() < self.leave_by_s:
            self.loop.call_later(LOOK_S, self.on_empty)
        else:
            self.loop.stop()


def groups_of(made: plan.Plan) -> list[Any]:
    """The Upstreams of http, stream and mqtt, where there are any."""
    return [it for it in (made.upstreams, made.stream_upstreams, made.mqtt_upstreams) if it]


def connections_of(model: Block) -> int:
    """worker_connections, or fewer where the limit of open files leaves less."""
    events = model.find("events")
    wanted = events[0].get("worker_connections") if events else 512
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(min(wanted, files - 64), 16)


def run(model: Block, seat: Seat) -> None:
    """Serve until the master says to leave."""
    Serving(model, seat).run()

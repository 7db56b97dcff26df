"""The controller process: keeps the functions of the conf running and tells workers where.

It touches no request. When it dies the replicas go on, being the master's children; the next one
adopts them by their ids. On its own orderly end it leaves them to the master, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import uvloop

from proxy.conf.report import ConfError
from proxy.functions.declared import read_functions
from proxy.functions.keeper import READY, STARTING, Keeper, Replica
from proxy.functions.links import Link
from proxy.functions.zygotes import Zygotes, most_zygotes

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.functions.model import Function, Version

ERROR, NOTICE, INFO = 4, 6, 7  # levels of the error log
QUIT, TERMINATE, RELOAD = "q", "t", "h"  # orders of the master, see process/seat.py
ADOPT_S = 1.0  # how long workers wait for the table while adopted replicas are looked at


class Controller:
    """One controller from its birth to its end. `seat` is process/seat.py's."""

    def __init__(self, model: Block, seat: Any) -> None:
        self.model = model
        self.seat = seat
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.processes: Zygotes
        self.functions: dict[str, Function] = {}
        self.keepers: dict[str, Keeper] = {}
        self.links: set[Link] = set()
        self.is_settled = False  # the adopted ones were looked at: the table may be told
        self._is_listed = False
        self._serial = 0
        self._drains: dict[str, tuple[set[Link], asyncio.Event]] = {}
        self._adopted: list[Replica] = []

    def run(self) -> None:
        """Until the master says to leave."""
        asyncio.set_event_loop(self.loop)
        try:
            if self.seat.replicas_fd >= 0:
                fd = self.seat.replicas_fd
                self.processes = Zygotes(self.loop, fd, self, self.notice, most_zygotes(self.model))
            self.loop.run_until_complete(self.open())
            self.loop.add_reader(self.seat.control_fd, self.on_order)
            self.seat.tell_ready()
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def open(self) -> None:
        for _, fd in self.seat.listeners:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            await self.loop.create_unix_server(lambda: Link(self), sock=sock)

    def on_order(self) -> None:
        for order in self.seat.take_orders():
            if order in (QUIT, TERMINATE):
                self.loop.stop()
            elif order == RELOAD:
                self.reload()

    def reload(self) -> None:
        """Apply what is different in the new conf."""
        try:
            self.model = self.seat.load()
        except ConfError as error:
            self.warn(f"the controller keeps its conf: {error}")
            return
        if self._is_listed:
            self.apply()

    def apply(self) -> None:
        versions = self.versions()
        for name in [*versions, *(self.keepers.keys() - versions.keys())]:
            if name not in self.keepers:
                self.keepers[name] = Keeper(name, self)
                self.publish(name)
            self.keepers[name].want(versions.get(name))
        self.processes.most = most_zygotes(self.model)
        self.processes.prepare(versions.values())
        self.sweep()

    def versions(self) -> dict[str, Version]:
        self.functions = read_functions(self.model)
        return {it.key: it for function in self.functions.values() for it in function.versions}

    def sweep(self) -> None:
        """Keepers with nothing left to keep go."""
        for name, keeper in list(self.keepers.items()):
            if keeper.wanted is None and not keeper.replicas:
                del self.keepers[name]

    # -- what the master tells (providers/process.py) -------------------------------------------
    def find(self, id: str) -> tuple[Keeper, Replica] | None:
        keeper = self.keepers.get("/".join(id.split("/", 2)[:2]))
        replica = keeper.replicas.get(id) if keeper else None
        return (keeper, replica) if keeper and replica else None

    def on_running(self, id: str, pid: int, fds: list[int]) -> None:
        replica = Replica(id)
        self._serial = max(self._serial, replica.serial)
        keeper = self.keepers.setdefault(replica.name, Keeper(replica.name, self))
        function = self.versions().get(replica.name)
        if keeper.wanted is None and function is not None:  # known before the first `keep`
            keeper.wanted, keeper.fingerprint = function, function.fingerprint
        self._adopted.append(replica)
        keeper.adopt(replica, pid, fds)

    def on_listed(self) -> None:
        self._is_listed = True
        if self._adopted:
            self.notice(f"{len(self._adopted)} running replicas adopted")
            self.loop.call_later(ADOPT_S, self.settle)
        self.apply()
        self.settle_if_seen()

    def on_started(self, id: str, pid: int, fds: list[int]) -> None:
        found = self.find(id)
        if found:
            found[0].on_started(found[1], pid, fds)

    def on_failed(self, id: str, error: str) -> None:
        found = self.find(id)
        if found:
            found[0].on_failed(found[1], error)
        self.sweep()

    def on_exited(self, id: str, status: int | None) -> None:
        found = self.find(id)
        if found:
            found[0].on_exited(found[1], status)
        waiting = self._drains.get(id)
        if waiting:
            waiting[1].set()
        self.settle_if_seen()
        self.sweep()

    # -- what keepers ask (keeper.House) --------------------------------------------------------
    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def publish(self, name: str) -> None:
        """Tell all workers who is ready."""
        self.settle_if_seen()
        if self.is_settled:
            for link in self.links:
                self._tell(link, name)

    def _tell(self, link: Link, name: str) -> None:
        key = name.partition("/")[0]
        function = self.functions.get(key)
        rows = []
        for keeper in self.keepers.values():
            if keeper.name.startswith(f"{key}/"):
                rows += [(it.id, it.address) for it in keeper.ready()]
        link.tell(key, rows, function)

    async def drain(self, replica: Replica, timeout_ms: int) -> None:
        """Out of the table, then until no worker has a request at it, or the time is over."""
        key = replica.name.partition("/")[0]
        knowing = {link for link in self.links if link.knows(key, replica.id)}
        is_over = asyncio.Event()
        self._drains[replica.id] = knowing, is_over
        self.publish(replica.name)
        if not knowing:
            is_over.set()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), timeout_ms / 1000)
        finally:
            del self._drains[replica.id]

    def notice(self, text: str) -> None:
        self.seat.error_log.write(NOTICE, text)

    def warn(self, text: str) -> None:
        self.seat.error_log.write(ERROR, text)

    def info(self, text: str) -> None:
        self.seat.error_log.write(INFO, text)

    # -- workers (links.Source) -----------------------------------------------------------------
    def on_link(self, link: Link) -> None:
        self.links.add(link)
        if self.is_settled:
            self._tell_all(link)

    def _tell_all(self, link: Link) -> None:
        for name in self.keepers:
            self._tell(link, name)
        link.tell_whole()

    def on_drained(self, link: Link, id: str) -> None:
        waiting = self._drains.get(id)
        if waiting:
            waiting[0].discard(link)
            if not waiting[0]:
                waiting[1].set()

    def on_link_lost(self, link: Link) -> None:
        self.links.discard(link)
        for id in list(self._drains):
            self.on_drained(link, id)

    def settle_if_seen(self) -> None:
        """Was every adopted replica looked at? Before that a table would lack who runs."""
        if self._is_listed and not any(map(self._is_unseen, self._adopted)):
            self.settle()

    def _is_unseen(self, replica: Replica) -> bool:
        return replica.state == STARTING and self.find(replica.id) is not None

    def settle(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            self._adopted = []
            for link in self.links:
                self._tell_all(link)

    def look(self) -> Any:
        """What /replicas shows."""
        return {
            name: {
                "wanted": keeper.scale if keeper.wanted else 0,
                "ready": sum(it.state == READY for it in keeper.replicas.values()),
                "replicas": [it.row() for it in keeper.replicas.values()],
            }
            for name, keeper in self.keepers.items()
        }


def run(model: Block, seat: Any) -> None:
    """Control until the master says to leave."""
    Controller(model, seat).run()

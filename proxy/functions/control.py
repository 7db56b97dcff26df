"""The controller process: keeps functions at their scale and tells workers where replicas are.

It touches no request. When it dies the replicas go on, being the master's children; the next one
adopts them by their ids. On its own orderly end it leaves them to the master, too.

What it is made of: register.py (which functions there are), keeper.py (one version each),
scaler.py (how many replicas), provider.py (who makes them), teller.py (what workers know),
journal.py (what functions print), and, for whoever asks over HTTP, front.py, api/ and queue/.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from proxy.conf.report import ConfError
from proxy.functions.declared import read_functions
from proxy.functions.front import Front
from proxy.functions.journal import Journal
from proxy.functions.keeper import READY, STARTING, Keeper, Replica
from proxy.functions.links import Link
from proxy.functions.model import find_function
from proxy.functions.provider import Provider, find_provider
from proxy.functions.providers.local import Local
from proxy.functions.queue.service import Service, read_settings
from proxy.functions.queue.tally import Tally, find_zone
from proxy.functions.register import Register
from proxy.functions.rounds import Rounds
from proxy.functions.scaler import SWEEP_S, Scaler
from proxy.functions.succession import HAND_OVER, Succession
from proxy.functions.teller import Teller
from proxy.functions.turns import Turns
from proxy.functions.zones import ZONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.conf.inherit import Block
    from proxy.functions.model import Function, Version

ERROR, NOTICE, INFO = 4, 6, 7  # levels of the error log
QUIT, TERMINATE, RELOAD = "q", "t", "h"  # orders of the master, see process/seat.py
ADOPT_S = 1.0  # how long workers wait for the table while adopted replicas are looked at
LEAVE_S = 30.0  # that asynchronous calls have to their end when the gateway quits


class Controller:
    """One controller from its birth to its end. `seat` is process/seat.py's."""

    def __init__(self, model: Block, seat: Any) -> None:
        self.model = model
        self.seat = seat
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.register = Register(self.on_change)
        self.keepers: dict[str, Keeper] = {}
        self.teller = Teller(self)
        self.journal = Journal()
        self.turns = Turns(self.loop, self._keep)
        self.scaler = Scaler(
            self.loop, open_counts(seat), self.keepers.get, self.notice, self._forget_if_idle
        )
        self.queue = Service(self, *read_settings(model), Tally(find_zone(seat.shared)))
        self.front = Front(self)
        self.rounds = Rounds(self, lambda: [f"unix:{seat.internal_path}"])
        self._providers: dict[type[Provider], Provider] = {}
        self._servers: list[asyncio.AbstractServer] = []
        self._is_listed = False
        self._is_reborn = False
        self._is_loading = False  # what comes was there before: who is needed by nobody sleeps on
        self._serial = 0
        self._adopted: list[Replica] = []
        self._grace_s = 0.0  # for asynchronous calls that run when we leave

    def run(self) -> None:
        """Until the master says to leave."""
        asyncio.set_event_loop(self.loop)
        try:
            if self.seat.replicas_fd >= 0:
                local = Local(self.loop, self)
                self._providers[Local] = local
                local.open(self.seat.replicas_fd, self.model, self.notice)
            self.succession = Succession(self.seat.lock_fd)
            while not self.succession.wait(self.loop, self.seat.control_fd):
                if {QUIT, TERMINATE} & set(self.seat.take_orders()):
                    return
            self.loop.run_until_complete(self.open())
            # not before: it stops the loop. Who asks meanwhile asks again
            self.loop.add_signal_handler(HAND_OVER, self.hand_over)
            self.loop.add_reader(self.seat.control_fd, self.on_order)
            self.seat.tell_ready()
            self.loop.create_task(self.begin()).add_done_callback(self._on_begun)
            self.loop.run_forever()
            with contextlib.suppress(RuntimeError):  # told to leave at once meanwhile
                self.loop.run_until_complete(self.close())
        finally:
            self.loop.close()

    def hand_over(self) -> None:
        """A successor adopts what runs; here goes on only what was begun for the queue."""
        self.notice("handing over to another controller")
        for server in self._servers:
            server.close()
        parts: list[Any] = [self.scaler, self.teller, self.rounds, *self.keepers.values()]
        for it in parts:
            it.leave()
        self.keepers.clear()
        self.succession.give()
        self._grace_s = LEAVE_S
        self.loop.stop()

    async def open(self) -> None:
        for _, fd in self.seat.listeners:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            make = partial(Link, self.teller, self.front.connect)
            # uvloop keeps none: a server stops listening when it is collected
            self._servers.append(await self.loop.create_unix_server(make, sock=sock))

    async def begin(self) -> None:
        """Adopt what runs, then start what lacks."""
        stored = self.front.open_api(self.model)
        functions = {it.key: it for it in stored} | self.declared()
        local = self._providers.get(Local)
        running = await local.find_running() if local is not None else []
        self._is_reborn = bool(running) or self.seat.is_successor
        for it in running:
            replica = Replica(it.id, self._providers[Local])
            self._serial = max(self._serial, replica.serial)
            version = self._version(replica.key, functions)
            keeper = self._keeper(replica.key)
            if keeper.wanted is None and version is not None:
                keeper.wanted, keeper.fingerprint = version, version.fingerprint
            self._adopted.append(keeper.adopt(it, replica.provider))
        if self._adopted:
            self.notice(f"{len(self._adopted)} running replicas adopted")
            self.loop.call_later(ADOPT_S, self.teller.settle)
        self._is_listed = self._is_loading = True
        self.register.put_all(stored)
        self._is_loading = self._is_reborn
        self.register.declare(self.declared())
        self._is_loading = False
        for key, keeper in list(self.keepers.items()):
            if keeper.wanted is None or self._version(key, self.register.functions) is None:
                keeper.want(None)
            elif keeper.replicas:
                self.scaler.watch(key, ready=keeper.desired)
        self.rounds.look()
        self.settle_if_seen()
        self.front.is_open.set()
        self.queue.start()
        self._sweep()

    def _on_begun(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:  # who knows half of what runs does harm: another one shall try
            self.warn(f"the controller cannot begin: {type(error).__name__}: {error}")
            self.loop.stop()

    async def close(self) -> None:
        if self._grace_s:
            for server in self._servers:
                server.close()
            await self.front.leave()
        await self.rounds.close()
        await self.queue.close(self._grace_s)
        for provider in self._providers.values():
            await provider.close()
        await self.front.close()

    def _sweep(self) -> None:
        self.loop.call_later(SWEEP_S, self._sweep)
        functions = self.register.functions.values()
        for key in self.scaler.forgotten(it.key for f in functions for it in f.versions):
            self.on_wake(key)

    # -- the conf ---------------------------------------------------------------------------------
    def on_order(self) -> None:
        for order in self.seat.take_orders():
            if order in (QUIT, TERMINATE):
                self._grace_s = LEAVE_S if order == QUIT else 0.0
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
            self.register.put_all(self.front.open_api(self.model))
            self.register.declare(self.declared())
            self.rounds.look()
            self.queue.reload(*read_settings(self.model))

    def declared(self) -> dict[str, Function]:
        """The functions of the conf as it is. One that cannot be read was checked by the master:
        only a file that went meanwhile is to blame."""
        try:
            return read_functions(self.model)
        except ConfError as error:
            self.warn(f"the controller keeps its functions: {error}")
            return self.register.declared

    def prepare(self, versions: Sequence[Version]) -> None:
        """Of rounds.py: what can be made warm shall be."""
        local = self._providers.get(Local)
        if isinstance(local, Local):
            local.prepare(self.model, versions)

    def on_secret(self, namespace: str, name: str) -> None:
        for provider in self._providers.values():
            provider.on_secret(namespace, name)

    def renew(self, keys: Sequence[str]) -> None:
        """Of rounds.py: the files of these versions are others."""
        for key in keys:
            version = self._version(key, self.register.functions)
            if version is not None and key in self.keepers:
                self._want(key, version, version)

    def on_change(self, before: Function | None, after: Function | None) -> None:
        """Of the register: one function came, changed or went."""
        old = {it.key: it for it in before.versions} if before else {}
        new = {it.key: it for it in after.versions} if after else {}
        if after is None and before is not None:
            self.teller.tell_gone(before.key)
            self.journal.forget(before.key)
        elif after is not None and (before != after or not before):
            self.teller.tell_function(after.key)
        for key in old.keys() - new.keys():
            keeper = self.keepers.get(key)
            if keeper is not None:
                keeper.want(None)
            self.scaler.forget(key)
            self._forget_if_idle(key)
        for key, version in new.items():
            self._want(key, version, old.get(key))
        self.rounds.look_soon()

    def _want(self, key: str, version: Version, before: Version | None) -> None:
        scale = version.scale
        known = self.keepers.get(key)
        desired = known.desired if known else 0
        if before is not None and desired == before.scale.min_scale:
            desired = min(desired, max(scale.min_scale, 1))  # it was not the load that held them
        desired = max(scale.min_scale, desired)
        is_new = before is None
        if is_new and not (known and known.replicas) and not self._is_loading:
            desired = max(desired, scale.initial_scale)
        if scale.max_scale:
            desired = min(desired, scale.max_scale)
        if known is not None and known.replicas and is_new:  # adopted
            mine = [it for it in known.replicas.values() if it.fingerprint == version.fingerprint]
            desired = max(desired, len(mine) or 1)
        if known is None and not desired and version.handler.kind != "static":
            return
        keeper = known or self._keeper(key)
        keeper.desired = desired
        keeper.want(version)
        if desired:
            self.scaler.watch(key)

    def _keeper(self, key: str) -> Keeper:
        found = self.keepers.get(key)
        if found is None:
            found = self.keepers[key] = Keeper(key, self)
        return found

    def _version(self, key: str, functions: dict[str, Function]) -> Version | None:
        name, _, version = key.rpartition("/")
        function = functions.get(name) or self.register.functions.get(name)
        return function.version(version) if function is not None else None

    def _forget_if_idle(self, key: str) -> None:
        keeper = self.keepers.get(key)
        if keeper is not None and keeper.is_idle and key not in self.scaler.activities:
            del self.keepers[key]

    # -- what workers say (teller.View) -----------------------------------------------------------
    @property
    def functions(self) -> dict[str, Function]:
        return self.register.functions

    def ready(self, key: str) -> list[Replica]:
        keeper = self.keepers.get(key)
        return keeper.ready() if keeper is not None else []

    def on_wake(self, key: str) -> None:
        """A request waits for that version."""
        version = self._version(key, self.register.functions)
        if version is None:
            self.teller.tell_failed(key, "there is no such function")
            return
        if self.awaken(key, version).ready():
            self.teller.tell_replicas(key)  # it has not heard of them yet
        self.scaler.wake(key)

    def awaken(self, key: str, version: Version) -> Keeper:
        """The keeper of a version that is to have replicas."""
        keeper = self._keeper(key)
        if keeper.wanted is None or not keeper.desired:
            keeper.wanted, keeper.fingerprint = version, version.fingerprint
        return keeper

    # -- what the queue asks (queue.calls.House) --------------------------------------------------
    def find_function(self, key: str) -> Function | None:
        return self.register.functions.get(key)

    def find_key(self, name: str) -> str | None:
        return find_function(name, self.register.functions)

    def call_addresses(self) -> list[str]:
        """Where a worker takes calls of ours."""
        return [f"unix:{self.seat.internal_path}"] if self.seat.internal_path else []

    # -- what keepers ask (keeper.House) ----------------------------------------------------------
    def provider(self, kind: str) -> Provider:
        """The one for that kind of handler. Raises provider.Refusal."""
        found = find_provider(kind)
        if found not in self._providers:
            self._providers[found] = found(self.loop, self)
        return self._providers[found]

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def _keep(self, key: str) -> None:
        keeper = self.keepers.get(key)
        if keeper is not None:
            keeper.keep()

    def publish(self, key: str) -> None:
        self.settle_if_seen()
        self.teller.tell_replicas(key)

    def tell_failed(self, key: str, error: str) -> None:
        self.teller.tell_failed(key, error)

    def begin_drain(self, replica: Replica) -> None:
        self.teller.begin_drain(replica)

    async def drain(self, replica: Replica, timeout_ms: int) -> None:
        await self.teller.drain(replica, timeout_ms)

    def on_gone(self, replica: Replica) -> None:
        if self.scaler.counts is not None:
            self.scaler.counts.forget(replica.id)
        self.teller.on_gone(replica.id)
        self.settle_if_seen()
        self.loop.call_soon(self._forget_if_idle, replica.key)

    def notice(self, text: str) -> None:
        self.seat.error_log.write(NOTICE, text)

    def warn(self, text: str) -> None:
        self.seat.error_log.write(ERROR, text)

    # -- what providers tell (provider.Events) ----------------------------------------------------
    def find(self, id: str) -> tuple[Keeper, Replica] | None:
        keeper = self.keepers.get("/".join(id.split("/", 2)[:2]))
        replica = keeper.replicas.get(id) if keeper else None
        return (keeper, replica) if keeper and replica else None

    def on_started(
        self, id: str, addresses: Sequence[str], is_ready: bool = False, pid: int = 0
    ) -> None:
        found = self.find(id)
        if found:
            found[0].on_started(found[1], addresses, is_ready, pid)

    def on_line(self, id: str, text: str) -> None:
        key, version, _, serial, _ = id.split("/", 4)
        shown = f"{key}/{version}/{serial}"
        self.journal.add(key, shown, text)
        found = self.find(id)
        if found:
            found[1].lines.append(text)
        self.seat.error_log.write(INFO, f"{shown}: {text}")

    def on_failed(self, id: str, error: str) -> None:
        found = self.find(id)
        if found:
            found[0].on_failed(found[1], error)

    def on_exited(self, id: str, how: str) -> None:
        found = self.find(id)
        if found:
            found[0].on_exited(found[1], how)

    # -- adopted ones -----------------------------------------------------------------------------
    def settle_if_seen(self) -> None:
        """Was every adopted replica looked at? Before that a table would lack who runs."""
        if self._is_listed and not any(map(self._is_unseen, self._adopted)):
            self._adopted = []
            self.teller.settle()

    def _is_unseen(self, replica: Replica) -> bool:
        return replica.state == STARTING and self.find(replica.id) is not None

    def look(self) -> Any:
        """What /replicas shows."""
        return {
            key: {
                "wanted": keeper.desired,
                "ready": sum(it.state == READY for it in keeper.replicas.values()),
                "replicas": [it.row() for it in keeper.replicas.values()],
                "error": keeper.error,
            }
            for key, keeper in self.keepers.items()
        }


def open_counts(seat: Any) -> Any:
    """What workers count; None: nobody counts, nothing is scaled."""
    fd = seat.shared.get(ZONE)
    if fd is None:
        return None
    from proxy.base._shm import Zone
    from proxy.functions._counts import Counts

    return Counts(Zone.attach(fd))


def run(model: Block, seat: Any) -> None:
    """Control until the master says to leave."""
    Controller(model, seat).run()

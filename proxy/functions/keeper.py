"""Keeps one version at its scale: starts replicas, waits until they answer, restarts what dies,
and stops what is too many or of an older state – new ones first, old ones drained.

    STARTING → READY ⇄ DRAINING → STOPPING → gone      (from any state: exited → gone)

Only READY replicas are published. Everything happens on the controller's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from proxy.functions.provider import Refusal
from proxy.functions.ready import wait_ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.functions.model import Version
    from proxy.functions.provider import Provider, Running
    from proxy.functions.turns import Turns

STARTING, READY, DRAINING, STOPPING = "starting", "ready", "draining", "stopping"

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
LONG_LIFE_S = 10.0  # who lived so long begins anew with the pauses
SHORT_PAUSE_S = 1.0  # who is woken in a shorter one waits for its end, in a longer one is told
KILL_AFTER_S = 10.0  # from TERM to KILL
LAST_WORDS = 5


class House(Protocol):
    """What a keeper needs of the controller."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def turns(self) -> Turns: ...

    def provider(self, kind: str) -> Provider: ...
    def next_serial(self) -> int: ...
    def publish(self, key: str) -> None: ...
    def tell_failed(self, key: str, error: str) -> None: ...
    def begin_drain(self, replica: Replica) -> None: ...
    async def drain(self, replica: Replica, timeout_ms: int) -> None: ...
    def on_gone(self, replica: Replica) -> None: ...
    def notice(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Replica:
    """One running copy. Its id says all that a new controller must know to adopt it:
    `NAME.NAMESPACE/VERSION/FINGERPRINT/SERIAL/PORT/SOCKET`. address: where it answered, once it
    did."""

    __slots__ = (
        "address", "born_s", "fingerprint", "has_turn", "id", "key", "lines", "pid", "provider",
        "ready_s", "serial", "state", "task",
    )  # fmt: skip

    def __init__(self, id: str, provider: Provider) -> None:
        """ValueError: this is no id of ours."""
        function, version, fingerprint, serial, _, _ = id.split("/", 5)
        self.id = id
        self.key = f"{function}/{version}"
        self.fingerprint = fingerprint
        self.serial = int(serial)
        self.provider = provider
        self.state = STARTING
        self.address = ""
        self.pid = 0
        self.born_s = time.monotonic()
        self.ready_s = 0.0
        self.has_turn = False
        self.lines: deque[str] = deque(maxlen=LAST_WORDS)
        self.task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        """Its name in logs and to the API."""
        return f"{self.key}/{self.serial}"

    def row(self) -> dict[str, Any]:
        """For whoever wants to look."""
        return {
            "id": self.id, "instance": self.shown, "state": self.state, "pid": self.pid,
            "address": self.address, "age_s": round(time.monotonic() - self.born_s, 3),
            "log": list(self.lines),
        }  # fmt: skip


class Keeper:
    """One version, wanted or (wanted is None) on its way out. desired: how many there shall be."""

    def __init__(self, key: str, house: House) -> None:
        self.key = key
        self.house = house
        self.wanted: Version | None = None
        self.fingerprint = ""
        self.desired = 0
        self.replicas: dict[str, Replica] = {}
        self.error = ""  # why the last start failed; empty after one that did not
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._told_count = -1  # what a provider that counts was told

    # -- what is wanted ---------------------------------------------------------------------------
    def want(self, version: Version | None) -> None:
        """This is how the version shall be from now on."""
        fingerprint = version.fingerprint if version else ""
        if fingerprint != self.fingerprint:
            self._begin_anew()
        self.wanted, self.fingerprint = version, fingerprint
        if version is None:
            self.desired = 0
        self.keep()

    def scale(self, count: int) -> None:
        """There shall be so many."""
        if count != self.desired:
            self.desired = count
            if count == 0:
                self._begin_anew()
            self.keep()

    def wake(self, count: int) -> None:
        """Somebody waits: at least so many, now. Tells at once when it cannot be."""
        self.desired = max(self.desired, count)
        if self._retry is not None and not self.ready():
            left_s = self._retry.when() - self.house.loop.time()
            if left_s > SHORT_PAUSE_S:
                text = f"{self.error} (it is tried again in {left_s:.0f} s)"
                self.house.tell_failed(self.key, text)
                return
        self.keep()

    def _begin_anew(self) -> None:
        self._failures = 0
        self.error = ""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    @property
    def target(self) -> int:
        """How many replicas there shall be, as the provider counts."""
        if self.wanted is None:
            return 0
        try:
            provider = self.house.provider(self.wanted.handler.kind)
        except Refusal:
            return self.desired
        places = provider.places(self.wanted)
        if places is not None:
            return places
        return min(self.desired, 1) if provider.counts else self.desired

    def ready(self) -> list[Replica]:
        return [it for it in self.replicas.values() if it.state == READY]

    @property
    def is_idle(self) -> bool:
        """There is nothing to keep and nothing to remember."""
        return not self.replicas and not self.desired and self._retry is None

    def keep(self) -> None:
        """Do what is to be done for the wanted scale and state."""
        self._count()
        scale = self.target
        mine = [it for it in self.replicas.values() if it.fingerprint == self.fingerprint]
        live = [it for it in mine if it.state in (STARTING, READY)]
        for replica in mine:
            if len(live) < scale and replica.state == DRAINING:
                self._take_back(replica)
                live.append(replica)
        for _ in range(scale - len(live)):
            if self._retry is not None or not self.house.turns.take(self.key):
                break
            self._start()
        ready = [it for it in live if it.state == READY]
        if len(ready) >= scale:  # until then whoever is there of an old state goes on
            keep = ready[:scale]
            for replica in list(self.replicas.values()):
                if replica not in keep:
                    self._stop(replica)

    def _count(self) -> None:
        version = self.wanted
        if version is None or self.desired == self._told_count:
            return
        try:
            provider = self.house.provider(version.handler.kind)
        except Refusal:
            return
        if provider.counts:
            self._told_count = self.desired
            provider.scale(version, self.desired)

    # -- births -----------------------------------------------------------------------------------
    def adopt(self, running: Running, provider: Provider) -> Replica:
        """It ran before this controller did."""
        replica = self.replicas[running.id] = Replica(running.id, provider)
        self.on_started(replica, running.addresses, False, running.pid)
        return replica

    def _start(self) -> None:
        """With a turn of the house's."""
        version = self.wanted
        assert version is not None
        try:
            provider = self.house.provider(version.handler.kind)
            provider.check(version)
            stem = f"{self.key}/{self.fingerprint}/{self.house.next_serial()}"
            id = provider.place(version, stem)
        except (Refusal, OSError) as error:
            self.house.turns.end()
            self.house.warn(f"function {self.key} cannot be run: {error}")
            self._on_failure(f"cannot be run: {error}", was_ready=False)
            return
        replica = self.replicas[id] = Replica(id, provider)
        replica.has_turn = True
        provider.start(version, id)

    def _end_turn(self, replica: Replica) -> None:
        if replica.has_turn:
            replica.has_turn = False
            self.house.turns.end()

    def on_started(
        self, replica: Replica, addresses: Sequence[str], is_ready: bool, pid: int
    ) -> None:
        """It is under way; whether it answers is another question."""
        replica.pid = pid
        if replica.state != STARTING:  # it was too late to call it back
            self._end(replica)
        elif is_ready:
            self._on_ready(replica, addresses[0])
        else:
            replica.task = self.house.loop.create_task(self._wait_ready(replica, addresses))

    async def _wait_ready(self, replica: Replica, addresses: Sequence[str]) -> None:
        version = self.wanted
        if version is None or replica.fingerprint != self.fingerprint:
            # an adopted one of an older state: nobody knows its check any more
            check, timeout_ms = None, 1000
        else:
            check, timeout_ms = version.ready, version.start_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                address = await wait_ready(list(addresses), check)
        except TimeoutError:
            replica.task = None
            how = f"was not ready within {timeout_ms} ms"
            self.house.warn(f"function {self.key}: {replica.shown} {how}{last_words(replica)}")
            is_mine = replica.fingerprint == self.fingerprint
            self._end(replica)
            if is_mine:
                self._on_failure(f"{how}{last_words(replica)}", was_ready=False)
            return
        replica.task = None
        self._on_ready(replica, address)

    def _on_ready(self, replica: Replica, address: str) -> None:
        replica.provider.on_answering(replica.id, address)
        replica.address = address
        replica.state = READY
        replica.ready_s = time.monotonic()
        self._end_turn(replica)
        self.error = ""
        took_ms = (replica.ready_s - replica.born_s) * 1000
        self.house.publish(self.key)
        self.house.notice(f"function {self.key}: {replica.shown} ready ({took_ms:.0f} ms)")
        self.keep()

    # -- deaths -----------------------------------------------------------------------------------
    def on_failed(self, replica: Replica, error: str) -> None:
        """It could not be started."""
        self.house.warn(f"function {self.key}: {replica.shown} did not start: {error}")
        was_wanted = replica.state == STARTING
        self._forget(replica)
        if was_wanted and replica.fingerprint == self.fingerprint:
            self._on_failure(f"did not start: {error}", was_ready=False)

    def on_exited(self, replica: Replica, how: str) -> None:
        """It is gone."""
        was = replica.state
        self._forget(replica)
        if was == READY:
            self.house.publish(self.key)
        if was in (STOPPING, DRAINING):
            self.house.notice(f"function {self.key}: {replica.shown} {how}")
            self.keep()
            return
        how += last_words(replica)
        self.house.warn(f"function {self.key}: {replica.shown} {how}")
        if replica.fingerprint != self.fingerprint:
            self.keep()
            return
        if was == STARTING:
            replica.provider.on_early_exit(self.key)
        elif time.monotonic() - replica.ready_s >= LONG_LIFE_S:
            self._failures = 0
        self._on_failure(how, was_ready=was == READY)

    def _on_failure(self, error: str, was_ready: bool) -> None:
        self._failures += 1
        self.error = error
        if was_ready and self._failures == 1:
            self.keep()
            return
        if not self.ready():
            self.house.tell_failed(self.key, error)
        if self._retry is None and self.desired:
            step = min(self._failures - 1 - was_ready, 20)
            pause_s = min(FIRST_PAUSE_S * 2**step, LONGEST_PAUSE_S)
            self._retry = self.house.loop.call_later(pause_s, self._on_pause_over)

    def _on_pause_over(self) -> None:
        self._retry = None
        self.keep()

    def _forget(self, replica: Replica) -> None:
        self.replicas.pop(replica.id, None)
        if replica.task is not None and replica.state == STARTING:
            replica.task.cancel()
            replica.task = None
        self._end_turn(replica)
        replica.provider.forget(replica.id)
        self.house.on_gone(replica)

    def leave(self) -> None:
        """Another controller keeps it from now on, and adopts who runs."""
        self._begin_anew()
        for replica in self.replicas.values():
            if replica.task is not None:
                replica.task.cancel()
        self.replicas.clear()

    # -- leaving ----------------------------------------------------------------------------------
    def _stop(self, replica: Replica) -> None:
        if replica.state == STARTING:
            if replica.task is not None:
                replica.task.cancel()
                replica.task = None
            self._end(replica)
        elif replica.state == READY:
            self.house.begin_drain(replica)
            replica.state = DRAINING
            replica.task = self.house.loop.create_task(self._drain(replica))

    def _take_back(self, replica: Replica) -> None:
        """It was leaving, and is needed after all."""
        if replica.task is not None:
            replica.task.cancel()
            replica.task = None
        replica.state = READY
        self.house.publish(self.key)

    async def _drain(self, replica: Replica) -> None:
        await self.house.drain(replica, self.wanted.drain_timeout_ms if self.wanted else 30_000)
        replica.task = None
        self._end(replica)

    def _end(self, replica: Replica) -> None:
        """Softly now, by force later."""
        replica.state = STOPPING
        self._end_turn(replica)
        if replica.id in self.replicas:
            replica.provider.stop(replica.id, False)
            self.house.loop.call_later(KILL_AFTER_S, self._kill, replica)

    def _kill(self, replica: Replica) -> None:
        if replica.id in self.replicas:
            self.house.warn(f"function {self.key}: {replica.shown} ignores TERM: killed")
            replica.provider.stop(replica.id, True)


def last_words(replica: Replica) -> str:
    """The end of what it printed, for the error log."""
    return ", last words: " + " | ".join(replica.lines) if replica.lines else ""

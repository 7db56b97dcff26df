"""Asks the autoscaler in time: samples once a second what awake versions do, decides every 2 s.

Versions that sleep cost nothing but one look every 10 s at whether somebody waits for them, so
that nobody is forgotten when a controller dies with a wake-up in its hands.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

from proxy.functions.autoscaler import (
    SAMPLE_S,
    Memory,
    after_restart,
    decide,
    target_of,
    woken,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from proxy.functions.keeper import Keeper

SWEEP_S = 10.0
SURGE_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # looks after a wake-up: a burst needs more at once
GIVE_UP_S = 10.0  # who was woken, fails, and is waited for by nobody sleeps again


class Counts(Protocol):
    """What workers count (functions/_counts)."""

    def look(self, key: str) -> dict[str, int]: ...
    def sample(self, key: str) -> tuple[int, int, int, int]:
        """(integral of requests in flight and parked in ns, requests started, in flight, parked)"""

    def forget(self, key: str) -> None: ...


class Activity:
    """One version that is awake, or is to be. floor: at least so many until floor_until_s."""

    __slots__ = (
        "at_s", "born_s", "floor", "floor_until_s", "integral", "key", "memory", "samples",
        "stable", "started",
    )  # fmt: skip

    def __init__(self, key: str, now_s: float, memory: Memory) -> None:
        self.key = key
        self.born_s = now_s
        self.at_s = now_s
        self.integral = -1
        self.started = 0
        self.samples: deque[float] = deque(maxlen=3600)
        self.memory = memory
        self.floor = 0
        self.floor_until_s = 0.0
        self.stable = 0.0


class Scaler:
    """find(key) is the keeper of a version that exists, or None."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counts: Counts | None,
        find: Callable[[str], Keeper | None],
        say: Callable[[str], None],
        on_asleep: Callable[[str], None],
    ) -> None:
        self._on_asleep = on_asleep
        self.counts = counts
        self.activities: dict[str, Activity] = {}
        self._loop = loop
        self._find = find
        self._say = say
        self._is_even = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, key: str, *, ready: int = -1) -> Activity:
        """It is awake from now on. ready: it ran before this controller did, so many; -1: no."""
        found = self.activities.get(key)
        if found is None:
            now_s = self._loop.time()
            memory = Memory() if ready < 0 else after_restart(ready, now_s)
            found = self.activities[key] = Activity(key, now_s, memory)
            self._measure(found, now_s)
            self._arm()
        return found

    def wake(self, key: str) -> None:
        """Somebody waits for it."""
        keeper = self._find(key)
        if keeper is None or keeper.wanted is None:
            return
        activity = self.watch(key)
        activity.memory = woken(activity.memory, self._loop.time())
        if not activity.floor:  # whoever ordered sleep did so before
            activity.floor_until_s = 0.0
        scale = keeper.wanted.scale
        keeper.wake(max(1, scale.min_scale, scale.activation_scale))
        for after_s in SURGE_S:
            self._loop.call_later(after_s, self._surge, key)

    def hold(self, key: str, count: int) -> None:
        """Somebody ordered that many: for a window no decision goes below. 0: sleep now, and what
        was measured before wakes nobody again."""
        keeper = self._find(key)
        if keeper is None or keeper.wanted is None:
            return
        activity = self.watch(key)
        activity.memory = woken(activity.memory, self._loop.time())
        if count == 0:
            self._measure(activity, self._loop.time())
            activity.samples.clear()
        activity.floor = count
        activity.floor_until_s = self._loop.time() + keeper.wanted.scale.window_ms / 1000
        keeper.scale(max(count, keeper.wanted.scale.min_scale))

    def leave(self) -> None:
        """Another controller decides from now on."""
        self.activities.clear()
        if self._timer is not None:
            self._timer.cancel()

    def load(self, key: str) -> float:
        """The stable average of the last decision."""
        found = self.activities.get(key)
        return found.stable if found else 0.0

    def count(self, key: str) -> dict[str, int]:
        """Of a version: requests and copies started so far, in_flight and parked now."""
        words = ("requests", "copies", "in_flight", "parked")
        found = self.counts.look(key) if self.counts is not None else dict.fromkeys(words, 0)
        return {word: found[word] for word in words}

    def now(self, key: str) -> tuple[int, int]:
        """(in flight, parked) of a version."""
        return self.counts.sample(key)[2:] if self.counts is not None else (0, 0)

    def forget(self, key: str) -> None:
        self.activities.pop(key, None)
        if self.counts is not None:
            self.counts.forget(key)

    def forgotten(self, keys: Iterable[str]) -> list[str]:
        """Those of the versions that sleep while somebody waits for them."""
        counts = self.counts
        if counts is None:
            return []
        return [it for it in keys if it not in self.activities and counts.sample(it)[3]]

    # -- in time ----------------------------------------------------------------------------------
    def _arm(self) -> None:
        if self._timer is None and self.activities:
            self._timer = self._loop.call_later(SAMPLE_S, self._on_second)

    def _on_second(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        self._is_even = not self._is_even
        for activity in list(self.activities.values()):
            self._measure(activity, now_s)
            if self._is_even:
                self._decide(activity, now_s)
        self._arm()

    def _measure(self, activity: Activity, now_s: float) -> None:
        """One sample: the average since the last."""
        if self.counts is None:
            return
        keeper = self._find(activity.key)
        integral, started, _, _ = self.counts.sample(activity.key)
        elapsed_s = now_s - activity.at_s
        if activity.integral >= 0 and elapsed_s > 0 and keeper and keeper.wanted:
            if keeper.wanted.scale.metric == "rps":
                value = (started - activity.started) / elapsed_s
            else:
                value = (integral - activity.integral) / 1e9 / elapsed_s
            activity.samples.append(max(value, 0.0))
        activity.integral, activity.started, activity.at_s = integral, started, now_s

    def _decide(self, activity: Activity, now_s: float) -> None:
        key = activity.key
        keeper = self._find(key)
        if keeper is None or keeper.wanted is None:
            del self.activities[key]
            return
        version = keeper.wanted
        ready = len(keeper.ready())
        is_reachable = version.weight > 0 or bool(version.tag) or version.is_shadow
        decision, activity.memory = decide(
            list(activity.samples), version.scale, version.concurrency, ready, activity.memory,
            now_s, is_reachable,
        )  # fmt: skip
        if decision is None:
            return
        activity.stable = decision.stable
        desired = decision.desired
        if now_s < activity.floor_until_s:
            if activity.floor == 0 and decision.stable == 0:
                desired = version.scale.min_scale
            desired = max(desired, activity.floor)
        if keeper.error and not ready and self._is_given_up(activity, now_s):
            desired = version.scale.min_scale
        if desired != keeper.desired:
            why = ", in panic" if decision.is_panic else ""
            self._say(
                f"function {key}: {keeper.desired} -> {desired} replicas "
                f"({version.scale.metric} {decision.stable:g}{why})"
            )
            keeper.scale(desired)
        if not desired and not keeper.replicas:
            del self.activities[key]
            self._on_asleep(key)

    def _is_given_up(self, activity: Activity, now_s: float) -> bool:
        is_awaited = any(self.now(activity.key))
        is_old = now_s - activity.born_s >= GIVE_UP_S
        return activity.memory.is_reached and not is_awaited and is_old

    def _surge(self, key: str) -> None:
        """Right after a wake-up: as many as what waits and runs needs by the target."""
        keeper = self._find(key)
        if keeper is None or keeper.wanted is None or key not in self.activities:
            return
        version = keeper.wanted
        if version.scale.metric == "rps":
            return
        in_flight, parked = self.now(key)
        need = math.ceil((in_flight + parked) / target_of(version.scale, version.concurrency))
        if version.scale.max_scale:
            need = min(need, version.scale.max_scale)
        if need > keeper.desired:
            keeper.scale(need)

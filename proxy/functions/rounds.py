"""What the controller does beside scaling: schedules, watched files, limits, brokers' messages.

Functions come and go one by one; they are looked at together, a moment after the last change.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from proxy.conf.report import ConfError
from proxy.functions.schedule import Schedule
from proxy.functions.usage import Bounds
from proxy.functions.watch import Watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from proxy.conf.inherit import Block
    from proxy.functions.bridge import Bridges
    from proxy.functions.keeper import Keeper
    from proxy.functions.model import Function, Limits, Version
    from proxy.functions.usage import Bounded

LATER_S = 0.2


class House(Protocol):
    """What is needed of the controller."""

    @property
    def model(self) -> Block: ...
    @property
    def seat(self) -> Any: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def functions(self) -> Mapping[str, Function]: ...
    @property
    def keepers(self) -> Mapping[str, Keeper]: ...

    def notice(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def prepare(self, versions: Sequence[Version]) -> None: ...
    def renew(self, keys: Sequence[str]) -> None: ...


class Rounds:
    """find_addresses: where workers listen for the controller's calls."""

    def __init__(self, house: House, find_addresses: Callable[[], Sequence[str]]) -> None:
        self._house = house
        self._timer: asyncio.TimerHandle | None = None
        self._schedule = Schedule(find_addresses, house.warn)
        self._find_addresses = find_addresses
        self._bridges: Bridges | None = None
        self._watch = Watch(house.loop, self._on_changed)
        self._bounds = Bounds(house.loop, self._bounded, house.warn)

    def look_soon(self) -> None:
        """Functions have changed."""
        if self._timer is None:
            self._timer = self._house.loop.call_later(LATER_S, self.look)

    def look(self) -> None:
        """These are all functions from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        functions = self._house.functions.values()
        versions = [it for function in functions for it in function.versions]
        self._house.prepare(versions)
        self._schedule.want(functions)
        self._watch.want(versions)
        self._bounds.want(any(limits_of(it) for it in versions))
        self._look_at_brokers()

    def _look_at_brokers(self) -> None:
        model = self._house.model
        has_any = any(mqtt.find("bridge") for mqtt in model.find("mqtt"))
        if not has_any and self._bridges is None:
            return
        from proxy.functions.bridge import Bridges, read_bridges

        if self._bridges is None:
            name = (self._find_addresses() or ("",))[0]  # lies beside the pid file
            counters = self._house.seat.open_counters()
            self._bridges = Bridges(self._find_addresses, name, self._house.notice, counters)
        try:
            self._bridges.want(read_bridges(model))
        except ConfError as error:
            self._house.warn(f"the bridges stay as they are: {error}")

    def leave(self) -> None:
        """Another controller looks from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._schedule.want(())
        self._watch.want(())
        self._bounds.want(False)
        if self._bridges is not None:
            self._bridges.want(())

    async def close(self) -> None:
        if self._bridges is not None:
            with contextlib.suppress(Exception):  # it has its own end at the broker's
                await self._bridges.close()

    def _on_changed(self, keys: list[str]) -> None:
        for key in keys:
            self._house.notice(f"function {key}: its files have changed")
        self._house.renew(keys)
        self.look_soon()

    def _bounded(self) -> Iterator[Bounded]:
        for keeper in self._house.keepers.values():
            limits = limits_of(keeper.wanted)
            if limits is not None:
                for it in keeper.replicas.values():
                    kill = partial(it.provider.stop, it.id, is_forced=True)
                    yield it.pid, limits, f"function {keeper.key}: replica {it.shown}", kill


def limits_of(version: Version | None) -> Limits | None:
    """Those that somebody must look at."""
    return version.limits if version is not None and version.limits.is_bounded else None



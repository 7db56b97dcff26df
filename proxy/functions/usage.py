"""What replicas use, from /proc, to end those that use more than they may.

A replica is its session: all processes that it has started and that have not left it. With a cgroup
the kernel holds the limits; this looks twice a second and holds them anywhere, roughly.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from proxy.functions.model import Limits

    Bounded = tuple[int, Limits, str, Callable[[], None]]

LOOK_S = 0.5
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """cpu_s: since it began. memory_bytes: resident, shared pages counted once a process."""

    cpu_s: float
    memory_bytes: int
    processes: int
    threads: int


def usage_of(pids: Iterable[int]) -> dict[int, Usage]:
    """The usage of each replica by its pid, in one walk over /proc; one that is gone is left out.

    proc(5), stat: fields 6 session, 14 and 15 utime and stime, 16 and 17 those of children that
    were waited for, 20 threads, 24 rss.
    """
    found: dict[int, list[float]] = {pid: [0.0, 0, 0, 0] for pid in pids}
    if not found:
        return {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        entry = found.get(int(fields[3]))
        if entry is not None and fields[0] != b"Z":
            entry[0] += sum(map(int, fields[11:15])) / TICKS
            entry[1] += int(fields[21]) * PAGE_BYTES
            entry[2] += 1
            entry[3] += int(fields[17])
    return {
        pid: Usage(cpu_s, int(memory), int(processes), int(threads))
        for pid, (cpu_s, memory, processes, threads) in found.items()
        if processes
    }


class Bounds:
    """Ends replicas that are over the limits of their version; sleeps while none has any.

    find() gives (pid, limits, what it is called, how to kill it) of each that has.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        find: Callable[[], Iterable[Bounded]],
        say: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._find = find
        self._say = say
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = False

    def want(self, is_wanted: bool) -> None:
        """Does any version have limits that are to be looked at?"""
        self._is_wanted = is_wanted
        if is_wanted and self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._is_wanted:
            return
        rows = {row[0]: row for row in self._find() if row[0]}
        for pid, usage in usage_of(rows).items():
            _, limits, shown, kill = rows[pid]
            over = over_what(usage, limits)
            if over:
                self._say(f"{shown} killed: {over}")
                kill()
        self._timer = self._loop.call_later(LOOK_S, self._look)


def over_what(usage: Usage, limits: Limits) -> str:
    """The limit that is exceeded, in words; "" – none."""
    if limits.memory_bytes and usage.memory_bytes > limits.memory_bytes:
        has, may = usage.memory_bytes >> 10, limits.memory_bytes >> 10
        return f"it uses {has}k of memory, its limit is {may}k"
    if limits.nproc and usage.threads > limits.nproc:
        return f"it has {usage.threads} processes and threads, its limit is {limits.nproc}"
    return ""

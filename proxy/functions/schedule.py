"""`schedule "*/5 * * * *"`: functions are called by the clock, through a worker as anybody's call.

The five fields are cron's, in the time zone of the machine ($TZ, else /etc/localtime); an hour that
the clock skips or repeats is treated as Debian's cron treats it (cronsim). A call that falls due
while the one before it runs is left out. The annotations of OpenFaaS' cron-connector (topic
cron-function, schedule …) mean the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING
from urllib.parse import quote
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proxy.functions.call import Client
    from proxy.functions.model import Function

LOOK_S = 30.0  # a clock that was set is noticed within this
ANSWER_BYTES = 2000
MOST_RUNNING = 256


class Line:
    """One schedule of one function."""

    __slots__ = ("due_s", "function", "is_running", "text", "timeout_ms")

    def __init__(self, function: str, text: str, timeout_ms: int) -> None:
        self.function = function
        self.text = text
        self.timeout_ms = timeout_ms
        self.is_running = False
        self.due_s = 0.0


class Schedule:
    """All lines of all functions. find_addresses: where workers listen for the controller's calls;
    `say` gets lines for the error log."""

    def __init__(
        self, find_addresses: Callable[[], Sequence[str]], say: Callable[[str], None]
    ) -> None:
        self._find_addresses = find_addresses
        self._client: Client | None = None
        self._say = say
        self._lines: dict[tuple[str, str], Line] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, functions: Iterable[Function]) -> None:
        """These are all functions from now on."""
        lines = {}
        for function in functions:
            for text in lines_of(function):
                key = function.key, text
                timeout_ms = max(it.timeout_ms for it in function.versions)
                lines[key] = self._lines.get(key) or Line(function.key, text, timeout_ms)
        self._lines = lines
        self._look()

    def _look(self) -> None:
        """Call what is due, then sleep until the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = time.time()
        next_s = now_s + LOOK_S
        for key, line in list(self._lines.items()):
            if line.due_s and line.due_s <= now_s:
                self._begin(line)
                line.due_s = 0.0
            if not line.due_s:
                try:
                    line.due_s = due_after(line.text, now_s)
                except ValueError as error:
                    self._say(f"function {line.function}: schedule {line.text!r}: {error}")
                    del self._lines[key]
                    continue
            elif line.due_s > now_s + LOOK_S:  # the clock may have been set back
                line.due_s = due_after(line.text, now_s)
            next_s = min(next_s, line.due_s)
        if self._lines:
            delay_s = max(next_s - time.time(), 0) + 0.001
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _begin(self, line: Line) -> None:
        if line.is_running or len(self._tasks) >= MOST_RUNNING:
            why = "the call before it still runs" if line.is_running else "too many run"
            self._say(f"function {line.function}: schedule {line.text!r} left out: {why}")
            return
        line.is_running = True
        task = asyncio.get_running_loop().create_task(self._call(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, line: Line) -> None:
        from proxy.functions.call import Client, NoAnswer

        if self._client is None:
            self._client = Client(self._find_addresses)
        target = f"/function/{quote(line.function)}"
        headers = [("Host", "localhost"), ("X-Connector", "cron"), ("X-Topic", "cron-function"),
                   ("X-Schedule", line.text)]  # fmt: skip
        # queueing and the start come on top of the function's own time
        limit_s = line.timeout_ms / 1000 + 60
        try:
            got = await self._client.ask("POST", target, headers, b"", limit_s, ANSWER_BYTES)
            if got.status >= 400:
                self._say(f"function {line.function}: schedule {line.text!r}: {got.status}")
        except NoAnswer as error:
            self._say(f"function {line.function}: schedule {line.text!r}: {error}")
        finally:
            line.is_running = False


def lines_of(function: Function) -> tuple[str, ...]:
    """The schedules of a function, its annotations' too."""
    notes = function.annotations
    if "cron-function" in [it.strip() for it in notes.get("topic", "").split(",")]:
        text = notes.get("schedule", "")
        return (*function.schedule, *([text] if text else []))
    return function.schedule


def check(text: str) -> None:
    """Raises ValueError, with a sentence, for what is no schedule."""
    from cronsim import CronSim, CronSimError

    if len(text.split()) != 5:
        raise ValueError("a schedule has five fields")
    try:
        next(CronSim(text.upper(), datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(str(error).lower()) from None
    except StopIteration:
        raise ValueError("it never comes") from None


def due_after(text: str, now_s: float, zone: tzinfo | None = None) -> float:
    """The first time (Unix seconds) after `now_s`. Raises ValueError."""
    from cronsim import CronSim

    check(text)
    now = datetime.fromtimestamp(now_s, zone or local_zone())
    try:
        return next(CronSim(text.upper(), now)).timestamp()
    except StopIteration:
        raise ValueError("it never comes") from None


def local_zone() -> tzinfo:
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return UTC

"""Runs the calls of the JetStream queue that this gateway has pulled.

A function is pulled while it has calls: one task for each, which rests when its consumer is empty
and is woken by a hint, or by the look at all consumers once a minute. What is pulled is ours for
ack_wait; a call that runs longer is kept by telling the server so. Calls of a function that this
gateway does not know are left to those that do; where none does, they wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from nats import errors
from nats.js.errors import APIError

from proxy.functions.queue.calls import CANCELLED, DEAD, QUEUED, Outcome, Result
from proxy.functions.queue.streams import ACK_WAIT_S, function_of, token_of, unpack_call

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from proxy.functions.queue.calls import Call
    from proxy.functions.queue.jetstream import JetStreamQueue

PULL_S = 5.0
REST_AFTER_S = 60.0
LOOK_S = 60.0
PAUSE_S = 1.0
MOST_AT_ONCE = 50
LOST = (errors.Error, APIError, OSError, asyncio.TimeoutError)


class Active:
    """A call that runs here."""

    __slots__ = ("attempt", "call", "is_cancelled", "msg")

    def __init__(self, call: Call, msg: Msg) -> None:
        self.call = call
        self.msg = msg
        self.attempt: asyncio.Task[Outcome] | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.attempt is not None:
            self.attempt.cancel()


class Pulls:
    """Of one queue."""

    def __init__(self, queue: JetStreamQueue, parallelism: int) -> None:
        self.queue = queue
        self.active: dict[str, Active] = {}  # by call id
        self._room = asyncio.Semaphore(parallelism)
        self._pulling: dict[str, asyncio.Task[None]] = {}  # by function
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    def open(self) -> None:
        self._begin(self._keep_alive())
        self._begin(self._look_forever())

    async def close(self, grace_s: float) -> None:
        """Pull no more; after `grace_s` let go of what still runs."""
        self._is_closing = True
        pulling = list(self._pulling.values())
        for task in pulling:
            task.cancel()
        await asyncio.gather(*pulling, return_exceptions=True)
        if self._running:
            await asyncio.wait(self._running, timeout=grace_s)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def wake(self, function: str) -> None:
        """There may be calls of it."""
        if function not in self._pulling and not self._is_closing and self._is_ours(function):
            task = asyncio.get_running_loop().create_task(self._pull(function))
            self._pulling[function] = task
            task.add_done_callback(lambda _: self._pulling.pop(function, None))

    def _is_ours(self, function: str) -> bool:
        return self.queue.runner.house.find_function(function) is not None

    def cancel(self, id: str) -> bool:
        """True: it ran here."""
        found = self.active.get(id)
        if found is not None:
            found.cancel()
        return found is not None

    async def _look_forever(self) -> None:
        while True:
            with contextlib.suppress(*LOST):
                for info in await self.queue.consumers():
                    if info.num_pending or info.num_ack_pending:
                        self.wake(function_of(info.name))
            await asyncio.sleep(LOOK_S)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            for it in list(self.active.values()):
                with contextlib.suppress(*LOST):
                    await it.msg.in_progress()

    # -- one function ---------------------------------------------------------------------------
    async def _pull(self, function: str) -> None:
        """Until it has had nothing for a while, or is no function of ours."""
        queue = self.queue
        busy: set[asyncio.Task[Any]] = set()
        source: JetStreamContext.PullSubscription | None = None
        last_s = time.monotonic()
        try:
            while not is_cancelled() and self._is_ours(function):
                try:
                    if source is None:
                        source = await queue.open_consumer(function)
                    most = queue.runner.retry_of(function).parallelism
                    if len(busy) >= most:
                        await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                        continue
                    count = min(most - len(busy), MOST_AT_ONCE)
                    msgs = await source.fetch(count, timeout=PULL_S)
                except errors.TimeoutError:
                    is_old = time.monotonic() - last_s > REST_AFTER_S
                    if is_old and not busy and await self._is_empty(function):
                        return
                    continue
                except LOST:
                    source = None
                    await asyncio.sleep(PAUSE_S)
                    continue
                for msg in msgs:
                    await self._room.acquire()
                    task = self._begin(self._run(msg))
                    for tasks in (busy, self._running):
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                last_s = time.monotonic()
        finally:
            if source is not None:
                with contextlib.suppress(*LOST):
                    await source.unsubscribe()

    async def _is_empty(self, function: str) -> bool:
        try:
            info = await self.queue.js.consumer_info(self.queue.names.calls, token_of(function))
        except LOST:
            return False
        return not info.num_pending and not info.num_ack_pending

    async def _run(self, msg: Msg) -> None:
        """One message to its end. One whose end cannot be told comes again."""
        id = ""
        try:
            try:
                call = unpack_call(msg.data, msg.metadata.num_delivered - 1)
            except ValueError:
                await msg.term()  # nobody of us wrote it
                return
            if call.id in self.active:
                return  # came again though it still runs: ack_wait was missed
            id = call.id
            self.active[id] = Active(call, msg)
            outcome = await self._attempt(self.active[id])
            self.queue.runner.tally.end(call.function, outcome.state)
            while True:
                try:
                    await self.queue.finish(msg, call, outcome)
                    return
                except LOST:
                    await asyncio.sleep(PAUSE_S)
        except LOST:
            pass
        finally:
            self._room.release()
            if id:
                del self.active[id]

    async def _attempt(self, it: Active) -> Outcome:
        it.attempt = asyncio.get_running_loop().create_task(self.queue.runner.run(it.call))
        try:
            await asyncio.wait((it.attempt,))
        except asyncio.CancelledError:
            it.attempt.cancel()
            raise
        if it.attempt.cancelled() or it.is_cancelled:
            return Outcome(CANCELLED, Result(0, error="cancelled"))
        error = it.attempt.exception()
        if error is None:
            return it.attempt.result()
        why = Result(0, error=f"{type(error).__name__}: {error}")
        retry = self.queue.runner.retry_of(it.call.function)
        if it.call.attempts + 1 >= retry.attempts:
            return Outcome(DEAD, why)
        return Outcome(QUEUED, why, retry.min_wait_ms)


def is_cancelled() -> bool:
    """Is this task to end? The client's `fetch` makes a time-out of a cancellation."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

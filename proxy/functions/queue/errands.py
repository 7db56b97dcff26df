"""What the JetStream queue does beside calls: it delivers callbacks, and buries what the server has
given up because it was delivered too often. Each is a work queue that all gateways pull from."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from nats import errors
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from proxy.functions.queue.callback import DELIVERED
from proxy.functions.queue.calls import DEAD, DONE, Result
from proxy.functions.queue.pulls import LOST, PAUSE_S, PULL_S, is_cancelled
from proxy.functions.queue.streams import ACK_WAIT_S, MOST_UNACKED, unpack_call, unpack_ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

    from proxy.functions.queue.jetstream import JetStreamQueue

    Handle = Callable[[Msg], Awaitable[None]]

CONSUMER = "gateways"
AT_ONCE = 16


class Errands:
    """Of one queue."""

    def __init__(self, queue: JetStreamQueue) -> None:
        self.queue = queue
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._call_back_forever()),
            loop.create_task(self._bury_forever()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call_back_forever(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        running: set[asyncio.Task[None]] = set()

        async def handle(msg: Msg) -> None:
            await room.acquire()
            task = asyncio.get_running_loop().create_task(self._call_back(msg))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: room.release())

        try:
            await self._work(self.queue.names.callbacks, self.queue.callbacks.attempts + 1, handle)
        finally:
            for task in list(running):
                task.cancel()

    async def _call_back(self, msg: Msg) -> None:
        try:
            state, call, result, _ = unpack_ended(msg.data)
        except ValueError:
            await msg.term()
            return
        keeping = asyncio.get_running_loop().create_task(keep_alive(msg))
        try:
            tried = msg.metadata.num_delivered - 1
            said, wait_ms = await self.queue.callbacks.deliver(call, result, tried)
            if not said:
                await msg.nak(delay=wait_ms / 1000)
                return
            if state == DONE and self.queue.settings.results_keep_ms:
                await self.queue.keep(state, call, result, said)
            if said != DELIVERED:
                self.queue.runner.house.notice(f"the callback of call {call.id}: {said}")
            await msg.ack()
        except LOST:
            pass  # it comes again
        finally:
            keeping.cancel()

    async def _bury_forever(self) -> None:
        """A call that was delivered too often without an end is a dead letter, too."""

        async def handle(msg: Msg) -> None:
            advisory = json.loads(msg.data)
            calls, seq = self.queue.names.calls, advisory["stream_seq"]
            try:
                found = await self.queue.js.get_msg(calls, seq=seq)
            except NotFoundError:
                await msg.ack()
                return
            call = unpack_call(bytes(found.data or b""), advisory["deliveries"])
            why = f"no gateway lived to the end of it, {advisory['deliveries']} times"
            await self.queue.bury(call, Result(0, error=why))
            self.queue.runner.tally.end(call.function, DEAD)
            await self.queue.js.delete_msg(calls, seq)
            await msg.ack()

        await self._work(self.queue.names.advisories, -1, handle)

    async def _work(self, stream: str, most: int, handle: Handle) -> None:
        """One durable consumer's messages, forever."""
        source: JetStreamContext.PullSubscription | None = None
        while not is_cancelled():
            try:
                if source is None:
                    config = ConsumerConfig(
                        durable_name=CONSUMER,
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=ACK_WAIT_S,
                        max_deliver=most,
                        max_ack_pending=MOST_UNACKED,
                    )
                    await self.queue.js.add_consumer(stream, config)
                    source = await self.queue.js.pull_subscribe_bind(CONSUMER, stream)
                for msg in await source.fetch(1, timeout=PULL_S):
                    await handle(msg)
            except errors.TimeoutError:
                continue
            except (*LOST, ValueError, KeyError):
                source = None
                await asyncio.sleep(PAUSE_S)


async def keep_alive(msg: Msg) -> None:
    while True:
        await asyncio.sleep(ACK_WAIT_S / 3)
        with contextlib.suppress(*LOST):
            await msg.in_progress()

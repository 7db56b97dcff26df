"""The queue as the controller has it: opened when somebody needs it, set by the conf, shut at last.

It is opened at the start if the conf names a queue or an older one left its file; otherwise the
first asynchronous call opens it, so that nobody else pays for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.functions.queue.calls import Settings
from proxy.functions.queue.tally import Tally
from proxy.functions.queue.words import URL

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.functions.queue.callback import Callbacks
    from proxy.functions.queue.calls import House, Queue

AGAIN_S = 5.0
GRACE_S = 30.0  # for running calls, when there is another conf


class Service:
    """One for each controller."""

    def __init__(
        self, house: House, settings: Settings, is_named: bool, tally: Tally | None = None
    ) -> None:
        """is_named: the conf names the queue."""
        self.house = house
        self.tally = tally or Tally()
        self._following: asyncio.Task[None] | None = None
        self.settings, self.is_named = settings, is_named
        self.callbacks: Callbacks
        self._closing: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[Queue] | None = None
        self._first: asyncio.Task[None] | None = None

    @property
    def shown_url(self) -> str:
        """Without a password."""
        return re.sub(r"//[^/@]*@", "//", self.settings.url)

    def start(self) -> None:
        """Open it now if there is a reason. Call it when functions and workers are known."""
        scheme, _, path = self.settings.url.partition(":")
        if self.is_named or (scheme == "sqlite" and os.path.exists(path)):
            self._first = asyncio.get_running_loop().create_task(self._open_at_last())

    async def _open_at_last(self) -> None:
        is_told = False
        while True:
            try:
                await self.queue()
                return
            except Exception as error:
                if not is_told:
                    self.house.warn(f"the queue {self.shown_url} does not open: {error}")
                is_told = True
            await asyncio.sleep(AGAIN_S)

    async def queue(self) -> Queue:
        """The open queue. Raises whatever keeps it from being open."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except Exception:
            if self._opening is opening:
                self._opening = None
            raise

    async def _open(self) -> Queue:
        from proxy.functions.call import Client
        from proxy.functions.queue.callback import Callbacks
        from proxy.functions.queue.runner import Runner

        settings = self.settings
        self.callbacks = Callbacks(settings)
        runner = Runner(self.house, settings, Client(self.house.call_addresses), self.tally)
        queue: Queue
        if settings.url.startswith("sqlite:"):
            from proxy.functions.queue.sqlite import SqliteQueue

            queue = SqliteQueue(settings.url[7:], settings, runner, self.callbacks)
        else:
            from proxy.functions.queue.jetstream import JetStreamQueue

            queue = JetStreamQueue(settings, runner, self.callbacks)
        await queue.open()
        self.tally.stir()
        follow = self.tally.follow(queue, self.house)
        self._following = asyncio.get_running_loop().create_task(follow)
        self.house.notice(f"the queue {self.shown_url} is open")
        return queue

    def reload(self, settings: Settings, is_named: bool) -> None:
        """Take a new conf. What runs goes on, in the old queue if the new one is different."""
        if settings == self.settings:
            self.is_named = is_named
            return
        self.is_named = is_named or self._opening is not None
        loop = asyncio.get_running_loop()
        closing = loop.create_task(self._close(*self._let_go(), GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self.settings = settings
        self.start()

    async def close(self, grace_s: float) -> None:
        """What runs may take `grace_s` to its end; else it is run again in the next life."""
        for task in self._closing:
            task.cancel()
        await self._close(*self._let_go(), grace_s)
        self.tally.write()

    def _let_go(self) -> tuple[asyncio.Task[None] | None, asyncio.Task[Queue] | None]:
        found = self._first, self._opening
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._first = self._opening = None
        return found

    async def _close(
        self,
        first: asyncio.Task[None] | None,
        opening: asyncio.Task[Queue] | None,
        grace_s: float,
    ) -> None:
        if first is not None:
            first.cancel()
        if opening is not None:
            if not opening.done():
                opening.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                queue = await opening
                await queue.close(grace_s)


def read_settings(model: Block) -> tuple[Settings, bool]:
    """What `functions { }` says, and whether it names a queue at all."""
    for http in model.find("http"):
        for block in http.find("functions"):
            calls, size = block.get("queue_limit")
            settings = Settings(
                url=str(block.get("queue")),
                body_bytes=block.get("async_body_size"),
                result_bytes=block.get("async_result_size"),
                results_keep_ms=block.get("results_keep"),
                parallelism=block.get("async_parallelism"),
                most_calls=calls,
                most_bytes=size,
                callback_allow=block.get("callback_allow"),
                callback_secret=block.own("callback_secret") or b"",
                callback_attempts=block.get("callback_attempts"),
            )
            return with_path(settings, block), block.own("queue") is not None
    return with_path(Settings(URL), model), False


def with_path(settings: Settings, block: Block) -> Settings:
    if not settings.url.startswith("sqlite:"):
        return settings
    return replace(settings, url=f"sqlite:{os.path.abspath(block.path(settings.url[7:]))}")

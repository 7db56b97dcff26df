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

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.functions.call import Client
    from proxy.functions.queue.callback import Callbacks
    from proxy.functions.queue.calls import House, Queue

AGAIN_S = 5.0
URL = "sqlite:var/queue.db"


class Service:
    """One for each controller."""

    def __init__(self, house: House, model: Block) -> None:
        self.house = house
        self.settings, self.is_named = read_settings(model)
        self.callbacks: Callbacks
        self.client: Client
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
        self.client = Client(self.house.call_addresses)
        self.callbacks = Callbacks(settings)
        runner = Runner(self.house, settings, self.client)
        queue: Queue
        if settings.url.startswith("sqlite:"):
            from proxy.functions.queue.sqlite import SqliteQueue

            queue = SqliteQueue(settings.url[7:], settings, runner, self.callbacks)
        else:
            from proxy.functions.queue.jetstream import JetStreamQueue

            queue = JetStreamQueue(settings, runner, self.callbacks)
        await queue.open()
        self.house.notice(f"the queue {self.shown_url} is open")
        return queue

    async def reload(self, model: Block) -> None:
        """Take the new conf. What runs goes on if nothing about the queue is different; otherwise
        it is closed, and what ran is run again."""
        settings, self.is_named = read_settings(model)
        if settings == self.settings:
            return
        await self.close()
        self.settings = settings
        self.start()

    async def close(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None
        opening, self._opening = self._opening, None
        if opening is not None:
            with contextlib.suppress(Exception):
                queue = await opening
                await queue.close()
            self.client.close()


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

"""What the controller serves over HTTP: the API if the conf lets it in, calls of the queue.

Nothing of it is loaded before the first request; requests that come before the controller knows
its functions wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.functions.api.wanted import is_wanted

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.functions.api.service import Api
    from proxy.functions.control import Controller
    from proxy.functions.http import Routes
    from proxy.functions.model import Function


LEAVE_S = 5.0


class Front:
    """One for each controller. is_open: from when on requests are answered."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.api: Api | None = None
        self.is_open = asyncio.Event()
        self._routes: Routes | None = None

    def connect(self) -> asyncio.Protocol:
        """For a connection that speaks HTTP."""
        from proxy.functions.http import Connection

        return Connection(self.routes, self.controller.warn)

    @property
    def routes(self) -> Routes:
        """Made for the first connection, and kept: connections have it."""
        if self._routes is None:
            from proxy.functions.http import Answer, Request, Routes, json_answer
            from proxy.functions.queue.api import Api as QueueApi

            async def look(request: Request) -> Answer:
                return json_answer(self.controller.look())

            self._routes = Routes(self.is_open)
            self._routes.add("GET", "/replicas", look)
            QueueApi(self.controller.queue).add_calls(self._routes)
            if self.api is not None:
                self.api.add_routes(self._routes)
        return self._routes

    def open_api(self, model: Block) -> list[Function]:
        """For each new conf. Gives the functions of the store when that is opened first."""
        if not is_wanted(model):
            return []
        import sqlite3

        from proxy.functions.api.service import Api

        try:
            if self.api is not None:
                return self.api.open(model)
            api = Api(self.controller)
            stored = api.open(model)
        except (OSError, sqlite3.Error) as error:
            self.controller.warn(f"the API is not served: {error}")
            return []
        self.api = api
        if self._routes is not None:
            api.add_routes(self._routes)
        return stored

    async def leave(self) -> None:
        """Let requests end that are under way; another controller takes those to come."""
        if self._routes is not None:
            from proxy.functions.http import leave

            await leave(LEAVE_S)

    async def close(self) -> None:
        if self.api is not None:
            await self.api.close()

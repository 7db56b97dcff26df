"""`GET /system/info` and `GET /healthz`: who this is, and that it lives."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from proxy import VERSION
from proxy.functions.http import Answer, json_answer

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes


class SystemApi:
    """See above. faas-cli wants every object of GatewayInfo to be there."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def add_routes(self, routes: Routes) -> None:
        routes.add("GET", "/system/info", self.api.auth.guard(self.info))
        routes.add("GET", "/healthz", self.health)

    async def info(self, request: Request) -> Answer:
        version = {"commit_message": "", "sha": "", "release": VERSION}
        provider = {"provider": "headrace", "version": version, "orchestration": "process"}
        return json_answer(
            {"provider": provider, "version": version, "arch": platform.machine()}
        )

    async def health(self, request: Request) -> Answer:
        return Answer(200, b"OK")

"""`GET /system/logs?name=&namespace=&instance=&tail=&since=&follow=`: what a function printed, a
JSON object a line (application/x-ndjson). tail -1: all that is kept; since: RFC 3339 or a Go
duration. With follow it goes on until the client leaves.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy.functions.annotations import read_go_ms
from proxy.functions.http import Answer, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes
    from proxy.functions.journal import Line

NDJSON = "application/x-ndjson"


class LogsApi:
    """See above."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def add_routes(self, routes: Routes) -> None:
        routes.add("GET", "/system/logs", self.api.auth.guard(self.logs))

    async def logs(self, request: Request) -> Answer:
        query = request.query
        name = query.get("name", "")
        if not name:
            raise Refused(422, '"name" is missing')
        request.names["name"] = name
        function = self.api.find(request)
        tail = query.get("tail") or "-1"
        if not tail.removeprefix("-").isdigit():
            raise Refused(422, f'"tail" is no number: "{tail[:100]}"')
        is_followed = query.get("follow", "").lower() in ("1", "true")
        journal, instance = self.api.controller.journal, query.get("instance", "")
        lines = journal.lines(
            function.key, tail=int(tail), since_s=read_since(query.get("since", "")),
            instance=instance,
        )  # fmt: skip

        async def pieces() -> AsyncIterator[bytes]:
            follower = journal.follow(function.key, instance) if is_followed else None
            yield b"".join(self._row(function.name, function.namespace, it) for it in lines)
            if follower is not None:
                async for line in follower:
                    yield self._row(function.name, function.namespace, line)

        return Answer(200, pieces(), NDJSON)

    def _row(self, name: str, namespace: str, line: Line) -> bytes:
        at = datetime.fromtimestamp(line.at_s, UTC).isoformat().replace("+00:00", "Z")
        row = {"name": name, "namespace": namespace, "instance": line.instance, "timestamp": at,
               "text": line.text}  # fmt: skip
        return json.dumps(row).encode() + b"\n"


def read_since(text: str) -> float:
    """Seconds since 1970; 0 for no text. Raises Refused."""
    if not text:
        return 0
    try:
        return time.time() - read_go_ms(text) / 1000
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise Refused(422, f'"since" is no time: "{text[:100]}"') from None

"""What the controller serves of asynchronous calls, beside OpenFaaS' `POST /async-function/NAME`.

    POST   /async-function/NAME[.NS][/rest]   202, X-Call-Id: it is durable. Headers that matter:
                                              X-Callback-Url, X-Call-Id, Idempotency-Key
    GET    /async-function/CALL-ID            the function's answer once there is one (200, its own
                                              status in X-Function-Status); before, 202 and JSON
    DELETE /async-function/CALL-ID            cancel: 202; 404 unknown; 409 it has ended
    *      /async-call/NAME.NS[/rest]         the same as POST with any method (`async on`)

    GET    /system/queue                      counts of each function by state
    GET    /system/queue/calls?state=&function=&limit=&after=       a page of calls
    GET    /system/queue/calls/CALL-ID        one, with its request and its last answer
    DELETE /system/queue/calls/CALL-ID        cancel it, or forget one that has ended
    POST   /system/queue/replay               {"ids": […]} or {"function": "NAME.NS"} or
                                              {"all": true}: dead letters are queued again
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from proxy.functions.http import Answer, Refused, json_answer
from proxy.functions.queue import calls
from proxy.functions.queue.calls import (
    CANCELLED,
    DEAD,
    DONE,
    ID,
    QUEUED,
    RUNNING,
    STATES,
    Call,
    Record,
    new_id,
)  # fmt: skip

if TYPE_CHECKING:
    from proxy.functions.http import Handle, Request, Routes
    from proxy.functions.queue.calls import Queue
    from proxy.functions.queue.service import Service

MOST_ROWS = 1000
MOST_HELD = 128 << 20
ROWS = 100
KEY_BYTES = 255
ANY = "GET HEAD POST PUT PATCH DELETE OPTIONS"
TEXT = "text/plain; charset=utf-8"
LOST = "the queue cannot be reached: "


class Api:
    """The handlers. `service` opens the queue when it is needed first."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._held = 0  # bytes of bodies that are being read

    def add_calls(self, routes: Routes) -> None:
        """What anybody may ask that has reached this server."""
        routes.add("POST", "/async-function/{name}/{rest...}", guarded(self.call))
        routes.add(ANY, "/async-call/{name}/{rest...}", guarded(self.call))
        routes.add("GET", "/async-function/{id}", guarded(self.result))
        routes.add("DELETE", "/async-function/{id}", guarded(self.cancel))

    def add_system(self, routes: Routes) -> None:
        """What only the operator may ask: `routes` make sure of it."""
        routes.add("GET", "/system/queue", guarded(self.overview))
        routes.add("GET", "/system/queue/calls", guarded(self.listing))
        routes.add("GET", "/system/queue/calls/{id}", guarded(self.show))
        routes.add("DELETE", "/system/queue/calls/{id}", guarded(self.remove))
        routes.add("POST", "/system/queue/replay", guarded(self.replay))

    async def _queue(self) -> Queue:
        try:
            return await self.service.queue()
        except Exception as error:
            raise Refused(503, f"{LOST}{error}", ("Retry-After", "5")) from None

    # -- calls ----------------------------------------------------------------------------------
    async def call(self, request: Request) -> Answer:
        """202 once the call is durable. Either way it is counted."""
        name = request.names["name"]
        function = self.service.house.find_key(name)
        if function is None:
            raise Refused(404, f"there is no function {name}")
        try:
            answer = await self._accept(request, function)
        except (Refused, calls.Refused) as error:
            self.service.tally.refuse(function, error.status)
            raise
        self.service.tally.accept(function)
        return answer

    async def _accept(self, request: Request, function: str) -> Answer:
        if climbs(request.names["rest"]):
            raise Refused(400, "the path climbs out of the function")
        queue = await self._queue()
        body = await self._body(request, self.service.settings.body_bytes)
        id, key = request.header("x-call-id"), request.header("idempotency-key")
        if len(key) > KEY_BYTES:
            raise Refused(400, f"Idempotency-Key is longer than {KEY_BYTES} bytes")
        if key:
            id = queue.make_id(function, key)
        elif ID.fullmatch(id) is None:
            id = new_id()
        query = f"?{request.query_text}" if request.query_text else ""
        call = Call(
            id=id,
            function=function,
            method=request.method,
            target=request.names["rest"] + query,
            headers=request.headers,
            body=body,
            callback=request.header("x-callback-url"),
            accepted_ns=time.time_ns(),
        )
        if call.callback:
            await self.service.callbacks.check(call.callback)
        id = await queue.accept(call, is_idempotent=bool(key))
        headers = [("X-Call-Id", id), ("X-Start-Time", str(call.accepted_ns))]
        return Answer(202, headers=headers)

    async def _body(self, request: Request, limit: int) -> bytes:
        """The body, whole; all that are being read together are bounded too. Raises Refused."""
        length = request.header("content-length")
        if length.isdigit() and int(length) > limit:
            raise Refused(413, f"the body is longer than {limit} bytes")
        parts, size = [], 0
        try:
            async for piece in request.pieces():
                size += len(piece)
                self._held += len(piece)
                if size > limit:
                    raise Refused(413, f"the body is longer than {limit} bytes")
                if self._held > MOST_HELD:
                    raise Refused(503, "too many calls come at once", ("Retry-After", "5"))
                parts.append(piece)
            return b"".join(parts)
        finally:
            self._held -= size

    async def result(self, request: Request) -> Answer:
        record = await self._find(request)
        headers = [("X-Call-Id", record.call.id), ("X-Call-State", record.state)]
        if record.state in (QUEUED, RUNNING):
            answer = json_answer(record.row(), 202)
            answer.headers = [*headers, ("Retry-After", "1")]
            return answer
        result = record.result
        if record.state == CANCELLED or result is None:
            return Answer(410, f"the call was {record.state}\n".encode(), headers=headers)
        headers += [
            ("X-Function-Name", record.call.function),
            ("X-Function-Status", str(result.status or 503)),
            ("X-Duration-Seconds", f"{result.duration_s:.6f}"),
        ]
        if result.error:
            headers.append(("X-Call-Error", as_field(result.error)))
        kind = TEXT
        for name, value in result.headers:
            if name.lower() == "content-type":
                kind = value
            elif name.lower() not in SET_HERE:
                headers.append((name, value))
        return Answer(200, result.body, kind, headers)

    async def cancel(self, request: Request) -> Answer:
        state = await (await self._queue()).cancel(request.names["id"])
        self.service.tally.stir()
        if not state:
            raise Refused(404, "there is no such call")
        if state in (DONE, DEAD):
            raise Refused(409, f"the call is {state} already")
        return Answer(202, headers=[("X-Call-Id", request.names["id"])])

    # -- the operator ---------------------------------------------------------------------------
    async def overview(self, request: Request) -> Answer:
        """What is in the queue now; accepted, refused and attempts are counted since the start."""
        queue = await self._queue()
        counts, oldest = await queue.counts(), await queue.oldest()
        tally = self.service.tally
        rows: list[dict[str, Any]] = []
        for name in sorted(counts.keys() | tally.counts.keys()):
            row = counts.get(name) or dict.fromkeys(STATES, 0)
            rows.append({"function": name, **row, **tally.sums(name)})
            if name in oldest:
                rows[-1]["oldestAt"] = oldest[name]
        return json_answer({"queue": self.service.shown_url, "functions": rows})

    async def listing(self, request: Request) -> Answer:
        query = request.query
        state = query.get("state", "")
        if state and state not in STATES:
            raise Refused(400, f"state is one of {', '.join(STATES)}")
        function = query.get("function", "")
        if function:
            function = self.service.house.find_key(function) or function
        limit = min(max(number_of(query, "limit", ROWS), 1), MOST_ROWS)
        page = await (await self._queue()).listing(
            state, function, number_of(query, "after", 0), limit
        )
        found: dict[str, Any] = {"calls": [it.row() for it in page.records]}
        if page.next:
            found["next"] = page.next
        return json_answer(found)

    async def show(self, request: Request) -> Answer:
        return json_answer(whole(await self._find(request)))

    async def remove(self, request: Request) -> Answer:
        queue, id = await self._queue(), request.names["id"]
        state = await queue.cancel(id)
        self.service.tally.stir()
        if state in (DONE, DEAD) and not await queue.forget(id):
            state = ""
        if not state:
            raise Refused(404, "there is no such call")
        return Answer(202)

    async def replay(self, request: Request) -> Answer:
        order = await request.json()
        queue = await self._queue()
        self.service.tally.stir()
        ids = order.get("ids")
        if isinstance(ids, list) and all(isinstance(it, str) for it in ids):
            done = [id for id in ids if await queue.replay(id)]
            missing = [id for id in ids if id not in done]
            return json_answer({"replayed": len(done), "missing": missing})
        function = order.get("function")
        if not isinstance(function, str) and order.get("all") is not True:
            raise Refused(400, 'one of "ids", "function" and "all" must be there')
        function = self.service.house.find_key(function) or function if function else ""
        count = after = 0
        while True:
            page = await queue.listing(DEAD, function, after, MOST_ROWS)
            count += sum(await asyncio.gather(*(queue.replay(it.call.id) for it in page.records)))
            after = page.next
            if not after:
                return json_answer({"replayed": count})

    async def _find(self, request: Request) -> Record:
        id = request.names["id"]
        record = await (await self._queue()).find(id) if ID.fullmatch(id) else None
        if record is None:
            raise Refused(404, "there is no such call, or its result is not kept any more")
        return record


def guarded(handle: Handle) -> Handle:
    """A handler whose queue may refuse, or be out of reach."""

    async def guarded_handle(request: Request) -> Answer:
        try:
            return await handle(request)
        except calls.Refused as error:
            again = [("Retry-After", str(error.retry_after_s))] if error.retry_after_s else []
            raise Refused(error.status, str(error), *again) from None

    return guarded_handle


SET_HERE = frozenset(
    ("content-length", "x-call-id", "x-call-state", "x-call-error", "x-function-name",
     "x-function-status", "x-duration-seconds")
)  # fmt: skip


def climbs(path: str) -> bool:
    """Would a worker take it for another function's path? It decodes before it resolves dots."""
    return ".." in unquote(path).replace("\\", "/").split("/")


def as_field(text: str) -> str:
    """Fit for a header's value."""
    return "".join(it if it.isascii() and it.isprintable() else " " for it in text)[:500]


def number_of(query: dict[str, str], name: str, default: int) -> int:
    """Raises Refused."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise Refused(400, f"{name} is no number")
    return int(text)


def whole(record: Record) -> dict[str, Any]:
    """All that is known of a call."""
    call, result = record.call, record.result
    found = record.row()
    found["request"] = {
        "method": call.method,
        "path": call.target,
        "headers": call.headers,
        **body_row(call.body),
    }
    if call.callback:
        found["callbackUrl"] = call.callback
    if result is not None:
        found["answer"] = {
            "status": result.status,
            "headers": result.headers,
            **body_row(result.body),
        }
    return found


def body_row(body: bytes) -> dict[str, str]:
    """Text as text, the rest in base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"bodyBase64": base64.b64encode(body).decode()}

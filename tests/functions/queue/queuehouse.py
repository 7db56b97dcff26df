"""A house for queues under test: a real HTTP server in a worker's place, and functions by name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import h11

from proxy.functions.call import Client
from proxy.functions.queue.callback import Callbacks
from proxy.functions.queue.calls import Call, Settings, new_id
from proxy.functions.queue.runner import Runner
from proxy.functions.queue.sqlite import SqliteQueue


@dataclass
class Asked:
    """One request that the server read."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["x-call-id"]


@dataclass
class Said:
    """What it shall answer; a status of 0 closes the connection without a word."""

    status: int = 200
    body: bytes = b"ok"
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Named:
    """A function as the queue sees it."""

    key: str
    annotations: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Asked], Awaitable[Said]]


async def answer_ok(asked: Asked) -> Said:
    return Said()


class Server:
    """Answers on 127.0.0.1 and keeps what it was asked; knows how many it had at once."""

    def __init__(self, answer: Answer = answer_ok) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _on_client(self, reader, writer) -> None:
        self.connections += 1
        state = h11.Connection(h11.SERVER)
        with contextlib.suppress(OSError, h11.RemoteProtocolError, asyncio.CancelledError):
            while await self._serve(state, reader, writer):
                state.start_next_cycle()
        writer.close()

    async def _serve(self, state, reader, writer) -> bool:
        asked = Asked("", "", {}, b"")
        while True:
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                asked.method, asked.target = event.method.decode(), event.target.decode()
                asked.headers = {k.decode(): v.decode() for k, v in event.headers}
            elif isinstance(event, h11.Data):
                asked.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        self.asked.append(asked)
        name = asked.target.split("/")[2] if asked.target.count("/") > 1 else ""
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        try:
            said = await self.answer(asked)
        finally:
            self.now[name] -= 1
        if said.status == 0:
            return False
        headers = [*said.headers, ("Content-Length", str(len(said.body)))]
        data = state.send(h11.Response(status_code=said.status, headers=headers))
        data += state.send(h11.Data(data=said.body)) + state.send(h11.EndOfMessage())
        writer.write(data)
        await writer.drain()
        return state.our_state is h11.DONE


FAST = {"com.openfaas.retry.min_wait": "10ms", "com.openfaas.retry.max_wait": "20ms"}


class House:
    """The controller's part: which functions there are, and where workers listen."""

    def __init__(self, *addresses: str, **functions: dict[str, str]) -> None:
        self.addresses = list(addresses)
        self.functions = {f"{name}.fn": Named(f"{name}.fn", it) for name, it in functions.items()}
        self.said: list[str] = []

    def find_function(self, key: str) -> Named | None:
        return self.functions.get(key)

    def find_key(self, name: str) -> str | None:
        return next((it for it in (name, f"{name}.fn") if it in self.functions), None)

    def call_addresses(self) -> list[str]:
        return self.addresses

    def notice(self, text: str) -> None:
        self.said.append(text)

    warn = notice


def settings(url: str = "", **more) -> Settings:
    return Settings(url, **{"callback_allow": ("127.0.0.1",), **more})


def sqlite_queue(house: House, path, **more) -> SqliteQueue:
    """Not open yet."""
    set = settings(f"sqlite:{path}", **more)
    client = Client(house.call_addresses)
    return SqliteQueue(str(path), set, Runner(house, set, client), Callbacks(set))


def call(function: str = "f", body: bytes = b"body", **more) -> Call:
    values = {
        "id": new_id(), "function": f"{function}.fn", "method": "POST", "target": "/rest?q=1",
        "headers": [("Content-Type", "text/plain"), ("Host", "example.com")], "body": body,
        "callback": "", "accepted_ns": time.time_ns(), **more,
    }  # fmt: skip
    return Call(**values)


async def until(test, timeout_s: float = 20.0) -> None:
    """Return once `test()` (plain or async) is true."""
    limit = time.monotonic() + timeout_s
    while True:
        found = test()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < limit, f"not within {timeout_s} s"
        await asyncio.sleep(0.005)


async def has_state(queue, id: str, state: str) -> bool:
    record = await queue.find(id)
    return record is not None and record.state == state

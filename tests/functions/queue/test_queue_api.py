"""The HTTP side of asynchronous calls, on the controller's own server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from queuehouse import FAST, Asked, House, Said, Server, settings, until

from proxy.functions.call import Answered, Client
from proxy.functions.http import Connection, Routes
from proxy.functions.queue.api import Api
from proxy.functions.queue.service import Service


class Desk:
    """An API to ask, and the server that plays the functions."""

    def __init__(self, server: Server, house: House, service: Service, port: int) -> None:
        self.server = server
        self.house = house
        self.service = service
        self.port = port
        self.client = Client(lambda: [f"127.0.0.1:{port}"])

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answered:
        rows = [("Host", "x"), *((k.replace("_", "-"), v) for k, v in headers.items())]
        return await self.client.ask(method, target, rows, body, 10, 1 << 30)

    async def json(self, target: str) -> dict:
        answered = await self.ask("GET", target)
        assert answered.status == 200, answered
        return json.loads(answered.body)

    async def state(self, id: str) -> str:
        return (await self.ask("GET", f"/async-function/{id}")).header("x-call-state")

    async def ends(self, id: str) -> Answered:
        async def is_over() -> bool:
            return await self.state(id) not in ("queued", "running")

        await until(is_over)
        return await self.ask("GET", f"/async-function/{id}")


@contextlib.asynccontextmanager
async def desk(tmp_path: Path, answer, functions=None, **more) -> AsyncIterator[Desk]:
    async with Server(answer) as server:
        house = House(server.address, **(functions or {"f": FAST}))
        service = Service(house, settings(f"sqlite:{tmp_path}/q.db", **more), True)
        routes = Routes()
        api = Api(service)
        api.add_calls(routes)
        api.add_system(routes)
        said: list[str] = []
        listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(routes, said.append), "127.0.0.1", 0
        )
        it = Desk(server, house, service, listener.sockets[0].getsockname()[1])
        yield it
        it.client.close()
        listener.close()
        await service.close(0)
        assert not said


async def echo(asked: Asked) -> Said:
    return Said(200, asked.body.upper(), [("Content-Type", "text/x"), ("X-Own", "1")])


async def fail(asked: Asked) -> Said:
    return Said(500, b"why")


def test_a_call_is_accepted_and_its_answer_fetched(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo) as it:
            for target in ("/async-function/f", "/async-function/f.fn/a%20b/c?d=e&f=%2f"):
                accepted = await it.ask("POST", target, b"hello", Content_Type="text/plain")
                assert (accepted.status, accepted.body) == (202, b"")
                id = accepted.header("x-call-id")
                assert accepted.header("x-start-time").isdigit()
                answered = await it.ends(id)
                assert (answered.status, answered.body) == (200, b"HELLO")
                assert answered.header("x-call-id") == id
                assert answered.header("x-call-state") == "done"
                assert answered.header("x-function-status") == "200"
                assert answered.header("x-function-name") == "f.fn"
                assert answered.header("x-own") == "1"
                assert answered.header("content-type") == "text/x"
            targets = [asked.target for asked in it.server.asked]
            assert targets == ["/function/f.fn", "/function/f.fn/a%20b/c?d=e&f=%2f"]
            assert (await it.ask("POST", "/async-function/f/")).status == 202
            await until(lambda: it.server.asked[-1].target == "/function/f.fn/")

    asyncio.run(main())


def test_what_cannot_be_accepted_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo, body_bytes=10) as it:
            wrong = await it.ask("POST", "/async-function/nobody")
            assert (wrong.status, wrong.body) == (404, b"there is no function nobody\n")
            assert (await it.ask("PUT", "/async-function/f")).status == 405
            for path in ("/../g", "/a/..%2f../g", "/%2e%2e/g", "/.%2E%2fg", "/..?x", "/..%5cg"):
                wrong = await it.ask("POST", f"/async-function/f{path}")
                assert (wrong.status, wrong.body) == (400, b"the path climbs out of the function\n")
            assert (await it.ask("POST", "/async-function/f", b"x" * 11)).status == 413
            assert (await it.ask("POST", "/async-function/f", b"x" * 10)).status == 202
            wrong = await it.ask("POST", "/async-function/f", X_Callback_Url="/no")
            assert wrong.status == 400 and b"X-Callback-Url is refused" in wrong.body
            metadata = "http://169.254.169.254/"
            assert (
                await it.ask("POST", "/async-function/f", X_Callback_Url=metadata)
            ).status == 400
            wrong = await it.ask("POST", "/async-function/f", Idempotency_Key="k" * 256)
            assert wrong.status == 400
            await until(lambda: it.server.asked)
            assert len(it.server.asked) == 1

    asyncio.run(main())


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo, parallelism=0, most_calls=1) as it:
            assert (await it.ask("POST", "/async-function/f")).status == 202
            refused = await it.ask("POST", "/async-function/f")
            assert (refused.status, refused.header("retry-after")) == (503, "5")
            assert refused.body == b"the queue is full\n"

    asyncio.run(main())


def test_ids_and_idempotency_keys(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo) as it:
            own = await it.ask("POST", "/async-function/f", X_Call_Id="my-own-id-1")
            assert own.header("x-call-id") == "my-own-id-1"
            other = await it.ask("POST", "/async-function/f", X_Call_Id="my-own-id-1")
            assert other.header("x-call-id") not in ("", "my-own-id-1")
            odd = await it.ask("POST", "/async-function/f", X_Call_Id="../../etc")
            assert odd.header("x-call-id") != "../../etc"
            first = await it.ask("POST", "/async-function/f", b"1", Idempotency_Key="order 66")
            again = await it.ask("POST", "/async-function/f", b"1", Idempotency_Key="order 66")
            assert first.status == again.status == 202
            assert first.header("x-call-id") == again.header("x-call-id")
            await it.ends(first.header("x-call-id"))
            await until(lambda: len(it.server.asked) == 4)

    asyncio.run(main())


def test_any_method_where_a_location_is_async(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo) as it:
            accepted = await it.ask("PUT", "/async-call/f.fn/x?y=z", b"b")
            assert accepted.status == 202
            await it.ends(accepted.header("x-call-id"))
            asked = it.server.asked[0]
            assert (asked.method, asked.target) == ("PUT", "/function/f.fn/x?y=z")

    asyncio.run(main())


def test_cancelling(tmp_path: Path) -> None:
    async def hang(asked: Asked) -> Said:
        await asyncio.sleep(30)
        return Said()

    async def main() -> None:
        one = {"f": {"headrace.io/async-parallelism": "1"}}
        async with desk(tmp_path, hang, one) as it:
            ids = [(await it.ask("POST", "/async-function/f")).header("x-call-id") for _ in "ab"]
            await until(lambda: it.server.asked)
            waiting = await it.ask("GET", f"/async-function/{ids[1]}")
            assert (waiting.status, waiting.header("x-call-state")) == (202, "queued")
            assert json.loads(waiting.body)["function"] == "f.fn"
            for id in reversed(ids):
                assert (await it.ask("DELETE", f"/async-function/{id}")).status == 202
                assert (await it.ends(id)).status == 410
            assert (await it.ask("DELETE", "/async-function/nobody-knows")).status == 404
            assert (await it.ask("GET", "/async-function/nobody-knows")).status == 404
            assert len(it.server.asked) == 1

    asyncio.run(main())


def test_dead_letters(tmp_path: Path) -> None:
    async def main() -> None:
        once = {**FAST, "com.openfaas.retry.attempts": "1"}
        async with desk(tmp_path, fail, {"f": once, "g": once}) as it:
            ids = {}
            for name in ("f", "f", "g"):
                accepted = await it.ask("POST", f"/async-function/{name}/p", b"\xff\x00")
                ids.setdefault(name, []).append(accepted.header("x-call-id"))
                answered = await it.ends(ids[name][-1])
                assert answered.header("x-call-state") == "dead"
                assert (answered.body, answered.header("x-function-status")) == (b"why", "500")
            done = await it.ask("DELETE", f"/async-function/{ids['f'][0]}")
            assert (done.status, done.body) == (409, b"the call is dead already\n")
            counts = (await it.json("/system/queue"))["functions"]
            assert [(row["function"], row["dead"]) for row in counts] == [("f.fn", 2), ("g.fn", 1)]
            rows = (await it.json("/system/queue/calls?state=dead&function=f"))["calls"]
            assert [row["id"] for row in rows] == ids["f"]
            assert (rows[0]["status"], rows[0]["attempts"]) == (500, 1)
            page = await it.json("/system/queue/calls?state=dead&limit=2")
            assert len(page["calls"]) == 2
            page = await it.json(f"/system/queue/calls?state=dead&limit=2&after={page['next']}")
            assert [row["id"] for row in page["calls"]] == ids["g"] and "next" not in page
            whole = await it.json(f"/system/queue/calls/{ids['g'][0]}")
            assert whole["request"]["bodyBase64"] == "/wA="
            assert whole["request"]["path"] == "/p"
            assert whole["answer"]["body"] == "why"
            assert (await it.ask("GET", "/system/queue/calls?state=lost")).status == 400
            assert (await it.ask("GET", "/system/queue/calls?limit=x")).status == 400

            it.server.answer = echo
            order = json.dumps({"ids": [ids["g"][0], "nobody"]}).encode()
            answered = await it.ask("POST", "/system/queue/replay", order)
            assert json.loads(answered.body) == {"replayed": 1, "missing": ["nobody"]}
            assert (await it.ends(ids["g"][0])).header("x-call-state") == "done"
            answered = await it.ask("POST", "/system/queue/replay", b'{"function": "f"}')
            assert json.loads(answered.body) == {"replayed": 2}
            await it.ends(ids["f"][1])
            for body in (b"{}", b"[]", b"x", b'{"ids": "all"}', b'{"all": 1}'):
                assert (await it.ask("POST", "/system/queue/replay", body)).status == 400
            assert (await it.ask("DELETE", f"/system/queue/calls/{ids['g'][0]}")).status == 202
            assert (await it.ask("GET", f"/async-function/{ids['g'][0]}")).status == 404
            assert (await it.ask("DELETE", f"/system/queue/calls/{ids['g'][0]}")).status == 404

    asyncio.run(main())


@pytest.mark.parametrize("gone", ["a folder", "no file"])
def test_a_queue_that_does_not_open_is_told(tmp_path: Path, gone: str) -> None:
    async def main() -> None:
        path = tmp_path / "q.db"
        if gone == "a folder":
            path.mkdir()
        else:
            path.write_bytes(b"this is no database" * 100)
        async with desk(tmp_path, echo) as it:
            for _ in "ab":
                refused = await it.ask("POST", "/async-function/f")
                assert refused.status == 503
                assert refused.body.startswith(b"the queue cannot be reached")

    asyncio.run(main())

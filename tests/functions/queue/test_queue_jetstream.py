"""The queue in a real nats-server: shared by gateways, kept over restarts, within its bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from natsserver import Nats
from queuehouse import FAST, Asked, House, Said, Server, call, has_state, settings, until

from proxy.functions.call import Client
from proxy.functions.queue.callback import Callbacks
from proxy.functions.queue.calls import Refused
from proxy.functions.queue.jetstream import JetStreamQueue
from proxy.functions.queue.runner import Runner
from proxy.functions.queue.service import Service
from proxy.functions.queue.streams import Address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    it = Nats(tmp_path_factory.mktemp("nats")).start()
    yield it
    it.stop()


names = iter(range(1000))


@pytest.fixture
def url(server: Nats) -> str:
    return f"nats://127.0.0.1:{server.port}/q{next(names)}"


def jetstream(house: House, url: str, **more) -> JetStreamQueue:
    """Not open yet. It promises less than the default, to fit into a small store."""
    it = settings(url, **{"most_bytes": 10 << 20, **more})
    return JetStreamQueue(it, Runner(house, it, Client(house.call_addresses)), Callbacks(it))


@contextlib.asynccontextmanager
async def opened(house: House, url: str, **more):
    queue = jetstream(house, url, **more)
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


async def echo(asked: Asked) -> Said:
    return Said(201, asked.body.upper(), [("X-Own", "1")])


def test_a_call_runs_and_its_result_is_kept(url: str) -> None:
    async def main() -> None:
        async with (
            Server(echo) as server,
            opened(House(server.address, **{"f.a": FAST}), url) as queue,
        ):
            it = call("f.a", b"\n\x00\xffbody")
            id = await queue.accept(it, is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            asked = server.asked[0]
            assert (asked.method, asked.target) == ("POST", "/function/f.a.fn/rest?q=1")
            assert (asked.body, asked.id) == (b"\n\x00\xffbody", id)
            record = await queue.find(id)
            assert (record.result.status, record.result.body) == (201, b"\n\x00\xffBODY")
            assert (record.call.attempts, record.call.body) == (1, b"")
            page = await queue.listing("done", "f.a.fn", 0, 10)
            assert [it.call.id for it in page.records] == [id]
            assert await queue.find("nobody-knows-this") is None
            assert await queue.forget(id)
            assert await queue.find(id) is None

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503, 0])
def test_it_is_tried_again_until_it_is_well(url: str, status: int) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(200 if asked.headers["x-retry"] == "2" else status)

    async def main() -> None:
        async with Server(answer) as server, opened(House(server.address, f=FAST), url) as queue:
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            assert [it.headers["x-retry"] for it in server.asked] == ["0", "1", "2"]

    asyncio.run(main())


def test_those_that_wait_for_another_attempt_hold_up_nobody(url: str) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(503 if asked.body == b"bad" else 200, headers=[("Retry-After", "3600")])

    async def main() -> None:
        one = {"f": {"headrace.io/async-parallelism": "1"}}
        async with Server(answer) as server, opened(House(server.address, **one), url) as queue:
            first = call(body=b"bad")
            for it in (first, *(call(body=b"bad") for _ in range(4))):
                await queue.accept(it, is_idempotent=False)
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))

            async def are_left() -> bool:  # acknowledged after it is said to be done
                return (await queue.counts())["f.fn"]["queued"] == 5

            await until(are_left)
            assert await queue.oldest() == {"f.fn": first.accepted_ns / 1e9}
            assert queue.runner.tally.sums("f.fn")["attempts"] == 6
            assert server.most["f.fn"] == 1

    asyncio.run(main())


def test_dead_letters_are_listed_looked_into_and_replayed(url: str) -> None:
    is_well = False

    async def answer(asked: Asked) -> Said:
        return Said() if is_well else Said(500, b"why")

    async def main() -> None:
        nonlocal is_well
        twice = {"f": {**FAST, "com.openfaas.retry.attempts": "2"}}
        async with Server(answer) as server, opened(House(server.address, **twice), url) as queue:
            ids = []
            for n in range(3):
                ids.append(await queue.accept(call(body=b"precious%d" % n), is_idempotent=False))
                await until(lambda: has_state(queue, ids[-1], "dead"))
            assert len(server.asked) == 6
            page = await queue.listing("dead", "f.fn", 0, 2)
            assert [it.call.id for it in page.records] == ids[:2]
            page = await queue.listing("", "", page.next, 2)
            assert [it.call.id for it in page.records] == ids[2:] and not page.next
            record = await queue.find(ids[0])
            assert (record.call.body, record.result.body) == (b"precious0", b"why")
            assert record.call.attempts == 2
            assert (await queue.counts())["f.fn"]["dead"] == 3
            assert await queue.oldest() == {}  # a dead letter does not wait
            assert queue.runner.tally.counts["f.fn"] == {"attempts retried": 3, "attempts dead": 3}
            is_well = True
            assert await queue.replay(ids[0])
            await until(lambda: has_state(queue, ids[0], "done"))
            assert server.asked[-1].body == b"precious0"
            assert not await queue.replay(ids[0])
            assert await queue.forget(ids[1])
            assert await queue.find(ids[1]) is None
            assert await queue.cancel(ids[2]) == "dead"

    asyncio.run(main())


def test_parallelism_is_bounded(url: str) -> None:
    async def answer(asked: Asked) -> Said:
        await asyncio.sleep(0.005)
        return Said()

    async def main() -> None:
        name = "headrace.io/async-parallelism"
        functions = {"a": {name: "2"}, "b": {name: "50"}}
        async with Server(answer) as server:
            house = House(server.address, **functions)
            async with opened(house, url, parallelism=6) as queue:
                await asyncio.gather(
                    *(queue.accept(call(n), is_idempotent=False) for n in "ab" for _ in range(40))
                )
                await until(lambda: len(server.asked) == 80)
                assert server.most["a.fn"] == 2
                assert server.most["b.fn"] <= 6
                assert server.connections <= 6

    asyncio.run(main())


def test_the_same_key_is_the_same_call_for_all_gateways(url: str) -> None:
    async def main() -> None:
        async with Server() as server:
            house = House(server.address, f=FAST)
            async with opened(house, url) as one, opened(house, url) as other:
                id = one.make_id("f.fn", "key-1")
                assert other.make_id("f.fn", "key-1") == id != one.make_id("g.fn", "key-1")
                for queue in (one, other, one):
                    assert await queue.accept(call(id=id), is_idempotent=True) == id
                await until(lambda: has_state(one, id, "done"))
                assert await other.accept(call(id=id), is_idempotent=True) == id
                own = await one.accept(call(id="chosen-by-client"), is_idempotent=False)
                again = await other.accept(call(id="chosen-by-client"), is_idempotent=False)
                assert own == "chosen-by-client" != again
                await until(lambda: len(server.asked) == 3)

    asyncio.run(main())


def test_a_gateway_leaves_calls_of_functions_it_does_not_know(url: str) -> None:
    async def main() -> None:
        once = {"f": {**FAST, "com.openfaas.retry.attempts": "1"}}
        knows = House(**once)
        async with Server() as server, opened(knows, url) as queue:
            knows.functions.clear()  # it accepts, and then does not know it any more
            ids = [await queue.accept(call(), is_idempotent=False) for _ in range(3)]
            async with opened(House(), url) as other:  # its first look finds that they wait
                await until(lambda: has_pending(other))
                other.pulls.wake("f.fn")
                await until(lambda: not queue.pulls._pulling and not other.pulls._pulling)
                async with opened(House(server.address, **once), url) as third:
                    for id in ids:
                        await until(lambda id=id: has_state(third, id, "done"))
            assert [it.headers["x-retry"] for it in server.asked] == ["0"] * 3

    async def has_pending(queue: JetStreamQueue) -> bool:
        return any(it.num_pending for it in await queue.consumers())

    asyncio.run(main())


def test_gateways_share_the_work(url: str) -> None:
    async def answer(asked: Asked) -> Said:
        await asyncio.sleep(0.01)
        return Said()

    async def main() -> None:
        async with Server(answer) as here, Server(answer) as there:
            first, second = House(here.address, f=FAST), House(there.address, f=FAST)
            async with opened(first, url) as one, opened(second, url):
                ids = [await one.accept(call(), is_idempotent=False) for _ in range(100)]
                await until(lambda: len(here.asked) + len(there.asked) == 100)
                assert {it.id for it in here.asked + there.asked} == set(ids)
                assert here.asked and there.asked

    asyncio.run(main())


def test_calls_are_cancelled_waiting_or_running_here_or_there(url: str) -> None:
    async def hang(asked: Asked) -> Said:
        await asyncio.sleep(30)
        return Said()

    async def main() -> None:
        one = {"f": {"headrace.io/async-parallelism": "1"}}
        async with (
            Server(hang) as server,
            opened(House(server.address, **one), url) as queue,
            opened(House(), url) as other,  # it knows no function, so it runs no call
        ):
            ids = []
            for _ in range(3):
                ids.append(await queue.accept(call(), is_idempotent=False))
                await until(lambda: server.asked)
            assert await queue.cancel(ids[2]) == "cancelled"
            assert await queue.cancel(ids[0]) == "cancelled"
            await until(lambda: len(server.asked) == 2)
            assert await other.cancel(ids[1]) == "cancelled"
            await until(lambda: not queue.pulls.active)
            for id in ids:
                assert (await other.find(id)).state == "cancelled"
            assert await other.cancel("nobody-knows-this") == ""
            assert len(server.asked) == 2

    asyncio.run(main())


def test_what_a_dead_gateway_had_is_run_by_another(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jetstream", "pulls", "errands"):
        monkeypatch.setattr(f"proxy.functions.queue.{module}.ACK_WAIT_S", 1.0)
    is_well = False

    async def answer(asked: Asked) -> Said:
        if not is_well:
            await asyncio.sleep(3)  # longer than ack_wait: it is kept alive
        return Said()

    async def main() -> None:
        nonlocal is_well
        async with Server(answer) as server:
            house = House(server.address, f=FAST)
            async with opened(house, url) as queue:
                id = await queue.accept(call(), is_idempotent=False)
                await until(lambda: has_state(queue, id, "done"))
                assert len(server.asked) == 1
                id = await queue.accept(call(), is_idempotent=False)
                await until(lambda: len(server.asked) == 2)
            is_well = True  # and the gateway is gone in the middle
            async with opened(house, url) as queue:
                await until(lambda: has_state(queue, id, "done"))
                assert len(server.asked) == 3

    asyncio.run(main())


def test_what_is_delivered_too_often_is_a_dead_letter(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jetstream", "pulls", "errands"):
        monkeypatch.setattr(f"proxy.functions.queue.{module}.ACK_WAIT_S", 0.2)
    monkeypatch.setattr("proxy.functions.queue.jetstream.MORE_DELIVERIES", 1)

    async def main() -> None:
        once = {"f": {**FAST, "com.openfaas.retry.attempts": "1"}}
        async with Server() as server, opened(House(server.address, **once), url) as queue:

            async def lose(msg) -> None:  # as a gateway that dies while it runs the call
                queue.pulls._room.release()

            monkeypatch.setattr(queue.pulls, "_run", lose)
            id = await queue.accept(call(body=b"heavy"), is_idempotent=False)
            await until(lambda: has_state(queue, id, "dead"))
            record = await queue.find(id)
            assert record.call.body == b"heavy"
            assert record.result.error == "no gateway lived to the end of it, 2 times"
            assert (await queue.listing("queued", "", 0, 10)).records == []

    asyncio.run(main())


def test_callbacks_are_delivered_and_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.functions.queue.retry import Retry

    quick = Retry(min_wait_ms=10, max_wait_ms=20)
    monkeypatch.setattr("proxy.functions.queue.callback.DEFAULT", quick)
    statuses = iter((500, 200))

    async def hear(asked: Asked) -> Said:
        return Said(next(statuses))

    async def main() -> None:
        async with (
            Server(echo) as server,
            Server(hear) as heard,
            opened(House(server.address, f=FAST), url) as queue,
        ):
            it = call(callback=f"http://{heard.address}/hook", body=b"x")
            id = await queue.accept(it, is_idempotent=False)

            async def is_delivered() -> bool:
                record = await queue.find(id)
                return record is not None and record.callback_state == "delivered"

            await until(is_delivered)
            assert [it.body for it in heard.asked] == [b"X", b"X"]
            assert heard.asked[1].headers["x-function-status"] == "201"
            assert heard.asked[1].id == id

    asyncio.run(main())


def test_what_does_not_fit_is_told(url: str) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(200, b"x" * (3 << 20))

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, f=FAST)
            async with opened(house, url, result_bytes=4 << 20) as queue:
                with pytest.raises(Refused) as refused:
                    await queue.accept(call(body=b"x" * (2 << 20)), is_idempotent=False)
                assert refused.value.status == 413
                id = await queue.accept(call(), is_idempotent=False)
                await until(lambda: has_state(queue, id, "done"))
                record = await queue.find(id)
                assert (record.result.status, record.result.body) == (200, b"")
                assert record.result.error.startswith("the answer is over")

    asyncio.run(main())


def test_a_full_stream_is_told(url: str) -> None:
    async def main() -> None:
        async with opened(House(f={}), url, most_calls=2) as queue:
            queue.pulls.wake = lambda function: None
            for _ in range(2):
                await queue.accept(call(), is_idempotent=False)
            with pytest.raises(Refused) as refused:
                await queue.accept(call(), is_idempotent=False)
            assert refused.value.status == 507
            assert refused.value.retry_after_s > 0

    asyncio.run(main())


def test_a_server_that_is_killed_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("jetstream", "pulls", "errands"):
        monkeypatch.setattr(f"proxy.functions.queue.{module}.ACK_WAIT_S", 1.0)
    nats = Nats(tmp_path / "nats").start()
    gate = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        await gate.wait()
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, f=FAST)
            async with opened(house, f"nats://127.0.0.1:{nats.port}") as queue:
                ids = [await queue.accept(call(), is_idempotent=False) for _ in range(30)]
                await until(lambda: server.asked)
                nats.stop(kill=True)
                await until(lambda: not queue.nc.is_connected)
                with pytest.raises(Refused) as refused:
                    await queue.accept(call(), is_idempotent=False)
                assert refused.value.status == 503
                with pytest.raises(Refused):
                    await queue.find(ids[0])
                gate.set()
                nats.start()
                await until(lambda: {it.id for it in server.asked} >= set(ids), 60)
                await until(lambda: has_state(queue, ids[-1], "done"), 60)
                assert await queue.accept(call(), is_idempotent=False)
                assert sum("NATS" in it for it in house.said) <= 4

    try:
        asyncio.run(main())
    finally:
        nats.stop()


def test_a_server_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.functions.queue.jetstream.CONNECT_S", 0.5)
    monkeypatch.setattr("proxy.functions.queue.service.AGAIN_S", 0.1)
    nats = Nats(tmp_path / "nats")

    async def main() -> None:
        async with Server() as server:
            house = House(server.address, f=FAST)
            it = settings(f"nats://127.0.0.1:{nats.port}", most_bytes=10 << 20)
            service = Service(house, it, True)
            service.start()
            with pytest.raises(OSError):
                await service.queue()
            nats.start()
            await until(lambda: any("is open" in it for it in house.said))
            assert sum("does not open" in it for it in house.said) == 1
            queue = await service.queue()
            await queue.accept(call(), is_idempotent=False)
            await until(lambda: server.asked)
            await service.close(0)

    try:
        asyncio.run(main())
    finally:
        nats.stop()


@pytest.mark.parametrize(
    "url",
    ["nats://", "redis://x/", "nats://h/a.b", "nats://h/a/b", "nats://h/?replicas=2",
     "nats://h/?sync=1", "sqlite", ""],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError):
        Address.read(url)


def test_addresses() -> None:
    found = Address.read("nats://u:p@a:4222,b/jobs?replicas=3")
    assert found == Address(("nats://u:p@a:4222", "nats://u:p@b"), "jobs", 3)
    assert Address.read("tls://a").servers == ("tls://a",)
    assert Address.read("nats://a").queue == "calls"

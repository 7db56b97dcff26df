"""The queue in a SQLite file: what is accepted runs, at least once, within its bounds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from queuehouse import FAST, Asked, House, Said, Server, call, has_state, sqlite_queue, until

from proxy.functions.queue.calls import Refused
from proxy.functions.queue.writer import NotWritten, Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "queue.db"


def test_a_call_runs_and_its_result_is_kept(path: Path) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(201, b"made " + asked.body, [("Content-Type", "text/x"), ("X-Own", "1")])

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path)
            await queue.open()
            it = call(headers=[("Content-Type", "text/plain"), ("Connection", "x"), ("Host", "h.x"),
                               ("X-Call-Id", "no"), ("Authorization", "Bearer t")])  # fmt: skip
            id = await queue.accept(it, is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            asked = server.asked[0]
            assert (asked.method, asked.target) == ("POST", "/function/f.fn/rest?q=1")
            assert asked.body == b"body"
            assert asked.id == id
            assert asked.headers["x-start-time"] == str(it.accepted_ns)
            assert asked.headers["x-forwarded-host"] == "h.x"
            assert asked.headers["authorization"] == "Bearer t"
            assert (asked.headers["x-retry"], asked.headers["x-retry-max"]) == ("0", "10")
            assert "connection" not in asked.headers
            record = await queue.find(id)
            assert record.result.status == 201
            assert record.result.body == b"made body"
            assert ("x-own", "1") in [(k.lower(), v) for k, v in record.result.headers]
            assert record.call.attempts == 1
            await until(lambda: queue.count == 0)
            await queue.close()

    asyncio.run(main())
    assert os.stat(path).st_mode & 0o077 == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 0])
def test_it_is_tried_again_until_it_is_well(path: Path, status: int) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(200 if asked.headers["x-retry"] == "2" else status, b"x")

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            assert [it.headers["x-retry"] for it in server.asked] == ["0", "1", "2"]
            assert (await queue.find(id)).call.attempts == 3
            await queue.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 501])
def test_other_answers_are_the_functions_business(path: Path, status: int) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(status, b"" if status == 204 else b"its own")

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            assert (await queue.find(id)).result.status == status
            assert len(server.asked) == 1
            await queue.close()

    asyncio.run(main())


def test_an_error_that_the_gateway_made_is_tried_again(path: Path) -> None:
    async def answer(asked: Asked) -> Said:
        is_first = asked.headers["x-retry"] == "0"
        return Said(404, headers=[("X-OpenFaaS-Internal", "gateway")]) if is_first else Said()

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            assert len(server.asked) == 2
            await queue.close()

    asyncio.run(main())


def test_dead_letters_are_listed_looked_into_and_replayed(path: Path) -> None:
    is_well = False

    async def answer(asked: Asked) -> Said:
        return Said() if is_well else Said(500, b"why")

    async def main() -> None:
        nonlocal is_well
        async with Server(answer) as server:
            house = House(server.address, f={**FAST, "com.openfaas.retry.attempts": "3"})
            queue = sqlite_queue(house, path)
            await queue.open()
            id = await queue.accept(call(body=b"precious"), is_idempotent=False)
            await until(lambda: has_state(queue, id, "dead"))
            assert len(server.asked) == 3
            page = await queue.listing("dead", "", 0, 10)
            assert [it.call.id for it in page.records] == [id]
            record = await queue.find(id)
            assert (record.call.body, record.result.body) == (b"precious", b"why")
            assert (await queue.counts())["f.fn"]["dead"] == 1
            assert not await queue.replay("nobody-knows-this")
            is_well = True
            assert await queue.replay(id)
            await until(lambda: has_state(queue, id, "done"))
            assert server.asked[-1].body == b"precious"
            assert not await queue.replay(id)
            assert await queue.forget(id)
            assert await queue.find(id) is None
            await until(lambda: queue.bytes == 0 == queue.count)
            await queue.close()

    asyncio.run(main())


def test_a_function_that_is_gone_makes_dead_letters(path: Path) -> None:
    async def main() -> None:
        async with Server() as server:
            house = House(server.address, f={**FAST, "com.openfaas.retry.attempts": "1"})
            queue = sqlite_queue(house, path)
            await queue.open()
            house.functions.clear()
            id = await queue.accept(call(), is_idempotent=False)
            # nothing is known of its retries any more: the default waits apply
            await until(lambda: queue.schedule._later)
            record = await queue.find(id)
            assert record.state == "queued"
            assert record.result.error == "there is no function f.fn"
            assert not server.asked
            await queue.close()

    asyncio.run(main())


def test_parallelism_is_bounded_for_each_function_and_for_all(path: Path) -> None:
    async def answer(asked: Asked) -> Said:
        await asyncio.sleep(0.005)
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            name = "headrace.io/async-parallelism"
            house = House(server.address, a={name: "2"}, b={name: "5"}, c={name: "1"})
            queue = sqlite_queue(house, path, parallelism=6)
            await queue.open()
            counts = {"a": 40, "b": 40, "c": 10}
            await asyncio.gather(
                *(
                    queue.accept(call(function), is_idempotent=False)
                    for function, count in counts.items()
                    for _ in range(count)
                )
            )
            await until(lambda: queue.count == 0)
            assert len(server.asked) == 90
            assert server.most["a.fn"] == 2
            assert server.most["c.fn"] == 1
            assert server.most["b.fn"] <= 5
            assert server.connections <= 6
            await queue.close()

    asyncio.run(main())


def test_a_long_backlog_does_not_hold_up_the_others(path: Path) -> None:
    is_open = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        if "/slow.fn" in asked.target:
            await is_open.wait()
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, slow={"headrace.io/async-parallelism": "3"}, quick={})
            queue = sqlite_queue(house, path, parallelism=4)
            await queue.open()
            for _ in range(50):
                await queue.accept(call("slow"), is_idempotent=False)
            id = await queue.accept(call("quick"), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            is_open.set()
            await until(lambda: queue.count == 0)
            await queue.close()

    asyncio.run(main())


def test_the_same_key_is_the_same_call(path: Path) -> None:
    async def main() -> None:
        async with Server() as server:
            queue = sqlite_queue(House(server.address, f=FAST, g=FAST), path)
            await queue.open()
            id = queue.make_id("f.fn", "key-1")
            assert id == queue.make_id("f.fn", "key-1")
            assert id != queue.make_id("g.fn", "key-1")
            for _ in range(3):
                assert await queue.accept(call(id=id), is_idempotent=True) == id
            await until(lambda: has_state(queue, id, "done"))
            assert await queue.accept(call(id=id), is_idempotent=True) == id
            await queue.close()
            again = sqlite_queue(House(server.address, f=FAST), path)
            await again.open()
            assert again.make_id("f.fn", "key-1") == id
            assert await again.accept(call(id=id), is_idempotent=True) == id
            assert again.count == 0
            assert len(server.asked) == 1
            await again.close()

    asyncio.run(main())


def test_a_clients_own_id_is_used_once(path: Path) -> None:
    async def main() -> None:
        async with Server() as server:
            queue = sqlite_queue(House(server.address, f=FAST), path)
            await queue.open()
            first = await queue.accept(call(id="chosen-by-client"), is_idempotent=False)
            second = await queue.accept(call(id="chosen-by-client"), is_idempotent=False)
            assert first == "chosen-by-client" != second
            await until(lambda: len(server.asked) == 2)
            assert {it.id for it in server.asked} == {first, second}
            await queue.close()

    asyncio.run(main())


def test_calls_are_cancelled_waiting_or_running(path: Path) -> None:
    left = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, f={"headrace.io/async-parallelism": "1"})
            queue = sqlite_queue(house, path)
            await queue.open()
            first = await queue.accept(call(), is_idempotent=False)
            await until(lambda: server.asked)
            second = await queue.accept(call(), is_idempotent=False)
            assert await queue.cancel(second) == "cancelled"
            assert (await queue.find(second)).state == "cancelled"
            assert await queue.cancel(first) == "cancelled"
            await until(lambda: has_state(queue, first, "cancelled"))
            assert await queue.cancel(first) == "cancelled"
            assert await queue.cancel("nobody-knows-this") == ""
            await until(lambda: queue.count == 0 and not queue.schedule.running)
            assert len(server.asked) == 1
            await queue.close()

    asyncio.run(main())


def test_lists_come_in_pages_without_bodies(path: Path) -> None:
    async def main() -> None:
        queue = sqlite_queue(House(f={}, g={}), path, parallelism=0)
        await queue.open()
        ids = [await queue.accept(call("fg"[n % 2]), is_idempotent=False) for n in range(7)]
        page = await queue.listing("queued", "", 0, 3)
        found = [it.call.id for it in page.records]
        while page.next:
            page = await queue.listing("queued", "", page.next, 3)
            found += [it.call.id for it in page.records]
        assert found == ids
        assert {it.call.body for it in page.records} == {b""}
        page = await queue.listing("", "g.fn", 0, 10)
        assert [it.call.id for it in page.records] == ids[1::2]
        assert (await queue.listing("dead", "", 0, 10)).records == []
        assert (await queue.counts())["f.fn"]["queued"] == 4
        await queue.close()

    asyncio.run(main())


def test_it_says_when_it_is_full(path: Path) -> None:
    async def main() -> None:
        queue = sqlite_queue(House(f={}), path, parallelism=0, most_calls=3)
        await queue.open()
        for _ in range(3):
            await queue.accept(call(), is_idempotent=False)
        with pytest.raises(Refused) as refused:
            await queue.accept(call(), is_idempotent=False)
        assert (refused.value.status, refused.value.retry_after_s) == (503, 5)
        await queue.close()
        queue = sqlite_queue(House(f={}), path, parallelism=0, most_bytes=4000)
        await queue.open()
        assert queue.count == 3
        with pytest.raises(Refused):
            await queue.accept(call(body=b"x" * 4000), is_idempotent=False)
        await queue.accept(call(body=b"x"), is_idempotent=False)
        await queue.close()

    asyncio.run(main())


def test_results_go_when_their_time_is_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.functions.queue.sqlite.SWEEP_S", 0.02)

    async def main() -> None:
        async with Server() as server:
            queue = sqlite_queue(House(server.address, f=FAST), path, results_keep_ms=50)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: server.asked)
            await until(lambda: queue.bytes == 0)
            assert await queue.find(id) is None
            await queue.close()
            queue = sqlite_queue(House(server.address, f=FAST), path, results_keep_ms=0)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: queue.count == 0)
            assert await queue.find(id) is None
            assert queue.bytes == 0
            await queue.close()

    asyncio.run(main())


def test_results_make_room_for_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.functions.queue.sqlite.SWEEP_S", 0.02)

    async def answer(asked: Asked) -> Said:
        return Said(200, b"x" * 1000)

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path, most_bytes=20_000)
            await queue.open()
            for _ in range(30):
                await until(lambda: queue.bytes < 18_000)
                await queue.accept(call(), is_idempotent=False)
            await until(lambda: len(server.asked) == 30)
            await until(lambda: queue.bytes <= 10_000)
            await queue.close()

    asyncio.run(main())


def test_an_answer_over_the_limit_is_not_kept(path: Path) -> None:
    async def answer(asked: Asked) -> Said:
        return Said(200, b"x" * 1001)

    async def main() -> None:
        async with Server(answer) as server:
            queue = sqlite_queue(House(server.address, f=FAST), path, result_bytes=1000)
            await queue.open()
            id = await queue.accept(call(), is_idempotent=False)
            await until(lambda: has_state(queue, id, "done"))
            result = (await queue.find(id)).result
            assert (result.status, result.body, result.is_cut) == (200, b"", True)
            assert result.error == "the answer is over 1000 bytes and not kept"
            await queue.close()

    asyncio.run(main())


def test_what_runs_is_given_time_to_end(path: Path) -> None:
    gate = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        await gate.wait()
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, f={"headrace.io/async-parallelism": "1"})
            queue = sqlite_queue(house, path)
            await queue.open()
            first, second = [await queue.accept(call(), is_idempotent=False) for _ in "ab"]
            await until(lambda: server.asked)
            closing = asyncio.create_task(queue.close(10))
            await asyncio.sleep(0.01)
            gate.set()
            await closing
            assert len(server.asked) == 1
            queue = sqlite_queue(house, path)
            await queue.open()
            assert (await queue.find(first)).state == "done"
            await until(lambda: has_state(queue, second, "done"))
            assert [it.id for it in server.asked] == [first, second]
            await queue.close()

    asyncio.run(main())


def test_two_controllers_share_the_file_for_a_while(path: Path) -> None:
    gate = asyncio.Event()

    async def answer(asked: Asked) -> Said:
        await gate.wait()
        return Said()

    async def main() -> None:
        async with Server(answer) as server:
            house = House(server.address, f={"headrace.io/async-parallelism": "2"})
            old, new = sqlite_queue(house, path), sqlite_queue(house, path)
            await old.open()
            first = await old.accept(call(), is_idempotent=False)
            await until(lambda: len(server.asked) == 1)
            await new.open()
            second = await new.accept(call(), is_idempotent=False)
            await until(lambda: len(server.asked) == 2)
            assert [it.id for it in server.asked] == [first, second]
            assert old.deliveries.is_alone
            assert not new.deliveries.is_alone
            await old.close()  # what it had running is taken over at once
            await new._take_over()
            await new._look()
            await until(lambda: len(server.asked) == 3)
            assert server.asked[2].id == first
            gate.set()
            await until(lambda: has_state(new, first, "done"))
            await until(lambda: has_state(new, second, "done"))
            await new.close()

    asyncio.run(main())


def test_an_operation_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        writer = Writer(str(tmp_path / "w.db"), "CREATE TABLE IF NOT EXISTS t (n UNIQUE);")
        insert = "INSERT INTO t VALUES (?)"
        done = await asyncio.gather(
            *(
                writer.write(lambda db, n=n: db.execute(insert, (n,)).rowcount)
                for n in (1, 2, 1, 3)
            ),
            writer.write(lambda db: db.execute("nonsense")),
            writer.write(lambda db: 1 / 0),
            return_exceptions=True,
        )
        assert [type(it) for it in done] == [
            int, int, NotWritten, int, NotWritten, ZeroDivisionError,
        ]  # fmt: skip
        rows = await writer.write(lambda db: db.execute("SELECT n FROM t").fetchall())
        assert rows == [(1,), (2,), (3,)]
        await writer.close()

    asyncio.run(main())


FULL = """
import asyncio, resource, sys
sys.path[:0] = [{root!r}, {here!r}]
from queuehouse import House, call, sqlite_queue
from proxy.functions.queue.calls import Refused

async def main():
    queue = sqlite_queue(House(f={{}}), {path!r}, parallelism=0)
    await queue.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
    async def accept(n):
        try:
            print("accepted", await queue.accept(call(body=b"x" * 1500), is_idempotent=False))
        except Refused as error:
            print("refused", error.status)
    for _ in range(40):
        await asyncio.gather(*map(accept, range(20)))

asyncio.run(main())
"""


def test_a_full_disk_is_told_and_nothing_is_acknowledged_falsely(path: Path) -> None:
    import subprocess

    here = Path(__file__).parent
    code = FULL.format(root=str(here.parents[2]), here=str(here), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = [line.split() for line in done.stdout.splitlines()]
    accepted = [word for kind, word in said if kind == "accepted"]
    refused = {word for kind, word in said if kind == "refused"}
    assert accepted
    assert refused == {"507"}
    with sqlite3.connect(path) as db:
        found = {row[0] for row in db.execute("SELECT id FROM calls")}
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert found >= set(accepted)

"""The queue in numbers: what is counted, how `metrics` tells it, what a death leaves of it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from queuehouse import FAST, House, Said, until
from test_queue_api import desk
from test_queue_gateway import kill_controller

from proxy.base._shm import Zone
from proxy.functions.queue import tally
from proxy.functions.queue.calls import DEAD, DONE, QUEUED
from proxy.functions.queue.tally import ZONE_BYTES, Tally, queue_numbers, read_slots


def zone() -> Zone:
    return Zone.create("queue", ZONE_BYTES)


def rows(zone: Zone) -> dict[str, float]:
    """metric{labels} → value, as Prometheus shows them."""
    return {
        f"{metric} " + " ".join(value for _, value in labels): value
        for metric, _, _, found in queue_numbers(zone)
        for labels, value in found
    }


def test_what_is_counted_is_told() -> None:
    memory = zone()
    it = Tally(memory)
    assert queue_numbers(memory) == []
    it.accept("f.fn")
    it.accept("f.fn")
    it.refuse("f.fn", 413)
    it.end("f.fn", QUEUED)
    it.end("f.fn", DEAD)
    it.end("g.fn", DONE)
    it.depths = {"f.fn": {"queued": 3, "running": 1, "dead": 1, "done": 9}}
    it.oldest = {"f.fn": time.time() - 60}
    it.write()
    found = rows(memory)
    assert 60 <= found.pop("headrace_queue_oldest_seconds f.fn") < 90
    assert found == {
        "headrace_queue_calls f.fn queued": 3,
        "headrace_queue_calls f.fn running": 1,
        "headrace_queue_calls f.fn dead": 1,
        "headrace_queue_calls g.fn queued": 0,
        "headrace_queue_calls g.fn running": 0,
        "headrace_queue_calls g.fn dead": 0,
        "headrace_queue_oldest_seconds g.fn": 0,
        "headrace_queue_accepted_total f.fn": 2,
        "headrace_queue_refused_total f.fn 413": 1,
        "headrace_queue_attempts_total f.fn dead": 1,
        "headrace_queue_attempts_total f.fn retried": 1,
        "headrace_queue_attempts_total g.fn done": 1,
    }


def test_the_next_controller_goes_on_counting() -> None:
    memory = zone()
    Tally(memory).write()
    for n in range(1, 5):
        it = Tally(memory)
        it.accept("f.fn")
        it.write()
        assert rows(memory)["headrace_queue_accepted_total f.fn"] == n


@pytest.mark.parametrize("cut", range(120))
def test_a_reader_never_takes_half_of_what_is_written(cut: int) -> None:
    """A writer that dies at any byte leaves what was there before."""
    memory = zone()
    it = Tally(memory)
    it.accept("f.fn")
    it.write()
    whole = read_slots(memoryview(memory))
    it.accept("f.fn")
    it.write()
    view, at = memoryview(memory), it._serial % 2 * tally.SLOT_BYTES
    later = read_slots(view)
    assert later[0] == whole[0] + 1
    size = tally.HEAD.unpack_from(view, at)[1]
    assert size > 50
    view[at + min(cut, size + tally.HEAD.size - 1)] ^= 0xFF
    assert read_slots(view) == whole


def test_what_does_not_fit_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "SLOT_BYTES", 4096)
    memory = zone()
    it = Tally(memory)
    names = [f"{'f' * (n // 10)}{n}.fn" for n in range(400)]
    for name in names:
        it.accept(name)
    it.write()
    told = read_slots(memoryview(memory))[1]
    assert 5 < len(told) < 100
    assert set(told) <= set(names)


def test_a_function_that_is_gone_is_told_while_it_has_calls(tmp_path: Path) -> None:
    async def main() -> None:
        memory = zone()
        house = House(stays={})
        it = Tally(memory)
        for name in ("stays.fn", "letters.fn", "gone.fn"):
            it.accept(name)

        class Queue:
            is_shared = False

            async def counts(self) -> dict[str, dict[str, int]]:
                return {"letters.fn": {"dead": 2}}

            async def oldest(self) -> dict[str, float]:
                return {}

        task = asyncio.create_task(it.follow(Queue(), house))  # type: ignore[arg-type]
        while "headrace_queue_accepted_total stays.fn" not in rows(memory):
            await asyncio.sleep(0.01)
        task.cancel()
        found = rows(memory)
        assert "headrace_queue_accepted_total gone.fn" not in found
        assert found["headrace_queue_calls letters.fn dead"] == 2

    asyncio.run(main())


def test_the_queue_is_looked_at(tmp_path: Path) -> None:
    """Depth, age and dead letters come from the queue itself."""

    async def main() -> None:
        over = asyncio.Event()

        async def answer(asked) -> Said:
            if "f.fn" in asked.target:
                return Said(500)
            await over.wait()
            return Said()

        few = {**FAST, "com.openfaas.retry.attempts": "3"}
        one = {**FAST, "headrace.io/async-parallelism": "1"}
        async with desk(tmp_path, answer, {"f": few, "g": one}, body_bytes=10) as it:
            for name in ("f", "g", "g", "g"):
                assert (await it.ask("POST", f"/async-function/{name}", b"x")).status == 202
            assert (await it.ask("POST", "/async-function/g", b"x" * 11)).status == 413
            assert (await it.ask("POST", "/async-function/nobody", b"x")).status == 404
            service = it.service

            async def is_settled() -> bool:
                await service.tally.look(await service.queue())
                depths = service.tally.depths
                return depths["f.fn"]["dead"] == 1 == depths["g.fn"]["running"]

            await until(is_settled)
            assert service.tally.depths["g.fn"]["queued"] == 2
            assert abs(time.time() - service.tally.oldest["g.fn"]) < 60
            assert "f.fn" not in service.tally.oldest
            shown = {row["function"]: row for row in (await it.json("/system/queue"))["functions"]}
            assert shown["f.fn"]["attempts"] == 3
            assert (shown["g.fn"]["accepted"], shown["g.fn"]["refused"]) == (3, 1)
            assert shown["g.fn"]["oldestAt"] == service.tally.oldest["g.fn"]
            assert "oldestAt" not in shown["f.fn"] and "nobody.fn" not in shown
            assert service.tally.counts["f.fn"] == {
                "accepted": 1, "attempts retried": 2, "attempts dead": 1
            }  # fmt: skip
            over.set()

    asyncio.run(main())


HANDLER = """
def handle(event, context):
    return {"statusCode": 500 if event.body == b"bad" else 200, "body": "done"}
"""
GATEWAY = """
    access_log off;
    functions { queue sqlite:var/queue.db; async_body_size 1k; }
    function f { python app.py:handle; async_retry attempts=2 min_wait=10ms max_wait=20ms; }
    server {
        listen 127.0.0.1:%%PORT%%;
        openfaas_api on;
        location /metrics { metrics; }
    }
"""


def metric(gateway: Gateway, name: str) -> int | None:
    found = re.search(rf"^{re.escape(name)} (\S+)$", gateway.get("/metrics").body.decode(), re.M)
    return int(found[1]) if found else None


def test_any_worker_tells_it_and_a_killed_controller_loses_none(headrace) -> None:
    it = headrace(GATEWAY, "worker_processes 2;", start=False)
    (it.prefix / "app.py").write_text(HANDLER)
    it.start()
    label = 'function="f.openfaas-fn"'
    accepted = f"headrace_queue_accepted_total{{{label}}}"
    for body in (b"good", b"good", b"bad", b"x" * 1025):
        it.ask("POST", "/async-function/f", body)
    wait_for(lambda: metric(it, accepted) == 3, 20)
    dead = f'headrace_queue_attempts_total{{{label},outcome="dead"}}'
    wait_for(lambda: metric(it, dead) == 1, 20)
    assert metric(it, f'headrace_queue_attempts_total{{{label},outcome="done"}}') == 2
    assert metric(it, f'headrace_queue_attempts_total{{{label},outcome="retried"}}') == 1
    assert metric(it, f'headrace_queue_refused_total{{{label},status="413"}}') == 1
    wait_for(lambda: metric(it, f'headrace_queue_calls{{{label},state="dead"}}') == 1, 20)
    kill_controller(it)
    wait_for(lambda: it.ask("POST", "/async-function/f", b"good").status == 202, 20)
    wait_for(lambda: (metric(it, accepted) or 0) >= 4, 20)
    assert metric(it, dead) == 1
    log = it.prefix / "logs/error.log"  # the fixture would mind: this alert was asked for
    log.write_text(log.read_text().replace("[alert]", "[asked]"))

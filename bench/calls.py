"""How many asynchronous calls are accepted, and run, a second: SQLite with fsync, and JetStream.

    python bench/calls.py [CALLS]

Each queue alone in one process, with the callers and the functions they call on the same loop; a
body is 200 bytes. First calls are accepted and none runs, then those are run. JetStream is a
nats-server of this machine with its defaults: its store is synced to the disk every two minutes.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/functions/queue")]

from natsserver import Nats  # noqa: E402
from queuehouse import House, Server, call, sqlite_queue  # noqa: E402
from test_queue_jetstream import jetstream  # noqa: E402

CALLERS = 64
BODY = b"x" * 200
PARALLELISM = {"headrace.io/async-parallelism": "64"}


async def measure(name: str, make, count: int) -> None:
    """make(house, parallelism) is a queue that is not open."""
    async with Server() as server:
        house = House(server.address, f=PARALLELISM)
        queue = make(house, 0)
        await queue.open()
        turns = iter(range(count))

        async def caller() -> None:
            for _ in turns:
                await queue.accept(call(body=BODY), is_idempotent=False)

        began_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        tell(f"{name} accepted", count, began_s, cpu_s)
        await queue.close()
        queue = make(house, 64)
        began_s, cpu_s = time.monotonic(), time.process_time()
        await queue.open()
        while len(server.asked) < count:
            await asyncio.sleep(0.01)
        tell(f"{name} run", count, began_s, cpu_s)
        await queue.close()


def tell(what: str, count: int, began_s: float, cpu_s: float) -> None:
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    print(f"{what:<20} {count / took_s:>8,.0f}/s   {cpu_s / count * 1e6:>6.0f} µs CPU", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:

        def sqlite(house: House, parallelism: int):
            return sqlite_queue(house, Path(folder) / "queue.db", parallelism=parallelism)

        uvloop.run(measure("SQLite", sqlite, count))
        nats = Nats(Path(folder) / "nats").start()

        def nats_queue(house: House, parallelism: int):
            url = f"nats://127.0.0.1:{nats.port}/bench"
            queue = jetstream(house, url, most_bytes=100 << 20, parallelism=max(parallelism, 1))
            if not parallelism:
                queue.pulls.wake = lambda function: None
            return queue

        try:
            uvloop.run(measure("JetStream", nats_queue, count))
        finally:
            nats.stop()


if __name__ == "__main__":
    main()

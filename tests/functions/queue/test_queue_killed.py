"""The process with the queue is killed in the middle, again and again: nothing accepted is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path

from queuehouse import Asked, Said, Server

CALLS = int(os.environ.get("QUEUE_CALLS", "400"))
KILLS = int(os.environ.get("QUEUE_KILLS", "3"))
HERE = Path(__file__).parent
# Accepts a call for each line that it reads, and prints the id once it is durable.
CODE = """
import asyncio, sys
sys.path[:0] = sys.argv[3:]
from queuehouse import FAST, House, call, sqlite_queue

async def main(path, address):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    queue = sqlite_queue(House(address, f=FAST), path)
    await queue.open()
    async def accept(key):
        id = queue.make_id("f.fn", key)
        await queue.accept(call(id=id, body=key.encode()), is_idempotent=True)
        print(key, id, flush=True)
    tasks = set()
    while line := await reader.readline():
        task = loop.create_task(accept(line.decode().strip()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    while queue.count:
        await asyncio.sleep(0.01)
    await queue.close()

asyncio.run(main(*sys.argv[1:3]))
"""


def test_nothing_accepted_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    acknowledged: dict[str, str] = {}
    done: dict[str, int] = {}

    async def answer(asked: Asked) -> Said:
        await asyncio.sleep(random.random() * 0.01)
        done[asked.id] = done.get(asked.id, 0) + 1
        return Said(200, asked.body)

    async def read(process: asyncio.subprocess.Process) -> None:
        while line := await process.stdout.readline():
            if line.endswith(b"\n"):
                key, id = line.decode().split()
                acknowledged[key] = id

    async def one_life(address: str, is_last: bool) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CODE, str(path), address, str(HERE), str(HERE.parents[2]),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        reading = asyncio.create_task(read(process))
        keys = [f"call-{n}" for n in range(CALLS) if f"call-{n}" not in acknowledged]
        process.stdin.write("".join(f"{key}\n" for key in keys).encode())
        if is_last:
            process.stdin.close()
        else:
            before, had = len(acknowledged), len(done)
            share = CALLS // (KILLS + 1)
            while len(acknowledged) - before < min(share, len(keys)) and len(done) - had < share:
                await asyncio.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        await process.wait()
        await reading

    async def main() -> None:
        async with Server(answer) as server:
            for life in range(KILLS + 1):
                await asyncio.wait_for(one_life(server.address, life == KILLS), 300)

    asyncio.run(main())
    assert len(acknowledged) == CALLS
    lost = [key for key, id in acknowledged.items() if id not in done]
    assert not lost
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT state, count(*) FROM calls GROUP BY state").fetchall()
    assert rows == [(2, CALLS)]
    print(f"{CALLS} calls, {KILLS} kills, {sum(done.values()) - CALLS} ran more than once")

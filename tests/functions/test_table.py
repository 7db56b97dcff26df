"""The worker's table: what the controller says becomes peers, and who left is told when idle."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable

import pytest

from proxy.functions._function import Functions
from proxy.functions.peers import peer_of
from proxy.functions.table import HELLO, Table
from proxy.upstream._balance import OK, Attempts

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n"


def line(name: str, *rows: tuple[str, str]) -> bytes:
    row = {"function": f"{name}.ns", "versions": [{"name": "v1", "replicas": rows}]}
    return json.dumps(row).encode() + b"\n"


WHOLE = b'{"whole":true}\n'
A, B = ("f/1", "unix:/tmp/a"), ("f/2", "127.0.0.1:9")


class Controller:
    """The other end, scripted."""

    def __init__(self) -> None:
        self.path = tempfile.mktemp(prefix="hr", dir="/tmp")
        self.accepted: asyncio.Queue = asyncio.Queue()

    async def __aenter__(self) -> Controller:
        self.server = await asyncio.start_unix_server(
            lambda *pair: self.accepted.put_nowait(pair), self.path
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        os.unlink(self.path)

    async def link(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.wait_for(self.accepted.get(), 5)
        assert await reader.readuntil(b"\r\n\r\n") == HELLO
        return reader, writer


def names(upstream) -> list[str]:
    return [peer.name.decode() for peer in upstream.peers]


async def until(test: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not test():
            await asyncio.sleep(0.001)


def play(scene: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        functions = Functions(peer_of)
        for name in ("f", "g"):
            functions.declare({"function": f"{name}.ns", "versions": [{"name": "v1"}]})
        upstreams = {name: functions.find_name(name).versions[0].upstream for name in ("f", "g")}
        async with Controller() as controller:
            table = Table(functions, controller.path)
            task = asyncio.create_task(table.follow())
            try:
                await scene(controller, table, upstreams)
            finally:
                task.cancel()

    asyncio.run(run())


def test_every_split_of_the_stream() -> None:
    data = SWITCHED + line("f", A, B) + line("g") + line("unknown", A) + WHOLE

    async def scene(controller, table, upstreams) -> None:
        for cut in range(1, len(data)):
            _, writer = await controller.link()
            table.is_whole.clear()
            table.functions.forget("f.ns")
            writer.write(data[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(data[cut:])
            await asyncio.wait_for(table.is_whole.wait(), 5)
            assert names(upstreams["f"]) == ["unix:/tmp/a", "127.0.0.1:9"], cut
            writer.close()

    play(scene)


def test_a_peer_that_stays_is_the_same_and_a_busy_one_drains_first() -> None:
    async def scene(controller, table, upstreams) -> None:
        reader, writer = await controller.link()
        writer.write(SWITCHED + line("f", A) + WHOLE)
        await table.is_whole.wait()
        (peer,) = upstreams["f"].peers
        asked = Attempts(upstreams["f"])
        assert asked.pick(1000) == peer
        writer.write(line("f", A, B))
        await until(lambda: len(upstreams["f"].peers) == 2)
        assert upstreams["f"].peers[0] is peer
        writer.write(line("f"))
        await until(lambda: not upstreams["f"].peers)
        # the idle one is given up at once, the busy one when its request ends
        assert json.loads(await reader.readline()) == {"drained": B[0]}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.05)
        asked.give(peer, OK, 1000)
        assert json.loads(await asyncio.wait_for(reader.readline(), 5)) == {"drained": A[0]}

    play(scene)


def test_the_table_outlives_the_controller() -> None:
    async def scene(controller, table, upstreams) -> None:
        _, writer = await controller.link()
        writer.write(SWITCHED + line("f", A) + line("g", B) + WHOLE)
        await until(lambda: bool(upstreams["g"].peers))
        writer.close()
        _, writer = await controller.link()
        (peer,) = upstreams["f"].peers
        writer.write(SWITCHED + line("f", A, B) + WHOLE)  # and nothing of g: it is gone
        await until(lambda: not upstreams["g"].peers)
        assert upstreams["f"].peers[0] is peer

    play(scene)


def test_one_that_is_no_controller_changes_nothing() -> None:
    async def scene(controller, table, upstreams) -> None:
        _, writer = await controller.link()
        writer.write(SWITCHED + line("f", A) + WHOLE)
        await until(lambda: bool(upstreams["f"].peers))
        for nonsense in (b"HTTP/1.1 404 Not Found\r\n\r\n", SWITCHED + b"garbage\n",
                         SWITCHED + b"[1]\n", SWITCHED + line("f", ("x", "nowhere"))):
            writer.close()
            _, writer = await controller.link()
            writer.write(nonsense)
        writer.close()
        await controller.link()
        assert names(upstreams["f"]) == ["unix:/tmp/a"]

    play(scene)


def test_only_replicas_or_the_whole_of_a_function() -> None:
    async def scene(controller, table, upstreams) -> None:
        heard = []
        table.functions.on_change(lambda function, is_gone: heard.append((function.key, is_gone)))
        _, writer = await controller.link()
        row = {
            "function": "h.ns",
            "labels": {"team": "pay"},
            "sticky": "cookie=x",
            "versions": [
                {"name": "v1", "weight": 90, "queue": [5, 6, 7], "concurrency": 3, "replicas": [A]},
                {"name": "v2", "weight": 10, "tag": "next", "replicas": []},
            ],
        }
        writer.write(SWITCHED + json.dumps(row).encode() + b"\n" + WHOLE)
        await table.is_whole.wait()
        h = table.functions.find(b"h.ns")
        one, two = h.versions
        assert (h.labels, h.sticky) == ({"team": "pay"}, "cookie=x")
        assert (one.key, one.weight, one.concurrency) == (b"h.ns/v1", 90, 3)
        assert (one.queue_size, one.queue_bytes, one.queue_ms) == (5, 6, 7)
        assert (two.weight, two.tag, names(two.upstream)) == (10, b"next", [])
        writer.write(json.dumps({"replicas": "h.ns/v2", "are": [B]}).encode() + b"\n")
        await until(lambda: names(two.upstream) == ["127.0.0.1:9"])
        assert names(one.upstream) == ["unix:/tmp/a"]
        row["versions"].pop(0)
        writer.write(json.dumps(row).encode() + b"\n")
        await until(lambda: h.versions == [two])
        assert one.is_gone
        writer.write(b'{"gone":"h.ns"}\n')
        await until(lambda: h.is_gone)
        assert table.functions.find(b"h.ns") is None
        assert heard == [
            (b"f.ns", False), (b"g.ns", False), (b"h.ns", False), (b"h.ns", False), (b"h.ns", True)
        ]  # fmt: skip

    play(scene)

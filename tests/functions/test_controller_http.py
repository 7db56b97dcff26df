"""The controller's HTTP server alone, on a Unix socket: what it takes, refuses and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.functions.http import Answer, Connection, Refused, Request, Routes, json_answer, match

CUT = {"ended": 0}
Read = Callable[[bytes], Awaitable[bytes]]


async def echo(request: Request) -> Answer:
    body = await request.body(100_000)
    told = {"method": request.method, "names": request.names, "query": request.query}
    return json_answer({**told, "body": body.decode(), "a": request.header("x-a")})


async def count(request: Request) -> Answer:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return Answer(body=pieces(), content_type="application/x-ndjson")


async def forever(request: Request) -> Answer:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            CUT["ended"] += 1

    return Answer(body=pieces())


async def refuse(request: Request) -> Answer:
    raise Refused(409, "it is there already", ("X-Why", "twice"))


async def fail(request: Request) -> Answer:
    raise RuntimeError("secret")


async def ignore(request: Request) -> Answer:
    return Answer(202)


def routes() -> Routes:
    made = Routes()
    made.add("GET POST", "/echo/{name}", echo)
    made.add("POST", "/rest/{name}/{rest...}", echo)
    made.add("GET", "/count", count)
    made.add("GET", "/forever", forever)
    made.add("GET", "/refuse", refuse)
    made.add("GET", "/fail", fail)
    made.add("POST", "/ignore", ignore)
    return made


def serve(folder: Path, work: Callable[[Read, str], Awaitable[Any]]) -> list[str]:
    """Run `work(ask, path)`; gives back what the server warned of."""
    warned: list[str] = []

    async def main() -> None:
        path = str(folder / "s")
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Connection(routes(), warned.append), path)

        async def ask(data: bytes) -> bytes:
            """Send, and read until the server closes."""
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(data)
            said = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return said

        await work(ask, path)
        server.close()

    asyncio.run(main())
    return warned


def close(request: str, *fields: str, body: bytes = b"") -> bytes:
    lines = [f"{request} HTTP/1.1", "Host: x", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


CASES = [
    (close("GET /echo/a%20b?x=1&x=2&y"), 200, '"names":{"name":"a b"},"query":{"x":"2","y":""}'),
    (close("POST /echo/n", "X-A: v", body=b"hello"), 200, '"body":"hello","a":"v"'),
    (close("POST /echo/n", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200,
     '"body":"abcde"'),
    (close("POST /rest/f.ns/a//b%20?c"), 200, '{"name":"f.ns","rest":"/a//b%20"}'),
    (close("POST /rest/f"), 200, '{"name":"f","rest":""}'),
    (close("HEAD /count"), 200, ""),
    (close("GET /none"), 404, "not found"),
    (close("GET /echo/a/b"), 404, "not found"),
    (close("DELETE /echo/a"), 405, "method not allowed"),
    (close("GET /refuse"), 409, "it is there already"),
    (close("GET /fail"), 500, "its error log says why"),
    (close("POST /echo/n", body=b"x" * 100_001), 413, "longer than 100000 bytes"),
    (close("POST /ignore", body=b"x" * 300_000), 202, ""),
    (b"nonsense\r\n\r\n", 400, "bad request"),
    (b"GET /echo/a HTTP/1.1\r\nContent-Length: 1x\r\nHost: x\r\n\r\n", 400, "bad request"),
    (b"GET /echo/a HTTP/1.1\r\nX: " + b"y" * 70_000, 431, "bad request"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "text"), CASES, ids=[str(it[0][:40]) for it in CASES])
def test_answers(tmp_path: Path, data: bytes, status: int, text: str) -> None:
    async def work(ask: Read, path: str) -> None:
        said = (await ask(data)).decode()
        assert said.startswith(f"HTTP/1.1 {status} "), said
        assert text in said.partition("\r\n\r\n")[2]
        assert "secret" not in said

    warned = serve(tmp_path, work)
    assert bool(warned) is (status in (400, 431, 500)), warned


def test_a_request_cut_at_every_byte(tmp_path: Path) -> None:
    data = close("POST /echo/n?q=1", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"

    async def work(ask: Read, path: str) -> None:
        whole = await ask(data)
        for at in range(1, len(data)):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(data[:at])
            await asyncio.sleep(0)
            await writer.drain()
            writer.write(data[at:])
            assert await asyncio.wait_for(reader.read(), 10) == whole, at
            writer.close()

    assert serve(tmp_path, work) == []


def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    first = close("POST /ignore", body=b"unread").replace(b"Connection: close\r\n", b"")

    async def work(ask: Read, path: str) -> None:
        said = await ask(first + first + close("GET /count"))
        assert said.count(b" 202 Accepted") == 2
        assert b"\r\n\r\n2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n" in said

    assert serve(tmp_path, work) == []


def test_a_client_that_waits_to_be_asked_for_its_body(tmp_path: Path) -> None:
    head = close("POST /echo/n", "Content-Length: 2", "Expect: 100-continue")

    async def work(ask: Read, path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hi")
        assert b'"body":"hi"' in await reader.read()
        writer.close()

    assert serve(tmp_path, work) == []


def test_who_leaves_ends_its_stream(tmp_path: Path) -> None:
    async def work(ask: Read, path: str) -> None:
        before = CUT["ended"]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(close("GET /forever"))
        await reader.readexactly(10_000)
        writer.transport.abort()
        while CUT["ended"] == before:
            await asyncio.sleep(0.01)

    assert serve(tmp_path, work) == []


def test_json_objects_only(tmp_path: Path) -> None:
    async def read(request: Request) -> Answer:
        return json_answer(await request.json(100))

    async def main() -> None:
        made = Routes()
        made.add("POST", "/", read)
        loop, path = asyncio.get_running_loop(), str(tmp_path / "s")
        server = await loop.create_unix_server(lambda: Connection(made, print), path)
        bodies = [(b"{}", 200), (b"[]", 400), (b"", 400), (b"{", 400), (b"[" * 99, 400)]
        for body, status in bodies:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(close("POST /", body=body))
            assert (await reader.read()).startswith(b"HTTP/1.1 %d" % status), body
            writer.close()
        server.close()

    asyncio.run(main())


def test_patterns() -> None:
    assert match(["a", "{b}"], ["a", "x%2Fy"]) == {"b": "x/y"}
    assert match(["a", "{b}"], ["a", "x", ""]) == {"b": "x"}
    assert match(["a", "{b}"], ["a"]) is None
    assert match(["a", "{b...}"], ["a"]) == {"b": ""}
    assert match(["a", "{b...}"], ["a", "", "c"]) == {"b": "//c"}
    assert json.loads(bytes(json_answer({"a": 1}).body)) == {"a": 1}  # type: ignore[arg-type]

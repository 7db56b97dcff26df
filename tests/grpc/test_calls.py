"""gRPC calls of all four kinds through grpc_pass, with grpcio at both ends."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from services import Calls, Server, code_of

PASS = """
    client_max_body_size 0;
    server { listen %%PORT%%; http2 on; location / { grpc_pass grpc://ADDRESS; } }
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as it:
        yield it


@pytest.fixture
def calls(headrace, server: Server) -> Iterator[Calls]:
    with Calls(headrace(PASS.replace("ADDRESS", server.address)).port) as it:
        yield it


def test_unary(calls: Calls, server: Server) -> None:
    assert calls.echo(b"hello", timeout=10) == b"hello"
    assert calls.echo(b"", timeout=10) == b""
    seen = server.methods.seen[0]
    assert seen["method"] == "Echo"


def test_metadata_goes_both_ways_in_front_and_behind(calls: Calls, server: Server) -> None:
    sent = [("x-a", "1"), ("x-a", "2"), ("x-raw-bin", bytes(range(256))), ("x-long", "y" * 7000)]
    _, call = calls.echo.with_call(b"hello", metadata=sent, timeout=10)
    initial = [it for it in call.initial_metadata() if it[0].startswith("x-")]
    assert initial == sent
    behind = list(call.trailing_metadata())
    assert [it for it in behind if it[0].startswith("x-")] == [
        ("x-end.of_it", "end"), ("x-end-bin", b"\x00\xff"), *sent]  # fmt: skip
    assert server.methods.seen[0]["metadata"]["x-raw-bin"] == bytes(range(256))


def test_a_status_without_a_message(calls: Calls) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls.fail(b"", timeout=10)
    assert code_of(caught.value) == "FAILED_PRECONDITION"
    assert caught.value.details() == "not now: ü%"
    with pytest.raises(grpc.RpcError) as caught:
        calls.unknown(b"", timeout=10)
    assert code_of(caught.value) == "UNIMPLEMENTED"


def test_server_streaming(calls: Calls) -> None:
    found = list(calls.count(b"100 1000", timeout=10))
    assert [int(it.partition(b":")[0]) for it in found] == list(range(100))
    assert {len(it) for it in found} == {1002, 1003}
    assert list(calls.count(b"0 0", timeout=10)) == []


def test_client_streaming(calls: Calls) -> None:
    assert calls.sum(iter([bytes(1000)] * 100), timeout=10) == b"100 100000"
    assert calls.sum(iter([]), timeout=10) == b"0 0"


def test_bidirectional_streaming_is_not_held_back(calls: Calls) -> None:
    to_send: queue.Queue[bytes | None] = queue.Queue()
    answers = calls.chat(iter(to_send.get, None), timeout=10)
    for word in (b"one", b"two", b"three"):
        to_send.put(word)
        assert next(answers) == b"you said " + word
    to_send.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_large_messages_both_ways(calls: Calls) -> None:
    message = bytes(range(256)) * 16384                       # 4 MiB
    assert calls.echo(message, timeout=60) == message
    assert calls.sum(iter([message] * 4), timeout=60) == b"4 %d" % (4 * len(message))
    assert [len(it) for it in calls.count(b"4 4000000", timeout=60)] == [4000002] * 4


def test_a_hundred_at_once_share_a_connection(headrace, server: Server) -> None:
    kept = """upstream u { server ADDRESS; keepalive 4; }
              server { listen %%PORT%%; http2 on; location / { grpc_pass u; } }"""
    with Calls(headrace(kept.replace("ADDRESS", server.address)).port) as calls:
        calls.echo(b"", timeout=10)
        with ThreadPoolExecutor(100) as pool:
            found = list(pool.map(lambda n: calls.echo(b"%d" % n, timeout=30), range(400)))
    assert found == [b"%d" % n for n in range(400)]
    assert len({it["peer"] for it in server.methods.seen}) <= 2

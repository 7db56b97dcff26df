"""gRPC-Web: what browsers send, translated for a gRPC server (grpcio) and back."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from gateway import Gateway
from h2client import H2Client
from services import Server

PASS = """server { listen %%PORT%%; http2 on;
    location / { grpc_pass grpc://ADDRESS; grpc_web on; }
    location /off/ { grpc_pass grpc://ADDRESS; } }"""
WEB = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as it:
        yield it


@pytest.fixture
def gateway(headrace, server: Server) -> Gateway:
    return headrace(PASS.replace("ADDRESS", server.address))


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(it).to_bytes(4, "big") + it for it in messages)


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """(flags, bytes) of each frame."""
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        assert len(body) >= 5 + size
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def trailers(frame: bytes) -> dict[str, str]:
    lines = frame.decode().split("\r\n")
    assert lines.pop() == ""
    return dict(line.split(": ", 1) for line in lines)


def decoded(body: bytes) -> bytes:
    """Groups of four, each piece with padding of its own."""
    return b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))


def ask(
    gateway: Gateway, is_h2: bool, target: str, body: bytes, kind: str
) -> tuple[int, str, bytes, dict[str, str]]:
    """(status, type, body, head) of one call."""
    if is_h2:
        with H2Client(gateway.port) as client:
            found = client.get(target, method="POST", body=body, fields=[("content-type", kind)])
            assert found.is_whole
            assert not found.trailers
            return found.status, found.get("content-type") or "", found.body, dict(found.fields)
    with gateway.client() as raw:
        raw.send(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = raw.read()
        head = {name.lower(): value for name, value in answer.headers}
        return answer.status, head.get("content-type", ""), answer.body, head


@pytest.mark.parametrize("is_h2", [False, True])
def test_binary(gateway: Gateway, server: Server, is_h2: bool) -> None:
    status, kind, body, _ = ask(gateway, is_h2, "/test.Test/Echo", framed(b"hello"), WEB)
    assert (status, kind) == (200, WEB.partition("+")[0])     # grpcio says no "+proto"
    (flags, message), (last, behind) = frames(body)
    assert (flags, message, last) == (0, b"hello", 0x80)
    assert trailers(behind)["grpc-status"] == "0"
    assert trailers(behind)["x-end.of_it"] == "end"
    assert "x-raw" not in server.methods.seen[0]["metadata"]


@pytest.mark.parametrize("is_h2", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 100_000])
def test_text(gateway: Gateway, is_h2: bool, size: int) -> None:
    message = (bytes(range(256)) * 400)[:size]
    sent = base64.b64encode(framed(message))
    status, kind, body, _ = ask(gateway, is_h2, "/test.Test/Echo", sent, TEXT)
    assert (status, kind) == (200, TEXT.partition("+")[0])
    (_, found), (last, behind) = frames(decoded(body))
    assert found == message
    assert (last, trailers(behind)["grpc-status"]) == (0x80, "0")


def test_text_that_comes_byte_by_byte(gateway: Gateway) -> None:
    sent = base64.b64encode(framed(b"hello"))
    with gateway.client() as raw:
        raw.send(f"POST /test.Test/Echo HTTP/1.1\r\nHost: a\r\nContent-Type: {TEXT}\r\n"
                 f"Content-Length: {len(sent)}\r\n\r\n".encode())
        for byte in sent:
            raw.send(bytes([byte]))
        body = raw.read().body
    assert frames(decoded(body))[0] == (0, b"hello")


def test_padding_between_pieces_is_taken(gateway: Gateway) -> None:
    whole = framed(b"hello")
    sent = base64.b64encode(whole[:4]) + base64.b64encode(whole[4:])
    _, _, body, _ = ask(gateway, True, "/test.Test/Echo", sent, TEXT)
    assert frames(decoded(body))[0] == (0, b"hello")


BAD = [b"AAA", b"AAAAAA", b"A=AA", b"====", b"AA=A", b"A\nAA", b"\xff" * 4]


@pytest.mark.parametrize("sent", BAD)
def test_what_is_no_base64_is_refused(gateway: Gateway, sent: bytes) -> None:
    status, kind, body, head = ask(gateway, True, "/test.Test/Echo", sent, TEXT)
    assert (status, kind, body) == (200, TEXT.partition("+")[0], b"")
    assert head["grpc-status"] == "13"


def test_a_stream_comes_as_it_is_made(gateway: Gateway) -> None:
    _, _, body, _ = ask(gateway, True, "/test.Test/Count", framed(b"20 1000"), WEB)
    found = frames(body)
    assert [len(it) for flags, it in found if flags == 0] == [1002] * 10 + [1003] * 10
    assert found[-1][0] == 0x80


def test_a_status_without_messages_is_in_the_head(gateway: Gateway) -> None:
    status, kind, body, head = ask(gateway, True, "/test.Test/Fail", framed(b""), WEB)
    assert (status, kind, body) == (200, WEB.partition("+")[0], b"")
    assert head["grpc-status"] == "9"


def test_errors_of_ours_are_told_likewise(headrace) -> None:
    gateway = headrace(PASS.replace("ADDRESS", "127.0.0.1:1"))
    for is_h2 in (False, True):
        status, kind, body, head = ask(gateway, is_h2, "/test.Test/Echo", framed(b""), WEB)
        assert (status, kind, body) == (200, "application/grpc-web", b"")
        assert head["grpc-status"] == "14"


def test_other_calls_pass_as_they_are(gateway: Gateway) -> None:
    with H2Client(gateway.port) as client:
        found = client.get("/test.Test/Echo", method="POST", body=framed(b"hi"), fields=[
            ("content-type", "application/grpc"), ("te", "trailers")])  # fmt: skip
    assert found.body == framed(b"hi")
    assert dict(found.trailers)["grpc-status"] == "0"

"""Fuzz target of the HTTP/1.1 codec: `PYTHONPATH=. python tests/wire/fuzz_h1.py SECONDS [SEED]`.

Mutates the saved corpus and holds three promises: the outcome does not depend on how
the bytes are split; what we accept h11 accepts too and reads the same way; nothing
crashes. An input that breaks one is printed and saved beside the corpus. With KEEP=1
an input that reaches a new kind of outcome joins the corpus.
"""

import random
import sys
from functools import partial
from pathlib import Path

import h11
from fuzzing import Fuzz, fuzz

from proxy.wire.h1_door import Reader, decode_chunked, parse

CORPUS = Path(__file__).parent / "corpus"
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b": ", b",", b";", b"=", b'"', b"\\",
    b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"\x7f", b"\x0b", b"\x80", b"\xff", b"_", b".", b"..",
    b"Host: a\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"5\r\nhello\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: X-A\r\n",
    b"Upgrade: websocket\r\n", b"chunked", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/", b"http://a/",
    b"GET / HTTP/1.1\r\n", b"CONNECT ", b"[::1]", b"%00", b"ffffffffffffffff", b"+", b"-", b"0x",
]  # fmt: skip


def pieces_of(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def lowered(fields) -> list[tuple[bytes, bytes]]:
    """Fields as h11 keeps them: framing ones normalised away, names in lower case."""
    framing = (b"content-length", b"transfer-encoding")
    return [(k.lower(), v) for k, v in fields if k.lower() not in framing]


def oracle_reads(message: dict, data: bytes) -> h11.Request | h11.Response | None:
    """h11's event for the head; None where h11 is known to ask for more than the RFC."""
    size = message["size"]
    if "target" in message:
        if any(byte > 0x7E for byte in message["target"]):
            return None
        side = h11.Connection(h11.SERVER)
    else:
        if message["status"] == 101 or not 100 <= message["status"] <= 599:
            return None
        side = h11.Connection(h11.CLIENT)
        side.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        side.send(h11.EndOfMessage())
    if message["fields"] and len(message["fields"]) > 100:
        return None
    side.receive_data(data[:size].lstrip(b"\r\n"))
    event = side.next_event()
    assert not isinstance(event, type(h11.NEED_DATA)), "h11 waits where we are ready"
    return event


def check_head(data: bytes, chance: random.Random, is_response: bool):
    options = {"is_response": is_response, "ignore_invalid": False, "max_line": 400,
               "max_head": 2000, "max_fields": 40}  # fmt: skip
    said = parse(Reader(**options), [data])
    for _ in range(3):
        pieces = pieces_of(data, chance)
        again = parse(Reader(**options), pieces)
        assert again == said, f"split changes the outcome: {pieces} {said} {again}"
    if not isinstance(said, dict):
        return said
    assert said["stray_flags"] == 0
    event = oracle_reads(said, data)
    if event is not None:
        assert lowered(event.headers) == lowered(said["fields"])
        if is_response:
            assert (event.status_code, event.reason) == (said["status"], said["reason"])
        else:
            assert (event.method, event.target) == (said["method"], said["target"])
        theirs = dict(event.headers)
        if said["length"] >= 0:
            assert int(theirs[b"content-length"]) == said["length"]
        assert (b"transfer-encoding" in theirs) == ("chunked" in said["flags"])
    return (
        said["version"], frozenset(said["flags"]), said["body"], min(len(said["hop"]), 3),
        said.get("method_id"), said.get("status", 0) // 100, min(len(said["fields"]), 6),
    )  # fmt: skip


def check_chunked(data: bytes, chance: random.Random):
    said = decode_chunked([data], 300)
    for _ in range(3):
        pieces = pieces_of(data, chance)
        again = decode_chunked(pieces, 300)
        assert again == said, f"split changes the outcome: {pieces} {said} {again}"
    if not isinstance(said, tuple):
        return said
    payload, trailers, rest = said
    if any(name in data.lower() for name in (b"content-length", b"transfer-encoding")):
        return "framing as payload or trailer"  # which h11 would judge as framing
    if b" ;" in data or b"\t;" in data:
        return "white space before an extension"  # which h11 does not know
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    server.next_event()
    server.receive_data(data)
    got = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        got += event.data
    assert got == payload
    assert server.trailing_data[0] == rest
    assert {k.lower() for k, _ in trailers} <= {k for k, _ in event.headers}
    return min(len(payload), 20), min(len(trailers), 3), bool(rest)


def check(kind: str, data: bytes, chance: random.Random):
    """Hold the promises for one input; gives a hashable note of what happened."""
    if kind == "chunked":
        return check_chunked(data, chance)
    return check_head(data, chance, kind == "response")


FUZZES = {
    kind: Fuzz(CORPUS, kind, TOKENS, partial(check, kind), most=3000)
    for kind in ("chunked", "request", "response")
}

if __name__ == "__main__":
    sys.exit(fuzz(list(FUZZES.values())))

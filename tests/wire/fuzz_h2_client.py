"""Fuzz target of HTTP/2's client role: `PYTHONPATH=. python tests/wire/fuzz_h2_client.py SECONDS`.

Mutates what a hostile upstream answers three requests with (a GET, a HEAD, a POST that still
sends) and holds these promises: what is told and sent does not depend on how the bytes are cut;
each answer has one final head, which comes first, and ends once; no body is longer or shorter than
was announced; nothing is told of a stream that is over; what we send back is bounded; an answer
that we take whole the h2 library takes too, with the same status, fields, body and trailers, unless
it finds the connection wrong. An input that breaks one is printed and saved beside the corpus.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2_rules as rules
from fuzz_h2 import boundaries
from fuzzing import Fuzz, fuzz
from h2.settings import SettingCodes, Settings

from proxy.wire.h2_door import Connection, write_field, write_status

CORPUS = Path(__file__).parent / "corpus_h2_client"
GET, HEAD, POST = 1, 3, 5
OUT_MOST = 4096  # bytes beside what PINGs and bodies bring back
END, WHOLE = 1, 4  # END_STREAM, END_HEADERS
GRPC_STATUS = write_field(b"grpc-status", b"0")


def head(number: int, status: int = 200, *fields: tuple[bytes, bytes], flags: int = WHOLE) -> bytes:
    block = write_status(status) + b"".join(write_field(*it) for it in fields)
    return rules.frame(rules.HEADERS, flags, number, block)


def body(number: int, data: bytes, flags: int = 0) -> bytes:
    return rules.frame(rules.DATA, flags, number, data)


def trailers(number: int, block: bytes = GRPC_STATUS, flags: int = END | WHOLE) -> bytes:
    return rules.frame(rules.HEADERS, flags, number, block)


def leave(last: int, code: int = 0) -> bytes:
    return rules.frame(rules.GOAWAY_FRAME, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


LENGTH = b"content-length"
TOKENS = [
    head(GET), head(HEAD, flags=END | WHOLE), head(POST), head(GET, 103), head(POST, 100),
    head(GET, 204, flags=END | WHOLE), head(GET, 200, (LENGTH, b"5")), body(GET, b"hello", END),
    body(GET, b"he"), body(POST, b"", END), body(HEAD, b"x"), trailers(GET), trailers(POST),
    rules.reset(GET), rules.reset(POST, 0), rules.reset(HEAD, 7), leave(GET), leave(0, 11),
    rules.update(0, 5), rules.update(POST, 5), rules.setting(4, 10), rules.setting(3, 0),
    rules.setting(2, 0), rules.setting(5, 20000), rules.frame(4), rules.frame(4, 1),
    rules.frame(6, 0, 0, bytes(8)), rules.frame(5, 4, 1, bytes(5)),
    rules.frame(9, 4, 1, GRPC_STATUS),
    rules.frame(1, 0, GET, write_status(200)), rules.field(b"a", b"b"), rules.field(LENGTH, b"1"),
    b"\0", b"\xff", b"\x88", b"\x20", b"\x40\x01a\x01b", b"\xbe", b"\0\0\0\1",
    b"\x7f\xff\xff\xff",
]  # fmt: skip
BEGINNINGS = [
    head(GET, 200, (LENGTH, b"5")) + body(GET, b"hello", END),
    head(POST, 200, (b"content-type", b"application/grpc")) + body(POST, b"\0" * 9)
    + trailers(POST),
    head(POST, 200, (b"grpc-status", b"12"), flags=END | WHOLE) + rules.reset(POST, 0),
    head(GET, 103, (b"link", b"</a>")) + head(GET) + body(GET, b"a") + body(GET, b"b", END),
    head(HEAD, 200, (LENGTH, b"100"), flags=END | WHOLE) + head(GET, 304, (LENGTH, b"9"), flags=5),
    rules.frame(1, 0, GET, write_status(200)) + rules.frame(9, 4, GET, GRPC_STATUS)
    + rules.frame(0, 9, GET, b"\3abc\0\0\0"),
    leave(HEAD) + head(GET, flags=END | WHOLE) + rules.reset(HEAD),
    rules.setting(4, 0) + rules.frame(6, 0, 0, bytes(8)) + rules.update(POST, 100)
    + head(POST, flags=END | WHOLE),
    head(GET, 200, (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")) + rules.reset(GET, 8),
]  # fmt: skip


def begun() -> Connection:
    """A connection with three requests on it, of which one still sends its body."""
    it = Connection(is_client=True, max_control=60, max_resets=20, ignore_invalid=False)
    for is_bare, is_end in ((False, True), (True, True), (False, False)):
        it.ask(rules.GET, is_bare=is_bare, is_end=is_end)
    it.send(POST, b"some")
    return it


def run(pieces: list[bytes]) -> tuple[bytes, list[tuple]]:
    """What is sent, and what the owner is told; bodies as they were taken, in one piece."""
    connection = begun()
    sent: bytes = connection.sent
    told: list[tuple] = []
    for piece in pieces:
        for event in connection.feed(piece):
            if event[0] == "body" and told and told[-1][:2] == event[:2] and not told[-1][3]:
                event = ("body", event[1], told.pop()[2] + event[2], event[3])
            told.append(event)
        if told and told[-1][0] == "broken":
            break
    return sent + connection.sent, told


def answers(told: list[tuple]) -> dict[int, dict[str, Any]]:
    """What came of each stream; asserts that it came in the order that answers have."""
    found: dict[int, dict[str, Any]] = {}
    over: set[int] = set()
    for event in told:
        if event[0] not in ("head", "body", "trailers", "reset"):
            continue
        number = event[1]
        it = found.setdefault(number, {"interim": 0, "body": b"", "is_whole": False})
        if event[0] == "reset":  # of the request, too, that still goes out
            assert not it.get("is_reset") and (number not in over or number == POST)
            over.add(number)
            it["is_reset"] = True
            continue
        assert number not in over, f"{event} of a stream that is over"
        if event[0] == "head":
            assert "status" not in it, "two final heads"
            if not isinstance(event[2], dict):
                it["fault"] = event[2]
                it["status"] = None
            elif event[2]["status"] < 200:
                assert not event[3], "an interim head ends nothing"
                it["interim"] += 1
            else:
                it.update(status=event[2]["status"], fields=event[2]["fields"],
                          length=event[2]["length"])  # fmt: skip
        else:
            assert "status" in it, "no head came first"
            if event[0] == "body":
                it["body"] += event[2]
            else:
                it["trailers"] = event[2]["fields"] if isinstance(event[2], dict) else event[2]
        if event[3]:
            over.add(number)
            it["is_whole"] = True
    return found


def witness(data: bytes) -> dict[int, dict[str, Any]] | None:
    """The same by the h2 library; None when it found the connection wrong, or when it ended."""
    config = h2.config.H2Configuration(client_side=True, header_encoding=None)
    client = h2.connection.H2Connection(config)
    client.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0})
    client.initiate_connection()
    for number, method in ((GET, b"GET"), (HEAD, b"HEAD"), (POST, b"POST")):
        fields = [(b":method", method), (b":scheme", b"http"), (b":path", b"/"),
                  (b":authority", b"a")]  # fmt: skip
        client.send_headers(number, fields, end_stream=number != POST)
    client.send_data(POST, b"some")
    found: dict[int, dict[str, Any]] = {}
    try:
        for event in client.receive_data(data):
            it = found.setdefault(getattr(event, "stream_id", None) or 0, {"body": b""})
            if isinstance(event, h2.events.ResponseReceived):
                fields = event.headers
                it["status"] = int(dict(fields)[b":status"])
                it["fields"] = [(k, v) for k, v in fields if not k.startswith(b":")]
            elif isinstance(event, h2.events.DataReceived):
                it["body"] += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                it["trailers"] = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                it["is_whole"] = True
            elif isinstance(event, h2.events.ConnectionTerminated):
                return None
    except (h2.exceptions.H2Error, ValueError, KeyError):
        return None
    return found


def check(data: bytes, chance: random.Random) -> tuple:
    """Hold the promises for one input; gives a hashable note of what happened."""
    data = rules.SETTLED + data
    sent, told = run([data])
    for _ in range(2):
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert run(pieces) == (sent, told), f"split changes the outcome: {pieces}"
    assert len(sent) <= OUT_MOST + 2 * len(data)
    ours = answers(told)
    for number, it in ours.items():
        assert number in (GET, HEAD, POST)
        has_none = number == HEAD or it.get("status") in (204, 304)
        if it["is_whole"] and it.get("status") and it["length"] >= 0 and not has_none:
            assert len(it["body"]) == it["length"]
        assert not (has_none and it["body"])
    ended = told[-1] if told and told[-1][0] == "broken" else None
    theirs = None
    if ended is None:  # whole frames alone: of a DATA frame we tell what is there of it
        data = data[: boundaries(data)[-1]]
        ours, theirs = answers(run([data])[1]), witness(data)
    if theirs is not None:
        for number, it in ours.items():
            if not it["is_whole"] or it.get("status") is None:
                continue
            other = theirs.get(number, {})
            for word in ("status", "fields", "body", "trailers", "is_whole"):
                assert it.get(word) == other.get(word), f"{word} of {number}: {it} {other}"
    whole = [it for it in ours.values() if it["is_whole"]]
    resets = [event[2:] for event in told if event[0] == "reset"]
    return (
        ended, theirs is None, len(whole), any("trailers" in it for it in whole),
        any("fault" in it for it in ours.values()), "ours" in str(resets), len(resets) > 1,
    )  # fmt: skip


FUZZ = Fuzz(CORPUS, "frames", TOKENS, check, most=3000, lent=80, places=boundaries)

if __name__ == "__main__":
    sys.exit(fuzz([FUZZ], BEGINNINGS))

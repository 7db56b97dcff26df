"""The codec in a client's role: what a server may send, and what it may not (RFC 9113)."""

from __future__ import annotations

import random
import struct

import fuzz_h2_client
import pytest

from proxy.wire.h2_door import Connection, write_field, write_status

DATA, HEADERS, RST, SETTINGS, PUSH, PING, GOAWAY, UPDATE = 0, 1, 3, 4, 5, 6, 7, 8
END, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(
        ">I", number) + payload  # fmt: skip


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *it) for it in pairs))


def head(number: int, *fields: tuple[bytes, bytes], status: int = 200, end: bool = False) -> bytes:
    block = write_status(status) + b"".join(write_field(*it) for it in fields)
    return frame(HEADERS, END_HEADERS | (END if end else 0), number, block)


def trailers(number: int, *fields: tuple[bytes, bytes], flags: int = END | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, number, b"".join(write_field(*it) for it in fields))


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream, payload) of each."""
    found = []
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], struct.unpack(">I", data[5:9])[0], data[9:size]))
        data = data[size:]
    return found


def asked(count: int = 1, is_bare: bool = False) -> Connection:
    """A connection with so many requests on it; what it sent is taken."""
    it = Connection(is_client=True)
    for _ in range(count):
        it.ask(write_field(b"a", b"b"), is_bare=is_bare, is_end=True)
    assert it.sent
    return it


def test_it_begins_with_the_preface_and_asks_on_odd_streams() -> None:
    it = Connection(is_client=True, window=70000)
    assert [it.ask(b"", is_end=True), it.ask(b"", is_end=True)] == [1, 3]
    sent = it.sent
    assert sent.startswith(PREFACE)
    first, update, *asks = frames(sent[len(PREFACE) :])
    assert first[0] == SETTINGS
    said = dict(struct.iter_unpack(">HI", first[3]))
    assert (said[2], said[4]) == (0, 70000)                   # no push
    assert (update[0], update[2]) == (UPDATE, 0)
    assert [(kind, number) for kind, _, number, _ in asks] == [(HEADERS, 1), (HEADERS, 3)]


ANSWER = (
    settings((3, 100)) + head(1, (b"x", b"y"), (b"content-length", b"5"))
    + frame(DATA, 0, 1, b"he") + frame(DATA, 0, 1, b"llo") + trailers(1, (b"grpc-status", b"0"))
)  # fmt: skip


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_an_answer_with_trailers_wherever_it_is_cut(cut: int) -> None:
    it = asked()
    events = it.feed(ANSWER[:cut]) + it.feed(ANSWER[cut:])
    (kind, number, said, is_end), *body, (last, behind, section, _) = events
    assert (kind, number, said["status"], is_end) == ("head", 1, 200, False)
    assert said["fields"] == [(b"x", b"y"), (b"content-length", b"5")]
    assert b"".join(it[2] for it in body) == b"hello"
    assert (last, behind, section["fields"]) == ("trailers", 1, [(b"grpc-status", b"0")])
    assert it.n_open == 0
    assert frames(it.sent)[0][:2] == (SETTINGS, 1)


def test_interim_heads_come_before_the_final_one() -> None:
    it = asked()
    events = it.feed(settings() + head(1, status=103) + head(1, status=100) + head(1, end=True))
    assert [(e[0], e[2]["status"], e[3]) for e in events] == [
        ("head", 103, False), ("head", 100, False), ("head", 200, True)]  # fmt: skip
    assert it.n_open == 0


STREAM_ERRORS = {
    "data before a head": frame(DATA, END, 1, b"x"),
    "no status": frame(HEADERS, END_HEADERS, 1, write_field(b"a", b"b")),
    "two statuses": frame(HEADERS, END_HEADERS, 1, write_status(200) * 2),
    "status behind a field": frame(HEADERS, END_HEADERS, 1, write_field(b"a", b"b")
                                   + write_status(200)),
    "a pseudo-field of a request": head(1, (b":path", b"/")),
    "101": head(1, status=101),
    "an interim head that ends": head(1, status=100, end=True),
    "connection": head(1, (b"connection", b"close")),
    "transfer-encoding": head(1, (b"transfer-encoding", b"chunked")),
    "two lengths": head(1, (b"content-length", b"1"), (b"content-length", b"1")),
    "a length that is none": head(1, (b"content-length", b"1x")),
    "a line end in a value": head(1, (b"a", b"b\r\nc: d")),
    "less than announced": head(1, (b"content-length", b"2")) + frame(DATA, END, 1, b"x"),
    "more than announced": head(1, (b"content-length", b"1")) + frame(DATA, 0, 1, b"xy"),
    "nothing of what is announced": head(1, (b"content-length", b"2"), end=True),
    "a second head": head(1) + head(1),
    "trailers with a pseudo-field": head(1) + head(1, end=True),
    "trailers that do not end": head(1) + trailers(1, (b"a", b"b"), flags=END_HEADERS),
    "a window of 0": frame(UPDATE, 0, 1, bytes(4)),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_what_ends_its_stream_alone(name: str) -> None:
    it = asked(2)
    events = it.feed(settings() + STREAM_ERRORS[name])
    assert events[-1][:2] == ("reset", 1), events
    assert events[-1][-1] == "ours"
    assert (RST, 1) in [(kind, number) for kind, _, number, _ in frames(it.sent)]
    assert it.feed(head(3, end=True))[0][:2] == ("head", 3)


BROKEN = {
    "no SETTINGS first": (frame(PING, payload=bytes(8)), "PROTOCOL_ERROR"),
    "a push": (settings() + frame(PUSH, END_HEADERS, 1, bytes(5)), "PROTOCOL_ERROR"),
    "ENABLE_PUSH": (settings((2, 1)), "PROTOCOL_ERROR"),
    "an answer that nobody asked for": (settings() + head(5, end=True), "PROTOCOL_ERROR"),
    "a stream of its own": (settings() + head(2, end=True), "PROTOCOL_ERROR"),
    "data of an idle stream": (settings() + frame(DATA, 0, 9, b"x"), "PROTOCOL_ERROR"),
    "a head behind the end": (settings() + head(1, end=True) * 2, "STREAM_CLOSED"),
    "no HPACK": (settings() + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
                 "COMPRESSION_ERROR"),
    "too large a frame": (settings() + frame(PING + 90, payload=bytes(16385)), "FRAME_SIZE_ERROR"),
    "a short GOAWAY": (settings() + frame(GOAWAY, payload=bytes(7)), "FRAME_SIZE_ERROR"),
    "a flood of pings": (settings() + frame(PING, payload=bytes(8)) * 1001, "ENHANCE_YOUR_CALM"),
    "a flood of SETTINGS": (settings() * 1002, "ENHANCE_YOUR_CALM"),
    "a flood of empty frames": (settings() + head(1) + frame(DATA, 0, 1) * 1001,
                                "ENHANCE_YOUR_CALM"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_ends_the_connection(name: str) -> None:
    data, code = BROKEN[name]
    it = asked()
    assert it.feed(data)[-1] == ("broken", code)
    last = frames(it.sent)[-1]
    assert (last[0], last[3][:4]) == (GOAWAY, bytes(4))       # of its streams we took none


def test_a_reset_and_goaway_say_what_was_not_looked_at() -> None:
    it = asked(3)
    assert it.feed(settings() + frame(RST, 0, 1, struct.pack(">I", 7))) == [
        ("reset", 1, "REFUSED_STREAM")]  # fmt: skip
    assert it.feed(frame(GOAWAY, payload=struct.pack(">II", 3, 0))) == [
        ("parting", 3, "NO_ERROR")]  # fmt: skip
    assert it.feed(head(3, end=True))[0][:2] == ("head", 3)


def test_no_body_belongs_to_head_304_and_204() -> None:
    long = (b"content-length", b"100")
    assert asked(is_bare=True).feed(settings() + head(1, long, end=True))[0][3]
    for status in (304, 204):
        assert asked().feed(settings() + head(1, long, status=status, end=True))[0][3]


def test_small_pieces_that_wait_become_one_frame() -> None:
    it = Connection(is_client=True)
    it.feed(settings())
    number = it.ask(b"")
    assert it.sent
    assert it.send(number, b"head") + it.send(number, b"message") == 11
    it.end(number)
    assert frames(it.sent) == [(DATA, END, number, b"headmessage")]
    other = it.ask(b"")
    assert it.sent
    assert it.send(other, bytes(16380)) + it.send(other, bytes(10)) == 16390
    assert [len(it[3]) for it in frames(it.sent)] == [16384, 6]


def test_windows_hold_what_is_sent() -> None:
    it = Connection(is_client=True)
    it.feed(settings((4, 10)))
    number = it.ask(b"")
    assert it.send(number, bytes(100)) == 10
    assert it.feed(frame(UPDATE, 0, number, struct.pack(">I", 5))) == [("room", number)]
    assert it.send(number, bytes(100)) == 5
    assert it.feed(settings((4, 20)))[0] == ("room", 0)
    assert it.send(number, bytes(100)) == 10


def test_the_saved_corpus_and_its_mutations() -> None:
    corpus = fuzz_h2_client.FUZZ.saved() + fuzz_h2_client.BEGINNINGS
    assert len(corpus) > 100
    chance = random.Random(3)
    for data in corpus:
        fuzz_h2_client.check(data, chance)
    for _ in range(1500):
        mutated = fuzz_h2_client.FUZZ.mutated(chance.choice(corpus), corpus, chance)
        fuzz_h2_client.check(mutated, chance)


def test_a_code_that_nobody_knows_is_told_all_the_same() -> None:
    parting = frame(GOAWAY, payload=struct.pack(">II", 1, 0x04010100))
    assert asked().feed(settings() + parting) == [("parting", 1, "?")]

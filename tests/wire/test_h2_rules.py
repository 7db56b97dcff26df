"""The table of HTTP/2's rules, whole and cut at every byte; and what is read of good messages."""

from __future__ import annotations

import random
import struct

import fuzz_h2
import h2.config
import h2.connection
import h2.events
import h2_rules as rules
import pytest
from h2_rules import GET, GOAWAY, OPEN, PREFACE, RESET, SETTLED, field, frame, request

from proxy.wire.h2_door import Connection

BOUNDS = {"max_streams": 5, "max_control": 30, "max_resets": 10, "max_block": 16384}
NAMES = [f"{clause}: {name}" for clause, name, _, _ in rules.RULES]


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream, payload) of what the server sent."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, number = struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, number, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def outcome(sent: bytes) -> GOAWAY | RESET | None:
    """The last word of blame among the frames."""
    for kind, _, number, payload in reversed(frames_of(sent)):
        if kind == rules.GOAWAY_FRAME:
            return GOAWAY(struct.unpack(">II", payload)[1])
        if kind == rules.RST_STREAM:
            return RESET(number, struct.unpack(">I", payload)[0])
    return OPEN


def run(data: bytes, size: int | None = None, **bounds) -> tuple[bytes, list[tuple]]:
    """What a server sends for these bytes, and what its owner is told."""
    connection = Connection(**{**BOUNDS, **bounds})
    sent, events = connection.sent, []
    for at in range(0, len(data), size or len(data) or 1):
        events += connection.feed(data[at : at + (size or len(data))])
        sent += connection.sent
        if events and events[-1][0] == "broken":
            break
    return sent, events


@pytest.mark.parametrize("rule", rules.RULES, ids=NAMES)
def test_rule(rule):
    _, _, data, expected = rule
    sent, events = run(PREFACE + SETTLED + data)
    assert outcome(sent) == expected
    assert any(event[0] == "broken" for event in events) == isinstance(expected, GOAWAY)
    if expected is OPEN or isinstance(expected, RESET):   # another stream is served all the same
        sent, events = run(PREFACE + SETTLED + data + request(901), max_streams=100)
        assert any(event[:2] == ("head", 901) for event in events)


@pytest.mark.parametrize("rule", rules.RULES, ids=NAMES)
def test_rule_cut_at_each_byte(rule):
    data = PREFACE + SETTLED + rule[2]
    whole = run(data)
    for size in (1, 7) if len(data) < 4000 else (5, 1000):
        sent, events = run(data, size)
        assert sent == whole[0]
        assert joined(events) == joined(whole[1])


def joined(events: list[tuple]) -> list[tuple]:
    """Pieces of one body, however they were cut, as one."""
    out: list[tuple] = []
    for event in events:
        if event[0] == "body" and out and out[-1][:2] == event[:2]:
            event = ("body", event[1], out.pop()[2] + event[2], event[3])
        out.append(event)
    return out


@pytest.mark.parametrize("size", [0, 1, 5], ids=["whole", "by 1", "by 5"])
@pytest.mark.parametrize("rule", rules.ANSWERED_EARLY, ids=[r[1] for r in rules.ANSWERED_EARLY])
def test_what_follows_an_early_answer(rule, size):
    _, _, asked, data, expected = rule
    connection = Connection(**BOUNDS)
    connection.feed(PREFACE + SETTLED + asked)
    connection.answer(1, [(b":status", b"200")], True)
    connection.reset(1, 0)
    assert outcome(connection.sent) in (RESET(1, 0), OPEN)   # the latter: the request was whole
    sent = b""
    for at in range(0, len(data), size or len(data)):
        connection.feed(data[at : at + (size or len(data))])
        sent += connection.sent
    assert outcome(sent) == expected
    if not isinstance(expected, GOAWAY):
        assert any(event[:2] == ("head", 3) for event in connection.feed(request(3)))


@pytest.mark.parametrize("rule", rules.BROKEN, ids=[rule[1] for rule in rules.BROKEN])
def test_what_must_come_first(rule):
    assert outcome(run(PREFACE + rule[2])[0]) == rule[3]


def test_no_preface():
    for data in (b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"):
        assert outcome(run(data)[0]) == GOAWAY(rules.PROTOCOL)
        assert outcome(run(data, 1)[0]) == GOAWAY(rules.PROTOCOL)


WIDE = 40000
WIDE_FRAMES = {
    "a body": (rules.post() + frame(rules.DATA, rules.END_STREAM, 1, bytes(WIDE)), OPEN),
    "a body that is wider": (rules.post() + frame(rules.DATA, 0, 1, bytes(WIDE + 1)),
                             GOAWAY(rules.SIZE)),
    "a head": (request(1, GET + field(b"a", bytes(b"a" * 25000))), OPEN),
    "a head that no room is for": (request(1, GET + field(b"a", bytes(b"a" * 35000))),
                                   GOAWAY(rules.SIZE)),
    "SETTINGS": (frame(rules.SETTINGS, 0, 0, bytes(6 * 3000)), GOAWAY(rules.SIZE)),
    "an unknown type": (frame(0x42, 0, 0, bytes(20000)), GOAWAY(rules.SIZE)),
    "DATA inside a head": (frame(rules.HEADERS, 0, 1, GET) + frame(
        rules.DATA, 0, 1, bytes(WIDE)), GOAWAY(rules.SIZE)),
}  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 7000], ids=["whole", "by 1", "by 7000"])
@pytest.mark.parametrize("name", WIDE_FRAMES)
def test_wide_frames_are_taken_where_they_are_announced(name, size):
    data, expected = WIDE_FRAMES[name]
    sent, events = run(PREFACE + SETTLED + data, size, max_frame=WIDE, max_block=30000,
                       max_head=32768, max_line=32768)  # fmt: skip
    said = dict(struct.iter_unpack(">HI", frames_of(sent)[0][3]))
    assert said[5] == WIDE
    assert outcome(sent) == expected
    if expected is OPEN:
        assert events[0][0] == "head" and isinstance(events[0][2], dict)
        pieces = [it[2] for it in events if it[0] == "body"]
        assert sum(map(len, pieces)) in (0, WIDE)
        assert all(len(it) <= 16384 for it in pieces)         # whoever takes them has such room


def test_settings_and_pings_are_acknowledged():
    sent, _ = run(PREFACE + SETTLED + frame(rules.PING, 0, 0, b"12345678"))
    kinds = frames_of(sent)
    assert (rules.SETTINGS, rules.ACK, 0, b"") in kinds
    assert (rules.PING, rules.ACK, 0, b"12345678") in kinds
    assert kinds[0][0] == rules.SETTINGS                     # ours come first


# -- heads -----------------------------------------------------------------------------------

def head(block: bytes, **bounds) -> dict | str:
    """What the owner is told of one request."""
    events = run(PREFACE + SETTLED + request(1, block), **bounds)[1]
    return next(event[2] for event in events if event[0] == "head")


def test_a_head_says_what_http_1_would_say():
    said = head(
        field(b":method", b"PUT") + rules.SCHEME + field(b":path", b"/a?b") + rules.HOST
        + field(b"x-a", b"1") + field(b"te", b"trailers")
    )  # fmt: skip
    assert said["line"] == b"PUT /a?b HTTP/2.0"
    assert (said["method"], said["target"], said["host"]) == (b"PUT", b"/a?b", b"a.example")
    assert said["fields"] == [(b"x-a", b"1"), (b"te", b"trailers"), (b"host", b"a.example")]
    assert said["hop"] == [b"te"]
    assert said["flags"] == {"keep_alive", "has_host", "te_trailers"}


def test_an_extended_connect_is_the_get_of_an_upgrade():
    block = (rules.CONNECT + rules.WEBSOCKET + rules.SCHEME + field(b":path", b"/chat?a=b")
             + rules.HOST + field(b"sec-websocket-version", b"13") + field(b"cookie", b"a=1")
             + field(b"Sec-WebSocket-Key".lower(), b"of the client") + field(b"cookie", b"b=2"))
    said = head(block)
    assert said["line"] == b"GET /chat?a=b HTTP/2.0"
    key = b"A" * 22 + b"=="                                  # whoever asks puts a good one there
    assert said["fields"] == [
        (b"sec-websocket-version", b"13"), (b"cookie", b"a=1; b=2"), (b"host", b"a.example"),
        (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-key", key),
    ]  # fmt: skip
    assert said["hop"] == [b"upgrade", b"connection"]
    assert said["flags"] == {"keep_alive", "has_host", "upgrade"}


def test_an_extended_connect_of_another_protocol_is_not_implemented():
    block = rules.CONNECT + field(b":protocol", b"connect-udp") + rules.SCHEME + rules.PATH
    assert head(block + rules.HOST) == "NOT_IMPLEMENTED"


def test_crumbs_become_one_cookie():
    said = head(GET + field(b"cookie", b"a=1") + field(b"x", b"y") + field(b"cookie", b"b=2")
                + field(b"cookie", b"c=3"))  # fmt: skip
    assert said["fields"] == [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"y"), (b"host", b"a.example")]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (rules.METHOD + rules.SCHEME + rules.PATH, "BAD_REQUEST"),              # no host at all
        (GET + field(b"host", b"b.example"), "BAD_REQUEST"),                    # two of them
        (GET + field(b"host", b"a.example") * 2, "BAD_REQUEST"),
        (rules.METHOD + rules.SCHEME + rules.PATH + field(b":authority", b"u@a"), "BAD_REQUEST"),
        (rules.METHOD + rules.SCHEME + rules.PATH + field(b":authority", b""), "BAD_REQUEST"),
        (rules.METHOD + rules.SCHEME + field(b":path", b"a") + rules.HOST, "BAD_REQUEST"),
        (rules.METHOD + rules.SCHEME + field(b":path", b"http://b/") + rules.HOST, "BAD_REQUEST"),
        (rules.METHOD + rules.SCHEME + field(b":path", b"/ HTTP/1.1") + rules.HOST, "BAD_REQUEST"),
        (field(b":method", b"G T") + rules.SCHEME + rules.PATH + rules.HOST, "BAD_REQUEST"),
        (field(b":method", b"get") + rules.SCHEME + rules.PATH + rules.HOST, "BAD_REQUEST"),
        (field(b":method", b"G" * 300) + rules.SCHEME + rules.PATH + rules.HOST, "BAD_REQUEST"),
        (GET + field(b"expect", b"a") * 2, "BAD_REQUEST"),
        (GET + field(b"a", b"b") * 50, "TOO_MANY_FIELDS"),
        (rules.METHOD + rules.SCHEME + field(b":path", b"/" * 500) + rules.HOST, "URI_TOO_LARGE"),
    ],
)
def test_heads_that_are_answered_with_a_status(block, fault):
    said = head(block, max_line=400, max_head=2000, max_fields=40)
    assert said == fault


def test_a_host_that_says_the_same_stands_once():
    said = head(GET + field(b"host", b"a.example"))
    assert said["fields"] == [(b"host", b"a.example")]
    said = head(rules.METHOD + rules.SCHEME + rules.PATH + field(b"host", b"b.example"))
    assert said["host"] == b"b.example"


def test_names_that_nginx_calls_invalid():
    block = GET + field(b"a_b", b"1") + field(b"a.b", b"2") + field(b"ab", b"3")
    names = [name for name, _ in head(block)["fields"]]
    assert names == [b"ab", b"host"]
    assert [n for n, _ in head(block, underscores_allowed=True)["fields"]] == [
        b"a_b", b"ab", b"host"]  # fmt: skip
    assert [n for n, _ in head(block, ignore_invalid=False)["fields"]] == [
        b"a_b", b"a.b", b"ab", b"host"]  # fmt: skip


def test_a_table_is_right_behind_heads_that_are_refused():
    """A block that is dropped still fills the table that the next one uses."""
    keep = b"\x40" + rules.string(b"x-kept") + rules.string(b"v")
    for wrong in (GET + keep + field(b"A", b""), GET + keep + field(b"a", b"b") * 20):
        data = PREFACE + SETTLED + request(1, wrong) + request(3, GET + b"\xbe")
        events = run(data, max_fields=10)[1]
        said = next(event for event in events if event[:2] == ("head", 3))
        assert (b"x-kept", b"v") in said[2]["fields"]


@pytest.mark.parametrize(
    ("value", "urgency"),
    [(b"u=0", 0), (b"u=7", 7), (b"i, u=1", 1), (b"u=5,i", 5), (b"u=9", 3), (b"", 3), (b"xu=1", 3),
     (b"u", 3), (b"u=", 3)],
)  # fmt: skip
def test_urgency(value, urgency):
    assert head(GET + field(b"priority", value))["urgency"] == urgency


@pytest.mark.parametrize(
    ("value", "is_incremental"),
    [(b"i", 1), (b"u=1, i", 1), (b"u=1,i", 1), (b"i;a=1", 1), (b"i=?1", 1), (b"i=?0", 0),
     (b"", 0), (b"u=1", 0), (b"hi", 0), (b"it", 0), (b"u=1, i=?0", 0)],
)  # fmt: skip
def test_incremental(value, is_incremental):
    assert head(GET + field(b"priority", value))["incremental"] == bool(is_incremental)


# -- malformed requests ------------------------------------------------------------------------

def frames_behind(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """What is sent on stream 1."""
    sent, _ = run(PREFACE + SETTLED + data)
    return [it for it in frames_of(sent) if it[2] == 1 and it[0] != rules.WINDOW_UPDATE]


@pytest.mark.parametrize(
    "data",
    [request(1, GET + field(b"A", b"")), request(1, rules.SCHEME + rules.PATH),
     rules.post(1, field(b"content-length", b"1")) + frame(0, 1, 1, b"xy"),
     rules.post(1, field(b"content-length", b"3")) + frame(0, 1, 1, b"xy"),
     rules.post() + request(1, field(b"A", b"b"))],
    ids=["head", "no method", "too long a body", "too short a body", "trailers"],
)  # fmt: skip
def test_malformed_requests_are_answered_before_their_reset(data):
    """RFC 9113 §8.1.1 lets a server say more than RST_STREAM does."""
    said = frames_behind(data)
    assert [kind for kind, *_ in said] == [rules.HEADERS, rules.RST_STREAM]
    assert said[0][1] & rules.END_STREAM


def test_what_follows_a_malformed_request_is_dropped():
    sent, events = run(PREFACE + SETTLED + rules.post(1, field(b"X", b""))
                       + frame(0, 0, 1, b"abc") + frame(0, 1, 1, b"d") + request(3))
    assert outcome(sent) == RESET(1, rules.PROTOCOL)
    assert [event[0] for event in events] == ["head", "head"]


# -- SETTINGS of ours --------------------------------------------------------------------------

def test_a_body_is_not_taken_before_the_client_knows_its_small_window():
    """It may be sent again; a window of the usual size, or its acknowledgement, lets it in."""
    body = rules.post() + frame(0, 1, 1, b"x")
    assert outcome(run(PREFACE + SETTLED + body, window=10)[0]) == RESET(1, rules.REFUSED)
    assert outcome(run(PREFACE + SETTLED + request(), window=10)[0]) == OPEN
    for data, window in ((SETTLED + frame(4, rules.ACK) + body, 10), (SETTLED + body, 65535)):
        sent, events = run(PREFACE + data, window=window)
        assert outcome(sent) == OPEN
        assert events[-1] == ("body", 1, b"x", True)


def test_a_head_is_as_few_frames_as_the_peer_takes():
    for most, frames in ((16384, 3), (1 << 17, 1)):
        server = Connection()
        server.feed(PREFACE + rules.setting(5, most) + request())
        server.answer(1, [(b":status", b"200"), (b"x-long", b"{" * 40000)])
        said = [len(it[3]) for it in frames_of(server.sent) if it[0] in (1, 9)]
        assert len(said) == frames
        assert max(said) <= most


# -- what goes out, with the h2 library at the other end ----------------------------------------

class Pair:
    """Our side and the witness, connected."""

    def __init__(self, **bounds) -> None:
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.server = Connection(**bounds)
        self.told: list[tuple] = []
        self.heard: list[h2.events.Event] = []
        self.pump()

    def pump(self) -> None:
        """Carry bytes until nobody has any."""
        while True:
            sent = self.client.data_to_send()
            self.told += self.server.feed(sent) if sent else []
            back = self.server.sent
            if back:
                self.heard += self.client.receive_data(back)
            if not sent and not back:
                return

    def ask(self, number: int = 1, end: bool = True, **fields: str) -> None:
        block = {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "a", **fields}
        self.client.send_headers(number, list(block.items()), end_stream=end)
        self.pump()

    def of(self, kind: type) -> list:
        return [event for event in self.heard if isinstance(event, kind)]


def test_an_answer_with_a_long_head_and_a_body():
    pair = Pair()
    pair.ask()
    pair.server.answer(1, [(b":status", b"200"), (b"X-Long", b"z" * 40000),
                           (b"Set-Cookie", b"a=b")])
    assert pair.server.send(1, b"d" * 40000) == 40000
    pair.server.end(1)
    pair.pump()
    (response,) = pair.of(h2.events.ResponseReceived)
    assert response.headers == [
        (b":status", b"200"), (b"x-long", b"z" * 40000), (b"set-cookie", b"a=b")]  # fmt: skip
    assert b"".join(e.data for e in pair.of(h2.events.DataReceived)) == b"d" * 40000
    assert len(pair.of(h2.events.StreamEnded)) == 1
    assert pair.server.n_open == 0


def test_the_end_goes_on_the_last_frame():
    pair = Pair()
    pair.ask()
    pair.server.answer(1, [(b":status", b"204")])
    pair.server.end(1)
    assert [kind for kind, *_ in frames_of(pair.server.sent)] == [rules.HEADERS]
    pair.ask(3)
    pair.server.answer(3, [(b":status", b"200")])
    pair.server.send(3, b"x")
    pair.server.end(3)
    sent = frames_of(pair.server.sent)
    assert [(kind, flags) for kind, flags, _, _ in sent] == [(1, 4), (0, rules.END_STREAM)]


def test_windows_hold_the_answer_back():
    pair = Pair()
    pair.ask(1)
    pair.ask(3)
    pair.server.answer(1, [(b":status", b"200")])
    assert pair.server.send(1, bytes(100000)) == 65535       # both windows are as wide
    pair.server.answer(3, [(b":status", b"200")])
    assert pair.server.send(3, b"x") == 0                    # the connection's is closed
    pair.pump()
    pair.client.increment_flow_control_window(1000)
    pair.pump()
    assert ("room", 0) in pair.told
    assert pair.server.send(1, b"x") == 0                    # its own is not open yet
    assert pair.server.send(3, bytes(5000)) == 1000
    pair.client.increment_flow_control_window(10, 1)
    pair.client.increment_flow_control_window(5000)
    pair.pump()
    assert pair.server.send(1, bytes(100)) == 10


def test_settings_move_the_windows_of_open_streams():
    pair = Pair()
    pair.ask(1)
    pair.server.answer(1, [(b":status", b"200")])
    assert pair.server.send(1, bytes(1000)) == 1000
    pair.client.update_settings({4: 500})                    # now it is at -500
    pair.pump()
    assert pair.server.send(1, b"x") == 0
    pair.client.update_settings({4: 1001})
    pair.pump()
    assert pair.server.send(1, bytes(10)) == 1


def test_a_taken_body_gives_its_window_back():
    pair = Pair(window=1000)
    pair.ask(1, end=False)
    pair.client.send_data(1, bytes(1000))
    pair.pump()
    assert pair.client.local_flow_control_window(1) == 0
    pair.server.take(1, 400)
    pair.pump()
    assert pair.client.local_flow_control_window(1) == 0     # not worth a frame yet
    pair.server.take(1, 200)
    pair.pump()
    assert pair.client.local_flow_control_window(1) == 600
    assert pair.client.outbound_flow_control_window > 1 << 30  # the connection's is always given


def test_frames_are_no_longer_than_asked():
    pair = Pair()
    pair.ask()
    pair.server.answer(1, [(b":status", b"200")])
    pair.server.send(1, bytes(100), 30)
    sizes = [len(payload) for kind, _, _, payload in frames_of(pair.server.sent) if kind == 0]
    assert sizes == [30, 30, 30, 10]


def test_parting_takes_what_was_said_to_be_taken():
    pair = Pair()
    pair.ask(1)
    pair.server.part()
    pair.pump()
    assert pair.of(h2.events.ConnectionTerminated)[0].last_stream_id == 1
    data = request(3)
    assert pair.server.feed(data) == []
    assert outcome(pair.server.sent) == RESET(3, rules.REFUSED)


def test_each_request_is_told_with_its_end():
    pair = Pair()
    pair.ask(1, end=False, **{"content-length": "6"})
    for piece in (b"ab", b"cdef"):
        pair.client.send_data(1, piece, end_stream=piece == b"cdef", pad_length=7)
    pair.pump()
    assert joined(pair.told)[-1] == ("body", 1, b"abcdef", True)


def test_cancelled_streams_count_on_for_a_while():
    """Upstreams may be busy with them still: no more than 32 are begun beyond the others."""
    asked = b"".join(request(i) + rules.reset(i) for i in range(1, 201, 2))
    sent, events = run(PREFACE + SETTLED + asked, max_streams=5, max_resets=1000, max_control=1000)
    assert len([event for event in events if event[0] == "head"]) == 37
    assert outcome(sent) == RESET(199, rules.REFUSED)


def test_the_saved_corpus_and_its_mutations():
    corpus = fuzz_h2.FUZZ.saved() + fuzz_h2.beginnings()
    assert len(corpus) > 150
    chance = random.Random(3)
    for data in corpus:
        fuzz_h2.check(data, chance)
    for _ in range(3000):
        fuzz_h2.check(fuzz_h2.FUZZ.mutated(chance.choice(corpus), corpus, chance), chance)

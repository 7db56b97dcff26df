"""Fuzz target of HTTP/2: `PYTHONPATH=. python tests/wire/fuzz_h2.py SECONDS [SEED]`.

Mutates runs of frames and holds these promises: what is said and sent does not depend on how the
bytes are cut; no answer is longer than what it answers allows; a request that we take, the h2
library takes too, with the same pseudo-fields and the same bytes of body, unless one of the two
ended its stream. An input that breaks one is printed and saved beside the corpus.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2_rules as rules
from fuzzing import Fuzz, fuzz

from proxy.wire.h2_door import Connection

CORPUS = Path(__file__).parent / "corpus_h2"
BEGIN = rules.PREFACE + rules.SETTLED
BOUNDS = {"max_streams": 20, "max_control": 60, "max_resets": 20, "window": 65535}
OUT_MOST = 4096  # bytes beside what PINGs and bodies bring back
TOKENS = [
    rules.request(1), rules.request(3), rules.post(5), rules.reset(1), rules.update(0, 5),
    rules.update(1, 1), rules.frame(6, 0, 0, bytes(8)), rules.frame(4), rules.setting(4, 10),
    rules.frame(0, 0, 5, b"abc"), rules.frame(0, 1, 5, b"x"), rules.frame(9, 4, 1, b"\x82"),
    rules.frame(1, 0, 7, rules.GET), rules.priority(1, 3), b"\0", b"\xff", b"\x82", b"\0\0\0\1",
    rules.field(b"a", b"b"), rules.field(b"content-length", b"1"), b"\x7f\xff\xff\xff",
    rules.extended(),
]  # fmt: skip


def run(data: bytes, pieces: list[bytes]) -> tuple[bytes, list[tuple]]:
    """What a server sends, and what its owner is told; bodies as they were taken, in one piece."""
    connection = Connection(**BOUNDS)
    sent, told = connection.sent, []
    for piece in pieces:
        for event in connection.feed(piece):
            if event[0] == "body" and told and told[-1][:2] == event[:2]:
                event = ("body", event[1], told.pop()[2] + event[2], event[3])
            told.append(event)
        sent += connection.sent
        if told and told[-1][0] == "broken":
            break
    return sent, told


def taken(told: list[tuple]) -> dict[int, tuple]:
    """Requests that were not reset: stream → method, target, body, is it whole."""
    found: dict[int, list] = {}
    for event in told:
        if event[0] == "head" and isinstance(event[2], dict):
            found[event[1]] = [event[2]["method"], event[2]["target"], b"", event[3]]
        elif event[0] == "body" and event[1] in found:
            found[event[1]][2] += event[2]
            found[event[1]][3] |= event[3]
        elif event[0] in ("reset", "wrong"):
            found.pop(event[1], None)
    return {number: tuple(it) for number, it in found.items()}


def witness(data: bytes) -> dict[int, tuple] | None:
    """The same by the h2 library; None when it found the connection wrong."""
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    server = h2.connection.H2Connection(config)
    server.initiate_connection()
    found: dict[int, list] = {}
    try:
        for event in server.receive_data(data):
            number = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.RequestReceived):
                fields = dict(event.headers)
                # an extended CONNECT is told as the GET of an upgrade
                method = b"GET" if b":protocol" in fields else fields.get(b":method")
                found[number] = [method, fields.get(b":path"), b"", False]
            elif isinstance(event, h2.events.DataReceived) and number in found:
                found[number][2] += event.data
            elif isinstance(event, h2.events.StreamEnded) and number in found:
                found[number][3] = True
            elif isinstance(event, h2.events.StreamReset):
                found.pop(number, None)
            elif isinstance(event, h2.events.ConnectionTerminated):
                return None  # behind GOAWAY it takes nothing more; we do
    except (h2.exceptions.ProtocolError, h2.exceptions.H2Error, ValueError, KeyError):
        return None
    return {number: tuple(it) for number, it in found.items()}


def check(data: bytes, chance: random.Random) -> tuple:
    """Hold the promises for one input; gives a hashable note of what happened."""
    data = BEGIN + data
    sent, told = run(data, [data])
    for _ in range(2):
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        again = run(data, pieces)
        assert again == (sent, told), f"split changes the outcome: {pieces}"
    assert len(sent) <= OUT_MOST + 2 * len(data)
    ended = told[-1] if told and told[-1][0] == "broken" else None
    theirs = None
    if ended is None:  # whole frames alone: of a DATA frame we tell what is there of it
        whole = BEGIN + data[len(BEGIN) :][: boundaries(data[len(BEGIN) :])[-1]]
        told = run(whole, [whole])[1]
        theirs = witness(whole)
    if theirs is not None:
        for number, ours in taken(told).items():
            assert number in theirs, f"the witness does not take stream {number}"
            assert ours == theirs[number]
    return (
        ended, theirs is None, tuple(sorted({event[0] for event in told})),
        min(len(taken(told)), 3), tuple(e[2] for e in told if e[0] == "reset")[:2],
    )  # fmt: skip


def boundaries(data: bytes | bytearray) -> list[int]:
    """Where frames begin, as far as they are ones."""
    found, at = [0], 0
    while at + 9 <= len(data):
        at += 9 + int.from_bytes(data[at : at + 3], "big")
        if at <= len(data):
            found.append(at)
    return found


def beginnings() -> list[bytes]:
    """The table of rules, as far as it is short: where a first corpus comes from."""
    return [rule[2] for rule in rules.RULES if len(rule[2]) < 1000]


FUZZ = Fuzz(CORPUS, "frames", TOKENS, check, most=3000, lent=80, places=boundaries)

if __name__ == "__main__":
    sys.exit(fuzz([FUZZ], beginnings()))

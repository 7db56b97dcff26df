"""Fuzz target of WebSocket frames: `PYTHONPATH=.:tests python FILE SECONDS [SEED]`, this FILE.

An input is one side's bytes behind a byte that says which side. Two promises: what is said of it
does not depend on how it is cut, and wsproto says the same: which messages and frames pass, and
with which code the rest is answered. An input that breaks one is printed and saved.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fuzzing import Fuzz, fuzz
from websocket_frames import BAD, GOOD, KEY, written
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from proxy.wire.websocket_door import Checker

CORPUS = Path(__file__).parent / "corpus_websocket"
FILLER = b"a" * 160  # ends any control frame
UNKNOWN_TO_WSPROTO = 1014  # a code that the registry has and wsproto refuses
CUT_BYTES = 300  # of the beginning and of the end, cut at each
TOKENS = [
    b"\x81", b"\x01", b"\x82", b"\x80", b"\x00", b"\x88", b"\x89\x80", b"\x8a", b"\xfe", b"\xff",
    b"\x7e\x00\x7e", b"\xfe\x00\x7e", b"\xff\x00\x00\x00\x00\x00\x01\x00\x00", b"\x37\xfa\x21\x3d",
    b"\x00\x00\x00\x00", b"\x03\xe8", b"\xe2\x82\xac", b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80", b"a" * 9,
]  # fmt: skip


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """data whole, in single bytes if it is short, and in two at each byte near its ends."""
    yield [data]
    if len(data) <= CUT_BYTES:
        yield [data[i : i + 1] for i in range(len(data))]
    for at in {*range(1, min(len(data), CUT_BYTES)), *range(max(len(data) - 40, 1), len(data))}:
        yield [data[:at], data[at:]]


def said_by_us(pieces: list[bytes], is_client: bool) -> list:
    """("message", opcode, bytes), (opcode, bytes) of a control frame, ("close", code), or last
    the code of a fault."""
    checker = Checker(is_client)
    found: list = []
    message = [0, 0]
    opcode = n = is_final = 0
    for piece in pieces:
        for it in checker.read(piece):
            if isinstance(it, int):
                return [*found, it]
            if it[0] == "head":
                _, opcode, is_final, n = it
                if opcode in (1, 2):
                    message = [opcode, 0]
                message[1] += n if opcode < 8 else 0
            elif it[0] == "close":
                found.append(it)
            elif opcode > 8:
                found.append((opcode, n))
            elif is_final:
                found.append(("message", *message))
    return found


def said_by_wsproto(pieces: list[bytes], is_client: bool) -> list:
    """The same."""
    protocol = FrameProtocol(client=not is_client, extensions=[])
    found: list = []
    n = 0
    try:
        for piece in pieces:
            protocol.receive_bytes(piece)
            for it in protocol.received_frames():
                if it.opcode is Opcode.CLOSE:
                    return [*found, ("close", int(it.payload[0]))]
                if it.opcode.iscontrol():
                    found.append((int(it.opcode), len(it.payload)))
                    continue
                data = it.payload
                n += len(data.encode() if isinstance(data, str) else data)
                if it.message_finished:
                    found.append(("message", int(it.opcode), n))
                    n = 0
    except ParseFailed as error:
        return [*found, int(error.code)]
    return found


def says_1014(data: bytes, is_client: bool) -> bool:
    checker = Checker(is_client)
    checker.read(data)
    return checker.close_code == UNKNOWN_TO_WSPROTO


def check(data: bytes) -> tuple:
    """Hold the promises for one input; gives a hashable note of what happened."""
    if not data:
        return ()
    is_client, data = bool(data[0] & 1), data[1:]
    whole = said_by_us([data], is_client)
    for pieces in cuts(data):
        assert said_by_us(pieces, is_client) == whole, pieces
    is_wrong = bool(whole) and isinstance(whole[-1], int)
    # it waits for whole frames where we see at once that they are wrong
    theirs = said_by_wsproto([data, FILLER] if is_wrong else [data], is_client)
    if not says_1014(data, is_client):
        # Python's decoder lets half a surrogate wait for its other bytes
        is_late = whole[-1:] == [1007] and theirs == [*whole[:-1], 1002]
        assert theirs == whole or is_late, (whole, theirs)
    last = whole[-1] if whole else 0
    return (is_client, min(len(whole), 4), last if isinstance(last, int) else last[0])


def beginnings() -> list[bytes]:
    """The table of the rules, from both sides: where a first corpus comes from."""
    found = []
    for _, frames, *_ in [*GOOD, *BAD]:
        found += [b"\1" + written(frames, KEY), b"\0" + written(frames)]
    return [data for data in found if len(data) < 300]


FUZZ = Fuzz(CORPUS, "frames", TOKENS, lambda data, chance: check(data), most=600)

if __name__ == "__main__":
    sys.exit(fuzz([FUZZ], beginnings()))

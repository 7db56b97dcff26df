"""The frames of WebSockets: rules by table, each input whole and cut at every byte, and wsproto."""

from __future__ import annotations

import random

import fuzz_websocket
import pytest
from fuzz_websocket import cuts, said_by_us, said_by_wsproto
from websocket_frames import BAD, BAD_LENGTHS, CODES_GOOD, GOOD, KEY, frame, written

from proxy.wire.websocket_door import Checker, write_close, write_ping

SIDES = [pytest.param(KEY, id="client"), pytest.param(None, id="upstream")]


def outcomes(data: bytes, is_client: bool, **more) -> list[list]:
    """What is said of data: whole, and cut in two at every byte of its beginning and end."""
    found = []
    for pieces in cuts(data):
        checker = Checker(is_client, **more)
        said: list = []
        for piece in pieces:
            said += checker.read(piece)
            if said and isinstance(said[-1], int):
                break
        found.append(said)
    return found


@pytest.mark.parametrize("key", SIDES)
@pytest.mark.parametrize(("name", "frames"), GOOD, ids=[it[0] for it in GOOD])
def test_what_may_pass(name, frames, key):
    data = written(frames, key)
    expected = []
    for opcode, payload, bits in frames:
        expected.append(("head", opcode, bool(bits), len(payload)))
        if opcode == 8:
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            expected.append(("close", code))
        else:
            expected.append(("end",))
    for said in outcomes(data, key is not None):
        assert said == expected


@pytest.mark.parametrize("key", SIDES)
@pytest.mark.parametrize(("name", "frames", "code"), BAD, ids=[it[0] for it in BAD])
def test_what_ends_the_connection(name, frames, code, key):
    data = written(frames, key)
    n_good = 2 * (len(frames) - 1)  # events of the frames before the last
    for said in outcomes(data, key is not None):
        assert said[-1] == code
        assert len(said) - n_good in (1, 2)
        assert ("close", 1000) not in said


@pytest.mark.parametrize(("name", "head"), BAD_LENGTHS, ids=[it[0] for it in BAD_LENGTHS])
def test_a_length_has_one_spelling(name, head):
    for said in outcomes(head + KEY + b"a", True):
        assert said == [1002]
    for said in outcomes(bytes([head[0], head[1] & 127]) + head[2:] + b"a", False):
        assert said == [1002]


def test_clients_mask_and_upstreams_do_not():
    assert Checker(True).read(frame(1, b"a")) == [1002]
    assert Checker(False).read(frame(1, b"a", key=KEY)) == [1002]


def test_what_is_wrong_is_known_before_the_payload():
    assert Checker(True).read(b"\x83") == [1002]
    assert Checker(True).read(b"\x89\xfe") == [1002], "a ping of 126 bytes"
    text = frame(1, b"a" * 64 + b"\xff" + b"b" * 1000, key=KEY)
    assert Checker(True).read(text[: 8 + 65])[-1] == 1007


def test_nothing_is_read_behind_a_close():
    checker = Checker(True)
    assert checker.read(frame(8, b"\x03\xe8", key=KEY) + b"\xff\xff")[-1] == ("close", 1000)
    assert checker.read(b"\xff" * 99) == []


def test_a_message_has_a_bound_over_its_fragments():
    checker = Checker(True, most=10)
    assert checker.read(frame(1, b"a" * 10, key=KEY))[-1] == ("end",)
    assert checker.read(frame(1, b"a" * 9, 0, KEY) + frame(9, b"p" * 20, key=KEY))[-1] == ("end",)
    assert checker.read(frame(0, b"a", 0, KEY))[-1] == ("end",), "a ping is no part of it"
    assert checker.read(frame(0, b"b", 0x80, KEY)[:6]) == [1009], "the head says it"
    huge = b"\x00\xff" + (2**63 - 1).to_bytes(8, "big") + KEY
    checker = Checker(True, most=10)
    assert checker.read(frame(2, b"a" * 9, 0, KEY))[-1] == ("end",)
    assert checker.read(huge) == [1009]


def test_compressed_messages_are_taken_as_they_are():
    packed = frame(1, b"\xff\xfe\x80", 0xC0, KEY)
    for said in outcomes(packed, True, is_deflate=True):
        assert said == [("head", 1, True, 3), ("end",)]
    plain = frame(1, b"\xff", 0x80, KEY)
    assert Checker(True, is_deflate=True).read(packed + plain)[-1] == 1007, "this one is text"
    both = frame(1, b"\xff", 0x40, KEY) + frame(0, b"\xfe", 0x80, KEY)
    assert Checker(True, is_deflate=True).read(both)[-1] == ("end",)
    for bad in (frame(1, b"a", 0x00, KEY) + frame(0, b"a", 0xC0, KEY), frame(9, b"", 0xC0, KEY)):
        assert Checker(True, is_deflate=True).read(bad)[-1] == 1002


@pytest.mark.parametrize("code", CODES_GOOD)
def test_a_close_of_ours_is_one_that_passes(code):
    assert Checker(False).read(write_close(code)) == [("head", 8, True, 2), ("close", code)]
    ours = write_close(code, 0xFF00AA13)
    assert Checker(True).read(ours) == [("head", 8, True, 2), ("close", code)]
    if code != 1014:
        assert said_by_wsproto([ours], True) == [("close", code)]


def test_a_ping_of_ours_is_one_that_passes():
    assert Checker(False).read(write_ping()) == [("head", 9, True, 0), ("end",)]


@pytest.mark.parametrize("key", SIDES)
def test_wsproto_agrees_with_the_table(key):
    for name, frames, *_ in [*GOOD, *BAD]:
        data = written(frames, key)
        if name != "code 1014":  # which it does not know
            assert said_by_us([data], bool(key)) == said_by_wsproto([data], bool(key)), name


def test_a_reader_is_small():
    assert Checker().memory <= 96


SAVED = fuzz_websocket.FUZZ.saved()


@pytest.mark.parametrize("at", range(len(SAVED)))
def test_saved_input(at):
    fuzz_websocket.check(SAVED[at])


def test_a_thousand_mutations():
    assert len(SAVED) > 10
    chance = random.Random(7)
    for _ in range(1000):
        fuzz_websocket.check(fuzz_websocket.FUZZ.mutated(chance.choice(SAVED), SAVED, chance))

"""Connection ids that name their worker, and the letters in which datagrams are passed on."""

from __future__ import annotations

import os

import pytest

from proxy.quic.endpoint import from_local, local_of
from proxy.quic.ids import ID_BYTES, Ids, read_beginning
from proxy.quic.mailbox import read_letter, write_letter

KEY = bytes(32)


@pytest.mark.parametrize("owner", [0, 1, 255, 256, 65535])
def test_an_id_names_its_owner_to_who_has_the_key(owner: int) -> None:
    made = Ids(owner, KEY).new()
    assert len(made) == ID_BYTES
    assert Ids(7, KEY).owner_of(made) == owner
    assert Ids(7, b"x" * 32).owner_of(made) == -1


def test_an_id_that_a_client_invented_names_nobody() -> None:
    ids = Ids(3, KEY)
    made = ids.new()
    assert all(ids.owner_of(os.urandom(ID_BYTES)) == -1 for _ in range(1000))
    assert all(ids.owner_of(made[:n]) == -1 for n in range(ID_BYTES))
    for at in range(ID_BYTES):                               # nor one that was changed
        changed = bytearray(made)
        changed[at] ^= 1
        assert ids.owner_of(bytes(changed)) == -1


def test_no_two_ids_are_alike() -> None:
    ids = Ids(3, KEY)
    assert len({ids.new() for _ in range(1000)}) == 1000


def test_a_reset_is_shorter_than_what_it_answers() -> None:
    ids = Ids(3, KEY)
    made = ids.new()
    for size in range(100):
        reset = ids.reset(made, size)
        assert reset is None if size < 22 else 21 <= len(reset) < size or len(reset) == 42
        assert reset is None or reset[-16:] == ids.reset_token(made)


LONG = b"\xc3" + (1).to_bytes(4, "big") + b"\x04dest" + b"\x04from" + b"rest"


def test_the_beginning_of_a_packet() -> None:
    assert read_beginning(LONG) == (True, b"dest", 1)
    assert read_beginning(b"\x40" + b"i" * ID_BYTES + b"rest") == (False, b"i" * ID_BYTES, 0)
    for size in range(10):
        assert read_beginning(LONG[:size]) is None
    for size in range(ID_BYTES + 1):
        assert read_beginning((b"\x40" + bytes(ID_BYTES))[:size]) is None
    assert read_beginning(b"\xc0" + bytes(4) + b"\x15" + bytes(40)) is None  # 21 bytes of id


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 65535), ("::1", 1, 0, 0), ("fe80::1%lo", 443, 7, 1)]
)
@pytest.mark.parametrize("local", [b"", bytes(4), bytes(range(16))])
@pytest.mark.parametrize("data", [b"", b"x", bytes(1500)])
def test_a_letter_says_all_of_its_datagram(address: tuple, local: bytes, data: bytes) -> None:
    letter = write_letter("127.0.0.1:443/udp", data, address, local)
    assert read_letter(letter) == ("127.0.0.1:443/udp", data, address, local)


def test_an_answer_leaves_from_the_address_that_was_asked() -> None:
    assert from_local(b"") == []
    (level, kind, data), = from_local(b"\x7f\0\0\2")
    assert local_of([(level, kind, data)]) == b"\x7f\0\0\2"
    (level, kind, data), = from_local(bytes(15) + b"\1")
    assert local_of([(level, kind, data)]) == bytes(15) + b"\1"
    assert local_of([(0, 99, b"")]) == b""

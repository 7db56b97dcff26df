"""HPACK: the RFC's own examples, the hpack library as witness, and blocks that mean harm."""

from __future__ import annotations

import random

import fuzz_hpack
import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from proxy.wire import _hpack
from proxy.wire.h2_door import Decoder, write_field, write_status

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
# RFC 7541 appendix C: (blocks in hex, what each says, the table behind them, its size)
EXAMPLES = {
    "C.2.1 with indexing": (
        ["400a637573746f6d2d6b65790d637573746f6d2d686561646572"],
        [[(b"custom-key", b"custom-header")]], [(b"custom-key", b"custom-header")], 55),
    "C.2.2 without indexing": (
        ["040c2f73616d706c652f70617468"], [[(b":path", b"/sample/path")]], [], 0),
    "C.2.3 never indexed": (
        ["100870617373776f726406736563726574"], [[(b"password", b"secret")]], [], 0),
    "C.2.4 indexed": (["82"], [[(b":method", b"GET")]], [], 0),
    "C.3 requests": (
        ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
         "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"],
        [[*GET, (b":authority", b"www.example.com")],
         [*GET, (b":authority", b"www.example.com"), (b"cache-control", b"no-cache")],
         [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"),
          (b":authority", b"www.example.com"), (b"custom-key", b"custom-value")]],
        [(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"),
         (b":authority", b"www.example.com")], 164),
    "C.4 requests, Huffman": (
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
         "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"],
        [[*GET, (b":authority", b"www.example.com")],
         [*GET, (b":authority", b"www.example.com"), (b"cache-control", b"no-cache")],
         [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"),
          (b":authority", b"www.example.com"), (b"custom-key", b"custom-value")]],
        [(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"),
         (b":authority", b"www.example.com")], 164),
}  # fmt: skip
# Blocks that must end the connection (COMPRESSION_ERROR)
WRONG = {
    "index 0": "80",
    "an index behind the tables": "be",
    "an index far behind them": "ffffffff07",
    "a literal with a name behind the tables": "7f0001",
    "an integer that goes on for ever": "ff80808080808080808001",
    "an integer that is cut": "ff80",
    "a string longer than the block": "4003616263ff",
    "a string without its length": "4003616263",
    "a name without a value": "000161",
    "a length without an end": "40ff",
    "EOS in a string": "4001618" + "4ffffffff"[:9],
    "padding longer than seven bits": "4001618" + "2ffff"[:5],
    "padding that is not ones": "40016181" + "18",
    "padding of zeros": "40016181" + "00",
    "a size update behind a field": "8220",
    "a size update beyond what we allow": "3fe21f",
    "a size update that is cut": "3f",
}


def said(fields):
    return [(name, value) for name, value, _ in fields]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_rfc(name):
    blocks, fields, table, size = EXAMPLES[name]
    decoder = Decoder()
    for block, expected in zip(blocks, fields, strict=True):
        assert said(decoder.read(bytes.fromhex(block))) == expected
    assert decoder.entries() == table
    assert decoder.size == size


def test_never_indexed_is_told():
    assert Decoder().read(bytes.fromhex(EXAMPLES["C.2.3 never indexed"][0][0]))[0][2]
    assert not Decoder().read(bytes.fromhex(EXAMPLES["C.2.1 with indexing"][0][0]))[0][2]


def test_eviction_as_in_c_5():
    """The responses of appendix C.5, with a table of 256 bytes."""
    decoder = Decoder()
    assert decoder.read(bytes.fromhex("3fe101")) == []
    first = bytes.fromhex(
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d"
    )
    assert said(decoder.read(first))[0] == (b":status", b"302")
    assert decoder.size == 222
    assert said(decoder.read(bytes.fromhex("4803333037c1c0bf")))[0] == (b":status", b"307")
    assert decoder.size == 222
    assert (b":status", b"302") not in decoder.entries()


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name):
    assert Decoder().read(bytes.fromhex(WRONG[name])) == "wrong"


@pytest.mark.parametrize("name", ["C.3 requests", "C.4 requests, Huffman", "C.2.3 never indexed"])
def test_a_block_cut_anywhere_is_never_read_as_more(name):
    """Each beginning of a block is either wrong or says a beginning of what the block says."""
    block = bytes.fromhex(EXAMPLES[name][0][0])
    whole = Decoder().read(block)
    for n in range(len(block)):
        found = Decoder().read(block[:n])
        assert found == "wrong" or found == whole[: len(found)]
        assert found != whole


def test_each_symbol_has_the_code_of_the_rfc():
    for symbol in range(256):
        # a run of eight of them ends on a whole byte
        bits = f"{REQUEST_CODES[symbol]:0{REQUEST_CODES_LENGTH[symbol]}b}" * 8
        coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
        block = b"\x00\x01a" + bytes([0x80 | len(coded)]) + coded
        assert said(Decoder().read(block)) == [(b"a", bytes([symbol]) * 8)]


def test_the_static_table_is_the_rfcs():
    for at, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1):
        assert said(Decoder().read(bytes([0x80 | at]))) == [(name, value)]
    assert len(HeaderTable.STATIC_TABLE) == len(_hpack.STATIC)


def test_any_bytes_as_codes_end_as_the_witness_ends():
    chance = random.Random(5)
    for _ in range(4000):
        coded = bytes(chance.choice((chance.randrange(256), 0xFF)) for _ in range(
            chance.randrange(1, 9)))  # fmt: skip
        ours = Decoder().read(b"\x00\x01a" + bytes([0x80 | len(coded)]) + coded)
        try:
            theirs = hpack.huffman_table.decode_huffman(coded)
        except hpack.HPACKDecodingError:
            theirs = None
        assert (said(ours)[0][1] if isinstance(ours, list) else None) == theirs


def some_fields(chance: random.Random) -> list[tuple[bytes, bytes]]:
    names = [b"cookie", b"x-a", b"accept", b"user-agent", b"x" * 200, b"date", b"via"]
    alphabets = (bytes(range(97, 123)), bytes(range(256)), b"0123456789")
    fields = []
    for _ in range(chance.randrange(1, 12)):
        n = chance.choice((0, 3, 30, 900))
        value = bytes(chance.choice(chance.choice(alphabets)) for _ in range(n))
        fields.append((chance.choice(names), value))
    return fields


def test_what_the_witness_writes_we_read_with_the_same_table():
    chance = random.Random(1)
    for _ in range(60):
        encoder, decoder = hpack.Encoder(), Decoder()
        for _ in range(40):
            if chance.random() < 0.2:
                encoder.header_table_size = chance.choice((0, 60, 300, 2000, 4096))
            fields = some_fields(chance)
            block = encoder.encode(fields, huffman=chance.random() < 0.5)
            assert said(decoder.read(block)) == fields
            assert decoder.entries() == list(encoder.header_table.dynamic_entries)
            assert decoder.size <= 4096
        assert decoder.memory <= 8192 + 128 * 16


def test_what_we_write_the_witness_reads():
    chance = random.Random(2)
    decoder = hpack.Decoder()
    for _ in range(400):
        for name, value in some_fields(chance):
            never = chance.random() < 0.5
            block = write_field(name.title(), value, never)
            found = decoder.decode(block, raw=True)
            assert found == [(name, value)]
            assert (not found[0].indexable) == never
            assert not decoder.header_table.dynamic_entries
    assert len(write_field(b"content-type", b"text/html")) < 2 + len(b"text/html")


def test_each_status_is_written_so_that_the_witness_reads_it():
    for status in range(100, 1000):
        block = write_status(status)
        assert hpack.Decoder().decode(block) == [(":status", str(status))]
        assert len(block) == 1 or status not in (200, 204, 206, 304, 400, 404, 500)


def test_a_bomb_fills_only_the_room_that_there_is():
    """One large entry, named over and over: what does not fit is said, not written."""
    decoder = Decoder()
    entry = b"\x40\x01a" + b"\x7f\xa1\x1e" + b"b" * 4000
    assert len(decoder.read(entry)) == 1
    assert decoder.read(b"\xbe" * 1000) != "wrong"
    assert decoder.read(b"\xbe", room=4000) == "no room"


def test_what_is_known_of_a_name_stays_known():
    """Notes and numbers of a name are the same whether it comes as letters or as an index."""
    table = {
        b"content-length": 3, b"x-a": 0, b"Bad": 0, b"a_b": 0, b"a.b": 0, b":path": 66,
        b":what": 70, b"": 0, b"a b": 0, b":protocol": 69,
    }  # fmt: skip
    for name, number in table.items():
        decoder = Decoder()
        decoder.read(b"\x40" + bytes([len(name)]) + name + b"\x00")
        first = decoder.last
        assert first["id"] == number
        decoder.read(b"\xbe")
        assert decoder.last == first
        decoder.read(b"\x0f\x2f\x01a")
        assert decoder.last == first
    good = {b"x-a", b":path", b":what", b"a_b", b"a.b", b"content-length", b":protocol"}
    for name in table:
        decoder = Decoder()
        decoder.read(b"\x40" + bytes([len(name)]) + name + b"\x00")
        assert bool(decoder.last["notes"] & 1) == (name in good), name


@pytest.mark.parametrize(
    ("value", "is_good"),
    [(b"a", 1), (b"", 1), (b"a b", 1), (b"a\tb", 1), (b"\xff", 1), (b" a", 0), (b"a ", 0),
     (b"\ta", 0), (b"a\n", 0), (b"a\rb", 0), (b"\0", 0), (b"a\x7f", 1), (b"a" * 40 + b"\n", 0)],
)  # fmt: skip
def test_values_that_are_none(value, is_good):
    decoder = Decoder()
    decoder.read(b"\x40\x01a" + bytes([len(value)]) + value)
    assert bool(decoder.last["notes"] & 8) == bool(is_good)


def test_the_saved_corpus_and_its_mutations():
    corpus = fuzz_hpack.FUZZ.saved()
    assert len(corpus) > 20
    for data in corpus:
        fuzz_hpack.check(data)
    chance = random.Random(11)
    for _ in range(2000):
        fuzz_hpack.check(fuzz_hpack.FUZZ.mutated(chance.choice(corpus), corpus, chance))

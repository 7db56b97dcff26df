"""The PROXY header: both versions, every split, and what is none."""

import struct

import pytest

from proxy.wire._proxy_protocol import find, read, read_tlvs, write

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes((0x20 | command, family)) + struct.pack(">H", len(body)) + body


FOUR = bytes((192, 0, 2, 1, 192, 0, 2, 2)) + struct.pack(">HH", 1234, 80)
SIX = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
SIX += struct.pack(">HH", 1, 65535)
GOOD = {
    "v1 four": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n",
                ("192.0.2.1", 1234, "192.0.2.2", 80)),
    "v1 six": (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
               ("2001:db8::1", 1, "2001:db8::2", 65535)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown with more": (b"PROXY UNKNOWN a b 1 2\r\n", None),
    "v2 four": (binary(1, 0x11, FOUR), ("192.0.2.1", 1234, "192.0.2.2", 80)),
    "v2 six": (binary(1, 0x21, SIX), ("2001:db8::1", 1, "2001:db8::2", 65535)),
    "v2 with tlv": (binary(1, 0x11, FOUR + b"\x02\0\x01x"),
                    ("192.0.2.1", 1234, "192.0.2.2", 80)),
    "v2 unix": (binary(1, 0x31, bytes(216)), ("unix:", 0, "unix:", 0)),
    "v2 local": (binary(0, 0, b""), None),
    "v2 unspecified": (binary(1, 0, b""), None),
}  # fmt: skip
BAD = {
    "request": b"GET / HTTP/1.1\r\n\r\n",
    "empty line": b"\r\nGET",
    "bare newline": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\n",
    "family": b"PROXY TCP5 192.0.2.1 192.0.2.2 1234 80\r\n",
    "address": b"PROXY TCP4 192.0.2.256 192.0.2.2 1234 80\r\n",
    "six as four": b"PROXY TCP4 ::1 ::1 1234 80\r\n",
    "port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 65536\r\n",
    "no port": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
    "word behind": b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80 x\r\n",
    "endless": b"PROXY UNKNOWN " + b"x" * 100,
    "v2 version": SIGNATURE + b"\x11\x11\0\x0c" + FOUR,
    "v2 command": binary(2, 0x11, FOUR),
    "v2 short": binary(1, 0x11, FOUR[:-1]),
    "v2 short six": binary(1, 0x21, SIX[:-1]),
    "v2 huge": SIGNATURE + b"\x21\x11\xff\xff",
}


@pytest.mark.parametrize("name", GOOD)
def test_header_is_read_at_every_split(name: str) -> None:
    data, expected = GOOD[name]
    for at in range(len(data)):
        assert read(data[:at]) == (0, None)
    assert read(data) == (len(data), expected)
    assert read(data + b"GET / HTTP/1.1") == (len(data), expected)


TLVS = b"\x01\0\x02h2" + b"\x04\0\0" + b"\xe0\0\x03abc" + b"\x01\0\x01x"


@pytest.mark.parametrize("addresses", [(0x11, FOUR), (0x21, SIX), (0x31, bytes(216))])
def test_what_follows_the_addresses_is_kept(addresses) -> None:
    family, body = addresses
    assert read_tlvs(binary(1, family, body + TLVS)) == TLVS
    assert read_tlvs(binary(1, family, body)) == b""
    assert read_tlvs(binary(0, family, body + TLVS)) == b""  # LOCAL: nobody is spoken for


def test_version_1_has_no_tlvs() -> None:
    assert read_tlvs(GOOD["v1 four"][0] + TLVS) == b""


def test_a_tlv_is_found_by_its_type_the_first_of_several() -> None:
    assert find(TLVS, 0x01) == b"h2"
    assert find(TLVS, 0x04) == b""
    assert find(TLVS, 0xE0) == b"abc"
    assert find(TLVS, 0x02) is None
    assert find(b"", 0x01) is None


def test_nothing_is_read_beyond_a_list_that_breaks_off() -> None:
    whole = b"\x05\0\x02id" + b"\x02\0\x04host"
    for cut in range(len(whole)):
        assert find(whole[:cut], 0x02) is None, cut
        assert find(whole[:cut], 0x05) == (b"id" if cut >= 5 else None), cut
    assert find(b"\x05\xff\xffid", 0x05) is None


@pytest.mark.parametrize("name", BAD)
def test_what_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="PROXY"):
        read(BAD[name])


@pytest.mark.parametrize(
    ("version", "source", "target", "expected"),
    [
        (1, b"192.0.2.1:1234", b"192.0.2.2:80", GOOD["v1 four"][0]),
        (1, b"[2001:db8::1]:1", b"[2001:db8::2]:65535", GOOD["v1 six"][0]),
        (1, b"unix:", b"unix:", GOOD["v1 unknown"][0]),
        (1, b"192.0.2.1:1", b"[::1]:2", GOOD["v1 unknown"][0]),
        (2, b"192.0.2.1:1234", b"192.0.2.2:80", binary(1, 0x11, FOUR)),
        (2, b"[2001:db8::1]:1", b"[2001:db8::2]:65535", binary(1, 0x21, SIX)),
        (2, b"unix:", b"unix:", binary(0, 0, b"")),
    ],
)
def test_header_is_written(version: int, source: bytes, target: bytes, expected: bytes) -> None:
    assert write(version, source, target) == expected

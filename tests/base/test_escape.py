"""Escaping in URIs: what each place needs percent-encoded, and the way back."""

import pytest

from proxy.base._escape import escape, unescape

PRINTABLE = bytes(range(0x20, 0x7F))


@pytest.mark.parametrize(
    ("kind", "escaped"),
    [
        ("uri", b' "#%<>?\\^`{|}'),
        ("args", b' "#%&+;<>?\\^`{|}'),
        ("component", b" !\"#$%&'()*+,/:;<=>?@[\\]^`{|}"),
        ("html", b" \"#%'<>\\^`{|}"),
        ("refresh", b" \"'<>\\^`{|}"),
    ],
)
def test_escape(kind, escaped):
    for code in range(256):
        char = bytes([code])
        if char in PRINTABLE and char not in escaped:
            assert escape(char, kind) == char
        else:
            assert escape(char, kind) == b"%%%02X" % code


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("all", b"a%20b+c%3F?", b"a b+c??"),
        ("all", b"%", b""),
        ("all", b"%4", b""),
        ("all", b"%zz", b"zz"),
        ("all", b"%4zz", b"z"),
        ("uri", b"a%20?b%20", b"a ?"),
        ("uri", b"a%3fb", b"a?"),
        ("redirect", b"%41%20%25%7f%26?%41", b"A%20%25%7f&?"),
    ],
)
def test_unescape(kind, text, found):
    assert unescape(text, kind) == found


def test_what_is_escaped_comes_back():
    everything = bytes(range(256))
    for kind in ("uri", "args", "component", "html"):
        assert unescape(escape(everything, kind)) == everything

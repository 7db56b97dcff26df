"""Log formats, line by line: what stands in a line, and how it is escaped (nginx: log_format)."""

from __future__ import annotations

import json

import pytest

from proxy.observe._format import Format
from proxy.observe.directives import COMBINED
from proxy.variables import _core, _lines  # noqa: F401  (they declare the names)
from proxy.variables._variables import begin_plan
from proxy.variables._variables import compile as compile_text
from proxy.variables.door import Probe

HEAD = b"GET /x HTTP/1.1\r\nHost: a.example\r\n%b\r\n"


@pytest.fixture(autouse=True)
def _plan():
    begin_plan()


def line(text: str, head: bytes = HEAD % b"", escape: str = "default", **more) -> bytes:
    probe = Probe(head, **more)  # owns what the request points into
    return Format(compile_text(text), escape).line(probe.request)


def test_combined():
    head = HEAD % b"Referer: http://r/\r\nUser-Agent: curl/8\r\nAuthorization: Basic dTpw\r\n"
    before, _, after = line(COMBINED, head).partition(b"[")
    assert before == b"127.0.0.1 - u "
    assert after.partition(b"] ")[2] == b'"GET /x HTTP/1.1" 000 0 "http://r/" "curl/8"\n'


# bytes as a User-Agent → as the three ways of escaping write them
ESCAPED = [
    (b'a"b', b"a\\x22b", b'a\\"b', b'a"b'),
    (b"a\\b", b"a\\x5Cb", b"a\\\\b", b"a\\b"),
    (b"a\tb", b"a\\x09b", b"a\\tb", b"a\tb"),
    (b"\xc3\xa9", b"\\xC3\\xA9", b"\xc3\xa9", b"\xc3\xa9"),
    (b"\x7f", b"\\x7F", b"\x7f", b"\x7f"),
    (b"a b~", b"a b~", b"a b~", b"a b~"),
]


@pytest.mark.parametrize(("sent", "default", "as_json", "none"), ESCAPED)
def test_escapes(sent, default, as_json, none):
    for escape, wanted in (("default", default), ("json", as_json), ("none", none)):
        assert line("<$uri>", uri=sent, escape=escape) == b"<" + wanted + b">\n", escape


def test_json_writes_all_control_bytes_so_that_a_parser_reads_them():
    every = bytes(range(1, 256))
    made = line('{"u":"$uri"}', uri=every, escape="json")
    assert json.loads(made.decode("latin-1"))["u"].encode("latin-1") == every


def test_what_is_missing():
    assert line("[$http_x][$arg_none]") == b"[-][-]\n"
    assert line("[$http_x][$arg_none]", escape="json") == b"[][]\n"
    assert line("[$http_x][$arg_none]", escape="none") == b"[][]\n"


def test_what_is_there_and_empty_is_no_dash():
    assert line("[$is_args]") == b"[]\n"


def test_a_line_that_does_not_fit_is_refused_whole():
    it = Format(compile_text('$request "$http_x" end'))
    probe = Probe(HEAD % (b"X: " + b'"' * 50 + b"\r\n"))
    whole = it.line(probe.request)
    for room in range(len(whole)):
        assert it.line(probe.request, room) is None, room
    assert it.line(probe.request, len(whole)) == whole

"""What may be sent twice, and what may not: proxy_next_upstream as a table."""

from __future__ import annotations

import pytest

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.order import declare_all
from proxy.upstream._retry import decide
from proxy.upstream.next_upstream import CONDITIONS

declare_all()

# proxy/base/verdict.pxd, proxy/base/head.pxd
REFUSED, CONNECT_TIMEOUT, SEND_TIMEOUT, READ_TIMEOUT, CLOSED, BAD_HEAD = range(-32, -38, -1)
HEAD_TOO_LARGE, CUT, NO_LIVE, STATUS, BAD_CHUNK = range(-38, -43, -1)
GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH = range(1, 8)
LOCK = 15


def bits(words: str) -> int:
    conf = load_text(f"events {{ }} http {{ proxy_next_upstream {words}; }}")
    return int(conf.find("http")[0].get("proxy_next_upstream"))


def test_default_is_error_and_timeout() -> None:
    http = load_text("events { } http { }").find("http")[0]
    assert http.get("proxy_next_upstream") == bits("error timeout")


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        (REFUSED, 0, "error"),
        (CLOSED, 0, "error"),
        (CONNECT_TIMEOUT, 0, "timeout"),
        (SEND_TIMEOUT, 0, "timeout"),
        (READ_TIMEOUT, 0, "timeout"),
        (BAD_HEAD, 0, "invalid_header"),
        (HEAD_TOO_LARGE, 0, "invalid_header"),
        *((STATUS, status, f"http_{status}") for status in (500, 502, 503, 504, 403, 404, 429)),
    ],
)
def test_each_failure_has_its_word(fault: int, status: int, word: str) -> None:
    assert decide(bits(word), fault, status=status)
    others = " ".join(name for name in CONDITIONS if name not in (word, "off"))
    assert not decide(bits(others), fault, status=status)
    assert not decide(bits("off"), fault, status=status)
    assert not decide(bits(f"{word} off"), fault, status=status)


@pytest.mark.parametrize(
    ("fault", "status"), [(CUT, 0), (NO_LIVE, 0), (BAD_CHUNK, 0), (STATUS, 200), (STATUS, 501)]
)
def test_what_is_never_sent_again(fault: int, status: int) -> None:
    assert not decide(4095 - CONDITIONS["off"], fault, status=status)


@pytest.mark.parametrize("method", [POST, LOCK, PATCH])
def test_what_may_have_been_acted_on_is_not_sent_twice(method: int) -> None:
    assert decide(bits("error"), REFUSED, method=method)
    assert not decide(bits("error"), CLOSED, method=method, bytes_written=1)
    assert decide(bits("error non_idempotent"), CLOSED, method=method, bytes_written=1)
    assert not decide(bits("http_500"), STATUS, status=500, method=method, bytes_written=1)


@pytest.mark.parametrize("method", [GET, HEAD, PUT, DELETE, OPTIONS])
def test_idempotent_methods_are(method: int) -> None:
    assert decide(bits("error"), CLOSED, method=method, bytes_written=1)


def test_bounds() -> None:
    assert not decide(3, REFUSED, tries=0)
    assert not decide(3, REFUSED, is_body_held=False)
    assert not decide(3, CLOSED, is_answered=True)
    assert decide(3, REFUSED, now_ms=99, deadline_ms=100)
    assert not decide(3, REFUSED, now_ms=100, deadline_ms=100)
    assert decide(3, REFUSED, now_ms=100, deadline_ms=0)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ConfError, match=r'invalid value "http_418" in conf:1'):
        bits("error http_418")

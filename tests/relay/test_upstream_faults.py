"""What upstreams do wrong, and the one right outcome of each (nothing is padded, nothing hangs)."""

from __future__ import annotations

import socket

import pytest
from rawclient import Closed
from recorder import Close, Reset

PROXY = """
    server {{
        listen 127.0.0.1:%%PORT%%;
        location / {{
            proxy_pass http://{address};
            proxy_read_timeout 2s;
            proxy_connect_timeout 2s;
            {more}
        }}
    }}
"""

HEAD = b"HTTP/1.1 200 OK\r\n"
CL = b"Content-Length: 5\r\n"

# name, what the upstream sends, the status that the client gets
REFUSED = [
    ("closes before any byte", None),
    ("closes inside the head", Close(b"HTTP/1.1 200 OK\r\nContent-Le")),
    ("resets before any byte", Reset(b"")),
    ("garbage", Close(b"hello, who is there\r\n\r\n")),
    ("status abc", Close(b"HTTP/1.1 abc OK\r\n\r\n")),
    ("status of two digits", Close(b"HTTP/1.1 20 OK\r\n\r\n")),
    ("101 not asked for", Close(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")),
    ("differing lengths", Close(HEAD + CL + b"Content-Length: 6\r\n\r\nhello!")),
    ("length and chunked", Close(HEAD + CL + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ("gzip transfer coding", Close(HEAD + b"Transfer-Encoding: gzip\r\n\r\nx")),
    ("NUL in a value", Close(HEAD + CL + b"X-A: a\0b\r\n\r\nhello")),
    ("space in a name", Close(HEAD + CL + b"X A: b\r\n\r\nhello")),
    ("space before the colon", Close(HEAD + CL + b"X-A : b\r\n\r\nhello")),
    ("a folded line", Close(HEAD + CL + b"X-A: b\r\n c\r\n\r\nhello")),
    ("a head of 200 KB", Close(HEAD + b"X-A: " + b"a" * 200_000 + b"\r\n\r\n")),
    ("a thousand 103", Close(b"HTTP/1.1 103 Early\r\n\r\n" * 1000 + HEAD + CL + b"\r\nhello")),
]


@pytest.mark.parametrize(("name", "said"), REFUSED, ids=[name for name, _ in REFUSED])
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_what_is_no_answer_is_502(headrace, upstreams, name, said, buffering):
    upstream = upstreams(said)
    gateway = headrace(
        PROXY.format(address=upstream.address, more=f"proxy_buffering {buffering};")
    )
    with gateway.client() as client:
        assert client.get("/").status == 502
        upstream.answer = HEAD + CL + b"\r\nhello"
        assert client.get("/").body == b"hello", "the client's connection stays usable"


def test_interim_answers_are_passed_over(headrace, upstreams):
    upstream = upstreams(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + HEAD + CL + b"\r\nhello"
    )
    gateway = headrace(PROXY.format(address=upstream.address, more=""))
    assert gateway.get("/").body == b"hello"


def test_a_cut_body_is_cut_visibly(headrace, upstreams):
    upstream = upstreams(Close(HEAD + b"Content-Length: 100\r\n\r\nhello"))
    gateway = headrace(PROXY.format(address=upstream.address, more=""))
    answer = gateway.get("/")
    assert answer.body == b"hello"
    assert not answer.is_whole


def test_a_cut_chunked_body_has_no_last_chunk(headrace, upstreams):
    upstream = upstreams(Close(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
    gateway = headrace(PROXY.format(address=upstream.address, more=""))
    answer = gateway.get("/")
    assert answer.body == b"hello"
    assert not answer.is_whole


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n",
     b"-5\r\nhello\r\n"],
)
def test_a_bad_chunk_is_never_a_clean_end(headrace, upstreams, chunks):
    upstream = upstreams(Close(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks))
    gateway = headrace(PROXY.format(address=upstream.address, more=""))
    try:
        answer = gateway.get("/")
    except Closed:
        return
    assert answer.status == 502 or not answer.is_whole


def test_bytes_behind_the_answer_cost_the_connection(headrace, upstreams):
    upstream = upstreams(HEAD + CL + b"\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        for _ in range(3):
            assert client.get("/").body == b"hello"
    assert upstream.connections == 3


def test_204_with_a_body_has_none(headrace, upstreams):
    upstream = upstreams(Close(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"))
    gateway = headrace(PROXY.format(address=upstream.address, more=""))
    with gateway.client() as client:
        answer = client.get("/")
        assert (answer.status, answer.body) == (204, b"")
        upstream.answer = HEAD + CL + b"\r\nhello"
        assert client.get("/").body == b"hello"


def test_nobody_listens(headrace):
    gateway = headrace(PROXY.format(address="127.0.0.1:%%PORT_7%%", more=""))
    assert gateway.get("/").status == 502


def test_a_silent_upstream_is_504_by_its_timeout(headrace, upstreams):
    def wait(_request):
        import time

        time.sleep(3)
        return b""

    upstream = upstreams(wait)
    gateway = headrace(
        PROXY.format(address=upstream.address, more="").replace("timeout 2s", "timeout 300ms")
    )
    assert gateway.get("/").status == 504


def test_the_next_peer_answers(headrace, upstreams):
    bad, good = upstreams(Reset(b"")), upstreams(HEAD + CL + b"\r\nhello")
    gateway = headrace(
        f"upstream up {{ server {bad.address}; server {good.address}; }}\n"
        + PROXY.format(address="up", more="")
    )
    for _ in range(4):
        assert gateway.get("/").body == b"hello"


def test_a_post_is_not_sent_twice(headrace, upstreams):
    bad, good = upstreams(Reset(b"")), upstreams(HEAD + CL + b"\r\nhello")
    gateway = headrace(
        f"upstream up {{ server {bad.address}; server {good.address} backup; }}\n"
        + PROXY.format(address="up", more="")
    )
    assert gateway.ask("POST", "/", b"body").status == 502
    assert len(good.requests) == 0


def test_the_keepalive_race_is_retried_once(headrace, upstreams):
    """The peer closes a kept connection as we write: a GET goes out again on a fresh one."""
    upstream = upstreams(HEAD + CL + b"\r\nhello")
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        assert client.get("/").body == b"hello"
        # the second request on the kept connection is answered by its end
        upstream.answer = [HEAD + CL + b"\r\nhello", None, HEAD + CL + b"\r\nagain"]
        assert client.get("/").body == b"again"
    assert [it.connection for it in upstream.requests] == [1, 1, 2]


@pytest.mark.parametrize(
    "said",
    [HEAD + CL + b"\r\nhello", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)  # fmt: skip
def test_an_answer_that_ends_with_its_connection_is_not_pooled(headrace, upstreams, said):
    upstream = upstreams(Close(said))
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        for _ in range(3):
            assert client.get("/").body == b"hello"
    assert upstream.connections == 3


@pytest.mark.parametrize(
    "said", [HEAD + CL + b"\r\nhello!!", b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello"],
    ids=["too many bytes", "204 with a body"],
)  # fmt: skip
def test_what_sent_too_much_is_not_pooled(headrace, upstreams, said):
    upstream = upstreams(said)
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        for _ in range(3):
            assert client.get("/").status in (200, 204)
    assert upstream.connections == 3


def test_a_post_is_not_sent_again_when_a_kept_connection_ends(headrace, upstreams):
    """RFC 9110 §9.2.2: it may have been acted on."""
    upstream = upstreams([HEAD + CL + b"\r\nhello", None, HEAD + CL + b"\r\nagain"])
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        assert client.get("/").body == b"hello"
        assert client.ask("POST", "/", b"body").status == 502
    assert [it.method for it in upstream.requests] == ["GET", "POST"]


def test_idle_connections_that_the_peer_ends_fail_nobody(headrace, upstreams):
    upstream = upstreams(HEAD + CL + b"\r\nhello")
    gateway = headrace(
        f"upstream up {{ server {upstream.address}; keepalive 4; }}\n"
        + PROXY.format(address="up", more="")
    )
    with gateway.client() as client:
        for number in range(300):
            assert client.get("/").body == b"hello"
            if number % 3 == 0:
                upstream.drop()


@pytest.fixture
def black_hole():
    """An address whose connections are never made: the backlog is full, SYNs are dropped."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        fillers.append(sock)
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for sock in (listener, *fillers):
        sock.close()


def test_a_black_hole_is_504_after_the_connect_timeout(headrace, black_hole):
    gateway = headrace(PROXY.format(address=black_hole, more="").replace("2s", "500ms"))
    assert gateway.get("/").status == 504


def test_behind_a_black_hole_the_next_peer_answers(headrace, upstreams, black_hole):
    good = upstreams(HEAD + CL + b"\r\nhello")
    gateway = headrace(
        f"upstream up {{ server {black_hole}; server {good.address} backup; }}\n"
        + PROXY.format(address="up", more="").replace("2s", "500ms")
    )
    assert gateway.get("/").body == b"hello"


def test_a_unix_socket_with_a_full_backlog_is_502_at_once(headrace, tmp_path):
    path = str(tmp_path / "up.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    filler = socket.socket(socket.AF_UNIX)
    filler.connect(path)
    gateway = headrace(PROXY.format(address=f"unix:{path}", more=""))
    assert gateway.get("/").status == 502
    filler.close()
    listener.close()

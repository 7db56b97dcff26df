"""gzip: which answers are compressed, what their heads say then, and bodies that come in pieces."""

from __future__ import annotations

import socket
import zlib
from gzip import decompress

import pytest
from gateway import Gateway
from h2client import H2Client
from rawclient import RawClient
from recorder import Recorder, answer

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.filters import directives  # noqa: F401  (its import declares)

PAGE = b"all work and no play " * 200
CONF = """
    gzip on;
    default_type text/html;
    server {
        listen 127.0.0.1:%%PORT%%;
        http2 on;
        root %%DIR%%;
        location /short   { return 200 "nineteen characters"; }
        location /text    { return 200 "twenty characters, ok"; }
        location /json    { default_type application/json; return 200 "WORDS"; }
        location /listed  { gzip_types application/json; default_type application/json;
                            return 200 "WORDS"; }
        location /events  { gzip_types *; proxy_pass http://ADDRESS; }
        location /meant   { gzip_types text/event-stream; proxy_pass http://ADDRESS; }
        location /off     { gzip off; return 200 "WORDS"; }
        location /created { return 201 "WORDS"; }
        location /forbidden { error_page 403 /text; return 403; }
        location /vary    { gzip_vary on; return 200 "WORDS"; }
        location /old     { gzip_http_version 1.0; return 200 "WORDS"; }
        location /disable { gzip_disable "Bad/[0-9]" msie6; return 200 "WORDS"; }
        location /best    { gzip_comp_level 9; alias %%DIR%%/page.html; }
        location /via/any { gzip_proxied any; return 200 "WORDS"; }
        location /via/no  { return 200 "WORDS"; }
        location /via/up/ { gzip_proxied expired no-store auth; proxy_pass http://ADDRESS; }
        location /via/lm/ { gzip_proxied no_last_modified no_etag; proxy_pass http://ADDRESS; }
        location /ssi     { ssi on; root %%DIR%%; }
        location /up/     { proxy_pass http://ADDRESS; }
        location /slow/   { limit_rate 100k; proxy_pass http://ADDRESS; }
        location /ratio   { add_trailer X-Ratio $gzip_ratio; alias %%DIR%%/page.html; }
    }
""".replace("WORDS", "words and words and words and words")


@pytest.fixture
def gateway(headrace, upstream: Recorder, tmp_path) -> Gateway:
    made = headrace(CONF.replace("ADDRESS", upstream.address))
    (made.prefix / "page.html").write_bytes(PAGE)
    (made.prefix / "ssi").write_bytes(b"<!--# echo var='arg_a' -->" + PAGE)
    return made


def get(gateway: Gateway, target: str, accept: str = "gzip", **fields: str):
    return gateway.get(target, **{"Accept-Encoding": accept, **fields})


def test_a_file_and_its_head(gateway):
    plain = gateway.get("/page.html")
    assert (plain.body, plain.get("Content-Encoding")) == (PAGE, None)
    answered = get(gateway, "/page.html")
    assert decompress(answered.body) == PAGE
    assert answered.get_all("Content-Encoding") == ["gzip"]
    assert answered.get("Content-Length") is None
    assert answered.get("Accept-Ranges") is None
    assert answered.get_all("ETag") == ["W/" + (plain.get("ETag") or "")]
    assert answered.get("Last-Modified") == plain.get("Last-Modified")
    assert answered.get("Vary") is None
    head = gateway.ask("HEAD", "/page.html", **{"Accept-Encoding": "gzip"})
    assert (head.get("Content-Encoding"), head.get("Content-Length")) == ("gzip", None)


@pytest.mark.parametrize(
    ("accept", "is_taken"),
    [("gzip", True), ("gzip, deflate", True), ("deflate, GZIP", True), ("gzip;q=0", False),
     ("gzip; q=0.000", False), ("gzip;q=0.001", True), ("gzip;q=1.0", True), ("br;q=1, gzip;q=0.5",
     True), ("*", False), ("identity", False), ("", False), ("xgzip", False), ("gzipped", False)],
)  # fmt: skip
def test_what_a_client_takes(gateway, accept, is_taken):
    answered = get(gateway, "/page.html", accept)
    assert answered.get("Content-Encoding") == ("gzip" if is_taken else None)
    assert (decompress(answered.body) if is_taken else answered.body) == PAGE


@pytest.mark.parametrize(
    ("target", "is_done"),
    [("/short", False), ("/text", True), ("/json", False), ("/listed", True), ("/off", False),
     ("/created", False), ("/best", True), ("/none", True), ("/forbidden", True)],
)  # fmt: skip
def test_which_answers(gateway, target, is_done):
    answered = get(gateway, target)
    assert answered.get("Content-Encoding") == ("gzip" if is_done else None)
    body = decompress(answered.body) if is_done else answered.body
    assert body == gateway.get(target).body


def test_a_part_and_an_unchanged_file_stay_as_they_are(gateway):
    plain = gateway.get("/page.html")
    answered = get(gateway, "/page.html", **{"If-None-Match": plain.get("ETag")})
    assert (answered.status, answered.get("Content-Encoding")) == (304, None)
    assert answered.get("ETag") == plain.get("ETag")
    answered = get(gateway, "/page.html", "identity", Range="bytes=0-3")
    assert (answered.status, answered.body) == (206, PAGE[:4])
    answered = get(gateway, "/page.html", Range="bytes=0-3")   # of what is made anew: none
    assert (answered.status, decompress(answered.body)) == (200, PAGE)


def test_vary(gateway):
    for accept, encoding in (("gzip", "gzip"), ("identity", None)):
        answered = get(gateway, "/vary", accept)
        assert answered.get_all("Vary") == ["Accept-Encoding"]
        assert answered.get("Content-Encoding") == encoding


def test_old_clients(gateway):
    for target, is_done in (("/text", False), ("/old", True)):
        said = gateway.raw(f"GET {target} HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
        assert (b"Content-Encoding: gzip" in said) == is_done
    for agent, is_done in (("Good/1", True), ("bad/7", False), ("MSIE 6.0; X", False),
                           ("MSIE 6.0; SV1", True), ("MSIE 5.5", False), ("MSIE 7.0", True)):
        answered = get(gateway, "/disable", **{"User-Agent": agent})
        assert answered.get("Content-Encoding") == ("gzip" if is_done else None)


PAST, FUTURE = "Thu, 01 Jan 1970 00:00:01 GMT", "Thu, 31 Dec 2037 23:55:55 GMT"


@pytest.mark.parametrize(
    ("target", "fields", "asked", "is_done"),
    [
        ("/via/any", {}, {}, True),
        ("/via/no", {}, {}, False),
        ("/via/up/", {}, {}, True),                            # nothing was said against it
        ("/via/up/", {}, {"Authorization": "Basic x"}, True),
        ("/via/up/", {"Expires": PAST}, {}, True),
        ("/via/up/", {"Expires": FUTURE}, {}, False),
        ("/via/up/", {"Expires": "soon"}, {}, False),
        ("/via/up/", {"Cache-Control": "a, No-Store"}, {}, True),
        ("/via/up/", {"Cache-Control": "private"}, {}, False),
        ("/via/lm/", {}, {}, True),
        ("/via/lm/", {"Last-Modified": PAST}, {}, False),
        ("/via/lm/", {"ETag": '"a"'}, {}, False),
    ],
)  # fmt: skip
def test_requests_that_came_by_a_proxy(gateway, upstream, target, fields, asked, is_done):
    upstream.answer = answer(PAGE, headers=[("Content-Type", "text/html"), *fields.items()])
    answered = get(gateway, target, Via="1.1 a", **asked)
    assert answered.get("Content-Encoding") == ("gzip" if is_done else None)
    assert (decompress(answered.body) if is_done else answered.body)


def test_an_upstreams_answer(gateway, upstream):
    body = PAGE * 500                                          # 2 MB, more than any buffer
    upstream.answer = answer(body, headers=[
        ("Content-Type", "text/html; charset=utf-8"), ("ETag", '"a"'), ("Accept-Ranges", "bytes")])
    answered = get(gateway, "/up/")
    assert decompress(answered.body) == body
    assert answered.get_all("ETag") == ['W/"a"']
    assert (answered.get("Accept-Ranges"), answered.get("Content-Length")) == (None, None)
    upstream.answer = answer(b"coded already by itself", headers=[
        ("Content-Type", "text/html"), ("Content-Encoding", "br")])
    answered = get(gateway, "/up/")
    assert answered.get_all("Content-Encoding") == ["br"]
    assert answered.body == b"coded already by itself"


@pytest.mark.parametrize("type_", ["text/event-stream", "application/grpc+proto"])
def test_what_all_types_do_not_mean(gateway, upstream, type_):
    upstream.answer = answer(PAGE, headers=[("Content-Type", type_)])
    assert get(gateway, "/events").get("Content-Encoding") is None
    is_meant = get(gateway, "/meant").get("Content-Encoding") == "gzip"
    assert is_meant == (type_ == "text/event-stream")


def test_each_piece_of_a_stream_goes_out(headrace):
    """The upstream waits until the client has understood what came before."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    made = headrace(f"gzip on; server {{ listen %%PORT%%; "
                    f"location / {{ proxy_pass http://127.0.0.1:{port}; }} }}")
    inflate = zlib.decompressobj(31)
    with listening, RawClient(made.port) as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        theirs, _ = listening.accept()
        with theirs:
            theirs.recv(65536)
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")
            received, at = b"", 0
            for piece in (b"first", b"second", b"third"):
                theirs.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                got = b""
                while got != piece:
                    received += client.sock.recv(65536)
                    if at == 0 and b"\r\n\r\n" in received:
                        assert b"Content-Encoding: gzip" in received
                        received, at = received.partition(b"\r\n\r\n")[2], 1
                    while at and b"\r\n" in received:
                        size, _, rest = received.partition(b"\r\n")
                        if len(rest) < int(size, 16) + 2:
                            break
                        got += inflate.decompress(rest[: int(size, 16)])
                        received = rest[int(size, 16) + 2 :]
            theirs.sendall(b"0\r\n\r\n")


def test_a_client_that_reads_slowly_gets_it_whole(gateway, upstream):
    noise = bytes(i * i * 7919 >> 5 & 255 for i in range(400_000))
    upstream.answer = answer(noise, headers=[("Content-Type", "text/html")])
    with gateway.client() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        answered = client.send(
            "GET /up/ HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").read()
    assert decompress(answered.body) == noise


def test_over_http_2(gateway):
    with H2Client(gateway.port) as client:
        response = client.get("/page.html", fields=[("accept-encoding", "gzip")])
    assert decompress(response.body) == PAGE
    assert response.get("content-encoding") == "gzip"
    assert response.get("content-length") is None


def test_behind_server_side_includes(gateway):
    answered = get(gateway, "/ssi?a=here")
    assert decompress(answered.body) == b"here" + PAGE


def test_how_much_it_saved_is_told(gateway):
    answered = get(gateway, "/ratio")
    ratio = dict(answered.trailers)["X-Ratio"]
    assert float(ratio) == pytest.approx(len(PAGE) / len(answered.body), rel=0.2)
    assert gateway.get("/ratio").trailers == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [("gzip_comp_level 10;", "must be"), ("gzip_comp_level 0;", "must be"),
     ("gzip_proxied sometimes;", "sometimes"), ("gzip_http_version 2;", "2"),
     ('gzip_disable "(";', "("), ("gzip maybe;", "maybe")],
)  # fmt: skip
def test_what_the_conf_may_not_say(line, words):
    with pytest.raises(ConfError) as raised:
        load_text(f"events {{ }} http {{ {line} }}")
    assert words in str(raised.value)

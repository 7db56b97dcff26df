"""Requests over HTTP/2, as the upstream sees them and as the client gets their answers."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from h2client import H2Client
from recorder import Close, Recorder, answer

PROXY = "server { listen %%PORT%%; http2 on; location / { proxy_pass http://ADDRESS; } MORE }"


def conf(upstream: Recorder, more: str = "") -> str:
    return PROXY.replace("ADDRESS", upstream.address).replace("MORE", more)


@pytest.fixture
def proxy(headrace, upstream: Recorder) -> Gateway:
    return headrace(conf(upstream))


def test_a_request_reaches_the_upstream_as_http_1(proxy: Gateway, upstream: Recorder) -> None:
    with H2Client(proxy.port) as client:
        response = client.get("/a?b=c", fields=[("x-a", "1"), ("te", "trailers"), ("cookie", "a=1"),
                                                ("cookie", "b=2")])  # fmt: skip
    assert (response.status, response.body) == (200, b"ok")
    assert response.get("content-length") == "2"
    assert response.get("connection") is None
    asked = upstream.last
    assert (asked.method, asked.target, asked.version) == ("GET", "/a?b=c", "HTTP/1.1")
    assert asked.get("host") == upstream.address
    assert asked.get_all("cookie") == ["a=1; b=2"]
    assert asked.get("x-a") == "1"
    assert asked.get("te") is None


def test_http_1_is_spoken_on_the_same_port(proxy: Gateway) -> None:
    with H2Client(proxy.port) as client:
        assert client.get().status == 200
    assert proxy.get("/").status == 200
    with proxy.client() as slow:                             # a head that begins like the preface
        for byte in b"PRI-X / HTTP/1.1\r\nHost: a\r\n\r\n":
            slow.send(bytes([byte]))
        assert slow.read().status == 200


def test_a_preface_that_comes_byte_by_byte(proxy: Gateway) -> None:
    with H2Client(proxy.port) as client:
        number = client.ask()
        assert client.read(number).status == 200
    with proxy.client() as raw:
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
        for byte in data:
            raw.send(bytes([byte]))
        assert raw.sock.recv(9)[3] == 4                      # our SETTINGS


def test_many_at_once_come_back_each_on_its_stream(headrace, upstreams) -> None:
    upstream = upstreams(lambda it: answer(it.target.encode() * 100))
    gateway = headrace(conf(upstream))
    with H2Client(gateway.port) as client:
        numbers = [client.ask(f"/{i}") for i in range(100)]
        for i, number in enumerate(numbers):
            assert client.read(number).body == f"/{i}".encode() * 100


@pytest.mark.parametrize("size", [0, 1, 5, 65535, 65536, 300_000])
def test_bodies_of_known_length(proxy: Gateway, upstream: Recorder, size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    with H2Client(proxy.port) as client:
        response = client.get("/", method="POST", body=body,
                              fields=[("content-length", str(size))])  # fmt: skip
    assert response.status == 200
    assert upstream.last.body == body
    assert upstream.last.get_all("content-length") == [str(size)]


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("size", [0, 7, 200_000])
def test_bodies_of_unknown_length(headrace, upstream: Recorder, size: int, buffering: str) -> None:
    gateway = headrace(conf(upstream, f"proxy_request_buffering {buffering};"))
    body = b"x" * size
    with H2Client(gateway.port) as client:
        assert client.get("/", method="POST", body=body).status == 200
    assert upstream.last.body == body
    if buffering == "on":
        assert upstream.last.get("content-length") == str(size)
        assert upstream.last.get("transfer-encoding") is None


def test_a_body_is_streamed_while_it_comes(headrace, upstreams) -> None:
    gateway = headrace(conf(upstreams(), "proxy_request_buffering off; client_max_body_size 0;"))
    with H2Client(gateway.port) as client:
        number = client.ask("/", method="POST", end=False)
        for _ in range(40):                                  # far more than all windows
            client.send(number, b"y" * 50_000)
        client.send(number, b"", end=True)
        assert client.read(number).status == 200


@pytest.mark.parametrize("size", [0, 1, 16384, 65536, 3_000_000])
@pytest.mark.parametrize("how", ["length", "chunked", "close"])
def test_answers_however_they_are_framed(headrace, upstreams, size: int, how: str) -> None:
    body = bytes(i % 251 for i in range(size))
    head = b"HTTP/1.1 200 OK\r\nX-A: b\r\n"
    if how == "length":
        told = head + b"Content-Length: %d\r\n\r\n" % size + body
    elif how == "chunked":
        chunk = b"%x\r\n" % size + body + b"\r\n" if size else b""
        told = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    else:
        told = Close(head + b"\r\n" + body)
    gateway = headrace(conf(upstreams(told)))
    with H2Client(gateway.port) as client:
        response = client.get()
        assert response.is_whole
        assert response.body == body
        assert response.get("x-a") == "b"
        assert response.get("transfer-encoding") is None
        assert response.get("content-length") == (str(size) if how == "length" else None)
        assert client.get().status == 200                    # and the connection goes on


def test_head_and_statuses_without_a_body(headrace, upstreams) -> None:
    gateway = headrace(conf(upstreams(lambda it: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" if it.method == "HEAD"
        else b"HTTP/1.1 %s X\r\n\r\n" % it.target[1:].encode()))))  # fmt: skip
    with H2Client(gateway.port) as client:
        response = client.get(method="HEAD")
        assert (response.get("content-length"), response.body) == ("9", b"")
        for status in (204, 304):
            response = client.get(f"/{status}")
            assert (response.status, response.is_whole, response.body) == (status, True, b"")


def test_trailers_pass(headrace, upstreams) -> None:
    told = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-T: after\r\n\r\n")  # fmt: skip
    gateway = headrace(conf(upstreams(told), "proxy_pass_trailers on; add_trailer X-Own mine;"))
    with H2Client(gateway.port) as client:
        response = client.get()
    assert response.body == b"ok"
    assert sorted(response.trailers) == [("x-own", "mine"), ("x-t", "after")]


def test_an_upstream_that_dies_cuts_its_stream_alone(headrace, upstreams) -> None:
    gateway = headrace(conf(upstreams(lambda it: Close(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") if it.target == "/cut"
        else answer())))  # fmt: skip
    with H2Client(gateway.port) as client:
        response = client.get("/cut")
        assert (response.is_whole, response.code) == (False, 2)
        assert client.get("/").status == 200
        assert client.get("/cut").code == 2


def test_expect_100_continue(headrace, upstream: Recorder) -> None:
    gateway = headrace(conf(upstream))
    with H2Client(gateway.port) as client:
        number = client.ask("/", method="POST", end=False, fields=[("expect", "100-continue")])
        while not client.responses[number].interim:
            assert client.step()
        client.send(number, b"body", end=True)
        assert client.read(number).status == 200
        assert client.responses[number].interim == [100]
    assert upstream.last.body == b"body"


def test_what_the_conf_refuses(headrace, upstream: Recorder) -> None:
    gateway = headrace(conf(upstream, """
        client_max_body_size 10;
        location /r { return 301 /x; } location /t { return 200 "$server_protocol $http2"; }
        location /gone { return 444; } location /no { deny all; }
        error_page 403 /page; location /page { return 200 page; }"""))
    with H2Client(gateway.port) as client:
        response = client.get("/", method="POST", body=b"x" * 11, fields=[("content-length", "11")])
        assert response.status == 413
        response = client.get("/", method="POST", body=b"x" * 100_000)
        assert response.status == 413
        assert client.get("/r").get("location") == "http://a.test/x".replace(
            "a.test", f"a.test:{gateway.port}")
        assert client.get("/t").text == "HTTP/2.0 h2c"
        assert client.get("/gone").code is not None
        assert client.get("/no").status == 403
        assert client.get("/t").status == 200
        assert client.get("/", host="b\x00d").status == 400
        assert client.get("/", host="b d").status == 400
        assert client.get("/" + "a" * 9000).status == 414
        assert client.get("/t").status == 200
    assert len(upstream.requests) == 0


def test_realip_is_of_one_request(headrace, upstreams) -> None:
    gateway = headrace("server { listen %%PORT%%; http2 on; set_real_ip_from 127.0.0.1; "
                       'location / { return 200 "$remote_addr $connection_requests"; } }')
    with H2Client(gateway.port) as client:
        one = client.ask("/", fields=[("x-real-ip", "10.0.0.1")])
        two = client.ask("/", fields=[("x-real-ip", "10.0.0.2")])
        three = client.ask("/")
        assert [client.read(n).text for n in (one, two, three)] == [
            "10.0.0.1 1", "10.0.0.2 2", "127.0.0.1 3"]


def test_the_access_log(headrace, upstream: Recorder) -> None:
    gateway = headrace(
        "log_format f '$request|$status|$body_bytes_sent|$http_host|$request_method'; "
        "access_log logs/access.log f;" + conf(upstream))
    with H2Client(gateway.port) as client:
        client.get("/a?b", method="POST", body=b"xyz")
    wait_for(lambda: gateway.log())
    assert gateway.log() == ["POST /a?b HTTP/2.0|200|2|a.test|POST"]


def test_a_file_is_sent(headrace, tmp_path: Path) -> None:
    body = bytes(i % 251 for i in range(700_000))
    (tmp_path / "f.bin").write_bytes(body)
    gateway = headrace(
        f"server {{ listen %%PORT%%; http2 on; root {tmp_path}; http2_chunk_size 1k; }}")
    with H2Client(gateway.port) as client:
        assert client.get("/f.bin").body == body
        response = client.get("/f.bin", fields=[("range", "bytes=10-19")])
        assert (response.status, response.body) == (206, body[10:20])


def test_a_server_that_does_not_speak_it_is_another(headrace) -> None:
    gateway = headrace(
        "server { listen %%PORT%%; server_name a.test; http2 on; return 200 a; }"
        "server { listen %%PORT%%; server_name b.test; return 200 b; }")
    with H2Client(gateway.port) as client:
        assert client.get("/").text == "a"
        assert client.get("/", host="b.test").status == 421
    assert gateway.get("/", Host="b.test").text == "b"


def test_a_wrong_preface_is_answered_in_kind(proxy: Gateway) -> None:
    assert proxy.raw(b"INVALID CONNECTION PREFACE\r\n\r\n")[-4:] == b"\0\0\0\1"
    assert proxy.raw(b"GET / HTTP/3.7\r\n\r\n").startswith(b"HTTP/1.1 505 ")


def test_request_length_is_of_the_frames(headrace) -> None:
    gateway = headrace(
        "server { listen %%PORT%%; http2 on; return 200 $request_length; }")
    with H2Client(gateway.port) as client:
        assert 4 < int(client.get("/").text) < 40


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a.test", "-days",
         "2", "-keyout", str(folder / "k.pem"), "-out", str(folder / "c.pem")],
        check=True, capture_output=True)  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"),
     (["h2"], "h2"), (None, None)],
)  # fmt: skip
def test_alpn_chooses(headrace, keys: Path, offers: list[str] | None, chosen: str | None) -> None:
    gateway = headrace(
        f"ssl_certificate {keys}/c.pem; ssl_certificate_key {keys}/k.pem;"
        "server { listen %%PORT%% ssl; http2 on; "
        "location / { return 200 '$http2 $ssl_alpn_protocol'; } }")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if offers:
        context.set_alpn_protocols(offers)
    if chosen == "h2":
        with H2Client(gateway.port, tls=context) as client:
            assert client.get().text == "h2 h2"
            assert client.sock.selected_alpn_protocol() == "h2"  # type: ignore[attr-defined]
        return
    from rawclient import RawClient

    with RawClient(gateway.port, tls=context) as raw:
        assert raw.sock.selected_alpn_protocol() == chosen   # type: ignore[attr-defined]
        assert raw.get("/").text == f" {chosen or ''}"


def test_only_the_servers_that_say_so_speak_it_over_tls(headrace, keys: Path) -> None:
    gateway = headrace(
        f"ssl_certificate {keys}/c.pem; ssl_certificate_key {keys}/k.pem;"
        "server { listen %%PORT%% ssl; server_name a.test; http2 on; return 200 a; }"
        "server { listen %%PORT%% ssl; server_name b.test; return 200 b; }")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, chosen in (("a.test", "h2"), ("b.test", "http/1.1")):
        with H2Client(gateway.port, tls=context, name=name) as client:
            assert client.sock.selected_alpn_protocol() == chosen  # type: ignore[attr-defined]


def test_an_answer_larger_than_all_windows_over_tls(headrace, keys: Path, tmp_path: Path) -> None:
    body = bytes(i % 253 for i in range(2_000_000))
    (tmp_path / "f").write_bytes(body)
    gateway = headrace(
        f"ssl_certificate {keys}/c.pem; ssl_certificate_key {keys}/k.pem;"
        f"server {{ listen %%PORT%% ssl; http2 on; root {tmp_path}; }}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with H2Client(gateway.port, tls=context) as client:
        numbers = [client.ask("/f") for _ in range(4)]
        assert [client.read(n).body == body for n in numbers] == [True] * 4


def test_an_answer_that_did_not_wait_for_the_body_holds(headrace) -> None:
    gateway = headrace("""server { listen %%PORT%%; http2 on;
        location / { proxy_pass http://127.0.0.1:%%PORT%%/early; proxy_http_version 2;
                     proxy_set_body whole; }
        location /early { return 204; } }""")                 # a reset behind it must say so, too
    assert gateway.get("/").status == 204


def test_a_client_that_is_answered_early_may_end_its_request_by_itself(headrace) -> None:
    gateway = headrace("access_log logs/access.log; "
                       "server { listen %%PORT%%; http2 on; location / { return 200 early; } }")
    with H2Client(gateway.port) as client:
        number = client.ask(method="POST", end=False)
        assert client.read(number).body == b"early"
        client.send(number, b"all the same", end=True)
        assert client.get().body == b"early"
        assert client.responses[number].code is None
        other = client.ask(method="POST", end=False)
        assert client.read(other).is_whole
        while client.responses[other].code is None:          # it does not: it is asked to
            assert client.step()
        assert client.responses[other].code == 0
        assert client.get().body == b"early"
    wait_for(lambda: len(gateway.log()) == 4)                # each was told, once

"""Each grpc_… directive does what nginx's does, and has its default."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import Gateway, run, wait_for
from h2client import H2Client, Response
from h2upstream import END_HEADERS, HEADERS, H2Upstream, frame
from services import Calls, Server

from proxy.conf import load_text
from proxy.conf.inherit import Block
from proxy.order import declare_all
from proxy.upstream.grpc import AsProxy
from proxy.wire.h2_door import write_field, write_status

declare_all()
END_STREAM = 1


def location(text: str) -> Block:
    conf = load_text(f"events {{ }}\nhttp {{ server {{ location / {{\n{text}\n}} }} }}")
    return conf.find("http")[0].find("server")[0].find("location")[0]


def conf(address: str, more: str = "", outside: str = "") -> str:
    return (f"{outside} server {{ listen %%PORT%%; http2 on; location / "
            f"{{ grpc_pass {address}; {more} }} location = /page {{ return 200 page; }} }}")


def answer(status: int = 200, *fields: tuple[bytes, bytes], code: bytes = b"0") -> bytes:
    """Trailers only, as frame bytes that lack their stream: `said` puts it in."""
    return write_status(status) + b"".join(write_field(*it) for it in (
        (b"content-type", b"application/grpc"), (b"grpc-status", code), *fields))


def said(block: bytes) -> Callable[[int], bytes]:
    return lambda number: frame(HEADERS, END_HEADERS | END_STREAM, number, block)


@pytest.fixture
def make() -> Iterator[Callable[..., H2Upstream]]:
    """A maker of upstreams: make(answer of a stream's number, first, tls)."""
    made: list[H2Upstream] = []

    def it(*args: object, **more: object) -> H2Upstream:
        made.append(H2Upstream(*args, **more))  # type: ignore[arg-type]
        return made[-1]

    yield it
    for upstream in made:
        upstream.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as it:
        yield it


def ask(gateway: Gateway, target: str = "/test.Test/Echo", body: bytes = bytes(5)) -> Response:
    with H2Client(gateway.port) as client:
        return client.get(target, method="POST", body=body, fields=[
            ("content-type", "application/grpc"), ("te", "trailers")])  # fmt: skip


def ask_http(gateway: Gateway) -> Response:
    """What a client that does not speak gRPC is told."""
    with H2Client(gateway.port) as client:
        return client.get("/a", method="POST", body=bytes(5))


# -- what is said of defaults and words ----------------------------------------------------------

DEFAULTS = {
    "grpc_bind": None,
    "grpc_buffer_size": 4096,
    "grpc_connect_timeout": 60_000,
    "grpc_hide_header": [],
    "grpc_ignore_headers": frozenset(),
    "grpc_intercept_errors": False,
    "grpc_next_upstream": 3,                                  # error, timeout
    "grpc_next_upstream_timeout": 0,
    "grpc_next_upstream_tries": 0,
    "grpc_pass_header": [],
    "grpc_read_timeout": 60_000,
    "grpc_send_timeout": 60_000,
    "grpc_set_header": [],
    "grpc_socket_keepalive": False,
    "grpc_socket_rcvbuf": 0,
    "grpc_socket_sndbuf": 0,
    "grpc_ssl_certificate": None,
    "grpc_ssl_certificate_cache": None,
    "grpc_ssl_certificate_key": None,
    "grpc_ssl_ciphers": "DEFAULT",
    "grpc_ssl_conf_command": [],
    "grpc_ssl_crl": None,
    "grpc_ssl_name": "$proxy_host",
    "grpc_ssl_password_file": None,
    "grpc_ssl_protocols": ["TLSv1.2", "TLSv1.3"],
    "grpc_ssl_server_name": False,
    "grpc_ssl_session_reuse": True,
    "grpc_ssl_trusted_certificate": None,
    "grpc_ssl_verify": False,
    "grpc_ssl_verify_depth": 1,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_nginx_1_31(name: str) -> None:
    assert location("").get(name) == DEFAULTS[name]
    assert AsProxy(location("")).get(name.replace("grpc_", "proxy_", 1)) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc_pass http://a;", "invalid URL prefix"),
        ("grpc_pass grpc://127.0.0.1:1/a;", "invalid host"),
        ("grpc_pass grpc://127.0.0.1:70000;", "invalid port"),
        ("grpc_ssl_verify on; grpc_pass grpcs://127.0.0.1;",
         "no grpc_ssl_trusted_certificate for grpc_ssl_verify"),
        ("grpc_ssl_certificate a; grpc_pass grpcs://127.0.0.1;",
         'no "grpc_ssl_certificate_key" is defined'),
        ("grpc_next_upstream http_418;", 'invalid value "http_418"'),
        ("grpc_socket_rcvbuf many;", '"grpc_socket_rcvbuf" directive invalid value'),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "it.conf"
    path.write_text(f"events {{ }}\nhttp {{ server {{ location / {{\n{text}\n}} }} }}")
    found = run("-t", "-p", str(tmp_path), "-c", str(path))
    assert found.returncode == 1
    assert message in found.stderr


# -- who is asked, and what it is sent -----------------------------------------------------------


def test_an_address_may_be_a_socket_or_made_of_variables(headrace, tmp_path: Path) -> None:
    way = f"unix:{tmp_path}/s"
    with Server(more=lambda it: it.add_insecure_port(way)) as server:
        at_unix = headrace(conf(f"grpc://{way}"))
        assert ask(at_unix, "/test.Test/Name").status == 200
        made = headrace(conf("$to", outside=f"""upstream u {{ server {server.address}; }}
            map $http_x $to {{ default {server.address}; u grpc://u; }}"""))  # fmt: skip
        with Calls(made.port) as calls:
            calls.name(b"", timeout=10)
            calls.name(b"", metadata=[("x", "u")], timeout=10)
    assert [it["method"] for it in server.methods.seen] == ["Name"] * 3
    assert [it["peer"].partition(":")[0] for it in server.methods.seen] == ["unix", "ipv4", "ipv4"]


def test_fields_are_set_and_taken_away(headrace, server: Server) -> None:
    gateway = headrace(conf(server.address, 'grpc_set_header x-own "$request_method"; '
                            'grpc_set_header x-theirs "";'))  # fmt: skip
    with Calls(gateway.port) as calls:
        calls.echo(b"", metadata=[("x-theirs", "1"), ("x-more", "2")], timeout=10)
    seen = server.methods.seen[0]["metadata"]
    assert (seen["x-own"], seen["x-more"]) == ("POST", "2")
    assert "x-theirs" not in seen


def test_without_grpc_set_header_host_is_the_address(headrace, make) -> None:
    upstream = make(said(answer()))
    ask(headrace(conf(upstream.address)))
    ask(headrace(conf(upstream.address, "grpc_set_header Host $host;")))
    without, given = (dict(it) for it in upstream.heads)
    assert (without[":authority"], without.get("host")) == (upstream.address, None)
    assert (given.get(":authority"), given["host"]) == (None, "a.test")  # as nginx's tests have it
    assert (without["te"], without[":scheme"], without[":method"]) == ("trailers", "http", "POST")


def test_a_local_address(headrace, make) -> None:
    upstream = make(said(answer()))
    assert ask(headrace(conf(upstream.address, "grpc_bind 127.0.0.2;"))).status == 200
    assert upstream.peers == ["127.0.0.2"]


def option_of(gateway: Gateway, upstream: H2Upstream, *names: int) -> list[int]:
    """Options of the gateway's socket of a connection to the upstream."""
    way = ctypes.CDLL(None, use_errno=True).syscall
    port = int(upstream.address.partition(":")[2])
    worker = gateway.workers()[0]
    pidfd = os.pidfd_open(worker)
    try:
        for name in os.listdir(f"/proc/{worker}/fd"):
            fd = way(438, pidfd, int(name), 0)                # pidfd_getfd(2)
            if fd < 0:
                if ctypes.get_errno() == 9:                   # it was closed meanwhile
                    continue
                pytest.skip("sockets of other processes are not shown here")
            try:
                sock = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            with sock:
                if sock.family == socket.AF_INET and port in peer_of(sock):
                    return [sock.getsockopt(socket.SOL_SOCKET, it) for it in names]
    finally:
        os.close(pidfd)
    raise AssertionError("no such connection")


def peer_of(sock: socket.socket) -> tuple:
    try:
        return sock.getpeername()
    except OSError:
        return ()


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ("grpc_socket_keepalive on;", socket.SO_KEEPALIVE, 1),
        ("", socket.SO_KEEPALIVE, 0),
        ("grpc_socket_rcvbuf 30k;", socket.SO_RCVBUF, 61440),  # the kernel doubles it
        ("grpc_socket_sndbuf 20k;", socket.SO_SNDBUF, 40960),
    ],
)
def test_options_of_the_socket(headrace, make, more: str, name: int, value: int) -> None:
    upstream = make(lambda number: b"")
    gateway = headrace(conf(upstream.address, more))
    with H2Client(gateway.port) as client:
        client.ask("/test.Test/Echo", method="POST", body=bytes(5))
        wait_for(lambda: upstream.asked)
        assert option_of(gateway, upstream, name) == [value]


# -- how long it may take, and who is asked next -------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address whose connections are never made: the backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for it in fillers:
            it.setblocking(False)
            it.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for it in fillers:
            it.close()


def test_connecting_has_its_time(headrace, black_hole: str) -> None:
    gateway = headrace(conf(black_hole, "grpc_connect_timeout 300ms;"))
    assert ask(gateway).get("grpc-status") == "14"
    assert ask_http(gateway).status == 504


def test_an_answer_has_its_time(headrace, make) -> None:
    gateway = headrace(conf(make(lambda number: b"").address, "grpc_read_timeout 300ms;"))
    assert ask(gateway).get("grpc-status") == "14"
    assert ask_http(gateway).status == 504


def test_a_body_that_nobody_takes_has_its_time(headrace, make) -> None:
    """The first window (64 KiB) is filled before the server says anything, and never opened."""
    upstream = make(lambda number: b"")
    gateway = headrace(conf(upstream.address, "grpc_send_timeout 300ms; grpc_read_timeout 1h;"))
    assert ask(gateway, body=bytes(100_000)).get("grpc-status") == "14"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 403, 404, 429])
def test_the_next_server_is_asked_after(headrace, make, status: int) -> None:
    bad, good = make(said(answer(status))), make(said(answer()))
    group = f"upstream u {{ server {bad.address}; server {good.address} backup; }}"
    gateway = headrace(conf("u", f"grpc_next_upstream http_{status} non_idempotent;", group))
    assert ask(gateway).get("grpc-status") == "0"
    assert (bad.asked, good.asked) == (1, 1)


@pytest.mark.parametrize(
    "more",
    [
        "grpc_next_upstream http_503;",                       # a POST was sent
        "grpc_next_upstream off;",
        "grpc_next_upstream http_503 non_idempotent; grpc_next_upstream_tries 1;",
    ],
)
def test_the_next_server_is_not_asked(headrace, make, more: str) -> None:
    bad, good = make(said(answer(503))), make(said(answer()))
    group = f"upstream u {{ server {bad.address}; server {good.address} backup; }}"
    assert ask(headrace(conf("u", more, group))).status == 503
    assert (bad.asked, good.asked) == (1, 0)


def test_the_next_server_is_asked_in_time_only(headrace, make) -> None:
    silent, good = make(lambda number: b""), make(said(answer()))
    group = f"upstream u {{ server {silent.address}; server {good.address} backup; }}"
    text = "grpc_next_upstream timeout non_idempotent; grpc_read_timeout 300ms;"
    gateway = headrace(conf("u", f"{text} grpc_next_upstream_timeout 100ms;", group))
    assert ask(gateway).get("grpc-status") == "14"
    assert (silent.asked, good.asked) == (1, 0)


# -- what comes back -----------------------------------------------------------------------------


def test_fields_are_hidden_and_shown(headrace, make) -> None:
    fields = [(b"server", b"them"), (b"x-own", b"1"), (b"x-more", b"2")]
    upstream = make(said(answer(200, *fields)))
    shown = ask(headrace(conf(upstream.address)))
    assert (shown.get("server") != "them", shown.get("x-own"), shown.get("x-more")) == (
        True, "1", "2")  # fmt: skip
    more = "grpc_hide_header X-Own; grpc_pass_header Server;"
    shown = ask(headrace(conf(upstream.address, more)))
    assert (shown.get("server"), shown.get("x-own"), shown.get("x-more")) == ("them", None, "2")


def test_what_answers_ask_of_us_is_done_or_ignored(headrace, make) -> None:
    upstream = make(said(answer(200, (b"x-accel-redirect", b"/page"))))
    assert ask_http(headrace(conf(upstream.address))).text == "page"
    gateway = headrace(conf(upstream.address, "grpc_ignore_headers X-Accel-Redirect;"))
    assert ask_http(gateway).body == b""


def test_errors_of_the_server_may_get_a_page(headrace, make) -> None:
    upstream = make(said(answer(404)))
    more = "error_page 404 /page;"
    assert ask_http(headrace(conf(upstream.address, more))).body == b""
    found = ask_http(headrace(conf(upstream.address, f"{more} grpc_intercept_errors on;")))
    assert (found.status, found.text) == (404, "page")


@pytest.mark.parametrize(("more", "is_taken"), [("", False), ("grpc_buffer_size 256k;", True)])
def test_how_large_a_head_may_be(headrace, make, more: str, is_taken: bool) -> None:
    block = answer(200, *((b"x-%d" % n, b"v" * 10_000) for n in range(10)))
    pieces = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]

    def large(number: int) -> bytes:
        return frame(HEADERS, END_STREAM, number, pieces[0]) + b"".join(
            frame(9, END_HEADERS * (it is pieces[-1]), number, it) for it in pieces[1:])

    hidden = " ".join(f"grpc_hide_header x-{n};" for n in range(10))
    found = ask(headrace(conf(make(large).address, more + hidden)))
    assert found.get("grpc-status") == ("0" if is_taken else "14")

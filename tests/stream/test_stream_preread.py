"""TLS passes through by its name, PROXY headers come in and go out, TLS may end here."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl

import pytest
from gateway import wait_for
from peers import Peer, client_context, echo, make_certificate, read_all, server_context

from proxy.wire import _proxy_protocol


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_certificate(folder, name) for name in ("one.test", "two.test", "rest.test")}


@pytest.fixture
def named(certificates):
    """A TLS peer for each certificate, that says its name and then echoes."""
    made = {}
    for name, pair in certificates.items():

        def serve(sock: socket.socket, name: str = name) -> None:
            sock.sendall(name.encode() + b"\n")
            echo(sock)

        made[name] = Peer(serve, server_context(*pair))
    yield made
    for it in made.values():
        it.close()


ROUTED = """
stream {
    log_format p '$status $ssl_preread_protocol $ssl_preread_server_name '
                 '$ssl_preread_alpn_protocols';
    access_log logs/access.log p;
    map $ssl_preread_server_name $to { one.test one; two.test 127.0.0.1:%(two)d; default rest; }
    upstream one { server 127.0.0.1:%(one)d; }
    upstream rest { server 127.0.0.1:%(rest)d; }
    server { listen 127.0.0.1:%%%%PORT%%%%; ssl_preread on; proxy_pass $to; %(inside)s }
}
"""


@pytest.fixture
def router(headrace, named):
    def make(inside: str = ""):
        ports = {name.split(".")[0]: it.port for name, it in named.items()}
        return headrace(main=ROUTED % {**ports, "inside": inside})

    return make


def hello(name: str | None) -> bytes:
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(into, out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def test_the_name_chooses_the_upstream_and_tls_passes_through(router) -> None:
    gateway = router()
    for name, said, most in (
        ("one.test", b"one.test\n", ssl.TLSVersion.TLSv1_3),
        ("two.test", b"two.test\n", ssl.TLSVersion.TLSv1_2),
        ("three.test", b"rest.test\n", ssl.TLSVersion.TLSv1_3),
        (None, b"rest.test\n", ssl.TLSVersion.TLSv1_3),
    ):
        context = client_context()
        context.maximum_version = most
        context.set_alpn_protocols(["h2", "x"])
        plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        with context.wrap_socket(plain, server_hostname=name) as sock:
            assert sock.recv(100) == said
            sock.sendall(b"again")
            assert sock.recv(100) == b"again"
    wait_for(lambda: len(gateway.log()) == 4)
    assert gateway.log() == [
        "200 TLSv1.3 one.test h2,x", "200 TLSv1.2 two.test h2,x",
        "200 TLSv1.3 three.test h2,x", "200 TLSv1.3  h2,x",
    ]  # fmt: skip


def test_a_hello_may_come_in_any_two_pieces(router) -> None:
    """At each byte: what was read before the choice is sent on, whole and in order."""
    gateway = router()
    whole = hello("one.test")
    for cut in range(1, len(whole), 7):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(whole[:cut])
            sock.sendall(whole[cut:])
            assert sock.recv(5)[:1] == b"\x16"  # the ServerHello of somebody who understood it
    wait_for(lambda: len(gateway.log()) == len(range(1, len(whole), 7)))
    assert {line.split()[2] for line in gateway.log()} == {"one.test"}


def test_a_hello_may_come_byte_by_byte_in_many_records(headrace) -> None:
    got = []

    def serve(sock: socket.socket) -> None:
        data = b""
        while len(data) < len(sent):
            data += sock.recv(65536)
        got.append(data)

    whole = hello("one.test")[5:]
    sent = b"".join(b"\x16\3\1\0\1" + whole[at : at + 1] for at in range(len(whole)))
    to = Peer(serve)
    gateway = headrace(
        main="stream { map $ssl_preread_server_name $to { one.test 127.0.0.1:@TO@; default x; } "
        "server { listen 127.0.0.1:%%PORT%%; ssl_preread on; proxy_pass $to; } }".replace(
            "@TO@", str(to.port)
        )
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            sock.sendall(sent[at : at + 1])
        wait_for(lambda: got == [sent])
    to.close()


@pytest.mark.parametrize(
    ("sent", "inside", "status", "said"),
    [
        (b"\x16\3\1\x40\0\1\0\x3f\xfc" + bytes(100), "preread_buffer_size 64;", "400",
         "preread buffer full while prereading client data"),
        (b"\x16\3\1", "preread_timeout 200ms;", "200",
         "client timed out (110: Connection timed out) while prereading client data"),
    ],
)  # fmt: skip
def test_who_never_says_it_is_let_go(router, sent, inside, status, said) -> None:
    gateway = router(inside)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # what it sent was not all read
            assert sock.recv(10) == b""
    wait_for(lambda: [line.split()[0] for line in gateway.log()] == [status])
    assert said in gateway.error_log


def test_what_is_no_hello_goes_to_the_default(headrace) -> None:
    to = Peer(echo)
    gateway = headrace(
        main="stream { server { listen 127.0.0.1:%%PORT%%; ssl_preread on; "
        "proxy_pass 127.0.0.1:@TO@; } }".replace("@TO@", str(to.port))
    )
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\0", b"\0"):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.sendall(sent)
            assert sock.recv(100) == sent
    to.close()


def addresses_of(sock: socket.socket) -> str:
    (host, port), (peer, peer_port) = sock.getsockname(), sock.getpeername()
    return f"{host} {peer} {port} {peer_port}"


@pytest.mark.parametrize(("word", "version"), [("on", 1), ("v2", 2)])
def test_a_proxy_header_goes_before_the_first_byte(headrace, word, version) -> None:
    to = Peer(echo)
    gateway = headrace(
        main=f"stream {{ server {{ listen 127.0.0.1:%%PORT%%; proxy_protocol {word}; "
        f"proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(b"hello")
        got = b""
        while not got.endswith(b"hello"):
            got += sock.recv(1000)
        used, (source, source_port, target, target_port) = _proxy_protocol.read(got)
        assert got[used:] == b"hello"
        assert f"{source} {target} {source_port} {target_port}" == addresses_of(sock)
        assert (got[:1] == b"P") == (version == 1)
    to.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_proxy_header_is_read_at_every_cut(headrace, version) -> None:
    to = Peer(echo)
    gateway = headrace(
        main="stream { log_format a '$proxy_protocol_addr $proxy_protocol_port $remote_addr "
        "$bytes_received'; access_log logs/access.log a; server { "
        "listen 127.0.0.1:%%PORT%% proxy_protocol; proxy_protocol_timeout 300ms; "
        f"proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    header = _proxy_protocol.write(version, b"192.0.2.7:1234", b"198.51.100.1:443")
    sent = header + b"hello"
    for cut in range(1, len(sent)):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(sent[:cut])
            sock.sendall(sent[cut:])
            got = b""
            while len(got) < 5:
                got += sock.recv(100)
            assert got == b"hello"
    wait_for(lambda: len(gateway.log()) == len(sent) - 1)
    assert set(gateway.log()) == {"192.0.2.7 1234 127.0.0.1 5"}
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(10) == b""
    wait_for(lambda: "broken header" in gateway.error_log)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(header[:9])
        assert sock.recv(10) == b""
    wait_for(lambda: "while reading PROXY protocol" in gateway.error_log)
    to.close()


@pytest.mark.parametrize("proxied", ["", "proxy_protocol"])
def test_tls_may_end_here(headrace, certificates, proxied) -> None:
    to = Peer(echo)
    pem, key = certificates["one.test"]
    gateway = headrace(
        main="stream { log_format s '$ssl_protocol $ssl_server_name $status'; "
        "access_log logs/access.log s; "
        f"ssl_certificate {pem}; ssl_certificate_key {key}; ssl_handshake_timeout 500ms; "
        f"server {{ listen 127.0.0.1:%%PORT%% ssl {proxied}; proxy_half_close on; "
        f"proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    data = b"0123456789abcdef" * 20_000
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    if proxied:
        plain.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n")
    context = client_context()
    context.set_alpn_protocols(["mqtt"])  # passed over: nobody here knows what is spoken
    with context.wrap_socket(plain, server_hostname="one.test") as sock:
        assert sock.selected_alpn_protocol() is None
        got = b""
        for at in range(0, len(data), 40_000):
            sock.sendall(data[at : at + 40_000])
            while len(got) < min(at + 40_000, len(data)):
                got += sock.recv(65536)
        assert got == data
    wait_for(lambda: gateway.log() == ["TLSv1.3 one.test 200"])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        if proxied:
            sock.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n")
        sock.sendall(b"this is no TLS\r\n")
        read_all(sock)
    wait_for(lambda: "SSL_do_handshake() failed" in gateway.error_log)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        if proxied:
            sock.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n")
        assert read_all(sock) == b""
    wait_for(lambda: "while SSL handshaking" in gateway.error_log)
    assert not re.search(r"\[(alert|crit)\]", gateway.error_log)
    to.close()

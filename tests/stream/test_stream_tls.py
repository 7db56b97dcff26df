"""TLS towards upstreams, and servers that TLS chooses by its name."""

from __future__ import annotations

import socket
import ssl

import pytest
from gateway import wait_for
from peers import Peer, client_context, echo, make_certificate, read_all, server_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    made = {name: make_certificate(folder, name) for name in ("one.test", "two.test")}
    for pem, key in made.values():
        pem.chmod(0o644)
        key.chmod(0o644)
    folder.chmod(0o755)
    return made


@pytest.fixture
def sealed(certificates):
    """A TLS peer that echoes; names: what clients asked for by SNI, and when a session was
    resumed."""
    context = server_context(*certificates["one.test"])
    names: list[str | None] = []
    reused: list[bool] = []
    context.sni_callback = lambda sock, name, _: names.append(name)

    def serve(sock: ssl.SSLSocket) -> None:
        reused.append(sock.session_reused)
        echo(sock)

    to = Peer(serve, context)
    to.names, to.reused = names, reused
    yield to
    to.close()


def ask(port: int, data: bytes = b"hello") -> bytes:
    """What an echo answers to data, whole; less where the connection ended before."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            sock.sendall(data)
            while len(got) < len(data):
                piece = sock.recv(65536)
                if not piece:
                    break
                got += piece
        except ConnectionError:
            pass
    return got


def test_bytes_go_round_by_tls(headrace, sealed, certificates) -> None:
    pem, _ = certificates["one.test"]
    gateway = headrace(
        main="stream { log_format s '$status $upstream_bytes_sent $upstream_bytes_received';"
        " access_log logs/access.log s;"
        f" server {{ listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{sealed.port}; proxy_ssl on;"
        f" proxy_ssl_verify on; proxy_ssl_trusted_certificate {pem}; proxy_ssl_name one.test;"
        " proxy_ssl_server_name on; } }"
    )
    for n in range(1, 4):
        assert ask(gateway.port, b"x" * 100_000) == b"x" * 100_000
        wait_for(lambda n=n: gateway.log() == ["200 100000 100000"] * n)
    assert sealed.names == ["one.test"] * 3
    assert sealed.reused[0] is False and True in sealed.reused


@pytest.mark.parametrize("settings, said", [
    ("proxy_ssl_verify on; proxy_ssl_trusted_certificate {one};", 'does not match "127.0.0.1"'),
    ("proxy_ssl_verify on; proxy_ssl_trusted_certificate {two}; proxy_ssl_name one.test;",
     "certificate verify error"),
    ("proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers AES128-SHA;", "SSL_do_handshake() failed"),
])  # fmt: skip
def test_nothing_is_said_to_somebody_else(headrace, sealed, certificates, settings, said) -> None:
    one, two = (str(certificates[name][0]) for name in ("one.test", "two.test"))
    gateway = headrace(
        main="stream { log_format s '$status $upstream_bytes_sent'; access_log logs/access.log s;"
        f" server {{ listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{sealed.port}; proxy_ssl on;"
        f" {settings.format(one=one, two=two)} }} }}"
    )
    assert ask(gateway.port) == b""
    wait_for(lambda: gateway.log() == ["502 0"])
    assert said in gateway.error_log and "while SSL handshaking to upstream" in gateway.error_log


def test_another_peer_is_asked_where_a_handshake_fails(headrace, sealed) -> None:
    def deaf(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.recv(65536)

    rude, silent = Peer(lambda sock: sock.sendall(b"no TLS")), Peer(deaf)
    gateway = headrace(
        main=f"stream {{ upstream all {{ server 127.0.0.1:{rude.port}; "
        f"server 127.0.0.1:{silent.port}; server 127.0.0.1:{sealed.port}; }} "
        "server { listen 127.0.0.1:%%PORT%%; proxy_pass all; proxy_ssl on; "
        "proxy_connect_timeout 500ms; } }"
    )
    assert [ask(gateway.port) for _ in range(6)] == [b"hello"] * 6
    assert "timed out (110: Connection timed out) while SSL handshaking" in gateway.error_log
    rude.close()
    silent.close()


def test_our_proxy_header_comes_before_tls(headrace, certificates) -> None:
    context, heads = server_context(*certificates["one.test"]), []

    def serve(sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n"):
            head += sock.recv(1)
        heads.append(head)
        with context.wrap_socket(sock, server_side=True) as inner:
            echo(inner)

    to = Peer(serve)
    gateway = headrace(
        main="stream { server { listen 127.0.0.1:%%PORT%%; proxy_protocol on; proxy_ssl on; "
        f"proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    assert ask(gateway.port) == b"hello"
    assert heads[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    to.close()


SERVERS = """
    stream {
        log_format s '$server_name'; access_log logs/access.log s;
        %(common)s
        server { listen 127.0.0.1:%%%%PORT%%%% %(how)s; server_name one.test; %(one)s
                 return "one:$server_name"; }
        server { listen 127.0.0.1:%%%%PORT%%%% default_server; return "default:$server_name"; }
        server { listen 127.0.0.1:%%%%PORT%%%%; server_name two.test *.two.test; %(two)s
                 return "two:$server_name"; }
        server { listen 127.0.0.1:%%%%PORT%%%%; server_name ~^(?<who>[a-z]+)\\.re\\.test$;
                 return "re:$who"; }
        server { listen 127.0.0.1:%%%%PORT%%%%; server_name no.test; ssl_reject_handshake on;
                 return no; }
    }
"""


def asked_by_tls(port: int, name: str | None) -> tuple[bytes, str]:
    """(all that came, the certificate's name)."""
    context = client_context()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as sock,
    ):
        pem = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True) or b"")
        return read_all(sock), pem


def test_tls_chooses_a_server_by_its_name(headrace, certificates) -> None:
    pairs = {
        short: f"ssl_certificate {pem}; ssl_certificate_key {key};"
        for short, (pem, key) in zip(("one", "two"), certificates.values(), strict=True)
    }
    gateway = headrace(main=SERVERS % {"how": "ssl", "common": pairs["one"], **pairs})
    one, two = (certificates[it][0].read_text() for it in ("one.test", "two.test"))
    for name, said, pem in (
        ("one.test", b"one:one.test", one), ("ONE.test", b"one:one.test", one),
        ("two.test", b"two:two.test", two), ("a.b.two.test", b"two:two.test", two),
        ("bob.re.test", b"re:bob", one), ("other.test", b"default:", one), (None, b"default:", one),
    ):  # fmt: skip
        assert asked_by_tls(gateway.port, name) == (said, pem), name
    with pytest.raises(ssl.SSLError):
        asked_by_tls(gateway.port, "no.test")
    wait_for(lambda: gateway.log()[:4] == ["one.test", "one.test", "two.test", "two.test"])


def test_a_name_that_was_preread_chooses_too(headrace) -> None:
    """Nothing ends TLS here: the ClientHello alone says whom it wants."""
    gateway = headrace(
        main=(SERVERS % {"how": "", "common": "ssl_preread on;", "one": "", "two": ""}).replace(
            "ssl_reject_handshake on;", ""
        )
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    for name, said in (
        ("one.test", b"one:one.test"), ("x.two.test", b"two:two.test"), ("ann.re.test", b"re:ann"),
        ("other.test", b"default:"), (None, b"default:"),
    ):  # fmt: skip
        client = client_context().wrap_bio(incoming, outgoing, server_hostname=name)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.sendall(outgoing.read())
            assert read_all(sock) == said, name


def test_alpn_is_agreed_on(headrace, certificates) -> None:
    pem, key = certificates["one.test"]
    gateway = headrace(
        main=f"stream {{ ssl_certificate {pem}; ssl_certificate_key {key}; server {{"
        ' listen 127.0.0.1:%%PORT%% ssl; ssl_alpn mqtt x; return "$ssl_alpn_protocol"; } }'
    )
    for offered, said in ((["x", "mqtt"], b"mqtt"), (["x"], b"x"), ([], b"")):
        context = client_context()
        if offered:
            context.set_alpn_protocols(offered)
        with (
            socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain,
            context.wrap_socket(plain) as sock,
        ):
            assert read_all(sock) == said
    context.set_alpn_protocols(["other"])
    with (
        socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain)


@pytest.mark.parametrize(
    ("words", "asked", "chosen"),
    [
        ("v1", ["v1"], "v1"),
        ("v1 v2", ["v1"], "v2"),
        ("$ssl_alpn_protocol", ["v1"], "v1"),
        ("$ssl_alpn_protocol", [], None),
        ("$ssl_alpn_protocol v2", [], "v2"),
        ("$long$long$long v2", ["v1"], "v2"),                  # longer than a protocol can be
        ("other", ["v1"], None),
    ],
)  # fmt: skip
def test_alpn_towards_the_upstream(headrace, certificates, words, asked, chosen) -> None:
    pem, key = certificates["one.test"]
    context = server_context(pem, key)
    context.set_alpn_protocols(["v2", "v1"])
    said: list[str | None] = []

    def serve(sock: ssl.SSLSocket) -> None:
        said.append(sock.selected_alpn_protocol())
        echo(sock)

    to = Peer(serve, context)
    gateway = headrace(
        main=f"stream {{ map 0 $long {{ default {'x' * 100}; }} server {{"
        f" listen 127.0.0.1:%%PORT%% ssl; ssl_alpn v1; ssl_certificate {pem};"
        f" ssl_certificate_key {key}; proxy_pass 127.0.0.1:{to.port}; proxy_ssl on;"
        f" proxy_ssl_alpn {words}; }} }}"
    )
    offered = client_context()
    if asked:
        offered.set_alpn_protocols(asked)
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    with offered.wrap_socket(plain, server_hostname="one.test") as sock:
        sock.sendall(b"hello")
        assert sock.recv(10) == b"hello"
    assert said == [chosen]
    to.close()

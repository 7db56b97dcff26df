"""What the header of PROXY says counts: TLVs as variables, the client's address where its writer is
trusted; over http, stream and mqtt alike."""

from __future__ import annotations

import socket
import struct

import pytest
from gateway import wait_for
from peers import Peer, client_context, echo, make_certificate, read_all

from proxy.wire import _proxy_protocol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NAMES = (
    "alpn", "authority", "unique_id", "netns", "0x4", "0x0E0", "0xe0", "0x1e0", "0xg", "nothing",
    "ssl_verify", "ssl_version", "ssl_cn", "ssl_cipher", "ssl_sig_alg", "ssl_key_alg", "ssl_0x22",
    "ssl_0x2f", "ssl_nothing",
)  # fmt: skip
SAID = "|".join(f"${{proxy_protocol_tlv_{name}}}" for name in NAMES)
BOTH = f"""
    stream {{ server {{ listen 127.0.0.1:%%PORT%% proxy_protocol; return "{SAID}"; }} }}
"""
HTTP = f"""
    server {{ listen 127.0.0.1:%%PORT_1%% proxy_protocol; location / {{ return 200 "{SAID}"; }} }}
"""


def tlv(type: int, value: bytes) -> bytes:
    return struct.pack("!BH", type, len(value)) + value


def header(tlvs: bytes = b"", source: str = "192.0.2.7", family: int = 0x11) -> bytes:
    body = socket.inet_aton(source) + socket.inet_aton("198.51.100.1")
    body += struct.pack("!HH", 1234, 443) + tlvs
    return SIGNATURE + bytes((0x21, family)) + struct.pack("!H", len(body)) + body


OF_SSL = b"".join(
    tlv(0x21 + n, it) for n, it in enumerate((b"TLSv1.3", b"dev7", b"AES", b"SHA256", b"RSA2048"))
)
ALL = (tlv(1, b"h2") + tlv(2, b"a.test") + tlv(4, bytes(40)) + tlv(5, b"id7") + tlv(0x30, b"ns")
       + tlv(0x20, b"\1" + struct.pack("!I", 0xFFFFFFFE) + OF_SSL) + tlv(0xE0, b"own"))  # fmt: skip
FOUND = {
    "alpn": "h2", "authority": "a.test", "unique_id": "id7", "netns": "ns", "0x0E0": "own",
    "0xe0": "own", "ssl_verify": "4294967294", "ssl_version": "TLSv1.3", "ssl_cn": "dev7",
    "ssl_cipher": "AES", "ssl_sig_alg": "SHA256", "ssl_key_alg": "RSA2048", "ssl_0x22": "dev7",
}  # fmt: skip


def said(found: dict[str, str]) -> str:
    return "|".join(found.get(name, "") for name in NAMES)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """asked(header): what the TLVs are to a server of stream and to one of http."""
    from gateway import Gateway

    gateway = Gateway(tmp_path_factory.mktemp("gateway"), HTTP, BOTH).start()

    def ask(data: bytes) -> tuple[str, str]:
        got = []
        for port, more in ((gateway.ports[0], b""), (gateway.ports[1], GET)):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                sock.sendall(data + more)
                got.append(read_all(sock).decode())
        return got[0], got[1].partition("\r\n\r\n")[2]

    yield ask
    gateway.stop()
    assert "[alert]" not in gateway.said and "Traceback" not in gateway.said


@pytest.mark.parametrize(
    ("tlvs", "found"),
    [
        (b"", {}),
        (tlv(4, b""), {}),
        (tlv(1, b"h2") + tlv(1, b"x"), {"alpn": "h2"}),
        (tlv(0x20, b""), {}),
        (tlv(0x20, b"\1\0\0\0"), {}),                          # shorter than what it must hold
        (tlv(0x20, b"\1\0\0\0\0"), {"ssl_verify": "0"}),
        (tlv(0x22, b"nobody"), {}),                            # a name outside of its SSL
        (tlv(1, b"h2") + b"\x02\xff\xffa.test", {"alpn": "h2"}),   # breaks off
        (tlv(1, b"h2") + b"\x02\0", {"alpn": "h2"}),
        (tlv(0x20, b"\1\0\0\0\1\x22\0\x09x"), {"ssl_verify": "1"}),
    ],
)  # fmt: skip
def test_tlvs_are_variables(asked, tlvs, found) -> None:
    assert asked(header(tlvs)) == (said(found), said(found))


def test_the_bytes_of_a_tlv_are_what_they_are(asked) -> None:
    """A tag of 40 bytes of NUL is one of them; numbers may have zeros in front."""
    of_stream, of_http = asked(header(ALL))
    assert of_stream.replace("\0" * 40, "") == said(FOUND) == of_http.replace("\0" * 40, "")
    assert of_stream.count("\0") == 40


def test_version_1_has_none(asked) -> None:
    assert asked(b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n") == (said({}), said({}))


def test_tlvs_choose_an_upstream(headrace) -> None:
    to = Peer(echo)
    gateway = headrace(
        main="stream { map $proxy_protocol_tlv_authority $to { a.test 127.0.0.1:@TO@; default x; }"
        " log_format a '$proxy_protocol_tlv_alpn'; access_log logs/access.log a; server {"
        " listen 127.0.0.1:%%PORT%% proxy_protocol; proxy_pass $to; } }".replace(
            "@TO@", str(to.port)
        )
    )
    for sent, got in ((ALL, b"hello"), (tlv(2, b"b.test"), b"")):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
            sock.sendall(header(sent) + b"hello")
            assert sock.recv(10) == got
    wait_for(lambda: gateway.log() == ["h2", "-"])
    to.close()


# -- who is trusted ----------------------------------------------------------------------

TRUSTING = """
    stream {
        limit_conn_zone $binary_remote_addr zone=z:64k;
        log_format a '$remote_addr $remote_port $realip_remote_addr $status';
        access_log logs/access.log a;
        set_real_ip_from %(from)s;
        server { listen 127.0.0.1:%%%%PORT%%%% proxy_protocol; %(inside)s }
    }
"""


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data)
        try:
            return sock.recv(100)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("version", [1, 2])
def test_the_address_of_a_trusted_proxy_s_client_is_judged(headrace, version) -> None:
    gateway = headrace(
        main=TRUSTING % {"from": "127.0.0.0/8", "inside": "deny 192.0.2.9; return x;"}
    )
    for source, got in (("192.0.2.7", b"x"), ("192.0.2.9", b"")):
        sent = _proxy_protocol.write(version, f"{source}:1234".encode(), b"198.51.100.1:443")
        assert ask(gateway.port, sent) == got
    assert ask(gateway.port, b"PROXY UNKNOWN\r\n") == b"x"  # nobody is spoken for
    wait_for(lambda: len(gateway.log()) == 3)
    assert gateway.log()[:2] == ["192.0.2.7 1234 127.0.0.1 200", "192.0.2.9 1234 127.0.0.1 403"]
    assert gateway.log()[2].startswith("127.0.0.1 ")


def test_a_stranger_speaks_for_nobody(headrace) -> None:
    gateway = headrace(main=TRUSTING % {"from": "192.0.2.1", "inside": "deny 192.0.2.7; return x;"})
    assert ask(gateway.port, header()) == b"x"
    wait_for(lambda: len(gateway.log()) == 1)
    assert gateway.log()[0].startswith("127.0.0.1 ")


def test_connections_are_counted_by_the_real_address(headrace) -> None:
    to = Peer(echo)
    gateway = headrace(
        main=TRUSTING
        % {"from": "127.0.0.1", "inside": f"limit_conn z 1; proxy_pass 127.0.0.1:{to.port};"}
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as one:
        one.sendall(header(source="192.0.2.1") + b"1")
        assert one.recv(1) == b"1"
        assert ask(gateway.port, header(source="192.0.2.1") + b"2") == b""
        assert ask(gateway.port, header(source="192.0.2.2") + b"3") == b"3"
    to.close()


@pytest.mark.parametrize(("word", "version"), [("on", 1), ("v2", 2)])
def test_the_next_one_hears_of_the_real_client(headrace, word, version) -> None:
    """… by a header of the other version, over TLS that ends here, too."""
    to = Peer(echo)
    gateway = headrace(
        main=TRUSTING % {"from": "127.0.0.1",
                         "inside": f"proxy_protocol {word}; proxy_pass 127.0.0.1:{to.port};"}
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        sock.sendall(_proxy_protocol.write(3 - version, b"192.0.2.7:1234", b"198.51.100.1:443"))
        sock.sendall(b"hello")
        got = b""
        while not got.endswith(b"hello"):
            got += sock.recv(1000)
    _, (source, port, target, _) = _proxy_protocol.read(got)
    assert (source, port, target) == ("192.0.2.7", 1234, "127.0.0.1")
    assert (got[:1] == b"P") == (version == 1)
    to.close()


def test_tls_behind_a_header_has_the_real_address(headrace, tmp_path) -> None:
    pem, key = make_certificate(tmp_path, "one.test")
    gateway = headrace(
        main="stream { server { listen 127.0.0.1:%%PORT%% proxy_protocol ssl; "
        f"ssl_certificate {pem}; ssl_certificate_key {key}; set_real_ip_from 127.0.0.1; "
        "return $remote_addr,$proxy_protocol_tlv_authority; } }"
    )
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    plain.sendall(header(tlv(2, b"a.test")))
    with client_context().wrap_socket(plain, server_hostname="one.test") as sock:
        assert read_all(sock) == b"192.0.2.7,a.test"

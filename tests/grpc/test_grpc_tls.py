"""grpcs://: each grpc_ssl_… directive as the server sees it, and who is not spoken to."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import Gateway
from h2client import H2Client
from h2upstream import END_HEADERS, GOAWAY, HEADERS, H2Upstream, Secured, frame

from proxy.wire.h2_door import write_field, write_status

END_STREAM = 1
AUTHORITY = """
[ca]
default_ca = it
[it]
database = AT/index.txt
default_md = sha256
default_crl_days = 9
"""


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca signs leaf (a.test), deep and us; deep signs far (a.test). none.crl names nobody,
    leaf.crl the leaf."""
    at = tmp_path_factory.mktemp("keys")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/ca.key", "-out",
            f"{at}/ca.crt", "-subj", "/CN=ca", "-days", "9",
            "-addext", "keyUsage=keyCertSign,cRLSign")  # fmt: skip
    for name, issuer, extension in (
        ("leaf", "ca", "subjectAltName=DNS:a.test"),
        ("us", "ca", "subjectAltName=DNS:us.test"),
        ("deep", "ca", "basicConstraints=critical,CA:TRUE"),
        ("far", "deep", "subjectAltName=DNS:a.test"),
    ):
        (at / "ext").write_text(extension)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/{name}.key", "-out",
                f"{at}/{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{at}/{name}.csr", "-CA", f"{at}/{issuer}.crt", "-CAkey",
                f"{at}/{issuer}.key", "-CAcreateserial", "-out", f"{at}/{name}.crt", "-days", "9",
                "-extfile", f"{at}/ext")  # fmt: skip
    openssl("rsa", "-aes128", "-passout", "pass:word", "-in", f"{at}/us.key", "-out",
            f"{at}/us.locked")  # fmt: skip
    (at / "passwords").write_text("wrong\nword\n")
    (at / "far.chain").write_text((at / "far.crt").read_text() + (at / "deep.crt").read_text())
    (at / "index.txt").touch()
    (at / "ca.conf").write_text(AUTHORITY.replace("AT", str(at)))
    ours = ("-config", f"{at}/ca.conf", "-keyfile", f"{at}/ca.key", "-cert", f"{at}/ca.crt")
    openssl("ca", *ours, "-gencrl", "-out", f"{at}/none.crl")
    openssl("ca", *ours, "-revoke", f"{at}/leaf.crt")
    openssl("ca", *ours, "-gencrl", "-out", f"{at}/leaf.crl")
    return at


def answer(number: int) -> bytes:
    """A status, and that the next call needs a connection of its own."""
    block = write_status(200) + write_field(b"content-type", b"application/grpc") + write_field(
        b"grpc-status", b"0")  # fmt: skip
    return frame(HEADERS, END_HEADERS | END_STREAM, number, block) + frame(
        GOAWAY, 0, 0, number.to_bytes(4, "big") + bytes(4))  # fmt: skip


class Peer:
    """A TLS server of HTTP/2; `names` are those that SNI told, None where it did not."""

    def __init__(self, keys: Path, name: str, version: ssl.TLSVersion | None) -> None:
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / name, (keys / name).with_suffix(".key"))
        context.load_verify_locations(keys / "ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["h2"])
        context.sni_callback = lambda _link, name, _context: self.names.append(name)
        if version is not None:
            context.maximum_version = version
        self.upstream = H2Upstream(answer, tls=context)

    @property
    def settled(self) -> Secured:
        """Of the newest connection."""
        return self.upstream.secured[-1]


@pytest.fixture
def make(keys: Path) -> Iterator[Callable[..., Peer]]:
    """A maker of servers: make(certificate="leaf.crt", version=None)."""
    made: list[Peer] = []

    def it(name: str = "leaf.crt", version: ssl.TLSVersion | None = None) -> Peer:
        made.append(Peer(keys, name, version))
        return made[-1]

    yield it
    for peer in made:
        peer.upstream.close()


def start(headrace, keys: Path, peer: Peer, text: str) -> Gateway:
    text = text.replace("KEYS", str(keys))
    return headrace(f"server {{ listen %%PORT%%; http2 on; location / {{ grpc_pass "
                    f"grpcs://{peer.upstream.address}; {text} }} }}")  # fmt: skip


def ask(gateway: Gateway) -> str | None:
    """The grpc-status of a call."""
    with H2Client(gateway.port) as client:
        return client.get("/test.Test/Echo", method="POST", body=bytes(5), fields=[
            ("content-type", "application/grpc"), ("te", "trailers")]).get("grpc-status")


TRUSTED = "grpc_ssl_verify on; grpc_ssl_trusted_certificate KEYS/ca.crt; grpc_ssl_name a.test;"


@pytest.mark.parametrize(
    ("text", "name", "status"),
    [
        ("", "leaf.crt", "0"),                                # who is not verified may be anybody
        (TRUSTED, "leaf.crt", "0"),
        (TRUSTED.replace("a.test", "b.test"), "leaf.crt", "14"),
        (TRUSTED.replace("ca.crt", "far.crt"), "leaf.crt", "14"),
        ("grpc_ssl_verify on; grpc_ssl_trusted_certificate KEYS/ca.crt;", "leaf.crt", "14"),
        (TRUSTED, "far.chain", "0"),
        (f"{TRUSTED} grpc_ssl_verify_depth 0;", "far.chain", "14"),
        (f"{TRUSTED} grpc_ssl_crl KEYS/none.crl;", "leaf.crt", "0"),
        (f"{TRUSTED} grpc_ssl_crl KEYS/leaf.crl;", "leaf.crt", "14"),
    ],
)
def test_who_is_spoken_to(headrace, keys, make, text: str, name: str, status: str) -> None:
    assert ask(start(headrace, keys, make(name), text)) == status


def test_the_name_is_sent_if_asked_for(headrace, keys: Path, make) -> None:
    peer = make()
    assert ask(start(headrace, keys, peer, "grpc_ssl_name a.test;")) == "0"
    assert ask(start(headrace, keys, peer, "grpc_ssl_name $http_te.test;"
                     "grpc_ssl_server_name on;")) == "0"  # fmt: skip
    assert peer.names == [None, "trailers.test"]


def test_our_certificate(headrace, keys: Path, make) -> None:
    peer = make()
    assert ask(start(headrace, keys, peer, "")) == "0"
    assert not peer.settled.certificate
    ours = ("grpc_ssl_certificate KEYS/us.crt; grpc_ssl_certificate_key KEYS/us.locked; "
            "grpc_ssl_password_file KEYS/passwords;")  # fmt: skip
    assert ask(start(headrace, keys, peer, ours)) == "0"
    assert peer.settled.certificate["subject"] == ((("commonName", "us"),),)


@pytest.mark.parametrize(
    ("text", "version", "cipher"),
    [
        ("", "TLSv1.3", None),
        ("grpc_ssl_protocols TLSv1.2;", "TLSv1.2", None),
        ("grpc_ssl_protocols TLSv1.2; grpc_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;", "TLSv1.2",
         "ECDHE-RSA-AES128-GCM-SHA256"),
        ("grpc_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;", "TLSv1.3",
         "TLS_CHACHA20_POLY1305_SHA256"),
    ],
)
def test_what_is_settled(headrace, keys, make, text: str, version: str, cipher: str | None) -> None:
    peer = make()
    assert ask(start(headrace, keys, peer, text)) == "0"
    assert peer.settled.version == version
    assert peer.settled.protocol == "h2"
    if cipher is not None:
        assert peer.settled.cipher == cipher


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("text", "is_reused"), [("", True), ("off", False)])
def test_sessions(headrace, keys, make, version, text: str, is_reused: bool) -> None:
    peer = make(version=version)
    gateway = start(headrace, keys, peer, f"grpc_ssl_session_reuse {text};" if text else "")
    found = []
    for _ in range(3):
        assert ask(gateway) == "0"
        found.append(peer.settled.is_resumed)
    assert found == [False, is_reused, is_reused]
    assert len(peer.upstream.secured) == 3

"""proxy_ssl_…: contexts as the conf says, and handshakes with real certificates."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from proxy.conf import load_text
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.order import declare_all
from proxy.upstream.tls import TlsContexts, bare_name, check_peer, is_name_of, sent_name

declare_all()
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca → deep (an intermediate) → leaf (*.up.test), and us (a client's, key with a password)."""
    at = tmp_path_factory.mktemp("keys")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/ca.key", "-out",
            f"{at}/ca.crt", "-subj", "/CN=ca", "-days", "9",
            "-addext", "keyUsage=keyCertSign,cRLSign")  # fmt: skip
    for name, issuer, extension in (
        ("deep", "ca", "basicConstraints=critical,CA:TRUE"),
        ("leaf", "deep", "subjectAltName=DNS:*.up.test,DNS:exact.test,IP:127.0.0.1"),
        ("us", "ca", "subjectAltName=DNS:us.test"),
        ("other", "ca", "subjectAltName=DNS:*.up.test"),
    ):
        (at / "ext").write_text(extension)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{at}/{name}.key", "-out",
                f"{at}/{name}.csr", "-subj", f"/CN={name}.cn.test")  # fmt: skip
        openssl("x509", "-req", "-in", f"{at}/{name}.csr", "-CA", f"{at}/{issuer}.crt", "-CAkey",
                f"{at}/{issuer}.key", "-CAcreateserial", "-out", f"{at}/{name}.crt", "-days", "9",
                "-extfile", f"{at}/ext")  # fmt: skip
    openssl("rsa", "-aes128", "-passout", "pass:word", "-in", f"{at}/us.key", "-out",
            f"{at}/us.locked")  # fmt: skip
    (at / "passwords").write_text("wrong\nword\n")
    (at / "chain.crt").write_text((at / "leaf.crt").read_text() + (at / "deep.crt").read_text())
    return at


def location(text: str, keys: Path) -> Block:
    text = text.replace("DIR", str(keys))
    conf = load_text(f"events {{ }}\nhttp {{ server {{ location / {{\n{text}\n}} }} }}")
    return conf.find("http")[0].find("server")[0].find("location")[0]


def shake(block: Block, keys: Path, name: str, certificate: str = "chain") -> dict[str, object]:
    """One handshake with a server that asks for a certificate: what the server saw."""
    settings = TlsContexts().find(block)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = "leaf" if certificate == "chain" else certificate
    server.load_cert_chain(keys / f"{certificate}.crt", keys / f"{key}.key")
    server.load_verify_locations(keys / "ca.crt")
    server.verify_mode = ssl.CERT_OPTIONAL
    seen: dict[str, object] = {}
    server.sni_callback = lambda _link, sni, _context: seen.update(sni=sni)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as link:
                link.recv(1)
                seen.update(version=link.version(), certificate=link.getpeercert())
                link.sendall(b"x")
        except (OSError, ValueError):  # we left in the middle
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with settings.context.wrap_socket(ours, server_hostname=sent_name(settings, name)) as link:
            check_peer(link, settings, name)
            link.sendall(b"x")
            link.recv(1)
    finally:
        ours.close()
        thread.join()
        theirs.close()
    return seen


VERIFY = "proxy_ssl_verify on; proxy_ssl_trusted_certificate DIR/ca.crt;"


def test_nothing_is_verified_or_sent_by_default(keys: Path) -> None:
    seen = shake(location("", keys), keys, "wrong.test")
    assert seen["sni"] is None
    assert not seen["certificate"]
    assert seen["version"] == "TLSv1.3"


def test_sni_is_sent_when_asked_for(keys: Path) -> None:
    block = location("proxy_ssl_server_name on;", keys)
    assert shake(block, keys, "a.up.test:8443")["sni"] == "a.up.test"
    assert shake(block, keys, "127.0.0.1:8443")["sni"] is None
    assert shake(block, keys, "[::1]:8443")["sni"] is None


@pytest.mark.parametrize("name", ["a.up.test", "A.Up.Test", "exact.test:443"])
@pytest.mark.parametrize("sni", ["on", "off"])
def test_a_right_name_is_verified(keys: Path, name: str, sni: str) -> None:
    shake(location(f"{VERIFY} proxy_ssl_server_name {sni};", keys), keys, name)


@pytest.mark.parametrize(
    "name", ["up.test", "a.b.up.test", "leaf.cn.test", "other.test", "", "127.0.0.1"]
)
def test_a_wrong_name_is_refused(keys: Path, name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="does not match"):
        shake(location(VERIFY, keys), keys, name)


def test_an_unknown_authority_is_refused(keys: Path) -> None:
    text = "proxy_ssl_verify on; proxy_ssl_trusted_certificate DIR/us.crt;"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(location(text, keys), keys, "a.up.test")


def test_depth_counts_intermediates(keys: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="too long"):
        shake(location(f"{VERIFY} proxy_ssl_verify_depth 0;", keys), keys, "a.up.test")
    shake(location(f"{VERIFY} proxy_ssl_verify_depth 0;", keys), keys, "a.up.test", "other")


def test_our_certificate_with_a_locked_key(keys: Path) -> None:
    block = location(
        "proxy_ssl_certificate DIR/us.crt; proxy_ssl_certificate_key DIR/us.locked;"
        "proxy_ssl_password_file DIR/passwords;",
        keys,
    )
    seen = shake(block, keys, "a.up.test")
    assert ("DNS", "us.test") in seen["certificate"]["subjectAltName"]  # type: ignore[index]


def test_versions(keys: Path) -> None:
    assert shake(location("proxy_ssl_protocols TLSv1.2;", keys), keys, "x")["version"] == "TLSv1.2"
    context = TlsContexts().find(location("proxy_ssl_protocols TLSv1.1 TLSv1.3;", keys)).context
    assert context.options & ssl.OP_NO_TLSv1_2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"),
        ("proxy_ssl_certificate DIR/us.crt;", 'no "proxy_ssl_certificate_key" is defined for'),
        (
            "proxy_ssl_certificate DIR/us.crt; proxy_ssl_certificate_key DIR/leaf.key;",
            "cannot load certificate",
        ),
        (
            "proxy_ssl_certificate DIR/us.crt; proxy_ssl_certificate_key DIR/us.locked;",
            "cannot load certificate",
        ),
        (
            "proxy_ssl_certificate DIR/no.crt; proxy_ssl_certificate_key DIR/us.key;",
            "2: No such file or directory",
        ),
        (
            "proxy_ssl_certificate $a; proxy_ssl_certificate_key $b;",
            "known to nginx, not supported by Headrace",
        ),
        (
            "proxy_ssl_certificate DIR/us.crt; proxy_ssl_certificate_key DIR/us.locked;"
            " proxy_ssl_password_file DIR/none;",
            'none" failed (2: No such file or directory)',
        ),
        (
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate DIR/no.crt;",
            "SSL_CTX_load_verify_locations",
        ),
        ("proxy_ssl_ciphers NONSENSE;", 'SSL_CTX_set_cipher_list("NONSENSE") failed'),
        ("proxy_ssl_protocols SSLv2;", "no TLS version"),
    ],
)
def test_what_is_refused(keys: Path, text: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        TlsContexts().find(location(text, keys))
    assert message in str(error.value)
    assert "in conf:2" in str(error.value)


def test_locations_share_contexts(keys: Path) -> None:
    contexts = TlsContexts()
    one, two = (contexts.find(location(f"proxy_ssl_name {n};", keys)) for n in "ab")
    assert one.context is two.context
    assert (one.name, two.name) == ("a", "b")
    assert contexts.find(location(VERIFY, keys)).context is not one.context


@pytest.mark.parametrize(
    ("name", "bare"), [("a", "a"), ("a:1", "a"), ("[::1]:2", "::1"), ("[::1]", "::1"), ("", "")]
)
def test_bare_names(name: str, bare: str) -> None:
    assert bare_name(name) == bare


def test_the_common_name_counts_only_alone() -> None:
    subject = ((("commonName", "cn.test"),),)
    assert is_name_of({"subject": subject}, "cn.test")
    assert not is_name_of({"subject": subject, "subjectAltName": (("DNS", "a"),)}, "cn.test")
    assert not is_name_of({"subjectAltName": (("DNS", "*.test"),)}, "a.test")

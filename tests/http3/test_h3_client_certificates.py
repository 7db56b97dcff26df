"""Certificates of clients over HTTP/3: who may come in, and what is said of him, is as over TLS."""

from __future__ import annotations

import http.client
import ssl
import subprocess
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from h3client import H3Client

FACTS = "verify s_dn i_dn s_dn_legacy serial fingerprint escaped_cert v_start v_end v_remain"
SAID = "|".join(f"$ssl_client_{it}" for it in FACTS.split())
TOLD = f"location / {{ return 200 '{SAID}'; }}"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca signs deep, known, site, and gone, which its list revokes; deep signs leaf."""
    at = tmp_path_factory.mktemp("keys")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=at)

    for name in ("ca", "other"):
        openssl("req", "-x509", *EC, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj",
                f"/CN={name}", "-days", "9", "-addext", "keyUsage=keyCertSign,cRLSign,"
                "digitalSignature")  # fmt: skip
    (at / "ca.ext").write_text("basicConstraints=critical,CA:TRUE")
    (at / "own.ext").write_text("extendedKeyUsage=clientAuth")
    (at / "server.ext").write_text("extendedKeyUsage=serverAuth")
    for name, issuer, kind in (
        ("deep", "ca", "ca"), ("leaf", "deep", "own"), ("known", "ca", "own"),
        ("gone", "ca", "own"), ("site", "ca", "server"),
    ):  # fmt: skip
        openssl("req", *EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj",
                f"/O=Ö, 1/CN={name}", "-utf8")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.crt", "-CAkey",
                f"{issuer}.key", "-CAcreateserial", "-out", f"{name}.crt", "-days", "9",
                "-extfile", f"{kind}.ext")  # fmt: skip
    (at / "leaf.crt").write_text((at / "leaf.crt").read_text() + (at / "deep.crt").read_text())
    (at / "index").write_text("")
    (at / "ca.cnf").write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_md=sha256\n"
                               "default_crl_days=9\n")  # fmt: skip
    for more in (["-revoke", "gone.crt"], ["-gencrl", "-out", "ca.crl"]):
        openssl("ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt", *more)
    return at


def ask(port: int, keys: Path, name: str | None, host: str = "a.test", sni: str = "a.test"):
    """(status, body) over HTTP/3 to who shows that certificate."""
    options = {}
    if name is not None:
        made = QuicConfiguration()
        made.load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
        options = {"certificate": made.certificate, "private_key": made.private_key,
                   "certificate_chain": made.certificate_chain}  # fmt: skip
    with H3Client(port, name=sni, **options) as client:
        response = client.get(host=host)
        assert sni != "a.test" or not client.tickets         # a session would not know who it was
        return response.status, response.text


def ask_tls(port: int, keys: Path, name: str | None):
    """The same over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name is not None:
        context.load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
    client = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    client.request("GET", "/", headers={"Host": "a.test"})
    response = client.getresponse()
    found = response.status, response.read().decode("latin-1")
    client.close()
    return found


CERTIFICATES = (None, "known", "other", "leaf", "gone", "site")
RULES = {  # rules → who may come in
    "ssl_verify_client on;": {"known", "leaf", "gone"},
    "ssl_verify_client on; ssl_verify_depth 0;": {"known", "gone"},
    "ssl_verify_client on; ssl_crl ca.crl;": {"known"},
    "ssl_verify_client optional;": {None, "known", "leaf", "gone"},
    "ssl_verify_client optional_no_ca;": {None, "known", "leaf", "gone", "other"},
}


@pytest.mark.parametrize("rules", RULES)
def test_who_may_come_in_is_as_over_tls(quic, keys: Path, rules: str) -> None:
    said = rules.replace("ca.crl", str(keys / "ca.crl"))
    gateway = quic(TOLD, f"ssl_client_certificate {keys}/ca.crt; {said}")
    found = {name: ask(gateway.port, keys, name) for name in CERTIFICATES}
    assert found == {name: ask_tls(gateway.port, keys, name) for name in CERTIFICATES}
    assert {name for name in found if found[name][0] == 200} == RULES[rules]
    assert {status for status, _ in found.values()} == {200, 400}
    assert "|CN=known,O=" in found["known"][1]


def test_nobody_comes_in_by_another_servers_name(quic, keys: Path) -> None:
    gateway = quic(TOLD, f"ssl_client_certificate {keys}/ca.crt; ssl_verify_client on;",
                   "server { listen 127.0.0.1:%%PORT%% quic; server_name b.test; return 200 b; }")
    port = gateway.port
    assert ask(port, keys, "known", "a.test", "b.test")[0] == 421  # it was not asked for it there
    assert ask(port, keys, "known", "b.test", "b.test") == (200, "b")
    assert ask(port, keys, None, "b.test", "a.test") == (200, "b")
    assert ask(port, keys, None, "a.test", "a.test")[0] == 400
    assert ask(port, keys, "known", "a.test", "a.test")[0] == 200


def test_a_key_that_is_not_the_certificates_ends_the_handshake(quic, keys: Path) -> None:
    gateway = quic(TOLD, f"ssl_client_certificate {keys}/ca.crt; ssl_verify_client optional_no_ca;")
    known, other = QuicConfiguration(), QuicConfiguration()
    known.load_cert_chain(keys / "known.crt", keys / "known.key")
    other.load_cert_chain(keys / "other.crt", keys / "other.key")
    with H3Client(gateway.port, certificate=known.certificate, certificate_chain=[],
                  private_key=other.private_key) as client:  # fmt: skip
        client.run(lambda: client.ended is not None)
        assert client.ended.error_code == 0x100 + 51         # decrypt_error (RFC 8446 §6.2)

"""Checks of health by TLS: who cannot prove who he is gets no requests, and is not believed."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, wait_for

CONF = """
    upstream u.test { zone u 256k; server 127.0.0.1:%(port)d;
                      health_check %(check)s interval=50ms; }
    server { listen %%%%PORT%%%%;
        location / { proxy_pass https://u.test; %(inside)s }
        %(more)s
        location /metrics { metrics; } }
"""


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Path:
    """ca.crt, and of u.test, other.test and gate a certificate that it signed and its key, gate's
    with the password `word`."""
    folder = tmp_path_factory.mktemp("papers")

    def call(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    call("req", "-x509", *key, "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key",
         "-out", "ca.crt")  # fmt: skip
    for name in ("u.test", "other.test", "gate"):
        secret = ["-passout", "pass:word"] if name == "gate" else ["-nodes"]
        call("req", *key, *secret, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
             "-out", "x.csr", "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip
        call("x509", "-req", "-in", "x.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2",
             "-CAcreateserial", "-copy_extensions", "copy", "-out", f"{name}.crt")  # fmt: skip
    (folder / "passwords").write_text("wrong\nword\n")
    return folder


class Sealed:
    """An HTTPS server with a certificate; asked: the SNI of each question, and who asked (CN)."""

    def __init__(self, papers: Path, name: str, asks: bool = False) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(papers / f"{name}.crt", papers / f"{name}.key")
        self.context.sni_callback = lambda _sock, name, _: self.names.append(name)
        if asks:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(papers / "ca.crt")
        self.names: list[str | None] = []
        self.asked: list[str] = []
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.sock.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            with self.context.wrap_socket(connection, server_side=True) as sealed:
                sealed.recv(65536)
                subject = (sealed.getpeercert() or {}).get("subject", ())
                self.asked += [value for (name, value), in subject if name == "commonName"]
                sealed.sendall(b"HTTP/1.1 200 x\r\nContent-Length: 2\r\n"
                               b"Connection: close\r\n\r\nok")  # fmt: skip

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@pytest.fixture
def sealed(papers) -> Iterator[object]:
    made: list[Sealed] = []

    def make(name: str = "u.test", asks: bool = False) -> Sealed:
        made.append(Sealed(papers, name, asks))
        return made[-1]

    yield make
    for it in made:
        it.close()


def conf(to: Sealed, inside: str = "", check: str = "tls mandatory", more: str = "") -> str:
    return CONF % {"port": to.port, "inside": inside, "check": check, "more": more}


def verifying(papers: Path, more: str = "") -> str:
    return f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {papers}/ca.crt; {more}"


def is_up(gateway: Gateway) -> str:
    said = gateway.get("/metrics").body.decode()
    [line] = [it for it in said.splitlines() if it.startswith("headrace_upstream_peer_up")]
    return line.split()[1]


@pytest.mark.parametrize("check", ["tls mandatory", "type=tcp tls mandatory"])
def test_who_proves_his_name_is_healthy(headrace, papers, sealed, check) -> None:
    to = sealed()
    gateway = headrace(conf(to, verifying(papers), check))
    wait_for(lambda: is_up(gateway) == "1", 20)
    assert gateway.get("/").status == 200
    assert "u.test" in to.names


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("other.test", "", "Hostname mismatch"),
        ("u.test", "proxy_ssl_name other.test;", "Hostname mismatch"),
        ("u.test", "proxy_ssl_trusted_certificate {papers}/other.test.crt;", "verify failed"),
    ],
)
def test_who_cannot_is_left_out(headrace, papers, sealed, name, settings, said) -> None:
    to = sealed(name)
    settings = settings.format(papers=papers)
    if "trusted" in settings:
        settings = f"proxy_ssl_verify on; {settings}"
    else:
        settings = verifying(papers, settings)
    gateway = headrace(conf(to, settings, check="tls"))
    wait_for(lambda: "is unhealthy: " in gateway.said, 20)
    assert said in gateway.said
    wait_for(lambda: is_up(gateway) == "0", 20)
    assert gateway.get("/").status == 502


def test_a_name_of_its_own_is_asked_for(headrace, papers, sealed) -> None:
    to = sealed("other.test")
    gateway = headrace(conf(to, verifying(papers, "proxy_ssl_name other.test:443;")))
    wait_for(lambda: is_up(gateway) == "1", 20)
    assert "other.test" in to.names


def test_without_verification_anybody_is_believed(headrace, papers, sealed) -> None:
    gateway = headrace(conf(sealed("other.test")))
    wait_for(lambda: is_up(gateway) == "1", 20)


def test_of_several_locations_the_one_that_verifies_decides(headrace, papers, sealed) -> None:
    more = f"location /b {{ proxy_pass https://u.test; {verifying(papers)} }}"
    gateway = headrace(conf(sealed("other.test"), check="tls", more=more))
    wait_for(lambda: "is unhealthy: " in gateway.said, 20)
    assert "Hostname mismatch" in gateway.said


def test_a_peer_that_asks_is_told_who_we_are(headrace, papers, sealed) -> None:
    """The key has a password, the second of its file."""
    to = sealed(asks=True)
    settings = verifying(papers, f"proxy_ssl_certificate {papers}/gate.crt; "
                         f"proxy_ssl_certificate_key {papers}/gate.key; "
                         f"proxy_ssl_password_file {papers}/passwords;")  # fmt: skip
    gateway = headrace(conf(to, settings))
    wait_for(lambda: is_up(gateway) == "1", 20)
    assert set(to.asked) == {"gate"}


def test_a_revoked_certificate_is_none(headrace, papers, sealed, tmp_path) -> None:
    config = tmp_path / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca = it\n[it]\ndatabase = {tmp_path}/index\ndefault_md = sha256\n"
        "default_crl_days = 2\n"
    )
    (tmp_path / "index").touch()
    common = ["openssl", "ca", "-config", config, "-cert", papers / "ca.crt",
              "-keyfile", papers / "ca.key"]  # fmt: skip
    crl = tmp_path / "crl"
    subprocess.run([*common, "-gencrl", "-out", crl], check=True, capture_output=True)
    to = sealed()
    text = conf(to, verifying(papers, f"proxy_ssl_crl {crl};"), check="tls")
    gateway = headrace(text)
    wait_for(lambda: is_up(gateway) == "1" and to.names, 20)
    assert "unhealthy" not in gateway.said
    subprocess.run(
        [*common, "-revoke", papers / "u.test.crt"], check=True, capture_output=True
    )
    subprocess.run([*common, "-gencrl", "-out", crl], check=True, capture_output=True)
    gateway.reload()
    wait_for(lambda: "certificate revoked" in gateway.said, 20)
    wait_for(lambda: is_up(gateway) == "0", 20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_files_that_only_root_reads_serve_checks_too(papers, sealed) -> None:
    """Workers are somebody else by then."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)                                # pytest's own are nobody's
        for it in ("ca.crt", "gate.crt", "gate.key", "passwords"):
            (folder / it).write_bytes((papers / it).read_bytes())
            (folder / it).chmod(0o600)
        settings = verifying(folder, f"proxy_ssl_certificate {folder}/gate.crt; "
                             f"proxy_ssl_certificate_key {folder}/gate.key; "
                             f"proxy_ssl_password_file {folder}/passwords;")  # fmt: skip
        text = conf(sealed(asks=True), settings)
        gateway = Gateway(folder / "gateway", text, main="user nobody nogroup;")
        gateway.start()
        try:
            wait_for(lambda: is_up(gateway) == "1", 20)
            assert gateway.get("/").status == 200
        finally:
            gateway.stop()


def test_stream_s_checks_verify_too(headrace, papers, sealed) -> None:
    good, bad = sealed(), sealed("other.test")
    gateway = headrace(
        main=f"""stream {{
            upstream u.test {{ zone s 256k; server 127.0.0.1:{good.port};
                               server 127.0.0.1:{bad.port}; health_check tls interval=50ms; }}
            server {{ listen %%PORT_1%%; proxy_pass u.test; proxy_ssl on; {verifying(papers)} }}
        }}"""
    )
    wait_for(lambda: f"127.0.0.1:{bad.port} of upstream" in gateway.said, 20)
    assert "is unhealthy: " in gateway.said and "Hostname mismatch" in gateway.said
    assert f"127.0.0.1:{good.port} of upstream" not in gateway.said


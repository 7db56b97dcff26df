"""A certificate for the tests of HTTP/3, made once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME.crt and NAME.key, self-signed, for a.test and b.test."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("a", "b"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", f"/CN={name}.test", "-addext", f"subjectAltName=DNS:{name}.test",
             "-days", "10", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


@pytest.fixture
def quic(headrace, certificates: Path):
    """A maker of gateways: quic("location / { … }", server="more of the server", http="more")."""

    def make(locations: str, server: str = "", http: str = "", main: str = ""):
        return headrace(
            f"ssl_certificate {certificates}/a.crt; ssl_certificate_key {certificates}/a.key;\n"
            f"{http}\nserver {{ listen 127.0.0.1:%%PORT%% quic; listen 127.0.0.1:%%PORT%% ssl;\n"
            f"server_name a.test; {server}\n{locations} }}",
            main=main,
        )

    return make

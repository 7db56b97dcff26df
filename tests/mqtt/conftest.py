"""What tests of mqtt { } ask for: a mosquitto, brokers by hand, a gateway before them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mqtthouse import Broker, Mosquitto

CONF = """
mqtt {
    %(more)s
    server { listen 127.0.0.1:%%%%PORT%%%%; %(inside)s }
}
"""


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    made: list[Mosquitto] = []

    def make(more: str = "", port: int = 0) -> Mosquitto:
        made.append(Mosquitto(tmp_path / f"broker{len(made)}", more, port))
        return made[-1].start()

    yield make
    for it in made:
        it.stop()


@pytest.fixture
def brokers() -> Iterator[Callable[..., Broker]]:
    made: list[Broker] = []

    def make(*how, **more) -> Broker:
        made.append(Broker(*how, **more))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def mqtt(headrace):
    """mqtt(inside, more="", main="", http=""): a gateway with one server in mqtt."""

    def make(inside: str, more: str = "", main: str = "", http: str = ""):
        return headrace(http, main=main + CONF % {"inside": inside, "more": more})

    return make


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Path:
    """A folder with ca.crt, and of broker.test and gate a certificate and its key."""
    folder = tmp_path_factory.mktemp("papers")

    def run(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key",
        "-out", "ca.crt")  # fmt: skip
    for name in ("broker.test", "gate"):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "x.csr",
            "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip
        run("x509", "-req", "-in", "x.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-copy_extensions", "copy", "-out", f"{name}.crt")  # fmt: skip
    for file in folder.iterdir():
        file.chmod(0o644)
    folder.chmod(0o755)
    return folder

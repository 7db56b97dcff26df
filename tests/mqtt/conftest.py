"""What tests of mqtt { } ask for: a mosquitto, brokers by hand, a gateway before them."""

from __future__ import annotations

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

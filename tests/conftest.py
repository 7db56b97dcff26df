"""What every test may ask for: a gateway, an upstream that remembers, and a peer's conf check."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway import Gateway  # noqa: E402
from recorder import OK, Recorder  # noqa: E402


@pytest.fixture
def upstream() -> Iterator[Recorder]:
    """A recording upstream on a free port, answering 200 "ok" until told otherwise."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def upstreams(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """A maker of recording upstreams: upstreams(answer=OK, path=None)."""
    made: list[Recorder] = []

    def make(answer: object = OK, path: str | None = None) -> Recorder:
        made.append(Recorder(answer, path))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


@pytest.fixture
def headrace(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A maker of running gateways: headrace(http, main="", text=None, start=True).

    A gateway that says [alert], or that has a traceback in its log, fails its test; what replicas
    print is [info] and their own.
    """
    made: list[Gateway] = []

    def make(
        http: str = "", main: str = "", text: str | None = None, start: bool = True
    ) -> Gateway:
        prefix = tmp_path / f"gateway{len(made)}"
        gateway = Gateway(prefix, http, main, text)
        made.append(gateway)
        return gateway.start() if start else gateway

    yield make
    for gateway in made:
        gateway.stop()
    for gateway in made:
        said = gateway.said
        own = [line for line in said.splitlines() if not re.search(r"\[info\]|last words: ", line)]
        assert "Traceback" not in "\n".join(own), said
        assert "[alert]" not in said, said

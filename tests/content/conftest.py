"""A gateway that serves files, shared by the tests of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import Gateway


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    """A maker of gateways that live as long as the module: serving(http, {path: bytes}).

    The files lie below the prefix; a path that ends with "/" is a folder.
    """
    made: list[Gateway] = []

    def make(http: str, files: dict[str, bytes] | None = None) -> Gateway:
        prefix: Path = tmp_path_factory.mktemp("gateway")
        for name, data in (files or {}).items():
            path = prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(data)
        made.append(Gateway(prefix, http))
        return made[-1].start()

    yield make
    for gateway in made:
        gateway.stop()
        assert "Traceback" not in gateway.said, gateway.said
        assert "[alert]" not in gateway.said, gateway.said

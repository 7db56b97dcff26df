"""Gateways with the API for the tests in here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from apihouse import CONF, House, write_images  # noqa: E402


@pytest.fixture
def house(headrace) -> Iterator[Callable[..., House]]:
    """A maker of running gateways: house(inside the functions block, inside the server)."""

    def make(functions: str = "", server: str = "", main: str = "") -> House:
        gateway = headrace(CONF % (functions, server), main, start=False)
        write_images(gateway)
        return House(gateway.start())

    return make

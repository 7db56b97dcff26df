"""The word `queue`, which an upstream and a function have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.report import ConfError
from proxy.conf.values import read_int, read_ms, read_size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token


class Queue(NamedTuple):
    """How many may wait: `size` requests, `bytes` held of them, each `wait_ms` at most."""

    size: int = 1000
    bytes: int = 64 << 20
    wait_ms: int = 30_000


def read_queue(args: list[Token], block: Block) -> Queue:
    """`queue [size=NUMBER] [bytes=SIZE] [wait=TIME]`. Raises ConfError."""
    values = {"size": 1000, "bytes": 64 << 20, "wait": 30_000}
    readers = {"size": read_int, "bytes": read_size, "wait": read_ms}
    for word in args:
        name, equals, text = word.partition("=")
        number = readers[name](text) if name in readers else None
        if not equals or number is None:
            raise ConfError(word, f'invalid parameter "{word}"')
        values[name] = number
    return Queue(values["size"], values["bytes"], values["wait"])

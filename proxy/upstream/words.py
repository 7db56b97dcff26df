"""Words that an upstream and a function have in common: `queue` and `sticky`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.conf.report import ConfError
from proxy.conf.values import read_int, read_ms, read_size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 9110 §5.6.2, token


@dataclass(frozen=True, slots=True)
class Queue:
    """How many may wait: `size` requests, `bytes` held of them, each `wait_ms` at most."""

    size: int = 1000
    bytes: int = 64 << 20
    wait_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Sticky:
    """Who comes again is sent where it was. kind: `cookie`, `header` or `claim` (of a checked
    token) with a name, or `address` without one. expires_s of the cookie; 0: its session."""

    kind: str
    name: str = ""
    expires_s: int = 0

    def __str__(self) -> str:
        return f"{self.kind}={self.name}" if self.name else self.kind


STICKY_KINDS = ("cookie", "header", "claim")


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


def read_sticky(args: list[Token], block: Block) -> Sticky:
    """`sticky cookie=NAME [expires=TIME] | header=NAME | claim=NAME | address`."""
    kind, _, name = args[0].partition("=")
    if kind not in (*STICKY_KINDS, "address") or (kind == "address") is bool(name):
        raise ConfError(args[0], f'invalid parameter "{args[0]}"')
    if name and FIELD_NAME.fullmatch(name) is None:
        raise ConfError(args[0], f'invalid name "{name}" in "sticky" directive')
    expires_s = 0
    for word in args[1:]:
        key, _, text = word.partition("=")
        number = read_ms(text)
        if kind != "cookie" or key != "expires" or number is None:
            raise ConfError(word, f'invalid parameter "{word}"')
        expires_s = number // 1000
    return Sticky(kind, str(name), expires_s)

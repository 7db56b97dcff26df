"""Reads server_name and builds the name search of a listen address."""

from __future__ import annotations

import socket
from collections import namedtuple

from proxy.base._pcre import Pattern, PatternError
from proxy.conf.report import ConfError
from proxy.routing._names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token


class ServerName(namedtuple("ServerName", ("text", "pattern"))):
    """One name: `text` in lower case as the conf has it (a regex with its "~" and its case);
    `pattern` is the compiled regex, or None."""

    __slots__ = ()
    text: str
    pattern: Pattern | None

    @property
    def shown(self) -> str:
        """What $server_name says when this is the first name."""
        return self.text[1:] if self.text.startswith(".") else self.text


def read_server_name(args: list[Token], block: Block) -> list[ServerName]:
    """The names of one server_name directive. Raises ConfError where nginx refuses one."""
    return [_read_name(token, block) for token in args]


def _read_name(token: Token, block: Block) -> ServerName:
    if token.startswith("~"):
        if len(token) == 1:
            raise ConfError(token, f'empty regex in server name "{token}"')
        source = str(token)[1:]
        # hosts are compared in lower case, so an upper-case letter asks for any case
        is_caseless = any("A" <= char <= "Z" for char in source)
        try:
            return ServerName(str(token), Pattern(source, caseless=is_caseless))
        except PatternError as error:
            raise ConfError(token, str(error)) from None
    if (token.startswith("*") and (len(token) < 3 or token[1] != ".")) or token == ".":
        raise ConfError(token, f'server name "{token}" is invalid')
    if "/" in token and block is not None:
        block.warn(f'server name "{token}" has suspicious symbols', token)
    if token.lower() == "$hostname":
        return ServerName(socket.gethostname().lower(), None)
    return ServerName(token.lower(), None)


def names_of(server: Block) -> list[ServerName]:
    """All names of a `server` block in order; the empty name when it has none."""
    found = [name for names in server.get("server_name") or [] for name in names]
    return found or [ServerName("", None)]


def build_names(
    address: str, servers: Sequence[tuple[Block, Any]], default_server: Any
) -> tuple[Names, list[str]]:
    """The search over the names of (block, server) pairs that listen on `address`, in order.

    Gives it and the warnings to log. Raises ConfError for a name that is none.
    """
    names = Names(default_server)
    warnings = []
    for block, server in servers:
        for name in names_of(block):
            if name.pattern is not None:
                names.add_pattern(name.pattern, server)
                continue
            try:
                if not names.add(name.text, server):
                    warnings.append(f'conflicting server name "{name.text}" on {address}, ignored')
            except ValueError as error:
                raise block.error(f"{error} on {address}") from None
    return names, warnings

"""A small language for the golden files: nginx's names, each kind of value once or more.

It stands in for the rooms' own declarations, so that what is shown here is the conf language and
nothing else. Everything in it means in nginx what it means here, so that the real nginx can read
the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.conf import directive as door
from proxy.conf.directive import (
    DIRECTIVES,
    EVENTS,
    GEO,
    HTTP,
    LIMIT_EXCEPT,
    LOCATION,
    LOCATION_IF,
    MAIN,
    MAP,
    SERVER,
    SERVER_IF,
    SPLIT_CLIENTS,
    TYPES,
    UPSTREAM,
    directive,
)
from proxy.conf.inherit import Block
from proxy.conf.lexer import Token
from proxy.conf.report import ConfError
from proxy.conf.values import (
    Address,
    Duration,
    Enum,
    Flag,
    Int,
    Regex,
    Rest,
    Seconds,
    Size,
    Text,
    Word,
    read_rate,
)

EVERY = HTTP | SERVER | LOCATION
OWN_ROOM = ("proxy.conf.structure", "proxy.conf.meaningless")


def read_zone(args: list[Token], block: Block) -> tuple[str, int]:
    """`$key zone=NAME:SIZE rate=N` – only the rate, which no type reads."""
    for arg in args:
        if arg.startswith("rate="):
            rate = read_rate(arg[5:])
            if rate is None:
                raise ConfError(arg, f'invalid rate "{arg}"')
            return str(args[0]), rate
    raise ConfError(args[0], "no rate")


def check_upstream(block: Block) -> None:
    if not block.own("server"):
        raise block.error("no servers are inside upstream")


def declare() -> None:
    directive("worker_processes", MAIN, Int(1, words={"auto": 0}), default="1")
    directive("worker_connections", EVENTS, Int(1), default="512")
    directive("client_max_body_size", EVERY, Size(), default="1m")
    directive("proxy_read_timeout", EVERY, Duration(), default="60s")
    directive("resolver_timeout", EVERY, Duration(), default="30s")
    directive("keepalive_time", EVERY, Duration(), default="1h")
    directive("keepalive_requests", EVERY, Int(), default="1000")
    directive("proxy_buffering", EVERY, Flag(), default="on")
    directive("proxy_buffers", EVERY, Int(1), Size(), default="8 4k")
    directive("proxy_http_version", EVERY, Enum("1.0", "1.1"), default="1.1")
    directive("proxy_set_header", EVERY, Text(), Text(), many=True)
    directive("proxy_next_upstream", EVERY, Rest(Enum("error", "timeout", "http_502", "off")))
    directive("add_header", EVERY | LOCATION_IF, Text(), Text(), Enum("always", optional=True),
              many=True)  # fmt: skip
    directive("satisfy", EVERY, Enum("all", "any"), default="all")
    directive("root", EVERY | LOCATION_IF, Text(), default="html")
    directive("expires", EVERY | LOCATION_IF, Seconds(words={"off": None, "max": -1}))
    directive("open_file_cache_valid", EVERY, Seconds(), default="60s")
    directive("proxy_pass", LOCATION | LOCATION_IF | LIMIT_EXCEPT, Text(), inherit=False)
    directive("internal", LOCATION)
    directive("server_name", SERVER, Rest(Word()), many=True)
    directive("return", SERVER | LOCATION | SERVER_IF | LOCATION_IF, Text(),
              Text(optional=True), inherit=False, many=True)  # fmt: skip
    directive("set", SERVER | LOCATION | SERVER_IF | LOCATION_IF, Word(), Text(), many=True)
    directive("rewrite", SERVER | LOCATION | SERVER_IF | LOCATION_IF, Regex(), Text(),
              Word(optional=True), many=True)  # fmt: skip
    directive("if", SERVER, Rest(), block=SERVER_IF, many=True)
    directive("if", LOCATION, Rest(), block=LOCATION_IF, many=True)
    directive("limit_except", LOCATION, Rest(Word()), block=LIMIT_EXCEPT)
    directive("deny", EVERY | LIMIT_EXCEPT, Word(), many=True)
    directive("log_format", HTTP, Word(), Rest(Text()), many=True)
    directive("map", HTTP, Text(), Word(), block=MAP, rows=True, many=True)
    directive("geo", HTTP, Rest(Word()), block=GEO, rows=True, many=True)
    directive("split_clients", HTTP, Text(), Word(), block=SPLIT_CLIENTS, rows=True, many=True)
    directive("types", EVERY, block=TYPES, rows=True)
    directive("upstream", HTTP, Word(), block=UPSTREAM, many=True, check=check_upstream)
    directive("server", UPSTREAM, Address(), Rest(Word(), least=0), many=True)
    directive("keepalive", UPSTREAM, Int(1))
    directive("limit_req_zone", HTTP, read=read_zone, least=3, most=3, many=True)


@contextmanager
def alone() -> Iterator[None]:
    """Only the structure of a conf and these words exist; afterwards all is as before."""
    import proxy.conf.meaningless  # noqa: F401

    kept = {name: list(declared) for name, declared in DIRECTIVES.items()}
    try:
        for name in list(DIRECTIVES):
            DIRECTIVES[name] = [it for it in DIRECTIVES[name] if it.room in OWN_ROOM]
            if not DIRECTIVES[name]:
                del DIRECTIVES[name]
        declare()
        yield
    finally:
        door.DIRECTIVES.clear()
        door.DIRECTIVES.update(kept)


def show(block: Block, indent: str = "") -> str:
    """The model as text: a statement a line with its typed value, blocks indented."""
    lines = []
    for it in block.statements:
        if it.block is None:
            lines.append(f"{indent}{it.name} = {_plain(it.value)}")
            continue
        lines.append(f"{indent}{it.name} {_plain(it.value)}:")
        lines += [f"{indent}  row {_plain(row)}" for row in it.block.rows]
        if inner := show(it.block, indent + "  "):
            lines.append(inner.rstrip("\n"))
    return "".join(line + "\n" for line in lines)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, list):
        return "[" + ", ".join(_plain(it) for it in value) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(_plain(it) for it in value) + ")"
    return repr(value)

"""limit_req and limit_conn as a conf declares them, with the checks nginx makes on their words."""

from __future__ import annotations

from typing import NamedTuple

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LOCATION,
    MQTT,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.inherit import Block
from proxy.conf.lexer import Token
from proxy.conf.report import ConfError
from proxy.conf.values import Enum, Flag, Int, read_int, read_size

LEAST_ZONE_BYTES = 8 * 4096
NODELAY = 0xFFFFFFFF
MOST_RATE = 2**31 - 1  # 1/1000 request per second: what is faster cannot be told apart
MOST_BURST = 4_000_000  # requests
MOST_CONNS = 8  # limit_conn limits in force for one request
MOST_REQS = 32  # limit_req limits in force for one request
LEVELS = ("info", "notice", "warn", "error")

EVERY = HTTP | SERVER | LOCATION
ALL = EVERY | STREAM | STREAM_SERVER | IN_MQTT


class LimitZone(NamedTuple):
    """A zone that the conf declares. kind: `limit_req` or `limit_conn`; key: text with
    variables; rate: 1/1000 request per second, 0 for limit_conn."""

    name: str
    size_bytes: int
    kind: str
    key: Token
    rate: int
    token: Token


class LimitReq(NamedTuple):
    """`limit_req`: burst and delay in 1/1000 requests, delay NODELAY never delays."""

    zone: str
    burst: int
    delay: int
    token: Token


class LimitConn(NamedTuple):
    """`limit_conn`: at most `number` in flight."""

    zone: str
    number: int
    token: Token


def read_zone(kind: str, args: list[Token], block: Block) -> LimitZone:
    """The arguments of limit_req_zone or limit_conn_zone. Raises ConfError as nginx words it."""
    name, size, rate = "", 0, 1000
    for word in args[1:]:
        if word.startswith("zone="):
            name, _, text = word[5:].partition(":")
            found = read_size(text) if text else None
            if found is None:
                raise ConfError(word, f'invalid zone size "{word}"')
            if found < LEAST_ZONE_BYTES:
                raise ConfError(word, f'zone "{name}" is too small')
            size = found
        elif word.startswith("rate=") and kind == "limit_req":
            rate = read_rate(word)
        else:
            raise ConfError(word, f'invalid parameter "{word}"')
    if not name:
        raise ConfError(args[0], f'"{kind}_zone" must have "zone" parameter')
    zone = LimitZone(name, size, kind, args[0], rate if kind == "limit_req" else 0, args[0])
    for other in declared_in(block):
        if other.name == name:
            refuse_second(zone, other)
    return zone


def read_rate(word: Token) -> int:
    """1/1000 request per second from `rate=5r/s`, `rate=30r/m`, or nginx's unwritten `rate=5`."""
    text, scale = word[5:], 1
    if text.endswith("r/s"):
        text = text[:-3]
    elif text.endswith("r/m"):
        text, scale = text[:-3], 60
    number = read_int(text)
    if not number:
        raise ConfError(word, f'invalid rate "{word}"')
    return min(number * 1000 // scale, MOST_RATE)


def declared_in(block: Block) -> list[LimitZone]:
    """The zones of both kinds that stand in this http block so far."""
    return [*(block.own("limit_req_zone") or ()), *(block.own("limit_conn_zone") or ())]


def refuse_second(zone: LimitZone, other: LimitZone) -> None:
    """Raise what is wrong with declaring the name of `other` again."""
    if zone.kind != other.kind:
        raise different_use(zone.token, zone.name)
    if zone.size_bytes != other.size_bytes:
        raise ConfError(
            zone.token,
            f'the size {zone.size_bytes} of shared memory zone "{zone.name}" '
            f"conflicts with already declared size {other.size_bytes}",
        )
    raise ConfError(
        zone.token, f'{zone.kind}_zone "{zone.name}" is already bound to key "{other.key}"'
    )


def different_use(token: Token, name: str) -> ConfError:
    return ConfError(
        token, f'the shared memory zone "{name}" is already declared for a different use'
    )


def read_limit_req(args: list[Token], block: Block) -> LimitReq:
    """The arguments of limit_req. Raises ConfError as nginx words it."""
    name: str | None = None
    burst = delay = 0
    for word in args:
        if word.startswith("zone="):
            name = word[5:]
        elif word.startswith("burst="):
            burst = read_requests("burst", word)
        elif word.startswith("delay="):
            delay = read_requests("delay", word)
        elif word == "nodelay":
            delay = NODELAY
        else:
            raise ConfError(word, f'invalid parameter "{word}"')
    if name is None:
        raise ConfError(args[0], '"limit_req" must have "zone" parameter')
    refuse_twice("limit_req", name, args[0], block, MOST_REQS)
    return LimitReq(name, burst, delay, args[0])


def read_requests(what: str, word: Token) -> int:
    number = read_int(word.partition("=")[2])
    if not number:
        raise ConfError(word, f'invalid {what} value "{word}"')
    return min(number, MOST_BURST) * 1000


def read_limit_conn(args: list[Token], block: Block) -> LimitConn:
    """The arguments of limit_conn. Raises ConfError as nginx words it."""
    refuse_twice("limit_conn", args[0], args[0], block, MOST_CONNS)
    number = read_int(args[1])
    if not number:
        raise ConfError(args[1], f'invalid number of connections "{args[1]}"')
    if number > 65535:
        raise ConfError(args[1], "connection limit must be less 65536")
    return LimitConn(str(args[0]), number, args[0])


def refuse_twice(name: str, zone: str, token: Token, block: Block, most: int) -> None:
    limits = block.own(name) or ()
    if any(limit.zone == zone for limit in limits):
        raise ConfError(token, f'"{name}" directive is duplicate')
    if len(limits) >= most:
        raise ConfError(token, f'more than {most} "{name}" directives in one block')


directive(
    "limit_req_zone", HTTP, read=lambda args, block: read_zone("limit_req", args, block),
    least=3, most=3, many=True, syntax="key zone=name:size rate=rate",
    doc="Memory for the buckets of one key, and the rate at which each of them leaks.",
)  # fmt: skip
directive(
    "limit_req", EVERY, read=read_limit_req, least=1, most=3, many=True,
    syntax="zone=name [burst=number] [nodelay | delay=number]",
    doc="Delays or refuses requests that come faster than the zone's rate.",
)  # fmt: skip
directive("limit_req_status", EVERY, Int(400, 599), default="503",
          doc="The status of a request that limit_req refuses.")  # fmt: skip
directive("limit_req_log_level", EVERY, Enum(*LEVELS), default="error",
          doc="The level at which refusals are logged; delays are logged one lower.")  # fmt: skip
directive("limit_req_dry_run", EVERY, Flag(), default="off",
          doc="Counts and logs, but neither delays nor refuses.")  # fmt: skip
directive(
    "limit_conn_zone", HTTP | STREAM | MQTT,
    read=lambda args, block: read_zone("limit_conn", args, block), least=2, most=2, many=True,
    syntax="key zone=name:size",
    doc="Memory for the numbers of requests, or of sessions of a stream, in flight, one a key.",
)  # fmt: skip
directive(
    "limit_conn", ALL, read=read_limit_conn, least=2, most=2, many=True, syntax="zone number",
    doc="Refuses a request, or a session, when so many of its key are in flight already.",
)  # fmt: skip
directive("limit_conn_status", EVERY, Int(400, 599), default="503",
          doc="The status of a request that limit_conn refuses.")  # fmt: skip
directive("limit_conn_log_level", ALL, Enum(*LEVELS), default="error",
          doc="The level at which refusals are logged.")  # fmt: skip
directive("limit_conn_dry_run", ALL, Flag(), default="off",
          doc="Counts and logs, but does not refuse.")  # fmt: skip

"""map, split_clients and geo blocks become lookups of the plan.

The plan calls `begin` before anything is compiled and `finish` when all of it is.
"""

from __future__ import annotations

import contextlib
import re

from proxy.conf.report import ConfError
from proxy.variables._map import Geo, Map, Split, define_geo, define_map, define_split
from proxy.variables._variables import Regex, begin_plan, check_names, number_of, put_names
from proxy.variables._variables import compile as compile_text
from proxy.variables.networks import RangeList, flatten, read_network, read_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

HOST_PATTERN = re.compile(r"(?:\*?\.)?[^*.]+(?:\.[^*.]+)*\.?|[^*]*[^*.]\.\*", re.DOTALL)


def begin(main: Block) -> None:
    """A new plan: forget the names of the last one, then define what the conf computes.

    Raises ConfError.
    """
    begin_plan()
    for http in main.find("http"):
        for block in http.blocks:
            freeze = FREEZE.get(block.name)
            if freeze is not None:
                freeze(block)
    with names_of_stream():
        for stream in (*main.find("stream"), *main.find("mqtt")):
            for block in stream.blocks:
                freeze = FREEZE.get(block.name)
                if freeze is not None:
                    freeze(block)


@contextlib.contextmanager
def names_of_stream() -> Iterator[None]:
    """What is compiled inside means the variables of stream { } and mqtt { }: http knows different
    ones, and each has its own maps."""
    put_names(True)
    try:
        yield
    finally:
        put_names(False)


def finish() -> None:
    """Everything is compiled: raises ConfError 'unknown "x" variable' for a name nobody made."""
    check_names()


def put_size(into: Any, field: str, value: int | str, block: Block) -> None:
    """A SizeText: the number is `into`'s attribute `field`; of a text with variables, its
    `field`_text is the Template."""
    if isinstance(value, int):
        setattr(into, field, value)
    else:
        setattr(into, f"{field}_text", compile_text(value, block))


def variable_name(token: Token) -> str:
    """`x` of `$x`. Raises ConfError."""
    if len(token) < 2 or token[0] != "$":
        raise ConfError(token, f'invalid variable name "{token}"')
    return token[1:]


def freeze_map(block: Block) -> None:
    """One `map` block (nginx: ngx_http_map_module). Raises ConfError."""
    has_hostnames = any(row == ["hostnames"] for row in block.rows)
    is_volatile = False
    default = None
    exact: dict[bytes, object] = {}
    heads: dict[bytes, object] = {}
    tails: dict[bytes, object] = {}
    regexes: list[tuple[Regex, object]] = []
    for row in block.rows:
        if row == ["hostnames"]:
            continue
        if row == ["volatile"]:
            is_volatile = True
            continue
        if len(row) != 2:
            raise ConfError(row[0], "invalid number of the map parameters")
        key, value = row[0], compile_text(row[1])
        if key == "default":
            if default is not None:
                raise ConfError(key, "duplicate default map parameter")
            default = value
        elif key.startswith("~"):
            is_caseless = key.startswith("~*")
            regexes.append((Regex(key[1 + is_caseless :], is_caseless, key), value))
        else:
            word = key.removeprefix("\\")
            if not _add_key(key, word, value, has_hostnames, exact, heads, tails):
                raise ConfError(key, f'conflicting parameter "{word}"')
    it = Map(
        compile_text(block.args[0]),
        exact,
        heads,
        tails,
        regexes,
        default or compile_text(""),
        has_hostnames,
    )
    _defined(block, lambda name: define_map(name, it, is_volatile))


def _add_key(
    key: Token,
    word: str,
    value: object,
    has_hostnames: bool,
    exact: dict[bytes, object],
    heads: dict[bytes, object],
    tails: dict[bytes, object],
) -> bool:
    name = word.encode("utf-8", "surrogateescape").lower()
    if not has_hostnames:
        return _add(exact, name, value)
    if not HOST_PATTERN.fullmatch(word) and word:
        raise ConfError(key, f'invalid hostname or wildcard "{word}"')
    if name.startswith(b"*."):
        return _add(heads, name[2:], value)
    if name.startswith(b"."):
        # ".x" is "x" and "*.x"; nginx calls either's second coming a conflict
        return _add(exact, name[1:], value) and _add(heads, name[1:], value)
    if name.endswith(b".*"):
        return _add(tails, name[:-2], value)
    return _add(exact, name, value)


def _add(table: dict[bytes, object], name: bytes, value: object) -> bool:
    return table.setdefault(name, value) is value


def freeze_split(block: Block) -> None:
    """One `split_clients` block: percentages with two decimals at most, `*` for the rest."""
    from proxy.conf.values import read_percent

    total = last = 0
    parts: list[tuple[int, bytes]] = []
    for row in block.rows:
        if len(row) != 2:
            raise ConfError(row[0], 'invalid number of arguments in "split_clients" directive')
        share = None if row[0] == "*" else read_percent(row[0])
        if row[0] != "*" and not share:
            raise ConfError(row[0], f'invalid percent value "{row[0]}"')
        total = 10000 if share is None else total + share
        if total > 10000:
            raise ConfError(row[0], "percent total is greater than 100%")
        end = 0
        if share is not None and total < 10000:
            last += share * 0xFFFFFFFF // 10000
            end = last
        parts.append((end, row[1].encode("utf-8", "surrogateescape")))
    it = Split(compile_text(block.args[0]), parts)
    _defined(block, lambda name: define_split(name, it))


def freeze_geo(block: Block) -> None:
    """One `geo` block (nginx: ngx_http_geo_module). Raises ConfError."""
    number = -1
    if len(block.args) == 2:
        number = number_of(variable_name(block.args[0]), block.args[0])
    default = b""
    networks: dict[int, dict[tuple[int, int], bytes]] = {32: {}, 128: {}}
    proxies: dict[int, dict[tuple[int, int], bytes]] = {32: {}, 128: {}}
    ranges = RangeList()
    flags: set[str] = set()
    for row in block.rows:
        key = row[0]
        if len(row) == 1 and key in ("ranges", "proxy_recursive", "volatile"):
            if key == "ranges" and any(networks.values()):
                raise ConfError(
                    key,
                    'the "ranges" directive must be the first directive inside "geo" block',
                )
            flags.add(key)
            continue
        if len(row) != 2:
            raise ConfError(key, "invalid number of the geo parameters")
        value = row[1].encode("utf-8", "surrogateescape")
        if key == "default":
            default = value
        elif key == "proxy":
            first, prefix, bits = _network(row[1])
            proxies[bits][first, prefix] = b""
        elif "ranges" in flags:
            _add_range(ranges, row, value)
        elif key == "delete":
            first, prefix, bits = _network(row[1])
            networks[bits].pop((first, prefix), None)
        else:
            first, prefix, bits = _network(key)
            networks[bits][first, prefix] = value
    it = Geo(
        number,
        ranges.rows if "ranges" in flags else flatten(networks[32], 32),
        flatten(networks[128], 128),
        default,
        (flatten(proxies[32], 32), flatten(proxies[128], 128)) if any(proxies.values()) else None,
        "proxy_recursive" in flags,
    )
    _defined(block, lambda name: define_geo(name, it, "volatile" in flags))


def _network(token: Token) -> tuple[int, int, int]:
    found = read_network(token)
    if found is None:
        raise ConfError(token, f'invalid network "{token}"')
    return found


def _add_range(ranges: RangeList, row: list[Token], value: bytes) -> None:
    is_delete = row[0] == "delete"
    net = row[1] if is_delete else row[0]
    found = read_range(net)
    if found is None:
        raise ConfError(net, f'invalid range "{net}"')
    if is_delete:
        ranges.remove(*found)
    elif ranges.add(*found, value) is not None:
        raise ConfError(net, f'range "{net}" overlaps another range')


def _defined(block: Block, define) -> None:  # type: ignore[no-untyped-def]
    name = variable_name(block.args[-1])
    try:
        define(name)
    except ConfError as error:
        raise ConfError(block.args[-1], error.message) from None


FREEZE = {"map": freeze_map, "split_clients": freeze_split, "geo": freeze_geo}

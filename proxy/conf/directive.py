"""What a directive is: declared once, beside the code that obeys it, and kept here by name.

    directive("proxy_read_timeout", HTTP | SERVER | LOCATION, Duration(), default="60s", doc="…")

One name may be declared several times for places that do not overlap (`server` in http and in
upstream).
"""

from __future__ import annotations

import sys

from proxy.conf.lexer import Token, words
from proxy.conf.report import ConfError
from proxy.conf.values import Rest, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from proxy.conf.inherit import Block

MAIN = 1 << 0
EVENTS = 1 << 1
HTTP = 1 << 2
SERVER = 1 << 3
LOCATION = 1 << 4
SERVER_IF = 1 << 5  # `if` in a server: nginx lets only the rewrite directives in
LOCATION_IF = 1 << 6  # `if` in a location
LIMIT_EXCEPT = 1 << 7
UPSTREAM = 1 << 8
FUNCTION = 1 << 9
MAP = 1 << 10
SPLIT_CLIENTS = 1 << 11
TYPES = 1 << 12
GEO = 1 << 13
VERSION = 1 << 14  # `version` in a function
FUNCTIONS = 1 << 15  # what holds for all functions
STREAM = 1 << 16
STREAM_SERVER = 1 << 17
STREAM_UPSTREAM = 1 << 18
MQTT = 1 << 19
MQTT_SERVER = 1 << 20
ON_PUBLISH = 1 << 21  # what is done with messages of some topics
BRIDGE = 1 << 22  # a broker whose messages go to functions
ANYWHERE = (1 << 23) - 1
IN_MQTT = MQTT | MQTT_SERVER

PLACES = {
    MAIN: "main",
    EVENTS: "events",
    HTTP: "http",
    SERVER: "server",
    LOCATION: "location",
    SERVER_IF: "if in server",
    LOCATION_IF: "if in location",
    LIMIT_EXCEPT: "limit_except",
    UPSTREAM: "upstream",
    FUNCTION: "function",
    MAP: "map",
    SPLIT_CLIENTS: "split_clients",
    TYPES: "types",
    GEO: "geo",
    VERSION: "version",
    FUNCTIONS: "functions",
    STREAM: "stream",
    STREAM_SERVER: "server in stream",
    STREAM_UPSTREAM: "upstream in stream or mqtt",
    MQTT: "mqtt",
    MQTT_SERVER: "server in mqtt",
    ON_PUBLISH: "on_publish",
    BRIDGE: "bridge in mqtt",
}


class Directive:
    """One declaration. See `directive` for what the fields mean."""

    __slots__ = (
        "args", "block", "check", "default", "doc", "ignored", "inherit", "least", "many", "most",
        "name", "read", "room", "rows", "syntax", "where", "_default",
    )  # fmt: skip

    def __init__(self, name: str, where: int) -> None:
        self.name = name
        self.where = where
        self.args: tuple[Value, ...] = ()
        self.block = 0
        self.rows = False
        self.many = False
        self.inherit = True
        self.default: Any = None
        self.doc = ""
        self.syntax = ""
        self.read: Callable[[list[Token], Block], Any] | None = None
        self.check: Callable[[Block], None] | None = None
        self.least = 0
        self.most: int | None = 0
        self.ignored = ""
        self.room = ""
        self._default: Any = self

    def take(self, tokens: list[Token], place: Token, block: Block | None) -> Any:
        """The typed value of the arguments `tokens` of the statement that `place` begins.

        Raises ConfError, worded as nginx, when their number or kind is wrong.
        """
        count = len(tokens)
        if count < self.least or (self.most is not None and count > self.most):
            raise ConfError(place, f'invalid number of arguments in "{self.name}" directive')
        if self.read is not None:
            return self.read(tokens, block)  # type: ignore[arg-type]
        args = self.args
        if len(args) == 1:
            if isinstance(args[0], Rest):
                return args[0].read_all(tokens, self.name)
            return args[0].take(tokens[0], self.name) if tokens else None
        if not args:
            return tokens if self.ignored else None
        values: list[Any] = []
        for number, kind in enumerate(args):
            if isinstance(kind, Rest):
                values.append(kind.read_all(tokens[number:], self.name))
            else:
                values.append(kind.take(tokens[number], self.name) if number < count else None)
        return tuple(values)

    @property
    def default_value(self) -> Any:
        """What stands where the conf says nothing: `default`, read as if it were written."""
        if self._default is self:
            value = self.default
            if isinstance(value, str):
                is_one = len(self.args) == 1 and not isinstance(self.args[0], Rest)
                tokens = [Token(value)] if is_one else words(value)
                value = self.take(tokens, Token(self.name), None)
                if self.many:
                    value = [value]
            elif value is None and self.many:
                value = []
            self._default = value
        return self._default


DIRECTIVES: dict[str, list[Directive]] = {}


def directive(
    name: str,
    where: int,
    *args: Value,
    default: Any = None,
    doc: str = "",
    many: bool = False,
    inherit: bool = True,
    block: int = 0,
    rows: bool = False,
    read: Callable[[list[Token], Block], Any] | None = None,
    check: Callable[[Block], None] | None = None,
    least: int | None = None,
    most: int | None = None,
    syntax: str = "",
) -> Directive:
    """Declare the directive `name`, allowed in the places `where` (flags, combined with `|`).

    `args` type its arguments: one gives the value itself, several a tuple, none gives None.
    `default` is conf text read by the same types, or a ready value. `many` lets it stand more
    than once in a block: the value is the list. `inherit=False` is for what an inner block does
    not get from an outer one. `block` is the place inside its braces; with `rows=True` the lines
    in there are no directives: Block.rows has them. `read(args, block)` reads what types cannot
    say, `least` … `most` arguments; `check(block)` runs when the block is closed. Both raise
    ConfError. `syntax` is for the reference, where the types do not say it.

    Raises ValueError when the name is declared already for one of these places.
    """
    it = Directive(name, where)
    it.args = args
    it.default = default
    it.doc = doc
    it.many = many
    it.inherit = inherit
    it.block = block
    it.rows = rows
    it.read = read
    it.check = check
    it.syntax = syntax
    it.least, it.most = _count(args)
    if not args and read is not None:
        it.least, it.most = 1, None
    if least is not None:
        it.least = least
    if most is not None:
        it.most = most
    it.room = sys._getframe(1).f_globals.get("__name__", "")
    return _keep(it)


def ignored(name: str, where: int, reason: str, *, least: int = 1, block: int = 0) -> Directive:
    """Declare a directive of nginx's that means nothing here: accepted, its arguments only
    counted (`least` or more), and listed with `reason` by -t."""
    it = Directive(name, where)
    it.ignored = it.doc = reason
    it.least, it.most = least, None
    it.many = True
    it.block = block
    it.syntax = "…"
    it.room = sys._getframe(1).f_globals.get("__name__", "")
    return _keep(it)


def find(name: str, where: int) -> Directive | None:
    """The declaration of `name` that holds in the place `where`, or None."""
    for it in DIRECTIVES.get(name, ()):
        if it.where & where:
            return it
    return None


def _keep(it: Directive) -> Directive:
    others = DIRECTIVES.setdefault(it.name, [])
    for number, other in enumerate(others):
        if other.where & it.where:
            if it.ignored and not other.ignored:  # a room obeys it after all
                return other
            if other.ignored and not it.ignored:
                others[number] = it
                return it
            if other.room == it.room and other.where == it.where:  # the module was loaded again
                others[number] = it
                return it
            raise ValueError(f'"{it.name}" of {it.room} is declared by {other.room} already')
    others.append(it)
    return it


def _count(args: Sequence[Value]) -> tuple[int, int | None]:
    least, most = 0, 0
    for kind in args:
        if isinstance(kind, Rest):
            return least + kind.least, None
        least += not kind.optional
        most += 1
    return least, most

"""The blocks that hold everything else: events, http, stream, mqtt, server, location."""

from __future__ import annotations

from collections import namedtuple

from proxy.conf.directive import (
    ANYWHERE,
    EVENTS,
    HTTP,
    LOCATION,
    MAIN,
    MQTT,
    MQTT_SERVER,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

MODIFIERS = ("=", "^~", "~", "~*")


class LocationKey(namedtuple("LocationKey", ("modifier", "pattern"))):
    """What a location matches. `modifier` is one of `=`, `^~`, `~`, `~*`, `@` or empty (prefix);
    `pattern` is the path, the regex or, with `@`, the name including its `@`."""

    __slots__ = ()
    modifier: str
    pattern: str

    @property
    def is_regex(self) -> bool:
        return self.modifier in ("~", "~*")


def read_location(args: list[Token], block: Block) -> LocationKey:
    """The arguments of `location` in `block`. Raises ConfError where nginx refuses it."""
    key = _location_key(args)
    if block.where != LOCATION:
        return key
    outer: LocationKey = block.value
    name, place = key.pattern, args[-1]
    if outer.modifier == "=":
        raise ConfError(
            place, f'location "{name}" cannot be inside the exact location "{outer.pattern}"'
        )
    if outer.modifier == "@":
        raise ConfError(
            place, f'location "{name}" cannot be inside the named location "{outer.pattern}"'
        )
    if key.modifier == "@":
        raise ConfError(place, f'named location "{name}" can be on the server level only')
    if not key.is_regex and not name.startswith(outer.pattern):
        raise ConfError(place, f'location "{name}" is outside location "{outer.pattern}"')
    return key


def _location_key(args: list[Token]) -> LocationKey:
    if len(args) == 2:
        if args[0] not in MODIFIERS:
            raise ConfError(args[0], f'invalid location modifier "{args[0]}"')
        return LocationKey(str(args[0]), args[1])
    text = args[0]
    for modifier in ("=", "^~", "~*", "~"):  # nginx lets them be written without a space
        if text.startswith(modifier):
            rest = type(text)(text[len(modifier) :], text.file, text.line, text.column)
            return LocationKey(modifier, rest)
    return LocationKey("@" if text.startswith("@") else "", text)


def check_locations(block: Block) -> None:
    """No exact or prefix location may stand twice in one server or location."""
    seen = set()
    for inner in block.find("location"):
        key = inner.value
        if key.is_regex or key.modifier == "@":  # the first one is found, says nginx
            continue
        kind = (key.modifier == "=", key.pattern)
        if kind in seen:
            raise ConfError(inner.args[-1], f'duplicate location "{key.pattern}"')
        seen.add(kind)


def check_listen(block: Block) -> None:
    """There is no port that a server in stream or mqtt could have meant."""
    if not block.own("listen"):
        raise ConfError(None, f'no "listen" is defined for server in {block.file}:{block.line}')


def check_events(root: Block) -> None:
    """nginx starts with no conf that lacks its events block, so neither does Headrace."""
    if root.where == MAIN and not root.find("events"):
        raise root.error('no "events" section in configuration')


directive(
    "events",
    MAIN,
    block=EVENTS,
    check=check_events,
    doc="Holds the directives about connections. It must be there, even if empty.",
)
directive("http", MAIN, block=HTTP, doc="Holds everything about HTTP.")
directive("stream", MAIN, block=STREAM, doc="Holds everything about plain TCP connections.")
directive(
    "server",
    STREAM,
    block=STREAM_SERVER,
    many=True,
    check=check_listen,
    doc="Where connections are taken, and where they go.",
)
directive("mqtt", MAIN, block=MQTT, doc="Holds everything about MQTT.")
directive(
    "server",
    MQTT,
    block=MQTT_SERVER,
    many=True,
    check=check_listen,
    doc="Where clients of MQTT are taken, and where their messages go.",
)
directive(
    "server",
    HTTP,
    block=SERVER,
    many=True,
    check=check_locations,
    doc="A virtual server: which addresses and names it answers, and how.",
)
directive(
    "location",
    SERVER | LOCATION,
    block=LOCATION,
    many=True,
    read=read_location,
    most=2,
    check=check_locations,
    syntax="[= | ~ | ~* | ^~] uri | @name",
    doc="What to do with requests whose path matches; nested ones narrow it down further.",
)
directive(
    "include",
    ANYWHERE,
    Word(),
    many=True,
    syntax="file | mask",
    doc="Reads another file here; a mask may match none. Relative to the conf's directory.",
)

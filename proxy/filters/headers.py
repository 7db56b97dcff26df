"""add_header, add_trailer and expires as a conf declares them, and how a block freezes them."""

from __future__ import annotations

from collections import namedtuple

from proxy.conf.directive import HTTP, LOCATION, LOCATION_IF, SERVER, directive
from proxy.conf.report import ConfError
from proxy.conf.values import Enum, read_seconds
from proxy.filters._headers import HeaderSettings, Line
from proxy.variables._variables import compile as compile_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION | LOCATION_IF
OFF, EPOCH, MAX, ACCESS, MODIFIED, DAILY = range(6)
KEYWORDS = {"off": (OFF, 0), "epoch": (EPOCH, 0), "max": (MAX, 0)}
FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive")


class AddedLine(namedtuple("AddedLine", ("name", "value", "is_always"))):
    """One add_header or add_trailer; `value` is a Token with variables."""


class Expires(namedtuple("Expires", ("kind", "seconds", "text"))):
    """`text` is the Token of a value with variables, else None."""


def read_line(args: list[Token], block: Block) -> AddedLine:
    """`NAME VALUE [always]`. Raises ConfError."""
    if len(args) == 3 and args[2] != "always":
        raise ConfError(args[2], f'invalid parameter "{args[2]}"')
    if args[0].lower() in FRAMING:
        raise ConfError(args[0], f'"{args[0]}" frames the message and cannot be added')
    return AddedLine(args[0], args[1], len(args) == 3)


def read_expires(args: list[Token], block: Block) -> Expires:
    """`[modified] TIME | epoch | max | off`. Raises ConfError."""
    is_modified = len(args) == 2
    if is_modified and args[0] != "modified":
        raise ConfError(args[0], "invalid value")
    value = args[-1]
    if "$" in value:
        return Expires(MODIFIED if is_modified else ACCESS, 0, value)
    found = read_expiry(value, is_modified)
    if isinstance(found, str):
        raise ConfError(value, found)
    return Expires(*found, None)


def read_expiry(text: str, is_modified: bool) -> tuple[int, int] | str:
    """The kind and its seconds; or what is wrong, as nginx words it."""
    if not is_modified and text in KEYWORDS:
        return KEYWORDS[text]
    kind = MODIFIED if is_modified else ACCESS
    sign = 1
    if text.startswith("@"):
        if is_modified:
            return 'daily time cannot be used with "modified" parameter'
        kind = DAILY
    elif text.startswith("-"):
        sign = -1
    seconds = read_seconds(text[1:] if text[:1] in ("@", "+", "-") else text)
    if seconds is None:
        return "invalid value"
    if kind == DAILY and seconds > 86400:
        return "daily time value must be less than 24 hours"
    return kind, sign * seconds


def expiry_of(text: str, is_modified: bool) -> tuple[int, int] | None:
    """The same for a value of the moment: None when it is wrong."""
    found = read_expiry(text, is_modified)
    return None if isinstance(found, str) else found


directive("add_header", EVERY, read=read_line, least=2, most=3, many=True,
          syntax="name value [always]",
          doc="Adds a field to answers of status 200, 201, 204, 206, 30x, or to all.")
directive("add_trailer", EVERY, read=read_line, least=2, most=3, many=True,
          syntax="name value [always]",
          doc="Adds a field behind the body of an answer, which is then chunked.")
for _name in ("add_header", "add_trailer"):
    directive(f"{_name}_inherit", EVERY, Enum("on", "off", "merge"), default="on",
              doc=f"Whether {_name} of outer levels holds here: unless there are own ones (on), "
                  "never (off), or besides own ones (merge).")
directive("expires", EVERY, read=read_expires, least=1, most=2, default=Expires(OFF, 0, None),
          syntax="[modified] time | @time | epoch | max | off",
          doc="Sets Expires and Cache-Control of successful answers.")


def lines(block: Block, name: str) -> list[AddedLine]:
    """What holds in a block; its own lines come before those that it merges in."""
    own = block.own(name) or []
    outer = block.parent
    rule = block.get(f"{name}_inherit")
    if rule == "off" or own and rule == "on" or outer is None or outer.name == "main":
        return own
    return own + lines(outer, name)


def freeze_headers(block: Block) -> HeaderSettings | None:
    """The settings of a location, or None when nothing is added there."""
    fields, trailers = lines(block, "add_header"), lines(block, "add_trailer")
    expires: Expires = block.get("expires")
    if not fields and not trailers and expires.kind == OFF:
        return None
    s = HeaderSettings()
    s.fields = [freeze_line(it) for it in fields]
    s.trailers = [freeze_line(it) for it in trailers]
    s.expires = expires.kind
    s.expires_s = expires.seconds
    if expires.text is not None:
        s.expires_text = compile_text(expires.text)
        s.read_expires = expiry_of
    return s


def freeze_line(it: AddedLine) -> Line:
    return Line(it.name.encode("utf-8", "surrogateescape"), compile_text(it.value), it.is_always)

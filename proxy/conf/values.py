"""The one place that turns conf text into a size, a duration, a rate, an address, on or off.

The `read_…` functions return None for text that is no such thing; the Value classes are what a
directive's declaration names, and raise ConfError worded as nginx does.
"""

from __future__ import annotations

import re
from collections import namedtuple

from proxy.conf.report import ConfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from proxy.conf.lexer import Token

MAX_INT = 2**63 - 1
SIZE_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# In the order nginx wants them written: unit, milliseconds in one.
TIME_UNITS = (
    ("y", 31_536_000_000),
    ("M", 2_592_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
)
TIME_STEP = {unit: (step, scale) for step, (unit, scale) in enumerate(TIME_UNITS)}
TIME_PART = re.compile(r"([0-9]+)(ms|[yMwdhms])? *")
RATE = re.compile(r"([0-9]{1,15})(?:r/([sm]))?")
PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%")


def read_int(text: str) -> int | None:
    """Decimal digits only, 0 … 2^63-1."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    number = int(text)
    return number if number <= MAX_INT else None


def read_size(text: str) -> int | None:
    """Bytes from `512`, `16k`, `8m`, `1g` (either case)."""
    scale = SIZE_UNITS.get(text[-1:].lower(), 0)
    number = read_int(text[:-1] if scale else text)
    if number is None or number * (scale or 1) > MAX_INT:
        return None
    return number * (scale or 1)


def read_ms(text: str) -> int | None:
    """Milliseconds from `1h 30m`, `500ms`, `60`. Units fall; a bare number is seconds.

    Years and months are for `read_seconds` alone, as in nginx.
    """
    return _read_time(text, TIME_STEP["w"][0], TIME_STEP["ms"][0])


def read_seconds(text: str) -> int | None:
    """Whole seconds from `30d`, `1y 2M`, `75`; no `ms`."""
    total = _read_time(text, 0, TIME_STEP["s"][0])
    return None if total is None else total // 1000


def _read_time(text: str, first: int, last: int) -> int | None:
    at, step, total = 0, first - 1, 0
    while at < len(text):
        part = TIME_PART.match(text, at)
        if part is None or len(part[1]) > 19:
            return None
        at = part.end()
        unit = part[2]
        if unit is None:
            scale = 1000
            if at < len(text) or part[0] != part[1]:
                # Followed by a space: no unit may come any more, only a last bare number.
                if step >= TIME_STEP["s"][0]:
                    return None
                step = len(TIME_UNITS)
        else:
            new_step, scale = TIME_STEP[unit]
            if new_step <= step or new_step > last:
                return None
            step = new_step
        total += int(part[1]) * scale
        if total > MAX_INT:
            return None
    return total if text else None


def read_flag(text: str) -> bool | None:
    """`on` or `off`, in either case."""
    return {"on": True, "off": False}.get(text.lower())


def read_rate(text: str) -> int | None:
    """Thousandths of a request per second from `10r/s`, `30r/m` or `10`; zero is no rate."""
    match = RATE.fullmatch(text)
    if match is None or not (number := int(match[1])):
        return None
    return number * 1000 // (60 if match[2] == "m" else 1)


def read_percent(text: str) -> int | None:
    """Hundredths of a percent (0 … 10000) from `25%` or `0.5%`, two decimals at most."""
    match = PERCENT.fullmatch(text)
    if match is None:
        return None
    number = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    return number if number <= 10_000 else None


class Endpoint(namedtuple("Endpoint", ("host", "port", "path"), defaults=("",))):
    """An address as written. `path` is a Unix socket's, then `host` is empty and `port` 0.
    `host` is a name, an IPv4 address, `*`, or an IPv6 address without its brackets."""

    __slots__ = ()
    host: str
    port: int
    path: str

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


class AddressError(ValueError):
    """Text that is no address; its words are nginx's: `invalid port`, `no host`, …"""


def read_address(text: str, port: int = 80, *, is_listen: bool = False) -> Endpoint:
    """`host`, `host:port`, `[::1]:port`, `unix:/path`; with `is_listen` also `port` and `*:port`.

    `port` is what stands for a missing one. Raises AddressError, worded as nginx begins its
    `… in upstream "TEXT"` and `… in "TEXT" of the "listen" directive`.
    """
    if text[:5].lower() == "unix:":
        path = text[5:]
        if not path:
            raise AddressError("no path in the unix domain socket")
        if len(path.encode("utf-8", "surrogateescape")) > 107:  # sun_path, less its NUL
            raise AddressError("too long path in the unix domain socket")
        return Endpoint("", 0, path)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ipv6(host):
            raise AddressError("invalid IPv6 address")
        if rest and not rest.startswith(":"):
            raise AddressError("invalid host")
        return Endpoint(host, _read_port(rest[1:]) if rest else port)
    host, colon, tail = text.partition(":")
    if not colon and is_listen and (number := read_int(host)) is not None:
        if not 1 <= number <= 65535:
            raise AddressError("invalid port")
        return Endpoint("*", number)
    if not host:
        raise AddressError("no host")
    if host == "*" and not is_listen:
        raise AddressError("invalid host")
    return Endpoint(host, _read_port(tail) if colon else port)


def _read_port(text: str) -> int:
    number = read_int(text)
    if number is None or not 1 <= number <= 65535:
        raise AddressError("invalid port")
    return number


def _is_ipv6(text: str) -> bool:
    from _socket import AF_INET6, inet_pton  # the C half: `socket` itself costs start time

    try:
        inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return False
    return True


def read_temp_path(args: Sequence[Token], _block: object) -> str:
    """`PATH [LEVEL [LEVEL [LEVEL]]]`: the path as written, see Block.path. There are no levels of
    directories here, since few files have names; nginx's are checked all the same."""
    for word in args[1:]:
        if word not in ("1", "2", "3"):
            raise ConfError(word, f'invalid value "{word}"')
    return str(args[0])


class Value:
    """What one argument of a directive is. `optional` ones stand last and read as None when
    missing; `words` are spellings with a value of their own, such as {"off": 0}."""

    shape = "value"

    def __init__(self, *, optional: bool = False, words: Mapping[str, Any] | None = None) -> None:
        self.optional = optional
        self.words = words

    def take(self, token: Token, name: str) -> Any:
        """The value of `token`, an argument of the directive `name`. Raises ConfError."""
        if self.words is not None and token in self.words:
            return self.words[token]
        return self.read(token, name)

    def read(self, token: Token, name: str) -> Any:
        raise NotImplementedError

    def syntax(self) -> str:
        """How the reference writes it."""
        shape = " | ".join([self.shape, *(self.words or ())])
        return f"[{shape}]" if self.optional else shape


class Size(Value):
    """Bytes, an int."""

    shape = "size"

    def read(self, token: Token, name: str) -> int:
        number = read_size(token)
        if number is None:
            raise ConfError(token, f'"{name}" directive invalid value')
        return number


class SocketSize(Size):
    """Bytes as setsockopt takes them, an int; the kernel has a bound of its own, far lower."""

    def read(self, token: Token, name: str) -> int:
        return min(super().read(token, name), 2**31 - 1)


class SizeText(Size):
    """Bytes (a second, for a rate), an int; or a text with variables that gives them, a str."""

    def read(self, token: Token, name: str) -> int | str:  # type: ignore[override]
        return str(token) if "$" in token else super().read(token, name)


class Duration(Value):
    """Milliseconds, an int."""

    shape = "time"

    def read(self, token: Token, name: str) -> int:
        number = read_ms(token)
        if number is None:
            raise ConfError(token, f'"{name}" directive invalid value')
        return number


class Seconds(Value):
    """Whole seconds, an int."""

    shape = "time"

    def read(self, token: Token, name: str) -> int:
        number = read_seconds(token)
        if number is None:
            raise ConfError(token, f'"{name}" directive invalid value')
        return number


class Flag(Value):
    """`on` or `off`, a bool."""

    shape = "on | off"

    def read(self, token: Token, name: str) -> bool:
        flag = read_flag(token)
        if flag is None:
            raise ConfError(
                token,
                f'invalid value "{token}" in "{name}" directive, it must be "on" or "off"',
            )
        return flag


class Int(Value):
    """A whole number from `least` to `most`."""

    shape = "number"

    def __init__(self, least: int = 0, most: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.least = least
        self.most = most

    def read(self, token: Token, name: str) -> int:
        number = read_int(token)
        if number is None:
            raise ConfError(token, f'"{name}" directive invalid number')
        if self.most is None:
            if number < self.least:
                raise ConfError(token, f"value must be equal to or greater than {self.least}")
        elif not self.least <= number <= self.most:
            raise ConfError(token, f"value must be between {self.least} and {self.most}")
        return number


class Word(Value):
    """Text without variables. The Token itself, so that its place is known later."""

    shape = "name"

    def read(self, token: Token, name: str) -> str:
        return token


class Text(Value):
    """Text that may hold $variables, compiled when the plan is made. The Token itself."""

    shape = "string"

    def read(self, token: Token, name: str) -> str:
        return token


class Regex(Value):
    """A pattern, compiled when the plan is made. The Token itself."""

    shape = "regex"

    def read(self, token: Token, name: str) -> str:
        return token


class Enum(Value):
    """One of the spellings given, in any case; the value is the spelling as declared."""

    def __init__(self, *spellings: str, **options: Any) -> None:
        super().__init__(**options)
        self.spellings = {spelling.lower(): spelling for spelling in spellings}
        self.shape = " | ".join(spellings)

    def read(self, token: Token, name: str) -> str:
        spelling = self.spellings.get(token.lower())
        if spelling is None:
            raise ConfError(token, f'invalid value "{token}"')
        return spelling


class Address(Value):
    """An Endpoint; `port` stands for a missing one."""

    shape = "address"

    def __init__(self, port: int = 80, *, is_listen: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.port = port
        self.is_listen = is_listen

    def read(self, token: Token, name: str) -> Endpoint:
        try:
            return read_address(token, self.port, is_listen=self.is_listen)
        except AddressError as error:
            place = f'upstream "{token}"'
            if self.is_listen:
                place = f'"{token}" of the "{name}" directive'
            raise ConfError(token, f"{error} in {place}") from None


class Rest(Value):
    """All arguments that are left, `least` or more of them, each a `kind`: a list."""

    def __init__(self, kind: Value | None = None, least: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind if kind is not None else Text()
        self.least = least

    def read_all(self, tokens: Sequence[Token], name: str) -> list[Any]:
        return [self.kind.take(token, name) for token in tokens]

    def syntax(self) -> str:
        shape = self.kind.syntax()
        shape = f"({shape})" if " | " in shape else shape
        return f"{shape} …" if self.least else f"[{shape} …]"

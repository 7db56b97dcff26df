"""What `sticky` says: by what a client is known again, and what lets it say itself who answers.

    sticky cookie=NAME [expires=TIME|max] [domain=NAME] [path=PATH] [httponly] [secure]
                       [samesite=strict|lax|none]
    sticky header=NAME | variable=$NAME | claim=NAME | address
    sticky route $NAME …                       in an upstream: the `route=` of a server
    sticky tag_header=NAME tag_cookie=NAME     in a function, also behind the others

`sticky cookie NAME …` is read too, as nginx writes it. `claim=sub` is the variable
$jwt_claim_sub. A tag names a version outright; Knative-Serving-Tag does so without being said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.report import ConfError
from proxy.conf.values import read_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 §5.6.2
VARIABLE = re.compile(r"\$?([A-Za-z0-9_]{1,64})")
VALUE = re.compile(r"[!-:<-~]{1,255}")  # of a cookie's attribute: no ";", no space
FOREVER_S = 10 * 365 * 86_400
KINDS = ("cookie", "header", "variable", "claim")
LEARN = (
    'parameter "learn" is known to nginx, not supported by Headrace: "cookie" needs no table of '
    'sessions, and "variable" knows clients by what they send'
)
ATTRIBUTES = {
    "expires": re.compile(r"[0-9a-z ]{1,64}"),
    "domain": VALUE,
    "path": VALUE,
    "samesite": VALUE,
}
SAME_SITE = ("strict", "lax", "none")


class Sticky(NamedTuple):
    """kind: cookie, header, variable, address, route, or "" when only tags are said. name: of the
    cookie, the header, or the variable without "$"; of a route all variables, each with its "$".
    attributes: of Set-Cookie, each begun by "; "."""

    kind: str
    name: str = ""
    attributes: str = ""
    tag_header: str = ""
    tag_cookie: str = ""

    @property
    def lifetime(self) -> tuple[int, str]:
        """(seconds that the cookie is kept, 0 for its session; the other attributes)."""
        found = re.match(r"; Max-Age=(\d+)", self.attributes)
        return (int(found[1]), self.attributes[found.end() :]) if found else (0, self.attributes)

    @property
    def keys(self) -> list[str]:
        """Texts with variables: the first that is not empty is what a client is known by."""
        if self.kind == "route":
            return self.name.split()
        field = self.name.lower().replace("-", "_")
        found = {
            "header": f"$http_{field}",
            "variable": f"${self.name}",
            "address": "$binary_remote_addr",
        }.get(self.kind)
        return [found] if found else []

    def __str__(self) -> str:
        """As read_words reads it: what the controller tells workers."""
        words = [f"{self.kind}={self.name}" if self.name else self.kind]
        for attribute in self.attributes.split("; ")[1:]:
            name, equals, value = attribute.partition("=")
            if name != "Max-Age":
                words.append(name.lower() + equals + value)
            else:
                words.append("expires=" + value)
        words += [f"tag_header={self.tag_header}"] if self.tag_header else []
        words += [f"tag_cookie={self.tag_cookie}"] if self.tag_cookie else []
        return " ".join(word for word in words if word)


def read_words(words: Iterable[str]) -> Sticky:
    """The words behind `sticky`. Raises ValueError that names the wrong one."""
    words = list(words)
    if words[:1] == ["learn"]:
        raise ValueError(LEARN)
    if words[:1] == ["route"]:
        wrong = [it for it in words[1:] if not VARIABLE.fullmatch(it) or it[0] != "$"]
        if wrong or len(words) == 1:
            text = f'invalid parameter "{wrong[0]}"' if wrong else '"route" wants variables'
            raise ValueError(text)
        return Sticky("route", " ".join(words[1:]))
    if len(words) > 1 and words[0] in KINDS:  # nginx: cookie NAME
        words[:2] = [f"{words[0]}={words[1]}"]
    kind = name = ""
    said: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in said or (kind and (key in KINDS or key == "address")):
            other = key if key in said else kind
            raise ValueError(f'invalid parameter "{word}": another "{other}" stands before it')
        if key in KINDS:
            kind, name = key, _name(word, key, value)
        elif key == "address" and not equals:
            kind = key
        elif key in ("httponly", "secure") and not equals:
            said[key] = ""
        elif key in ("tag_header", "tag_cookie"):
            said[key] = _name(word, key, value)
        elif key in ATTRIBUTES and ATTRIBUTES[key].fullmatch(value):
            said[key] = value
        else:
            raise ValueError(f'invalid parameter "{word}"')
    if kind == "claim":
        kind, name = "variable", f"jwt_claim_{name}"
    tag_header, tag_cookie = said.pop("tag_header", ""), said.pop("tag_cookie", "")
    if said and kind != "cookie":
        key, value = next(iter(said.items()))
        word = f"{key}={value}" if value else key
        raise ValueError(f'invalid parameter "{word}": it is for a cookie')
    if not (kind or tag_header or tag_cookie):
        raise ValueError("no parameter says by what")
    attributes = _attributes(said) if kind == "cookie" else ""
    return Sticky(kind, name, attributes, tag_header, tag_cookie)


def _name(word: str, key: str, value: str) -> str:
    pattern = VARIABLE if key in ("variable", "claim") else TOKEN
    found = pattern.fullmatch(value)
    if found is None:
        raise ValueError(f'invalid parameter "{word}"')
    return found[1] if key == "variable" else value


def _attributes(said: dict[str, str]) -> str:
    text = ""
    if "expires" in said:
        seconds = FOREVER_S if said["expires"] == "max" else read_seconds(said["expires"])
        if seconds is None or seconds <= 0:
            raise ValueError(f'invalid parameter "expires={said["expires"]}"')
        text += f"; Max-Age={seconds}"
    if "domain" in said:
        text += f"; Domain={said['domain']}"
    if "path" in said:
        text += f"; Path={said['path']}"
    if "samesite" in said:
        value = said["samesite"]
        if "$" not in value and value.lower() not in SAME_SITE:
            raise ValueError(f'invalid parameter "samesite={value}"')
        text += f"; SameSite={value}"
    text += "; HttpOnly" if "httponly" in said else ""
    text += "; Secure" if "secure" in said else ""
    return text


def read_sticky(args: list[Token], block: Block) -> Sticky:
    """The directive. Raises ConfError."""
    try:
        found = read_words(args)
    except ValueError as error:
        raise ConfError(args[0], f'{error} in "sticky" directive') from None
    why = ""
    if block.name == "upstream":
        if found.tag_header or found.tag_cookie:
            why = 'an upstream has no versions for a tag to name: see "sticky route"'
    elif found.kind == "route":
        why = 'the versions of a function have no routes: see "tag", "tag_header" and "tag_cookie"'
    elif "$" in found.attributes:
        why = 'the cookie of a function\'s "sticky" has no variables'
    if why:
        raise ConfError(args[0], f'{why} in "sticky" directive')
    return found

"""Routes that a function's annotations make, and what `function_pass` names.

    headrace.io/route            [METHOD,…] [HOST]/PATH [WORD …]
    headrace.io/route.ANYTHING   another one

| part | means |
|---|---|
| `GET,POST` | these methods (GET has HEAD with it); left out: any |
| `api.example.com`, `*.example.com`, `api.*` | this host; left out: any |
| `/thumbs` | this path and all below it |
| `/thumbs/*` | all below, not the path itself |
| `/users/*/orders` | the whole path; `*` is what one segment may hold, a last `/*` all below |
| `exact` | the path alone, nothing below it |
| `header.NAME`, `header.NAME=VALUE` | the request has this header, of this value (`*`: any run) |
| `query.NAME`, `query.NAME=VALUE` | the same of an argument |
| `rewrite=/NEW` | the path up to the first `*` (or the whole PATH) becomes /NEW |
| `priority=N` | -1000 … 1000; routes of a higher one are asked first, whatever host and path; 0 |

Among routes of one priority the best is that of the most particular host (exact, the longest
`*.x`, the longest `x.*`, any), there that of the longest path, there the one that names the method,
there the one with most conditions. Of two functions with the very same route the older answers,
and the error log names both; when it goes, the other takes over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUTE = "headrace.io/route"
MOST_ROUTES = 64  # of one function
MOST_CONDITIONS = 8
LONGEST = 2048
METHODS = re.compile(r"[A-Z][A-Z-]{0,31}(?:,[A-Z][A-Z-]{0,31})*")
HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})?(?:\.\*)?|\*|")
NAME = re.compile(r"[A-Za-z0-9_.~!#$%&'+^|`-]{1,64}")
PRIORITIES = range(-1000, 1001)



class Route(NamedTuple):
    """One route. methods: () for any. path: as FunctionRoutes takes it. rewrite: "" for none.

    conditions: ("header" | "query", name, glob of its value or None) each, in a fixed order.
    """

    methods: tuple[str, ...]
    host: str
    path: str
    conditions: tuple[tuple[str, str, str | None], ...] = ()
    rewrite: str = ""
    priority: int = 0

    @property
    def prefix(self) -> str:
        """What `rewrite` replaces of a path that matched."""
        return self.path.lstrip("=").partition("*")[0]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(host, path, method) each."""
        return [(self.host, self.path, method) for method in self.methods or ("",)]

    def shown(self, method: str) -> str:
        """In words, as an annotation says it."""
        words = [method] if method else []
        words.append(self.host + self.path.lstrip("="))
        words += [
            f"{kind}.{name}" + (f"={value}" if value is not None else "")
            for kind, name, value in self.conditions
        ]
        return " ".join(words + ([f"priority={self.priority}"] if self.priority else []))


def is_route(name: str) -> bool:
    """Does an annotation of this name make a route?"""
    return name == ROUTE or name.startswith(ROUTE + ".")


def read_routes(annotations: Mapping[str, str]) -> list[Route]:
    """The routes of a function, in the order of their annotations' names.

    Raises ValueError that names the annotation.
    """
    names = sorted(name for name in annotations if is_route(name))
    if len(names) > MOST_ROUTES:
        raise ValueError(f"a function has at most {MOST_ROUTES} routes")
    found = []
    for name in names:
        try:
            found.append(read_route(annotations[name]))
        except ValueError as error:
            raise ValueError(f'annotation "{name}": {error}') from None
    return found


def read_route(text: str) -> Route:
    """One annotation's value. Raises ValueError."""
    words = text.split()
    if len(text) > LONGEST or not words:
        raise ValueError("it is empty" if not words else "it is too long")
    methods: tuple[str, ...] = ()
    if "/" not in words[0]:
        if METHODS.fullmatch(words[0]) is None:
            raise ValueError(f'"{words[0]}" is neither methods nor a path')
        methods = tuple(dict.fromkeys(words.pop(0).split(",")))
        if "GET" in methods and "HEAD" not in methods:
            methods += ("HEAD",)
    if not words or "/" not in words[0]:
        raise ValueError("it has no path")
    host, slash, path = words[0].partition("/")
    if HOST.fullmatch(host) is None or ".." in host:
        raise ValueError(f'invalid host "{host}"')
    route = Route(methods, host.lower().rstrip("."), _read_path(slash + path))
    for word in words[1:]:
        route = _read_word(route, word)
    if len(route.conditions) > MOST_CONDITIONS:
        raise ValueError(f"it has more than {MOST_CONDITIONS} conditions")
    return route._replace(conditions=tuple(sorted(route.conditions, key=repr)))


def _read_path(path: str) -> str:
    if any(char in path for char in "?#") or not path.isprintable():
        raise ValueError(f'invalid path "{path}"')
    if "//" in path or any(it in (".", "..") for it in path.split("/")):
        raise ValueError(f'path "{path}" is not in its plain form')
    body = path.removesuffix("/**").removesuffix("/*") if path.endswith(("/*", "/**")) else path
    if "**" in body:
        raise ValueError(f'"**" is not the last segment of "{path}"')
    if body != path:
        return f"{body}/**" if "*" in body else f"{body}/"
    return path


def _read_word(route: Route, word: str) -> Route:
    name, equals, value = word.partition("=")
    kind, dot, field = name.partition(".")
    if kind in ("header", "query") and dot:
        if NAME.fullmatch(field) is None:
            raise ValueError(f'invalid name in "{word}"')
        field = field.lower() if kind == "header" else field
        condition = kind, field, value if equals else None
        return route._replace(conditions=(*route.conditions, condition))
    if name == "rewrite" and value.startswith("/") and not any(it in value for it in "?#*"):
        return route._replace(rewrite=value)
    if name == "priority" and re.fullmatch(r"[+-]?[0-9]{1,4}", value):
        if int(value) not in PRIORITIES:
            raise ValueError(f'"{word}" is not within -1000 and 1000')
        return route._replace(priority=int(value))
    if word == "exact":
        if "*" in route.path or route.path.endswith("/") and route.path != "/":
            raise ValueError(f'"{route.path}" cannot be exact')
        return route._replace(path="=" + route.path)
    raise ValueError(f'unknown word "{word}"')

"""Builds the location search of a server from its conf blocks."""

from __future__ import annotations

from proxy.base._pcre import Pattern, PatternError
from proxy.conf.report import ConfError
from proxy.routing._locations import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proxy.conf.inherit import Block

# Directives whose prefix locations redirect "/name" to "/name/" (nginx, "location").
PASSING = ("proxy_pass", "grpc_pass", "mqtt_websocket", "function_pass")


def is_passing(block: Block) -> bool:
    """Whether this very location hands its requests on."""
    return any(statement.name in PASSING for statement in block.statements)


def build_tree(
    server: Block,
    settings_of: Callable[[Block], Any],
    is_redirecting: Callable[[Block], bool] = is_passing,
) -> Tree:
    """The locations of a `server` block.

    `settings_of(block)` is called once for the server and once for each location, outer ones
    first; what it gives is what a search finds. `is_redirecting(block)` says which locations
    whose name ends in "/" also redirect the name without it. Raises ConfError for a regex that
    does not compile, worded as nginx, and for a location that stands twice.
    """
    tree = Tree(settings_of(server))
    _fill(tree, server, settings_of, is_redirecting)
    return tree


def add_hidden(tree: Tree, block: Block, settings_of: Callable[[Block], Any]) -> None:
    """The locations in `block`, prefixes and exact ones, where the conf has none of that name."""
    for location in block.find("location"):
        name = location.value.pattern.encode()
        inner = Tree(
            settings_of(location), name, is_noregex=location.value.modifier == "^~"
        )
        if location.value.modifier == "=":
            tree.add_exact(inner)
        else:
            tree.add_prefix(inner)


def patterns_of(tree: Tree) -> list[Pattern]:
    """Every regex below `tree`, for whoever defines variables of their named groups."""
    found = tree.own_patterns
    for inner in tree.inner:
        found += patterns_of(inner)
    return found


def _fill(
    tree: Tree,
    block: Block,
    settings_of: Callable[[Block], Any],
    is_redirecting: Callable[[Block], bool],
) -> None:
    for location in block.find("location"):
        key = location.value
        name = key.pattern.encode("utf-8", "surrogateescape")
        inner = Tree(settings_of(location), name, is_noregex=key.modifier == "^~")
        is_new = True
        if key.is_regex:
            try:
                tree.add_pattern(Pattern(name, caseless=key.modifier == "~*"), inner)
            except PatternError as error:
                raise ConfError(location.args[-1], str(error)) from None
        elif key.modifier == "@":
            is_new = tree.add_named(inner)
        elif key.modifier == "=":
            is_new = tree.add_exact(inner)
        else:
            is_new = tree.add_prefix(inner)
        if not is_new:
            raise ConfError(location.args[-1], f'duplicate location "{key.pattern}"')
        if key.modifier in ("", "^~", "=") and name.endswith(b"/") and is_redirecting(location):
            # the exact location of the same name comes first, as everywhere
            tree.add_slash(inner, is_first=key.modifier == "=")
        _fill(inner, location, settings_of, is_redirecting)

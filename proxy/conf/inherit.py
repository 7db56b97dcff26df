"""The model: blocks, their statements, and how a block finds a value (its own, an outer one's,
the default) by nginx's rule: what an inner block says replaces the outer value whole."""

from __future__ import annotations

import functools
import gc
import os

from proxy.conf.directive import DIRECTIVES, MAIN, Directive, find
from proxy.conf.lexer import Token
from proxy.conf.report import ConfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

MISSING = object()


def only_grows(function: Callable[P, R]) -> Callable[P, R]:
    """No garbage is collected while `function` runs: all it makes stays, and a large conf would
    be looked through again and again."""

    @functools.wraps(function)
    def run(*args: P.args, **named: P.kwargs) -> R:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **named)
        finally:
            if was_on:
                gc.enable()

    return run


class Statement:
    """One directive as written. `value` is typed; `token` is its name, with its place; `block`
    is what its braces hold, or None."""

    __slots__ = ("args", "block", "directive", "name", "token", "value")

    def __init__(self, directive: Directive, token: Token, args: list[Token]) -> None:
        self.directive = directive
        self.name: str = directive.name
        self.token = token
        self.args = args
        self.value: Any = None
        self.block: Block | None = None

    @property
    def file(self) -> str:
        return self.token.file

    @property
    def line(self) -> int:
        return self.token.line

    def __repr__(self) -> str:
        return f"<{self.name} {' '.join(self.args)}>"


class Block:
    """What stands between two braces; `main` is the whole conf.

    `name` and `args` are the directive's that opened it, `value` its typed arguments; `where` is
    the kind of place (one flag of directive.py). `statements` keeps the order of the conf.
    """

    __slots__ = (
        "args", "blocks", "conf_prefix", "file", "files", "has_rows", "line", "name", "notes",
        "parent", "prefix", "rows", "statements", "token", "value", "where", "_found", "_given",
        "_inherited", "_named", "_own",
    )  # fmt: skip

    def __init__(self, name: str, where: int, token: Token, parent: Block | None = None) -> None:
        self.name = name
        self.where = where
        self.token = token
        self.file = token.file
        self.line = token.line
        self.args: list[Token] = []
        self.value: Any = None
        self.parent = parent
        self.statements: list[Statement] = []
        self.blocks: list[Block] = []
        self.has_rows = False
        self.rows: list[list[Token]] = []
        self._own: dict[str, Any] = {}
        self._found: dict[str, Any] = {}
        # What the blocks of one kind in here find that do not say it themselves: they share it.
        self._given: dict[int, dict[str, Any]] = {}
        self._inherited = parent._given.setdefault(where, {}) if parent else self._found
        self._named: tuple[int, dict[str, list[Block]]] = (0, {})  # of so many blocks
        # Of the whole conf, shared by all its blocks:
        self.prefix: str = parent.prefix if parent else ""
        self.conf_prefix: str = parent.conf_prefix if parent else ""
        self.files: dict[str, str] = parent.files if parent else {}
        self.notes: list[tuple[str, str]] = parent.notes if parent else []

    def find(self, name: str) -> list[Block]:
        """The child blocks of that name, in order."""
        if self._named[0] != len(self.blocks):
            named: dict[str, list[Block]] = {}
            for block in self.blocks:
                named.setdefault(block.name, []).append(block)
            self._named = len(self.blocks), named
        return list(self._named[1].get(name, ()))

    def below(self) -> Iterator[Block]:
        """Every block in this one, however deep, in order."""
        for child in self.blocks:
            yield child
            yield from child.below()

    def own(self, name: str) -> Any:
        """The value set in this very block, or None."""
        return self._own.get(name)

    def get(self, name: str) -> Any:
        """The value that holds here: own, else the nearest outer one, else the default.

        Raises LookupError for a name nobody declared. Found values are kept, so ask only when
        the conf is read to its end.
        """
        known = self._found if name in self._own else self._inherited
        value = known.get(name, MISSING)
        if value is MISSING:
            value = known[name] = self._find_value(name)
        return value

    def has(self, name: str) -> bool:
        """Is it set here or in a block this one inherits from?"""
        it = self._declaration(name)
        return any(name in block._own for block in self._heirs_of(it))

    def copy(self, into: Any, fields: dict[str, str]) -> None:
        """Set the attributes of `into` to the values that hold here: attribute → directive."""
        for attribute, name in fields.items():
            setattr(into, attribute, self.get(name))

    def _find_value(self, name: str) -> Any:
        it = self._declaration(name)
        for block in self._heirs_of(it):
            value = block._own.get(name, MISSING)
            if value is not MISSING:
                return value
        return it.default_value

    def _declaration(self, name: str) -> Directive:
        block: Block | None = self
        while block is not None:
            if (it := find(name, block.where)) is not None:
                return it
            block = block.parent
        if name in DIRECTIVES:
            return DIRECTIVES[name][0]
        raise LookupError(f'no room declares the directive "{name}"')

    def _heirs_of(self, it: Directive) -> Iterator[Block]:
        """This block, then (if `it` inherits) those outside it, where `it` may stand."""
        block: Block | None = self
        while block is not None:
            if block.where & it.where:
                yield block
            if not it.inherit:
                return
            block = block.parent

    def add(self, statement: Statement) -> None:
        """Take in a statement that was read. Raises ConfError when it may stand only once."""
        name = statement.name
        self.statements.append(statement)
        if statement.block is not None:
            self.blocks.append(statement.block)
        if statement.directive.many:
            self._own.setdefault(name, []).append(statement.value)
        elif name in self._own:
            raise ConfError(statement.token, f'"{name}" directive is duplicate')
        else:
            self._own[name] = statement.value

    def error(self, message: str) -> ConfError:
        """A ConfError that blames this block."""
        return ConfError(None if self.where == MAIN else self.token, message)

    def warn(self, message: str, place: Token | None = None) -> None:
        """Note something the operator should know that does not refuse the conf."""
        self.notes.append(("warn", str(ConfError(place or self.token, message))))

    def path(self, name: str) -> str:
        """A file named in the conf, seen from the prefix (`root`, `access_log`, `pid`)."""
        return os.path.join(self.prefix, name)

    def conf_path(self, name: str) -> str:
        """A file named in the conf, seen from the conf's own directory (`include`, keys)."""
        return os.path.join(self.conf_prefix, name)

    @property
    def ignored(self) -> list[Statement]:
        """The statements in here, at any depth, that were accepted and mean nothing."""
        found = [it for it in self.statements if it.directive.ignored]
        for block in self.blocks:
            found += block.ignored
        return found

    def __repr__(self) -> str:
        return f"<{' '.join([self.name, *self.args])} {{ }}>"

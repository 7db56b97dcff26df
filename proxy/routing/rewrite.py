"""The conf of set, if, rewrite, return and break, and how a block of them becomes a Program."""

from __future__ import annotations

from collections import namedtuple

from proxy.conf.directive import (
    HTTP,
    LOCATION,
    LOCATION_IF,
    SERVER,
    SERVER_IF,
    directive,
    ignored,
)
from proxy.conf.report import ConfError
from proxy.routing._rewrite import Program
from proxy.variables._variables import Regex, define_stored, number_of
from proxy.variables._variables import compile as compile_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proxy.conf.inherit import Block, Statement
    from proxy.conf.lexer import Token

EVERYWHERE = SERVER | SERVER_IF | LOCATION | LOCATION_IF
TARGETS = ("http://", "https://", "$scheme")
FLAGS = {"last": 0, "break": 0, "redirect": 302, "permanent": 301}


class Condition(namedtuple("Condition", ("operator", "left", "right"))):
    """What an `if` asks. `operator`: "" (a variable alone), = != ~ ~* !~ !~* or -f … !-x.
    `left` is the variable's Token with its "$" (None for file tests), `right` the other side."""


class Rewrite(namedtuple("Rewrite", ("pattern", "replacement", "flag", "status"))):
    """`flag` is a FLAGS key or empty; `status` 0, or that of a redirect."""


class Return(namedtuple("Return", ("status", "text"))):
    """`text` is None, or the body, or where a redirect leads."""


def read_condition(args: list[Token], block: Block) -> Condition:
    """`( … )` with its brackets, as one word or parted by spaces. Raises ConfError as nginx."""
    words: list[Any] = list(args)
    if not words[0].startswith("("):
        raise ConfError(words[0], f'invalid condition "{words[0]}"')
    if not words[-1].endswith(")") or (len(words) == 1 and len(words[0]) == 1):
        raise ConfError(words[-1], f'invalid condition "{words[-1]}"')
    words[0] = _part(words[0], words[0][1:])
    words[-1] = _part(words[-1], words[-1][:-1])
    if not words[0]:
        del words[0]
    if words and not words[-1]:
        del words[-1]
    if not words:
        raise ConfError(args[0], 'invalid condition ""')
    first = words[0]
    if len(first) > 1 and first[0] == "$":
        if len(words) == 1:
            return Condition("", first, None)
        if len(words) != 3:
            raise ConfError(first, f'invalid condition "{first}"')
        if words[1] not in ("=", "!=", "~", "~*", "!~", "!~*"):
            raise ConfError(words[1], f'unexpected "{words[1]}" in condition')
        return Condition(str(words[1]), first, words[2])
    if first.removeprefix("!") in ("-f", "-d", "-e", "-x") and len(words) == 2:
        return Condition(str(first), None, words[1])
    raise ConfError(first, f'invalid condition "{first}"')


def _part(token: Token, text: str) -> Token:
    return type(token)(text, token.file, token.line, token.column, token.quoted)


def read_set(args: list[Token], block: Block) -> tuple[Token, Token]:
    """(name without "$", value)."""
    if len(args[0]) < 2 or args[0][0] != "$":
        raise ConfError(args[0], f'invalid variable name "{args[0]}"')
    return _part(args[0], args[0][1:]), args[1]


def read_rewrite(args: list[Token], block: Block) -> Rewrite:
    pattern, replacement = args[:2]
    if not replacement:
        raise ConfError(replacement, "empty replacement")
    status = 302 if replacement.startswith(TARGETS) else 0
    flag = args[2] if len(args) == 3 else ""
    if flag and flag not in FLAGS:
        raise ConfError(args[2], f'invalid parameter "{flag}"')
    return Rewrite(pattern, replacement, str(flag), FLAGS.get(flag, 0) or status)


def read_return(args: list[Token], block: Block) -> Return:
    code = args[0]
    if code.isascii() and code.isdigit():
        if int(code) > 999:
            raise ConfError(code, f'invalid return code "{code}"')
        return Return(int(code), args[1] if len(args) == 2 else None)
    if len(args) == 2 or not code.startswith(TARGETS):
        raise ConfError(code, f'invalid return code "{code}"')
    return Return(302, code)


for _where, _inside in ((SERVER, SERVER_IF), (LOCATION, LOCATION_IF)):
    directive(
        "if",
        _where,
        block=_inside,
        read=read_condition,
        many=True,
        inherit=False,
        syntax="(condition) { … }",
        doc="Runs what is inside when the condition holds; in a location its settings too.",
    )
directive(
    "set",
    EVERYWHERE,
    read=read_set,
    least=2,
    most=2,
    many=True,
    inherit=False,
    syntax="$variable value",
    doc="Gives a variable a value.",
)
directive(
    "rewrite",
    EVERYWHERE,
    read=read_rewrite,
    least=2,
    most=3,
    many=True,
    inherit=False,
    syntax="regex replacement [last | break | redirect | permanent]",
    doc="Replaces a path that a regex matches, or redirects the client.",
)
directive(
    "return",
    EVERYWHERE,
    read=read_return,
    least=1,
    most=2,
    many=True,
    inherit=False,
    syntax="code [text] | code URL | URL",
    doc="Ends the request with a status, and a text or a redirect.",
)
directive(
    "break", EVERYWHERE, many=True, inherit=False, doc="Ends the rewrite directives of this block."
)
ignored(
    "uninitialized_variable_warn",
    HTTP | EVERYWHERE,
    "a variable that was never set is empty; nothing is written about it",
)


def compile_rewrite(
    block: Block, location_of: Callable[[Block], Any] | None = None
) -> Program | None:
    """The rewrite directives of a server or location, or None when it has none.

    `location_of` makes the Location of an `if` block; without it the block is a server, whose
    `if` has no settings of its own. Raises ConfError.
    """
    program = Program(location_of is None)
    _compile(program, block, location_of)
    return program if program.n else None


def _compile(program: Program, block: Block, location_of: Callable[[Block], Any] | None) -> None:
    for statement in block.statements:
        value = statement.value
        if statement.name == "if":
            _compile_if(program, statement, location_of)
        elif statement.name == "set":
            name, text = value
            program.add_set(define_stored(name, name), compile_text(text))
        elif statement.name == "rewrite":
            _compile_rewrite(program, value)
        elif statement.name == "return":
            text = value.text
            # an empty text with an error status is no text: the status has its page
            is_told = text is not None and (text or value.status < 400)
            program.add_return(value.status, compile_text(text) if is_told else None)
        elif statement.name == "break":
            program.add_break()


def _compile_if(
    program: Program, statement: Statement, location_of: Callable[[Block], Any] | None
) -> None:
    operator, left, right = statement.value
    is_not = operator.startswith("!")
    if left is not None:
        number = number_of(left[1:], left)
    if not operator:
        position = program.add_if_value(number)
    elif operator in ("=", "!="):
        position = program.add_if_equal(number, compile_text(right), is_not)
    elif left is not None:
        regex = Regex(right, operator.endswith("*"), right)
        position = program.add_if_match(number, regex, is_not)
    else:
        position = program.add_if_file(operator[-1], compile_text(right), is_not)
    assert statement.block is not None
    if location_of is not None:
        program.add_enter(location_of(statement.block))
    _compile(program, statement.block, location_of)
    program.skip_to_here(position)


def _compile_rewrite(program: Program, it: Rewrite) -> None:
    regex = Regex(it.pattern, False, it.pattern)
    text = it.replacement
    is_adding_args = not text.endswith("?")
    text = text.removesuffix("?")
    # A redirect is one text; in a path each "?" begins the arguments (the last one counts).
    parts = text.split("?")
    has_args = len(parts) > 1
    if it.status:
        parts = [text]
    program.add_rewrite(
        regex,
        [compile_text(_part(it.replacement, part)) for part in parts],
        status=it.status,
        is_last=it.flag == "last",
        is_break=it.flag == "break",
        is_adding_args=is_adding_args,
        has_args=has_args,
    )

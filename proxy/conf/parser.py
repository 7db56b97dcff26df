"""Tokens become the model: places, includes and arguments are checked against declarations.

`load` is the one door. It either gives the whole model or raises ConfError.
"""

from __future__ import annotations

import os

from proxy.conf.directive import DIRECTIVES, FUNCTION, MAIN, find
from proxy.conf.inherit import Block, Statement, only_grows
from proxy.conf.lexer import Token, statements
from proxy.conf.report import COMMAND_LINE, ConfError, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 64  # of files that include files, and of blocks in blocks


@only_grows
def load(path: str, prefix: str = "", globals: str = "") -> Block:
    """Read the conf at `path` whole. `prefix` is where relative names of other files start (the
    conf's directory unless given); `globals` is the text of -g. Raises ConfError.
    """
    path = os.path.join(prefix, path) if prefix else os.path.abspath(path)
    conf_prefix = os.path.dirname(path)
    root = _root(path, prefix or conf_prefix, conf_prefix)
    if globals.strip():
        _read(root, globals, COMMAND_LINE, 0)
    _read_file(root, path, None, 0)
    _close(root)
    return root


def load_text(text: str, file: str = "conf", prefix: str = "") -> Block:
    """The same for a conf that is no file (tests, the admin API)."""
    root = _root(file, prefix, prefix)
    root.files[file] = text
    _read(root, text, file, 0)
    _close(root)
    return root


def read_inside(block: Block, text: str, name: str) -> Block:
    """Statements that stand in `block` without being written there: a block of the same kind
    that inherits from it. `name` is their file's in messages. Raises ConfError."""
    inner = Block(block.name, block.where, Token(block.name, name, 1), block)
    inner.args = block.args
    _read(inner, text, name, 0)
    return inner


def _root(path: str, prefix: str, conf_prefix: str) -> Block:
    root = Block("main", MAIN, Token("main", path, 1))
    root.prefix = prefix
    root.conf_prefix = conf_prefix
    return root


def _read_file(block: Block, path: str, place: Token | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfError(place, f'"{path}" is included too deep')
    text = block.files.get(path)
    if text is None:
        try:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
        except OSError as error:
            what = "read" if os.path.isdir(path) else "open"
            raise ConfError(
                place, f'{what}() "{path}" failed ({error.errno}: {error.strerror})'
            ) from None
        block.files[path] = text
    _read(block, text, path, depth)


def _read(top: Block, text: str, file: str, depth: int) -> None:
    """Read the statements of one file into `top`; the braces in it must be its own."""
    open_blocks: list[tuple[Block, Statement]] = []
    block = top
    for found, end, place in statements(text, file):
        if end == "}":
            if not open_blocks:
                raise ConfError(place, 'unexpected "}"')
            block, statement = open_blocks.pop()
            _end(block, statement)
        elif not end:
            if open_blocks:
                raise ConfError(place, 'unexpected end of file, expecting "}"')
            return
        elif end == "{" and file == COMMAND_LINE:
            raise ConfError(place, "block directives are not supported in -g option")
        elif found[0] == "include" and len(found) == 2 and end == ";":
            for path in _included(block, found[1]):
                _read_file(block, path, found[0], depth + 1)
        elif block.has_rows:
            if end == "{":
                raise ConfError(place, 'unexpected "{"')
            block.rows.append(found)
        else:
            statement = _statement(block, found, end)
            if end == ";":
                block.add(statement)
                continue
            if len(open_blocks) + depth >= MAX_DEPTH:
                raise ConfError(found[0], "blocks stand too deep in each other")
            open_blocks.append((block, statement))
            block = _begin(block, statement)


def _statement(block: Block, found: list[Token], end: str) -> Statement:
    """Check name, place and arguments. Raises ConfError."""
    token = found[0]
    it = find(token, block.where)
    if it is None:
        raise ConfError(token, _unknown(token, block.where))
    if end == "{" and not it.block:
        raise ConfError(token, f'directive "{token}" is not terminated by ";"')
    if end == ";" and it.block:
        raise ConfError(token, f'directive "{token}" has no opening "{{"')
    args = found[1:]
    statement = Statement(it, token, args)
    statement.value = it.take(args, token, block)
    return statement


def _begin(parent: Block, statement: Statement) -> Block:
    it = statement.directive
    block = Block(statement.name, it.block, statement.token, parent)
    block.args = statement.args
    block.value = statement.value
    block.has_rows = it.rows
    statement.block = block
    return block


def _end(parent: Block, statement: Statement) -> None:
    parent.add(statement)
    block, check = statement.block, statement.directive.check
    if check is not None and block is not None:
        check(block)


def _close(root: Block) -> None:
    for name, declared in DIRECTIVES.items():
        for it in declared:
            if it.where == MAIN and it.check is not None and root.own(name) is None:
                it.check(root)


def _unknown(name: str, where: int) -> str:
    from proxy.conf.known import KNOWN

    # a function's word may be another thing in nginx (`mirror`)
    is_ours = all(it.where == FUNCTION for it in DIRECTIVES.get(name, ()))
    if name in DIRECTIVES and not (is_ours and name in KNOWN):
        return f'"{name}" directive is not allowed here'
    if name in KNOWN:
        return f'"{name}" directive is known to nginx, not supported by Headrace'
    here = [known for known in DIRECTIVES if find(known, where) is not None]
    near = nearest(name, here) or nearest(name, list(DIRECTIVES))
    hint = f', did you mean "{near}"?' if near else ""
    return f'unknown directive "{name}"{hint}'


def _included(block: Block, pattern: Token) -> Iterator[str]:
    """The files that `include pattern` names, sorted; none for a glob that matches nothing."""
    path = block.conf_path(pattern)
    if not any(char in path for char in "*?["):
        yield path
        return
    from glob import glob

    yield from sorted(glob(path))

"""Conf text becomes tokens: nginx's grammar, quirks included.

A statement is words ended by `;` or `{`. A word is bare, or quoted by `'` or `"`; a backslash
takes the next byte out of the grammar; `${` does not open a block; `#` at the start of a word
begins a comment.
"""

from __future__ import annotations

import re

from proxy.conf.report import COMMAND_LINE, ConfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WORD = 65_536  # nginx's own bound is its 4 KiB buffer; a long header value should pass
FAR = 4096  # an open quote this far from the end of the text is what is wrong, says nginx too

# Between words: blanks and comments. nginx knows four kinds of blank.
GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)+")
# The likely case is a plain bare word and the blank or `;` behind it.
PLAIN = re.compile(r"[^ \t\r\n;{}\"'\\$#][^ \t\r\n;{\\$]*(?=[ \t\r\n;])")
BARE = re.compile(r"(?:[^ \t\r\n;{\\$]|\\[\s\S]|\$\{*)+")
QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\[\s\S])*)"'),
    "'": re.compile(r"'((?:[^'\\]|\\[\s\S])*)'"),
}
ESCAPE = re.compile(r"""\\(["'\\trn])""")
ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}


class Token(str):
    """A word of the conf, unescaped, that knows its place. Lines and columns count from 1."""

    __slots__ = ("column", "file", "line", "quoted")
    file: str
    line: int
    column: int
    quoted: bool

    def __new__(
        cls, text: str, file: str = "", line: int = 0, column: int = 0, quoted: bool = False
    ) -> Token:
        it = super().__new__(cls, text)
        it.file = file
        it.line = line
        it.column = column
        it.quoted = quoted
        return it


def unescape(text: str) -> str:
    r"""nginx's escapes: `\"` `\'` `\\` `\t` `\r` `\n`; any other backslash stays."""
    if "\\" not in text:
        return text
    return ESCAPE.sub(lambda match: ESCAPED.get(match[1], match[1]), text)


def statements(text: str, file: str) -> Iterator[tuple[list[Token], str, Token]]:
    """The statements of `text`: (words, end, the token of the end), `end` being one of `; { }`,
    and empty once, at the end of the text. Raises ConfError.
    """
    at, line, line_start, size = 0, 1, 0, len(text)
    found: list[Token] = []
    is_glued = False  # right behind a closing quote
    while True:
        if (gap := GAP.match(text, at)) and not (is_glued and text[at] == "#"):
            start, at = at, gap.end()
            if breaks := text.count("\n", start, at):
                line += breaks
                line_start = text.rfind("\n", start, at) + 1
            is_glued = False
        if at >= size:
            if found:
                raise _early_end(text, at, file, line)
            yield found, "", Token("", file, line, at - line_start + 1)
            return
        char = text[at]
        column = at - line_start + 1
        if is_glued:
            is_glued = False
            if char not in ";{)":
                raise ConfError(Token(char, file, line, column), f'unexpected "{char}"')
        if char in ";{}":
            end = Token(char, file, line, column)
            if bool(found) == (char == "}"):
                raise ConfError(end, f'unexpected "{char}"')
            yield found, char, end
            found = []
            at += 1
            continue
        if match := PLAIN.match(text, at):
            found.append(Token(match[0], file, line, column))
            at = match.end()
        elif char in QUOTED:
            match = QUOTED[char].match(text, at)
            if match is None:
                raise _open_quote(text, at, file, line, column)
            found.append(Token(unescape(match[1]), file, line, column, True))
            at = match.end()
            is_glued = True
        else:
            match = BARE.match(text, at)
            if match is None or match.end() >= size:
                # A backslash that ends the text, or a word that nothing ends.
                raise _early_end(text, at, file, line)
            found.append(Token(unescape(match[0]), file, line, column))
            at = match.end()
        start = match.start()
        if at - start > MAX_WORD:
            raise ConfError(found[-1], f'too long parameter "{match[0][:10]}..." started')
        if breaks := text.count("\n", start, at):
            line += breaks
            line_start = text.rfind("\n", start, at) + 1


def _open_quote(text: str, at: int, file: str, line: int, column: int) -> ConfError:
    if len(text) - at > FAR:
        return ConfError(
            Token("", file, line, column),
            f'too long parameter, probably missing terminating "{text[at]}" character',
        )
    return _early_end(text, at, file, line)


def _early_end(text: str, at: int, file: str, line: int) -> ConfError:
    end = Token("", file, line + text.count("\n", at))
    if file == COMMAND_LINE:
        return ConfError(end, 'unexpected end of parameter, expecting ";"')
    return ConfError(end, 'unexpected end of file, expecting ";" or "}"')


def words(text: str) -> list[Token]:
    """The words of one line, for a default written as conf text."""
    for found, _, _ in statements(text + ";", "default") if text.strip() else ():
        return found
    return []

"""The directives of content: where files lie, what they are, which pages stand for errors."""

from __future__ import annotations

from collections import namedtuple

import proxy.content._paths  # noqa: F401  (its import declares $document_root and the rest)
from proxy.conf.directive import HTTP, LOCATION, LOCATION_IF, SERVER, TYPES, directive
from proxy.conf.report import ConfError
from proxy.conf.values import (
    Duration,
    Enum,
    Flag,
    Int,
    Rest,
    Text,
    Word,
    read_int,
    read_seconds,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
EVERY_IF = EVERY | LOCATION_IF
UNBOUNDED = 2**31 - 1  # max_ranges that is not set


class ErrorPageLine(namedtuple("ErrorPageLine", ("codes", "status", "where"))):
    """One error_page. `status` is None without "=", 0 for a bare one."""

    codes: list[int]
    status: int | None
    where: Token


class TryFilesLine(namedtuple("TryFilesLine", ("paths", "last", "status"))):
    """try_files: the files, then where to go, or (`last` is None) a status."""

    paths: list[Token]
    last: Token | None
    status: int


class FileCacheBounds(namedtuple("FileCacheBounds", ("most", "inactive_ms"))):
    """open_file_cache."""

    most: int
    inactive_ms: int


def read_place(args: list[Token], block: Block | None) -> Token:
    """root and alias. Raises ConfError where nginx refuses it."""
    place = args[0]
    if block is None:  # the default
        return place
    for name in ("document_root", "realpath_root"):
        if f"${name}" in place or f"${{{name}}}" in place:
            raise ConfError(place, f"the ${name} variable cannot be used in this directive")
    for name in ("root", "alias"):
        if block.own(name) is not None:
            raise ConfError(place, f'"{name}" directive was specified earlier')
    return place


def read_alias(args: list[Token], block: Block) -> Token:
    """alias: not in a named location."""
    if block.value is not None and getattr(block.value, "modifier", "") == "@":
        raise ConfError(
            args[0], 'the "alias" directive cannot be used inside the named location'
        )
    return read_place(args, block)


def read_error_page(args: list[Token], block: Block) -> ErrorPageLine:
    """code … [=[status]] uri. Raises ConfError, worded as nginx."""
    codes, status = args[:-1], None
    if codes[-1].startswith("="):
        text = codes.pop()
        if not codes:
            raise ConfError(text, f'invalid value "{text}"')
        status = read_int(text[1:]) if len(text) > 1 else 0
        if status is None or status > 999:
            raise ConfError(text, f'invalid value "{text}"')
    numbers = []
    for code in codes:
        number = read_int(code)
        if number is None or number == 499:
            raise ConfError(code, f'invalid value "{code}"')
        if not 300 <= number <= 599:
            raise ConfError(code, f'value "{code}" must be between 300 and 599')
        numbers.append(number)
    return ErrorPageLine(numbers, status, args[-1])


def read_try_files(args: list[Token], block: Block) -> TryFilesLine:
    """file … uri | file … =code. Raises ConfError, worded as nginx."""
    last = args[-1]
    if not last.startswith("="):
        return TryFilesLine(args[:-1], last, 0)
    code = read_int(last[1:])
    if code is None or code > 999:
        raise ConfError(last, f'invalid code "{last}"')
    return TryFilesLine(args[:-1], None, code)


def read_file_cache(args: list[Token], block: Block) -> FileCacheBounds | None:
    """off | max=N [inactive=time]. Raises ConfError."""
    if args == ["off"]:
        return None
    most, inactive_s = 0, 60
    for arg in args:
        name, _, text = arg.partition("=")
        number = None
        if name == "max":
            number = most = read_int(text) or 0
        elif name == "inactive":
            number = inactive_s = read_seconds(text) or 0
        if not number:
            raise ConfError(arg, f'invalid "open_file_cache" parameter "{arg}"')
    if not most:
        raise ConfError(args[0], '"open_file_cache" must have the "max" parameter')
    return FileCacheBounds(most, inactive_s * 1000)


# fmt: off
directive("root", EVERY_IF, read=read_place, least=1, most=1, default="html", syntax="path",
          doc="The folder that the path of a request is looked up in.")
directive("alias", LOCATION, read=read_alias, least=1, most=1, inherit=False, syntax="path",
          doc="Stands in place of the location's name when a file is looked up.")
directive("index", EVERY, Rest(Text()), default="index.html", many=True, syntax="file …",
          doc="The files tried for a path that ends with a slash.")
directive("types", EVERY, block=TYPES, rows=True, many=True, syntax="{ type extension …; … }",
          doc="Which Content-Type the extension of a file means.")
directive("default_type", EVERY, Word(), default="text/plain",
          doc="The Content-Type of a file whose extension is not among the types.")
directive("try_files", SERVER | LOCATION, read=read_try_files, least=2, most=None, inherit=False,
          syntax="file … uri | file … =code",
          doc="Answers with the first file that exists, else goes on elsewhere.")
directive("error_page", EVERY_IF, read=read_error_page, least=2, most=None, many=True,
          syntax="code … [=[status]] uri",
          doc="Answers errors with a path of this server, a named location or a redirect.")
directive("recursive_error_pages", EVERY, Flag(), default="off",
          doc="Lets the answer of an error_page have an error_page itself.")
directive("log_not_found", EVERY, Flag(), default="on",
          doc="Whether files that are not there are told in the error log.")
directive("etag", EVERY, Flag(), default="on",
          doc="Gives files an ETag made of their time and size.")
directive("if_modified_since", EVERY, Enum("off", "exact", "before"), default="exact",
          doc="How If-Modified-Since is compared with the time of a file.")
directive("max_ranges", EVERY, Int(0, UNBOUNDED), default=UNBOUNDED,
          doc="How many ranges of a file a request may ask for; more get the whole, 0 is none.")
directive("charset", EVERY_IF, Text(), default="off", syntax="charset | off",
          doc="The character set that Content-Type names.")
directive("source_charset", EVERY_IF, Text(), default="off", syntax="charset | off",
          doc="The character set that answers come in; it is told, nothing is recoded.")
directive("charset_types", EVERY, Rest(Word()),
          default="text/html text/xml text/plain text/vnd.wap.wml application/javascript "
                  "application/rss+xml",
          doc="The types whose character set is told besides text/html; * is all.")
directive("open_file_cache", EVERY, read=read_file_cache, default=None, least=1, most=2,
          syntax="off | max=number [inactive=time]",
          doc="Remembers open files and what is known of them.")
directive("open_file_cache_valid", EVERY, Duration(), default="60s",
          doc="After which time a remembered file is looked at again.")
directive("open_file_cache_min_uses", EVERY, Int(1), default="1",
          doc="How often a file must be used for its descriptor to be kept.")
directive("open_file_cache_errors", EVERY, Flag(), default="off",
          doc="Whether it is remembered that a file is not there.")

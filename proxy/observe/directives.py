"""The directives of telling: log_format, access_log, open_log_file_cache, metrics, stub_status.

nginx: ngx_http_log_module, ngx_http_stub_status_module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LIMIT_EXCEPT,
    LOCATION,
    LOCATION_IF,
    MQTT,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import Flag, Word, read_int, read_ms, read_seconds, read_size
from proxy.observe.path_cache import PathCacheSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

DEFAULT_PATH = "logs/access.log"
COMBINED = (
    '$remote_addr - $remote_user [$time_local] "$request" '
    '$status $body_bytes_sent "$http_referer" "$http_user_agent"'
)
GZIP_BUFFER_BYTES = 64 * 1024
ESCAPES = ("default", "json", "none")


class LogFormat(NamedTuple):
    """`log_format`: the text's pieces, to be joined; `escape` is default, json or none."""

    name: str
    escape: str
    pieces: list[Token]


class AccessLogLine(NamedTuple):
    """One `access_log`. `path` None: off. flush in ms, gzip a level or 0, buffer in bytes."""

    path: Token | None
    format_name: str = "combined"
    buffer_bytes: int = 0
    flush_ms: int = 0
    gzip_level: int = 0
    condition: str | None = None


def read_log_format(args: list[Token], block: Block) -> LogFormat:
    """name [escape=…] string …. Raises ConfError."""
    name, pieces, escape = str(args[0]), list(args[1:]), "default"
    declared = block.own("log_format") or ()
    if name == "combined" or any(it.name == name for it in declared):
        raise ConfError(args[0], f'duplicate "log_format" name "{name}"')
    if pieces[0].startswith("escape="):
        escape = pieces.pop(0)[7:]
        if escape not in ESCAPES:
            raise ConfError(args[1], f'unknown log format escaping "{escape}"')
    return LogFormat(name, escape, pieces)


def read_access_log(args: list[Token], block: Block) -> AccessLogLine:
    """path [format [parameters]] | off. Raises ConfError, worded as nginx."""
    path = args[0]
    if path == "off":
        if len(args) > 1:
            raise ConfError(args[1], f'invalid parameter "{args[1]}"')
        return AccessLogLine(None)
    if path.startswith("syslog:"):
        raise ConfError(path, '"syslog:" is known to nginx, not supported by Headrace')
    size = flush = level = 0
    condition: str | None = None
    for word in args[2:]:
        if word.startswith("buffer="):
            size = read_size(word[7:]) or 0
            if not size:
                raise ConfError(word, f'invalid buffer size "{word[7:]}"')
        elif word.startswith("flush="):
            flush = read_ms(word[6:]) or 0
            if not flush:
                raise ConfError(word, f'invalid flush time "{word[6:]}"')
        elif word == "gzip" or word.startswith("gzip="):
            level = 1 if word == "gzip" else read_int(word[5:]) or 0
            if not 1 <= level <= 9:
                raise ConfError(word, f'invalid compression level "{word[5:]}"')
            size = size or GZIP_BUFFER_BYTES
        elif word.startswith("if="):
            condition = word[3:]
        else:
            raise ConfError(word, f'invalid parameter "{word}"')
    if flush and not size:
        raise ConfError(path, f'no buffer is defined for access_log "{path}"')
    if size and "$" in path:
        raise ConfError(path, "buffered logs cannot have variables in name")
    name = str(args[1]) if len(args) > 1 else "combined"
    if name != "combined" and find_format(name, block) is None:
        raise ConfError(args[1], f'unknown log format "{name}"')
    return AccessLogLine(path, name, size, flush, level, condition)


def find_format(name: str, block: Block) -> LogFormat | None:
    """The log_format of that name, if it stands in the conf already."""
    outer: Block | None = block
    while outer is not None:
        for it in outer.own("log_format") or ():
            if it.name == name:
                return it
        outer = outer.parent
    return None


def read_path_cache(args: list[Token], block: Block) -> PathCacheSettings | None:
    """max=N [inactive=time] [valid=time] [min_uses=N] | off. Raises ConfError."""
    most = 0
    inactive_s: int | None = 10
    valid_s: int | None = 60
    min_uses: int | None = 1
    if args[0] == "off" and len(args) == 1:
        return None
    for word in args:
        name, _, text = word.partition("=")
        good = True
        if name == "max":
            good = (most := read_int(text) or 0) > 0
        elif name == "inactive":
            good = (inactive_s := read_seconds(text)) is not None
        elif name == "valid":
            good = (valid_s := read_seconds(text)) is not None
        elif name == "min_uses":
            good = (min_uses := read_int(text) or 0) > 0
        else:
            good = False
        if not good:
            raise ConfError(word, f'invalid "open_log_file_cache" parameter "{word}"')
    if not most:
        raise ConfError(args[0], '"open_log_file_cache" must have "max" parameter')
    return PathCacheSettings(most, (inactive_s or 0) * 1000, (valid_s or 0) * 1000, min_uses or 1)


def log_paths(model: Block) -> list[str]:
    """The files that access logs of a conf need, the default one included, absolute."""
    found: dict[str, None] = {}
    for http in model.find("http"):
        for block in (http, *every_block(http)):
            for line in block.own("access_log") or ():
                if line.path is not None and "$" not in line.path:
                    found[block.path(str(line.path))] = None
        if any(not server.get("access_log") for server in http.find("server")):
            found[http.path(DEFAULT_PATH)] = None
    for stream in (*model.find("stream"), *model.find("mqtt")):
        for block in (stream, *stream.find("server")):
            for line in block.own("access_log") or ():
                if line.path is not None and "$" not in line.path:
                    found[block.path(str(line.path))] = None
    return list(found)


def every_block(block: Block) -> Iterator[Block]:
    for child in block.blocks:
        yield child
        yield from every_block(child)


EVERY = HTTP | SERVER | LOCATION

directive(
    "log_format", HTTP | STREAM | MQTT, read=read_log_format, least=2, most=None, many=True,
    syntax="name [escape=default|json|none] string …",
    doc="A format of access logs; `combined` is always there.",
)  # fmt: skip
directive(
    "access_log", EVERY | LOCATION_IF | LIMIT_EXCEPT | STREAM | STREAM_SERVER | IN_MQTT,
    read=read_access_log, least=1, most=None, many=True,
    syntax="path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off",
    doc="Where requests, or sessions of a stream, are logged, and how; several may stand beside "
    "each other.",
)  # fmt: skip
directive(
    "open_log_file_cache", EVERY | STREAM | STREAM_SERVER | IN_MQTT, read=read_path_cache,
    least=1, most=4,
    syntax="max=N [inactive=time] [valid=time] [min_uses=N] | off",
    doc="Keeps logs open whose path has variables.",
)  # fmt: skip
directive(
    "log_subrequest", EVERY, Flag(), default="off",
    doc="Writes sub-requests into the access log too.",
)  # fmt: skip
directive(
    "metrics", LOCATION, inherit=False, many=True,
    doc="Answers here with all counters, in the text format of Prometheus.",
)  # fmt: skip
directive(
    "stub_status", SERVER | LOCATION, Word(optional=True), inherit=False, many=True,
    doc="Answers here with nginx's page of connection counts.",
)  # fmt: skip

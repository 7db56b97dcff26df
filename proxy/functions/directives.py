"""The directives of functions: the `function` block and `function_pass`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.directive import FUNCTION, HTTP, LOCATION, LOCATION_IF, directive
from proxy.conf.report import ConfError
from proxy.conf.values import Duration, Int, Rest, Word, read_ms

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
PATH = re.compile(r"/[!-~]{0,1023}")
MOST_REPLICAS = 1000
# Words of the function block that come with a later version.
NOT_YET = (
    "namespace", "fork", "openwhisk", "lambda", "static", "max_scale", "initial_scale", "prewarm",
    "metric", "target", "utilization", "window", "panic_window", "scale_down_delay", "retention",
    "concurrency", "queue", "timeout", "labels", "annotation", "sticky", "async", "mirror",
    "count_streams", "watch", "schedule", "venv",
)  # fmt: skip


class Handler(NamedTuple):
    """`python FILE:callable`; the file as written."""

    file: str
    callable: str


class Ready(NamedTuple):
    """`ready PATH`: interval_ms is the longest pause between two looks, timeout_ms is for one."""

    path: str
    interval_ms: int
    timeout_ms: int


READY_INTERVAL_MS = 20
READY_TIMEOUT_MS = 1000


def read_name(args: list[Token], block: Block) -> str:
    """The name of a function. Raises ConfError."""
    if NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid function name "{args[0]}"')
    for other in block.find("function"):
        if other.args[0] == args[0]:
            raise ConfError(args[0], f'duplicate function "{args[0]}"')
    return str(args[0])


def read_handler(args: list[Token], block: Block) -> Handler:
    """`python FILE:callable`; the file must be there. Raises ConfError."""
    file, colon, name = args[0].rpartition(":")
    if not colon or not file or not all(it.isidentifier() for it in name.split(".")):
        raise ConfError(args[0], f'invalid handler "{args[0]}", it must be FILE:callable')
    path = block.path(file)
    try:
        os.stat(path)
    except OSError as error:
        why = f"({error.errno}: {error.strerror})"
        raise ConfError(args[0], f'stat() "{path}" failed {why}') from None
    return Handler(file, name)


def read_env(args: list[Token], block: Block) -> tuple[str, str]:
    """`env NAME VALUE`. Raises ConfError."""
    if ENV_NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid name of an environment variable "{args[0]}"')
    if args[0] in ("PORT", "SOCKET"):
        raise ConfError(args[0], f'"{args[0]}" is set by Headrace')
    return str(args[0]), str(args[1])


def read_ready(args: list[Token], block: Block) -> Ready:
    """`ready PATH [interval=TIME] [timeout=TIME]`. Raises ConfError."""
    if PATH.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid path "{args[0]}" in "ready" directive')
    times = {"interval": READY_INTERVAL_MS, "timeout": READY_TIMEOUT_MS}
    for word in args[1:]:
        name, equals, text = word.partition("=")
        number = read_ms(text)
        if name not in times or not equals or not number:
            raise ConfError(word, f'invalid parameter "{word}"')
        times[name] = number
    return Ready(str(args[0]), times["interval"], times["timeout"])


def refuse(name: str, where: int, block: int = 0) -> None:
    """Declare a word that comes later: it must not be taken for an unknown one."""

    def read(args: list[Token], block: Block) -> None:
        raise ConfError(args[0] if args else block.token, f'"{name}" is not supported yet')

    directive(name, where, read=read, least=0, many=True, block=block, inherit=False,
              doc="Not supported yet.")  # fmt: skip


def check_function(block: Block) -> None:
    """What can only be said when the block is closed. Raises ConfError."""
    kinds = [name for name in ("command", "python") if block.own(name) is not None]
    if not kinds:
        raise block.error(f'function "{block.args[0]}" has no "command" and no "python"')
    if len(kinds) > 1:
        raise block.error(f'function "{block.args[0]}" has both "command" and "python"')
    if block.own("interpreter") is not None and kinds == ["command"]:
        raise block.error('"interpreter" is for "python" only')


def read_function_pass(args: list[Token], block: Block) -> str:
    """The name of a function; who has it is known when the whole conf is read."""
    if "$" in args[0]:
        raise ConfError(args[0], '"function_pass" with variables is not supported yet')
    return args[0]


directive("function", HTTP, read=read_name, least=1, most=1, many=True, block=FUNCTION,
          inherit=False, check=check_function, syntax="NAME",
          doc="A function: processes that are started, watched and asked by function_pass.")
directive("command", FUNCTION, Rest(Word()), inherit=False, syntax="PROGRAM [ARGUMENT …]",
          doc="A server that listens on 127.0.0.1:$PORT or on the Unix socket $SOCKET.")
directive("python", FUNCTION, read=read_handler, least=1, most=1, inherit=False,
          syntax="FILE:CALLABLE",
          doc="A handler(event, context), or a WSGI or ASGI application.")
directive("interpreter", FUNCTION, Word(), inherit=False,
          doc="The Python (3.9 or newer) that runs the handler; Headrace's own by default.")
directive("env", FUNCTION, read=read_env, least=2, most=2, many=True, inherit=False,
          syntax="NAME VALUE", doc="Sets an environment variable of the function.")
directive("working_directory", FUNCTION, Word(), inherit=False,
          doc="Where the function runs; the prefix by default.")
directive("min_scale", FUNCTION, Int(1, MOST_REPLICAS), default="1", inherit=False,
          doc="How many replicas run at least.")
directive("ready", FUNCTION, read=read_ready, least=1, most=3, inherit=False,
          syntax="PATH [interval=TIME] [timeout=TIME]",
          doc="The path that must answer 2xx or 3xx before a replica is sent requests.")
directive("start_timeout", FUNCTION, Duration(), default="60s", inherit=False,
          doc="How long a replica may take until it is ready.")
directive("drain_timeout", FUNCTION, Duration(), default="30s", inherit=False,
          doc="How long the requests of a replica may take that is to be stopped.")
directive("function_pass", LOCATION | LOCATION_IF, read=read_function_pass, least=1, most=1,
          inherit=False, syntax="NAME", doc="Passes the request to a replica of the function.")
for _name in NOT_YET:
    refuse(_name, FUNCTION)
refuse("version", FUNCTION, FUNCTION)
refuse("functions", HTTP, FUNCTION)

"""The directives of asynchronous calls: in `functions` for all, in `function` for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proxy.conf.directive import FUNCTION, FUNCTIONS, LOCATION, directive
from proxy.conf.report import ConfError
from proxy.conf.values import Duration, Flag, Int, Size, read_int, read_ms, read_size
from proxy.functions.queue.words import (
    ATTEMPTS,
    CODES,
    LONGEST_WAIT_MS,
    MAX_WAIT,
    MIN_WAIT,
    MOST_ATTEMPTS,
    MOST_PARALLELISM,
    PARALLELISM,
)  # fmt: skip

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

RETRY = {"attempts": ATTEMPTS, "min_wait": MIN_WAIT, "max_wait": MAX_WAIT, "codes": CODES}
MOST_CALLS, MOST_BYTES = 1_000_000, 10 << 30


def read_retry_words(args: list[Token], block: Block) -> dict[str, str]:
    """`async_retry …` as annotations. Raises ConfError."""
    found: dict[str, str] = {}
    for word in args:
        name, _, text = word.partition("=")
        key = RETRY.get(name, "")
        if not key or key in found or not is_retry_word(name, text):
            raise ConfError(word, f'invalid parameter "{word}"')
        found[key] = text
    least, most = (read_ms(found[it]) if it in found else None for it in (MIN_WAIT, MAX_WAIT))
    if least is not None and most is not None and least > most:
        raise ConfError(args[0], '"min_wait" is longer than "max_wait"')
    return found


def is_retry_word(name: str, text: str) -> bool:
    if name == "codes":
        return all(len(it) == 3 and it.isdecimal() and it.isascii() for it in text.split(","))
    if name == "attempts":
        return 1 <= (read_int(text) or 0) <= MOST_ATTEMPTS
    wait = read_ms(text)
    return wait is not None and wait <= LONGEST_WAIT_MS


def read_url(args: list[Token], block: Block) -> str:
    """`queue sqlite:FILE` or `nats://…`. Raises ConfError."""
    url = str(args[0])
    if url.startswith("sqlite:"):
        if url == "sqlite:" or url.endswith("/"):
            raise ConfError(args[0], f'"{url}" names no file')
        return url
    from importlib.util import find_spec

    from proxy.functions.queue.streams import Address

    try:
        Address.read(url)
    except ValueError as error:
        raise ConfError(args[0], str(error)) from None
    if find_spec("nats") is None:
        raise ConfError(args[0], '"nats://" wants the package nats-py: pip install headrace[nats]')
    return url


def read_limit(args: list[Token], block: Block) -> tuple[int, int]:
    """`queue_limit [calls=NUMBER] [bytes=SIZE]`. Raises ConfError."""
    calls, size = MOST_CALLS, MOST_BYTES
    for word in args:
        name, _, text = word.partition("=")
        number = read_int(text) if name == "calls" else read_size(text) if name == "bytes" else None
        if not number:
            raise ConfError(word, f'invalid parameter "{word}"')
        if name == "calls":
            calls = number
        else:
            size = number
    return calls, size


def read_allow(args: list[Token], block: Block) -> tuple[str, ...]:
    """`callback_allow WORD …`. Raises ConfError."""
    from proxy.functions.queue.allowed import Allowed

    if "off" in args and len(args) > 1:
        raise ConfError(args[0], '"off" stands alone')
    for word in args:
        try:
            Allowed((str(word),))
        except ValueError as error:
            raise ConfError(word, f"invalid parameter {error}") from None
    return tuple(map(str, args))


def read_secret(args: list[Token], block: Block) -> bytes:
    """`callback_secret TEXT` or `file:PATH`. Raises ConfError."""
    text = str(args[0])
    if not text.startswith("file:"):
        return text.encode("utf-8", "surrogateescape")
    path = os.path.abspath(block.path(text[5:]))
    try:
        with open(path, "rb") as file:
            secret = file.read(4097).rstrip(b"\r\n")
    except OSError as error:
        why = f"({error.errno}: {error.strerror})"
        raise ConfError(args[0], f'open() "{path}" failed {why}') from None
    if not secret or len(secret) > 4096:
        raise ConfError(args[0], f'"{path}" is empty or longer than 4096 bytes')
    return secret


def annotations_of(block: Block) -> dict[str, str]:
    """What a `function` block says of its asynchronous calls, in the words of annotations."""
    found = dict(block.own("async_retry") or {})
    parallelism = block.own("async_parallelism")
    if parallelism is not None:
        found[PARALLELISM] = str(parallelism)
    return found


directive("async", LOCATION, Flag(), default="off",
          doc="Answers 202 once a call of function_pass is stored, and makes it later.")
directive("async_retry", FUNCTION, read=read_retry_words, most=4, inherit=False,
          syntax="[attempts=NUMBER] [min_wait=TIME] [max_wait=TIME] [codes=STATUS,…]",
          doc="How often an asynchronous call is tried, and how much later again; 10 times by"
          " default, after up to 10s at first and 120s at most, on 408, 429, 500, 502, 503, 504.")
directive("async_parallelism", FUNCTION, Int(1, MOST_PARALLELISM), inherit=False,
          doc="How many asynchronous calls of the function run at once; 10 by default.")
directive("async_parallelism", FUNCTIONS, Int(1, MOST_PARALLELISM), default="100", inherit=False,
          doc="How many asynchronous calls run at once in all.")
directive("async_body_size", FUNCTIONS, Size(), default="1m", inherit=False,
          doc="How long the body of an asynchronous call may be.")
directive("async_result_size", FUNCTIONS, Size(), default="1m", inherit=False,
          doc="Up to which length the answer to an asynchronous call is kept.")
directive("queue_limit", FUNCTIONS, read=read_limit, most=2, inherit=False,
          default=(MOST_CALLS, MOST_BYTES), syntax="[calls=NUMBER] [bytes=SIZE]",
          doc="How many calls may wait, and how much calls and results may take; 1000000 and 10g"
          " by default.")
directive("results_keep", FUNCTIONS, Duration(), default="1h", inherit=False,
          doc="How long the answer to an asynchronous call can be asked for.")
directive("callback_allow", FUNCTIONS, read=read_allow, default=("public",), inherit=False,
          syntax="public | NETWORK | NAME | *.NAME … | off",
          doc="Which addresses X-Callback-Url may name; ordinary ones of the internet by default.")
directive("callback_secret", FUNCTIONS, read=read_secret, most=1, inherit=False,
          syntax="TEXT | file:PATH",
          doc="Signs callbacks with HMAC-SHA256 of the body, in X-Hub-Signature-256.")
directive("callback_attempts", FUNCTIONS, Int(1, MOST_ATTEMPTS), default="10", inherit=False,
          doc="How often a callback is tried.")

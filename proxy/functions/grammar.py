"""Arguments of the function directives that types cannot say: readers, each raises ConfError."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    read_address,
    read_int,
    read_ms,
    read_percent,
    read_size,
)
from proxy.functions.routes import is_route, read_route
from proxy.functions.values import NAME, SPACE, Balance, Limits, Ready

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
PATH = re.compile(r"/[!-~]{0,1023}")
SERVICE = re.compile(r"[!-~]{1,127}")
VERSION_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
SECRET_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
PROVIDER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
CPU = re.compile(r"([0-9]{1,6})m|([0-9]{1,4}(?:\.[0-9]{1,3})?)")
MOST_SCALE = 1000


def read_name(args: list[Token], block: Block) -> str:
    """The name of a function."""
    if NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid function name "{args[0]}"')
    return str(args[0])


def read_version_name(args: list[Token], block: Block) -> str:
    if VERSION_NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid version name "{args[0]}"')
    for other in block.find("version"):
        if other.args[0] == args[0]:
            raise ConfError(args[0], f'duplicate version "{args[0]}"')
    return str(args[0])


def read_namespace(args: list[Token], block: Block) -> str:
    if SPACE.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid namespace "{args[0]}"')
    return str(args[0])


def read_file(file: str, token: Token, block: Block) -> str:
    """A file of a handler, absolute; it must be there."""
    path = os.path.abspath(block.path(file))
    try:
        os.stat(path)
    except OSError as error:
        why = f"({error.errno}: {error.strerror})"
        raise ConfError(token, f'stat() "{path}" failed {why}') from None
    return path


def read_python(args: list[Token], block: Block) -> tuple[str, ...]:
    """`python FILE:callable`."""
    file, colon, name = args[0].rpartition(":")
    if not colon or not file or not all(it.isidentifier() for it in name.split(".")):
        raise ConfError(args[0], f'invalid handler "{args[0]}", it must be FILE:callable')
    return read_file(file, args[0], block), name


def read_lambda(args: list[Token], block: Block) -> tuple[str, ...]:
    """`lambda FILE.handler`, FILE without its `.py`, as AWS writes it; or FILE.py:handler."""
    file, _, name = args[0].rpartition(":") if ".py:" in args[0] else args[0].rpartition(".")
    if not file or not name.isidentifier():
        raise ConfError(args[0], f'invalid handler "{args[0]}", it must be FILE.handler')
    return read_file(file if file.endswith(".py") else f"{file}.py", args[0], block), name


def read_openwhisk(args: list[Token], block: Block) -> tuple[str, ...]:
    """`openwhisk FILE`."""
    return (read_file(args[0], args[0], block),)


def read_schedule(args: list[Token], block: Block) -> str:
    """`schedule "*/5 * * * *"`."""
    from proxy.functions.schedule import check

    try:
        check(args[0])
    except ValueError as error:
        raise ConfError(args[0], f'invalid schedule "{args[0]}": {error}') from None
    return str(args[0])


def read_command(args: list[Token], block: Block) -> tuple[str, ...]:
    """`command PROGRAM …`, `fork PROGRAM …`."""
    if not args[0]:
        raise ConfError(args[0], "no program to run")
    return tuple(map(str, args))


def read_static(args: list[Token], block: Block) -> tuple[str, ...]:
    """`static ADDRESS …`: IP:PORT or unix:PATH."""
    found = []
    for word in args:
        try:
            it = read_address(word)
        except AddressError as error:
            raise ConfError(word, f'{error} in "{word}"') from None
        if not it.path and not it.is_ipv6 and not it.host.replace(".", "").isdigit():
            raise ConfError(word, f'"{word}" is no address: "static" takes IP:PORT or unix:PATH')
        found.append(f"unix:{it.path}" if it.path else str(it))
    return tuple(found)


def read_provider(args: list[Token], block: Block) -> tuple[str, ...]:
    """`provider NAME [ARGUMENT …]`; who knows the name is asked when replicas are made."""
    if PROVIDER_NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid provider name "{args[0]}"')
    return tuple(map(str, args))


def read_env(args: list[Token], block: Block) -> tuple[str, str]:
    """`env NAME VALUE`."""
    if ENV_NAME.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid name of an environment variable "{args[0]}"')
    if args[0] in ("PORT", "SOCKET", "SECRETS_PATH"):
        raise ConfError(args[0], f'"{args[0]}" is set by Headrace')
    return str(args[0]), str(args[1])


def read_ready(args: list[Token], block: Block) -> Ready:
    """`ready PATH | grpc [service=NAME] [interval=TIME] [timeout=TIME]`."""
    is_grpc = args[0] == "grpc"
    service = ""
    if not is_grpc and PATH.fullmatch(args[0]) is None:
        raise ConfError(args[0], f'invalid path "{args[0]}" in "ready" directive')
    times = {"interval": Ready("/").interval_ms, "timeout": Ready("/").timeout_ms}
    for word in args[1:]:
        name, equals, text = word.partition("=")
        number = read_ms(text)
        if is_grpc and name == "service" and SERVICE.fullmatch(text):
            service = str(text)
            continue
        if name not in times or not equals or not number:
            raise ConfError(word, f'invalid parameter "{word}"')
        times[name] = number
    path = "" if is_grpc else str(args[0])
    return Ready(path, times["interval"], times["timeout"], service)


def read_labels(args: list[Token], block: Block) -> tuple[tuple[str, str], ...]:
    """`labels KEY=VALUE …`."""
    pairs = []
    for word in args:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ConfError(word, f'invalid label "{word}", it must be KEY=VALUE')
        pairs.append((str(key), str(value)))
    return tuple(pairs)


def read_annotation(args: list[Token], block: Block) -> tuple[str, str]:
    """`annotation KEY VALUE`."""
    if not args[0]:
        raise ConfError(args[0], "an annotation has no name")
    if is_route(args[0]):
        try:
            read_route(args[1])
        except ValueError as error:
            raise ConfError(args[1], f'annotation "{args[0]}": {error}') from None
    return str(args[0]), str(args[1])


def read_secrets(args: list[Token], block: Block) -> tuple[str, ...]:
    """`secrets NAME …`."""
    for word in args:
        if SECRET_NAME.fullmatch(word) is None:
            raise ConfError(word, f'invalid name of a secret "{word}"')
    return tuple(map(str, args))


def read_cpu_milli(text: str) -> int | None:
    """Thousandths of a core from `500m`, `0.5`, `2`."""
    match = CPU.fullmatch(text)
    if match is None:
        return None
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def read_limits(args: list[Token], block: Block) -> Limits:
    """`limits [memory=SIZE] [cpu=CORES] [nofile=NUMBER] [nproc=NUMBER]`."""
    readers = {"memory": read_size, "cpu": read_cpu_milli, "nofile": read_int, "nproc": read_int}
    values = dict.fromkeys(readers, 0)
    for word in args:
        name, equals, text = word.partition("=")
        number = readers[name](text) if name in readers else None
        if not equals or not number:
            raise ConfError(word, f'invalid parameter "{word}"')
        values[name] = number
    return Limits(values["memory"], values["cpu"], values["nofile"], values["nproc"])


def read_number(least: float, most: float):  # type: ignore[no-untyped-def]
    """A reader of a decimal number between two bounds."""

    def read(args: list[Token], block: Block) -> float:
        number = float(args[0]) if DECIMAL.fullmatch(args[0]) else -1
        if not least <= number <= most:
            raise ConfError(args[0], f"value must be between {least:g} and {most:g}")
        return number

    return read


def read_share(least: float, most: float):  # type: ignore[no-untyped-def]
    """A reader of `NUMBER%`, bounds in percent; the value is a share of 1."""

    def read(args: list[Token], block: Block) -> float:
        digits = args[0].removesuffix("%")
        number = float(digits) if args[0] != digits and DECIMAL.fullmatch(digits) else -1
        if not least <= number <= most:
            raise ConfError(args[0], f"value must be between {least:g}% and {most:g}%")
        return round(number / 100, 6)

    return read


def read_mirror(args: list[Token], block: Block) -> float:
    """`mirror 10%`, in percent."""
    hundredths = read_percent(args[0])
    if not hundredths:
        raise ConfError(args[0], f'invalid share "{args[0]}" in "mirror" directive')
    return hundredths / 100


def read_times(least_ms: int, most_ms: int, words: str):  # type: ignore[no-untyped-def]
    """A reader of a time between two bounds."""

    def read(args: list[Token], block: Block) -> int:
        number = read_ms(args[0])
        if number is None or not least_ms <= number <= most_ms:
            raise ConfError(args[0], f"value must be {words}")
        return number

    return read


def read_balance(args: list[Token], block: Block) -> Balance:
    """`balance METHOD [max_fails=N] [fail_timeout=TIME] [slow_start=TIME]`."""
    method, rest = str(args[0]), list(args[1:])
    if method not in ("least_in_flight", "round_robin", "hash"):
        raise ConfError(args[0], f'invalid balancing method "{method}"')
    key = ""
    if method == "hash":
        if not rest:
            raise ConfError(args[0], '"balance hash" has no key')
        key = str(rest.pop(0))
    said: dict[str, int] = {}
    for word in rest:
        name, _, text = word.partition("=")
        number = read_int(text) if name == "max_fails" else read_ms(text)
        if name not in ("max_fails", "fail_timeout", "slow_start") or number is None:
            raise ConfError(word, f'invalid parameter "{word}"')
        said[name if name == "max_fails" else f"{name}_ms"] = number
    return Balance(method, key, **said)

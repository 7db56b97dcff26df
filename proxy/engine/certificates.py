"""Certificates that the conf names by variables: their files, and how long they are kept."""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LOCATION,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import read_int, read_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token
    from proxy.engine._certificates import Certificates, KeyPair

BOTH = HTTP | SERVER | STREAM | STREAM_SERVER | IN_MQTT
FILE_MOST = 64 * 1024  # bytes: what may be read without leaving the loop; a long chain has 10k
DATA = "data:"  # what follows is no name of a file but its text
SYNTAX = "off | max=N [inactive=time] [valid=time]"
Stamp = tuple[int, ...] | None


class CertificateCache:
    """Pairs that were read, by their names; a certificate and its key count as two of `most`.

    One that nobody asked for in `inactive_s` is dropped; one that is `valid_s` old is read
    again if its files are others by now. What needed a password is never kept.
    """

    def __init__(self, most: int, inactive_s: int, valid_s: int) -> None:
        self.most = max(most // 2, 1)
        self.inactive_s = inactive_s
        self.valid_s = valid_s
        self.kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()  # last used stands last

    def find(self, name: tuple[str, str], load: Callable[[], tuple[KeyPair, list[Stamp]]]) -> Any:
        """The KeyPair of that certificate and key. Raises ValueError, OSError."""
        now = time.monotonic()
        it = self.kept.pop(name, None)
        if it is not None and now - it.used_s <= self.inactive_s and (
            now - it.checked_s <= self.valid_s or it.stamps == [stamp_of(path) for path in name]
        ):  # fmt: skip
            if now - it.checked_s > self.valid_s:
                it.checked_s = now
            it.used_s = now
            self.kept[name] = it
            return it.pair
        pair, stamps = load()
        if not pair.was_locked:
            self.kept[name] = Kept(pair, stamps, now)
        while self.kept:
            oldest = next(iter(self.kept.values()))
            if len(self.kept) <= self.most and now - oldest.used_s <= self.inactive_s:
                break
            self.kept.popitem(last=False)
        return pair


class Kept:
    """One pair, what its files were, and when it was asked for."""

    __slots__ = ("checked_s", "pair", "stamps", "used_s")

    def __init__(self, pair: KeyPair, stamps: list[Stamp], now: float) -> None:
        self.pair, self.stamps = pair, stamps
        self.checked_s = self.used_s = now


def read_certificate_cache(args: list[Token], _block: Block) -> CertificateCache | None:
    """None: off. Who inherits it shares the cache. Raises ConfError."""
    most: int | None = 0
    inactive_s: int | None = 10
    valid_s: int | None = 60
    if args == ["off"]:
        return None
    for word in args:
        name, _, text = word.partition("=")
        good: object = None
        if name == "max":
            good = most = read_int(text)
        elif name == "inactive":
            inactive_s, good = (seconds := read_seconds(text)), seconds is not None
        elif name == "valid":
            valid_s, good = (seconds := read_seconds(text)), seconds is not None
        if not good:
            raise ConfError(word, f'invalid parameter "{word}"')
    if not most:
        raise ConfError(args[0], 'the certificate cache must have the "max" parameter')
    return CertificateCache(most, inactive_s or 0, valid_s or 0)


# fmt: off
directive("ssl_certificate_cache", BOTH,
          read=read_certificate_cache, most=3, default=None, syntax=SYNTAX,
          doc="How many files of certificates and keys whose names hold variables are kept in "
              "each worker. Without it they are read in each handshake.")
directive("proxy_ssl_certificate_cache", BOTH | LOCATION,
          read=read_certificate_cache, most=3, default=None, syntax=SYNTAX,
          doc="The same for certificates towards upstreams.")
directive("grpc_ssl_certificate_cache", HTTP | SERVER | LOCATION,
          read=read_certificate_cache, most=3, default=None, syntax=SYNTAX,
          doc="The same for certificates towards gRPC servers.")
# fmt: on


def are_variable(*names: str) -> bool:
    """Does one of these certificates or keys need a request to be told?"""
    return any("$" in name for name in names)


def freeze_certificates(
    block: Block, pairs: list[tuple[str, str]], passwords: tuple[bytes, ...], cache: Any
) -> Certificates:
    """pairs: certificate and key, as the conf has them. cache: CertificateCache or None."""
    from proxy.engine._certificates import Certificates  # few confs need it
    from proxy.variables._variables import compile as compile_text

    named = [(compile_text(it, block), compile_text(key, block)) for it, key in pairs]
    prefix = block.conf_path("")
    return Certificates(named, partial(find_pair, prefix, cache, passwords))


def find_pair(
    prefix: str, cache: CertificateCache | None, passwords: tuple[bytes, ...], *names: str
) -> KeyPair:
    """The pair of a certificate's and a key's name; prefix: the folder of the conf. Raises
    ValueError: which file cannot be used, and why."""
    from proxy.engine._certificates import KeyPair

    certificate, key = (it if it.startswith(DATA) else os.path.join(prefix, it) for it in names)

    def load() -> tuple[KeyPair, list[Stamp]]:
        (pem, stamp), (key_pem, key_stamp) = _read(certificate), _read(key)
        return KeyPair(pem, key_pem, passwords), [stamp, key_stamp]

    try:
        return cache.find((certificate, key), load) if cache is not None else load()[0]
    except (OSError, ValueError) as error:
        shown = "data:..." if certificate.startswith(DATA) else certificate
        raise ValueError(f'cannot load certificate "{shown}" or its key: {error}') from None


def _read(name: str) -> tuple[bytes, Stamp]:
    """The text of a file or of `data:…`, and what the file is known by. Never waits."""
    if name.startswith(DATA):
        return name[len(DATA) :].encode("utf-8", "surrogateescape"), None
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f'"{name}" is no regular file')
        data = os.read(fd, FILE_MOST + 1)
        if len(data) > FILE_MOST:
            raise ValueError(f'"{name}" has more than {FILE_MOST} bytes')
        return data, _stamp(facts)
    finally:
        os.close(fd)


def stamp_of(name: str) -> Stamp:
    """What tells whether a file is the one that was read; of one that is gone: nothing equal."""
    if name.startswith(DATA):
        return None
    try:
        return _stamp(os.stat(name))
    except OSError:
        return ()


def _stamp(facts: os.stat_result) -> Stamp:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

"""The error log: one line an entry, `YYYY/MM/DD HH:MM:SS [level] pid#tid: *conn text`.

Lines go out with one write(2) each on a file opened for appending, so that the lines of several
processes do not mix. A log that cannot be written is not worth a failed request: errors are lost.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LOCATION,
    MAIN,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EMERG, ALERT, CRIT, ERROR, WARN, NOTICE, INFO, DEBUG = range(1, 9)
LEVELS = ("stderr", "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
DEBUG_PARTS = ("debug_core", "debug_alloc", "debug_mutex", "debug_event", "debug_http")
STDERR = 2
MAX_LINE = 2048  # bytes, as in nginx


class ErrorLogFile(NamedTuple):
    """One `error_log`: a path as written (empty: stderr) and a level number."""

    path: str
    level: int


def read_error_log(args: list[Token], block: Block) -> ErrorLogFile:
    """error_log file [level]. Raises ConfError."""
    path, level = str(args[0]), ERROR
    if path.startswith(("syslog:", "memory:")):
        kind = path.partition(":")[0]
        raise ConfError(args[0], f'"{kind}:" is known to nginx, not supported by Headrace')
    if path == "stderr":
        path = ""
    for word in args[1:]:
        if word in DEBUG_PARTS:
            level = DEBUG
        elif word in LEVELS[1:]:
            level = LEVELS.index(word)
        else:
            raise ConfError(word, f'invalid log level "{word}"')
    return ErrorLogFile(path, level)


class ErrorLog:
    """Where entries go: a few files, each with the level up to which it wants them."""

    def __init__(self, files: list[tuple[str, int]]) -> None:
        """`files` are (absolute path or empty for stderr, level). Raises OSError."""
        self._files: list[tuple[str, int, int]] = []
        self._second = 0
        self._stamp = ""
        self.level = max((level for _, level in files), default=ERROR)
        for path, level in files:
            self._files.append((path, _open(path) if path else STDERR, level))

    @property
    def fd(self) -> int:
        """The descriptor of the first file."""
        return self._files[0][1] if self._files else STDERR

    @property
    def files(self) -> list[tuple[str, int, int]]:
        """(absolute path or empty for stderr, descriptor, level) of each."""
        return list(self._files)

    def write(self, level: int, text: str, connection: int = 0) -> None:
        """One entry; `connection` is the number behind the `*`, 0 for none."""
        if level > self.level:
            return
        data = self._line(level, text, connection)
        for _, fd, most in self._files:
            if level <= most:
                try:
                    os.write(fd, data)
                except OSError:
                    continue

    def _line(self, level: int, text: str, connection: int) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(now))
        pid = os.getpid()
        who = f"*{connection} " if connection else ""
        line = f"{self._stamp} [{LEVELS[level]}] {pid}#{pid}: {who}{text}"
        return line.encode("utf-8", "surrogateescape")[: MAX_LINE - 1] + b"\n"

    def reopen(self) -> None:
        """Open the files anew under the same descriptors (SIGUSR1). Raises OSError."""
        for path, fd, _ in self._files:
            if path:
                new = _open(path)
                os.dup2(new, fd, inheritable=False)
                os.close(new)

    def own(self, uid: int, gid: int) -> None:
        """Give the files to the workers' user, who has to reopen them."""
        for path, fd, _ in self._files:
            if path:
                os.fchown(fd, uid, gid)

    def close(self) -> None:
        for path, fd, _ in self._files:
            if path:
                os.close(fd)
        self._files = []


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


directive(
    "error_log",
    MAIN | HTTP | SERVER | LOCATION | STREAM | STREAM_SERVER | IN_MQTT,
    read=read_error_log,
    least=1,
    most=None,
    many=True,
    syntax="file | stderr [debug | info | notice | warn | error | crit | alert | emerg]",
    doc="Where errors are told, and from which level on.",
)

"""The pid file: written in one go when all sockets listen, renamed while two masters run."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

OLD = ".oldbin"
ORDERS = {
    "stop": signal.SIGTERM,
    "quit": signal.SIGQUIT,
    "reopen": signal.SIGUSR1,
    "reload": signal.SIGHUP,
}


class PidFileError(Exception):
    """Worded as nginx; `level` is the word in brackets."""

    def __init__(self, level: str, message: str) -> None:
        super().__init__(message)
        self.level = level


def write(path: str) -> None:
    """Our pid, by a rename, so that nobody reads an empty file. Raises PidFileError."""
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w") as file:
            file.write(f"{os.getpid()}\n")
        os.rename(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise PidFileError("emerg", failed("open", path, error)) from None


def try_to_write(path: str) -> None:
    """What -t does: could it be written? Leaves nothing behind. Raises PidFileError."""
    try:
        if os.path.exists(path):
            os.close(os.open(path, os.O_RDWR))
        elif not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            code = errno.EACCES if os.path.isdir(os.path.dirname(path)) else errno.ENOENT
            raise OSError(code, os.strerror(code))
    except OSError as error:
        raise PidFileError("emerg", failed("open", path, error)) from None


def remove(path: str) -> None:
    """Remove it if it is ours."""
    with contextlib.suppress(OSError, ValueError):
        with open(path) as file:
            pid = int(file.read(32))
        if pid == os.getpid():
            os.unlink(path)


def send(path: str, order: str) -> None:
    """The signal for stop, quit, reopen or reload to the master. Raises PidFileError."""
    try:
        with open(path) as file:
            text = file.read(32)
    except OSError as error:
        raise PidFileError("error", failed("open", path, error)) from None
    text = text.rstrip("\r\n")
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise PidFileError("error", f'invalid PID number "{text}" in "{path}"')
    number = ORDERS[order]
    try:
        os.kill(int(text), number)
    except OSError as error:
        why = f"({error.errno}: {error.strerror})"
        raise PidFileError("alert", f"kill({text}, {int(number)}) failed {why}") from None


def failed(call: str, path: str, error: OSError) -> str:
    """`open() "PATH" failed (2: No such file or directory)`."""
    return f'{call}() "{path}" failed ({error.errno}: {error.strerror})'

"""What a function is: its block of the conf, typed, and what one replica of it is started with."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.functions.directives import Ready

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime.py")
# Of the gateway's environment a replica gets no more than these; the rest is not its business.
PASSED_ENV = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
WHERE = re.compile(r"\$(?:(PORT|SOCKET)\b|\{(PORT|SOCKET)\})")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the conf.

    argv: with $PORT and $SOCKET still in it. files: whose change makes it another function on a
    reload. ready: None – whoever accepts a connection is ready. Times in ms.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    files: tuple[str, ...]
    ready: Ready | None
    min_scale: int
    start_timeout_ms: int
    drain_timeout_ms: int

    @property
    def fingerprint(self) -> str:
        """12 hex digits: the same for two functions whose replicas need not be told apart."""
        told: list[Any] = [self.argv, self.env, self.cwd, self.ready]
        told += [_stamp(path) for path in self.files]
        return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def order(self, port: int, socket: str) -> dict[str, Any]:
        """What the master needs to start one replica (process/replicas.py)."""
        words = {"PORT": str(port), "SOCKET": socket}
        env = {name: os.environ[name] for name in PASSED_ENV if name in os.environ}
        env |= {"HOME": _home(), "PYTHONUNBUFFERED": "1", "FUNCTION_NAME": self.name}
        env |= dict(self.env)
        return {
            "argv": [WHERE.sub(lambda it: words[it[1] or it[2]], word) for word in self.argv],
            "env": env | words,
            "cwd": self.cwd,
            "uid": os.getuid(),
            "gid": os.getgid(),
        }


def read_functions(model: Block) -> dict[str, Function]:
    """All functions of a conf, by name."""
    found = {}
    for http in model.find("http"):
        for block in http.find("function"):
            it = read_function(block)
            found[it.name] = it
    return found


def read_function(block: Block) -> Function:
    """One function block."""
    cwd = os.path.abspath(block.path(block.get("working_directory") or "."))
    handler = block.own("python")
    if handler is not None:
        file = os.path.abspath(block.path(handler.file))
        python = block.own("interpreter")
        python = block.path(python) if python and "/" in python else python or sys.executable
        argv = [str(python), "-u", RUNTIME, file, handler.callable]
        files = [file]
    else:
        argv = [str(word) for word in block.own("command")]
        if "/" in argv[0]:
            argv[0] = os.path.join(cwd, argv[0])
        files = [os.path.join(cwd, word) for word in argv[:2]]
    return Function(
        name=str(block.args[0]),
        argv=tuple(argv),
        env=tuple(block.own("env") or ()),
        cwd=cwd,
        files=tuple(files),
        ready=block.own("ready"),
        min_scale=block.get("min_scale"),
        start_timeout_ms=block.get("start_timeout"),
        drain_timeout_ms=block.get("drain_timeout"),
    )


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _home() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"

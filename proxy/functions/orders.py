"""From a version to the order by which the master starts one replica of it."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.functions.model import Version

RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime.py")
# Of the gateway's environment a replica gets no more than these; the rest is not its business.
PASSED_ENV = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
WHERE = re.compile(r"\$(?:(PORT|SOCKET)\b|\{(PORT|SOCKET)\})")


def argv_of(version: Version) -> list[str]:
    """The command line of a replica. Raises ValueError for a kind that is no process yet."""
    kind, words = version.handler.kind, version.handler.words
    if kind == "command":
        program = words[0]
        if "/" in program:
            program = os.path.join(version.cwd, program)
        return [program, *words[1:]]
    if kind == "python":
        return [version.interpreter or sys.executable, "-u", RUNTIME, *words]
    raise ValueError(f'handlers of the kind "{kind}" cannot be run yet')


def env_of(version: Version) -> dict[str, str]:
    """Its environment, but for $PORT and $SOCKET."""
    env = {name: os.environ[name] for name in PASSED_ENV if name in os.environ}
    env |= {"HOME": _home(), "PYTHONUNBUFFERED": "1"}
    env["FUNCTION_NAME"], _, env["FUNCTION_NAMESPACE"] = version.function.rpartition(".")
    env["FUNCTION_VERSION"] = version.name
    return env | dict(version.env)


def order_of(version: Version, port: int, socket: str) -> dict[str, Any]:
    """See process/replicas.py for what is in it. Raises ValueError."""
    words = {"PORT": str(port), "SOCKET": socket}
    return {
        "argv": [WHERE.sub(lambda it: words[it[1] or it[2]], word) for word in argv_of(version)],
        "env": env_of(version) | words,
        "cwd": version.cwd,
        "uid": os.getuid(),
        "gid": os.getgid(),
    }


def _home() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"

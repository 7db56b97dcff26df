"""From a version to the order by which the master starts one replica of it.

The order is process/replicas.py's, with one key more, "from": how the replica is forked instead of
exec'ed, where that is possible (zygotes.py).
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.functions.model import Version

RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime.py")
# Of the gateway's environment a replica gets no more than these; the rest is not its business.
PASSED_ENV = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
# What an interpreter reads when it starts: a process that did not have it cannot be given it.
EARLY_ENV = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")
WHERE = re.compile(r"\$(?:(PORT|SOCKET)\b|\{(PORT|SOCKET)\})")
WITH_RUNTIME = ("python", "fork", "openwhisk", "lambda")
SPARE_BYTES = 320 << 20  # stacks of threads and the interpreter, beside what the handler may use
SPARE_TASKS = 64
MOST_SPARES = 16


def runtime_words(version: Version) -> tuple[str, list[str]]:
    """(interpreter, words for runtime.py) of a kind that it serves. `fork` and `lambda` run under
    the gateway's interpreter, and what they start under the function's."""
    kind, words = version.handler.kind, list(version.handler.words)
    python = version.interpreter or sys.executable
    if kind == "python":
        return python, words
    if kind == "openwhisk":
        return python, [kind, *words]
    if kind == "lambda":
        return sys.executable, [kind, python, *words]
    return sys.executable, [kind, *words]


def argv_of(version: Version) -> list[str]:
    """The command line of a replica. Raises ValueError for a kind that is no process."""
    kind, words = version.handler.kind, version.handler.words
    if kind == "command":
        program = words[0]
        if "/" in program:
            program = os.path.join(version.cwd, program)
        return [program, *words[1:]]
    if kind in WITH_RUNTIME:
        python, words_of_runtime = runtime_words(version)
        return [python, "-u", RUNTIME, *words_of_runtime]
    raise ValueError(f'handlers of the kind "{kind}" are no processes')


def env_of(version: Version) -> dict[str, str]:
    """Its environment, but for $PORT and $SOCKET."""
    env = {name: os.environ[name] for name in PASSED_ENV if name in os.environ}
    env |= {"HOME": user_of(version)[2], "PYTHONUNBUFFERED": "1"}
    env["FUNCTION_NAME"], _, env["FUNCTION_NAMESPACE"] = version.function.rpartition(".")
    env["FUNCTION_VERSION"] = version.name
    env["FUNCTION_TIMEOUT_MS"] = str(version.timeout_ms)
    if version.concurrency:
        env["FUNCTION_CONCURRENCY"] = str(version.concurrency)
    if version.limits.memory_bytes:
        env["FUNCTION_MEMORY_BYTES"] = str(version.limits.memory_bytes)
    return env | dict(version.env)


def order_of(version: Version, port: int, socket: str) -> dict[str, Any]:
    """See process/replicas.py for what is in it. Raises ValueError."""
    words = {"PORT": str(port), "SOCKET": socket}
    uid, gid, _ = user_of(version)
    env = env_of(version)
    order = {
        "argv": [WHERE.sub(lambda it: words[it[1] or it[2]], word) for word in argv_of(version)],
        "env": env | words,
        "cwd": version.cwd,
        "uid": uid,
        "gid": gid,
        "limits": rlimits_of(version, uid),
        "group": group_of(version),
    }
    if version.handler.kind in WITH_RUNTIME:
        order["from"] = plan_of(version, env, uid, gid)
    return order


def plan_of(version: Version, env: dict[str, str], uid: int, gid: int) -> dict[str, Any] | None:
    """The zygote that the replica comes from, see zygotes.py; None: it can only be exec'ed."""
    python, words = runtime_words(version)
    argv = [python, "-u", RUNTIME, "zygote"]
    spares = min(version.scale.prewarm, MOST_SPARES)
    generic = None
    if not any(name.startswith(EARLY_ENV) and name != "PYTHONUNBUFFERED" for name in env):
        early = {name: env[name] for name in (*PASSED_ENV, "PYTHONUNBUFFERED") if name in env}
        digest = digest_of(python, early, uid, gid)
        generic = {"id": f"zygote/generic/python/{digest}", "argv": argv, "env": early}
    # Of the first two there is nothing to import; secrets are a replica's own, and an import may
    # read them.
    if version.handler.kind in ("fork", "lambda") or version.secrets:
        if generic is None:
            return None
        own = generic
    else:
        digest = digest_of(argv, spares, words, env, version.cwd, uid, gid, version.fingerprint)
        own_argv = [*argv[:-1], f"zygote={spares}" if spares > 1 else "zygote", *words]
        own = {"id": f"zygote/{version.key}/{digest}", "argv": own_argv, "env": env}
    return {
        "name": version.key, **own, "words": words, "generic": generic,
        "timeout_ms": version.start_timeout_ms, "is_kept": bool(spares),
    }  # fmt: skip


def digest_of(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def user_of(version: Version) -> tuple[int, int, str]:
    """(uid, gid, home). Raises ValueError for a user that nobody knows."""
    try:
        if version.user:
            found = pwd.getpwnam(version.user)
            return found.pw_uid, found.pw_gid, found.pw_dir
        found = pwd.getpwuid(os.getuid())
    except KeyError:
        if version.user:
            raise ValueError(f'there is no user "{version.user}"') from None
        return os.getuid(), os.getgid(), "/"
    return os.getuid(), os.getgid(), found.pw_dir


def rlimits_of(version: Version, uid: int) -> dict[str, int]:
    """What holds without cgroups, roughly; the controller's watch (limits.py) is exact, but looks
    only twice a second."""
    found, limits = {"core": 0}, version.limits
    if limits.nofile:
        found["nofile"] = limits.nofile
    if limits.memory_bytes:
        found["data"] = limits.memory_bytes + SPARE_BYTES
    if limits.nproc and uid:  # it is per user, not per replica; root is above it
        found["nproc"] = tasks_of(uid) + limits.nproc + SPARE_TASKS
    return found


def group_of(version: Version) -> dict[str, str]:
    """The files of its cgroup (process/groups.py); {}: none is needed."""
    found, limits = {}, version.limits
    if limits.memory_bytes:
        found["memory.max"] = str(limits.memory_bytes)
        found["memory.swap.max"] = "0"
        found["memory.oom.group"] = "1"
    if limits.cpu_milli:
        found["cpu.max"] = f"{limits.cpu_milli * 100} 100000"
    if limits.nproc:
        found["pids.max"] = str(limits.nproc)
    return found


def tasks_of(uid: int) -> int:
    """How many threads a user's processes have now: what RLIMIT_NPROC counts."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count

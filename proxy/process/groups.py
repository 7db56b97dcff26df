"""cgroup v2 for replicas: a folder each, below one that was delegated to the gateway.

Where nothing can be written (no cgroup v2, no delegation, no controllers) replicas go without: then
their rlimits and the controller's watch hold (functions/usage.py), but nothing holds `cpu`, which
is told by name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WANTED = ("memory", "cpu", "pids")
FILES = ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
OURS = "headrace-gateway"  # where the gateway's own processes go: a group of groups has none
WHY_NOT = "there is no writable cgroup v2 with the cpu controller"
MOST_TOLD = 1000  # a log is no list of all functions
END_S = 0.2  # a killed group is empty within this


class Groups:
    """The folders of groups; made when the first replica wants one."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._root: str | None = None
        self._late: list[str] = []  # removed as soon as they are empty
        self._told: set[str] = set()  # versions whose cpu nothing holds

    def open(self, id: str, limits: dict[str, Any] | None) -> tuple[str, int]:
        """(folder, descriptor of its cgroup.procs) of a new group; ("", -1) without one.

        limits: file name → value. What a kernel without that controller cannot hold is left out.
        """
        if not limits:
            return "", -1
        if self._root is None:
            self._root = find_root()
            if not self._root:
                self._say("no writable cgroup v2 with a controller: limits are held by rlimits")
        self._sweep()
        if not self._root:
            self._tell_unheld(id, limits)
            return "", -1
        path = os.path.join(self._root, "replica-" + re.sub(r"[^A-Za-z0-9.-]", "-", id)[-120:])
        try:
            os.mkdir(path)
            for name, value in limits.items():
                if name not in FILES:
                    continue
                try:
                    write(os.path.join(path, name), str(value))
                except (FileNotFoundError, PermissionError):
                    if name == "cpu.max":
                        self._tell_unheld(id, limits)
            return path, os.open(os.path.join(path, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            self._say(f"cgroup {path} failed ({error}): a replica goes without")
            self.remove(path)
            return "", -1

    def _tell_unheld(self, id: str, limits: dict[str, Any]) -> None:
        version = "/".join(id.split("/")[:2])
        if "cpu.max" in limits and version not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(version)
            self._say(f'function {version}: nothing holds its "limits cpu": {WHY_NOT}')

    def remove(self, path: str) -> None:
        """Kill what is left in it, and drop it."""
        if not path:
            return
        with contextlib.suppress(OSError):
            write(os.path.join(path, "cgroup.kill"), "1")
        self._late.append(path)
        self._sweep()

    def _sweep(self) -> None:
        left = []
        for path in self._late:
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    left.append(path)
        self._late = left


def has_controller(name: str, path: str = "") -> bool:
    """Could groups below ours (or below `path`) have that controller? Only looks."""
    try:
        if not path:
            mount, own = _where()
            path = mount + own.rstrip("/")
        if os.path.basename(path) == OURS:
            path = os.path.dirname(path)
        is_there = name in read(f"{path}/cgroup.controllers").split()
    except OSError:
        return False
    return is_there and all(
        os.access(it, os.W_OK) for it in (path, f"{path}/cgroup.subtree_control")
    )


def find_root() -> str:
    """The group that replicas' groups may be made in, its controllers switched on; or ""."""
    try:
        mount, own = _where()
    except OSError:
        return ""
    path = mount + own.rstrip("/")
    if os.path.basename(path) == OURS:  # our predecessor has moved us already
        path = os.path.dirname(path)
    try:
        found = set(read(f"{path}/cgroup.controllers").split()) & set(WANTED)
        if not found:
            return ""
        words = " ".join(f"+{name}" for name in sorted(found))
        if not found <= set(read(f"{path}/cgroup.subtree_control").split()):
            try:
                write(f"{path}/cgroup.subtree_control", words)
            except OSError as error:  # it has processes: these go into a group of their own
                if error.errno != errno.EBUSY:
                    raise
                _move(path)
                write(f"{path}/cgroup.subtree_control", words)
        probe = f"{path}/headrace-probe"
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError:
        return ""
    return path


def _move(path: str) -> None:
    """All processes of a group into a group below it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{path}/{OURS}")
    end = time.monotonic() + END_S
    while pids := read(f"{path}/cgroup.procs").split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                write(f"{path}/{OURS}/cgroup.procs", pid)
        if time.monotonic() > end:
            break


def _where() -> tuple[str, str]:
    """(mount point of cgroup v2, our group below it). Raises OSError."""
    for line in read("/proc/self/mountinfo").splitlines():
        words, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            mount = words.split()[4]
            break
    else:
        raise OSError("cgroup v2 is not mounted")
    for line in read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return mount, line[3:]
    raise OSError("no cgroup v2")


def read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

"""One fork + exec on order: what a replica or a zygote gets of the master, and what it does not.

The child has 0 (/dev/null), 1 and 2 (pipes), a zygote 3 (its channel), and no other descriptor; a
session of its own; the environment, user, folder and limits that the order says.
"""

from __future__ import annotations

import os
import resource
import struct
from _socket import AF_UNIX, SO_PASSCRED, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from typing import TYPE_CHECKING, Any

from proxy.process._launch import STEPS, launch

if TYPE_CHECKING:
    from _socket import socket

LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
    "as": resource.RLIMIT_AS,
    "data": resource.RLIMIT_DATA,
    "cpu": resource.RLIMIT_CPU,
    "nproc": resource.RLIMIT_NPROC,
}


def start_time_of(pid: int) -> int:
    """Clock ticks since boot at which `pid` began (proc(5), field 22); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def spawn(order: dict[str, Any], group_fd: int = -1) -> tuple[int, list[int], socket | None]:
    """(pid, read ends of its stdout and stderr, our end of a zygote's channel).

    group_fd: cgroup.procs of where it belongs, or -1. Raises OSError with what failed in the child,
    up to and with exec; ValueError or TypeError for an order that is none.
    """
    argv = [os.fsencode(str(word)) for word in order["argv"]]
    if not argv:
        raise ValueError("argv is empty")
    env = {os.fsencode(str(key)): os.fsencode(str(it)) for key, it in order.get("env", {}).items()}
    if any(not key or b"=" in key for key in env):
        raise ValueError("a variable of the environment has no name")
    uid = order.get("uid")
    user = None
    if os.geteuid() == 0 and uid is not None:
        user = int(uid), int(order.get("gid", uid))
    limits = [(LIMITS[name], int(value)) for name, value in order.get("limits", {}).items()]
    cwd = os.fsencode(order["cwd"]) if order.get("cwd") else None
    paths = [argv[0]]
    if b"/" not in argv[0]:
        paths = [
            os.path.join(os.fsencode(it), argv[0]) for it in os.get_exec_path(order.get("env", {}))
        ]
    environ = [key + b"=" + it for key, it in env.items()]
    ours: list[int] = []
    theirs: list[int] = []
    channel = None
    told, tell = os.pipe()
    try:
        theirs.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(2):
            read_end, write_end = os.pipe()
            ours.append(read_end)
            theirs.append(write_end)
        if order.get("zygote"):
            channel, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
            channel.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)  # before anything can be said
            theirs.append(far.detach())
        nice = int(order.get("nice") or 0)
        pid = launch(paths, argv, environ, cwd, theirs, tell, group_fd, nice, user, limits)
    except BaseException:
        for fd in [*ours, told]:
            os.close(fd)
        raise
    finally:
        for fd in [*theirs, tell]:
            os.close(fd)
    failure = os.read(told, 4096)  # empty: exec closed it
    os.close(told)
    if failure:
        os.waitpid(pid, 0)
        for fd in ours:
            os.close(fd)
        step, error = struct.unpack("ii", failure)
        where = f"{STEPS[step]}: " if STEPS[step] else ""
        raise OSError(f"{os.fsdecode(argv[0])}: {where}{os.strerror(error)}")
    return pid, ours, channel

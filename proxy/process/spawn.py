"""One fork + exec on order: what a replica or a zygote gets of the master, and what it does not.

The child has 0 (/dev/null), 1 and 2 (pipes), a zygote 3 (its channel), and no other descriptor; a
session of its own; the environment, user, folder and limits that the order says.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from _socket import AF_UNIX, SO_PASSCRED, SOCK_SEQPACKET, SOL_SOCKET, socketpair
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from _socket import socket

CHANNEL_FD = 3
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
    argv = [str(word) for word in order["argv"]]
    if not argv:
        raise ValueError("argv is empty")
    env = {str(key): str(value) for key, value in order.get("env", {}).items()}
    ours: list[int] = []
    theirs: list[int] = []
    channel = None
    told, tell = os.pipe()
    try:
        for _ in range(2):
            read_end, write_end = os.pipe()
            ours.append(read_end)
            theirs.append(write_end)
        if order.get("zygote"):
            channel, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
            channel.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)  # before anything can be said
            theirs.append(far.detach())
        pid = os.fork()
        if pid == 0:
            _become(argv, env, order, theirs, tell, group_fd)
    except BaseException:
        for fd in [*ours, *theirs, told, tell]:
            os.close(fd)
        raise
    for fd in [*theirs, tell]:
        os.close(fd)
    failure = os.read(told, 4096)  # empty: exec closed it
    os.close(told)
    if failure:
        os.waitpid(pid, 0)
        for fd in ours:
            os.close(fd)
        raise OSError(failure.decode("utf-8", "replace"))
    return pid, ours, channel


def _become(
    argv: list[str],
    env: dict[str, str],
    order: dict[str, Any],
    fds: list[int],
    tell: int,
    group_fd: int,
) -> NoReturn:
    """In the child."""
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if group_fd >= 0:
            os.write(group_fd, b"0")
        null = os.open(os.devnull, os.O_RDONLY)
        # Out of the way of 0 … 3 first: a pipe may have one of these numbers.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in [null, *fds, tell]]
        tell = high.pop()
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        last = len(high) - 1
        os.closerange(last + 1, tell)
        os.closerange(tell + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        if order.get("nice"):
            os.setpriority(os.PRIO_PROCESS, 0, int(order["nice"]))
        if os.geteuid() == 0 and order.get("uid") is not None:
            gid = int(order.get("gid", order["uid"]))
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(int(order["uid"]))
        # after the change of user: what is too many for its new limits must fail for it
        for name, value in order.get("limits", {}).items():
            _, most = resource.getrlimit(LIMITS[name])
            number = int(value) if most < 0 else min(int(value), most)
            resource.setrlimit(LIMITS[name], (number, number))
        if order.get("cwd"):
            os.chdir(order["cwd"])
        os.execvpe(argv[0], argv, env)
    except BaseException as error:
        os.write(tell, f"{argv[0]}: {error}".encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)

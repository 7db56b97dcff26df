"""One running process of the master's: a replica, or a zygote that forks replicas."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from _socket import CMSG_SPACE, SCM_CREDENTIALS, SCM_RIGHTS, SHUT_RD, SOL_SOCKET, socket
from array import array
from typing import Any

from proxy.process.spawn import start_time_of

MOST_DESCENDANTS = 10_000
STATE_BYTES = 4096  # of what a zygote says


class Replica:
    """One running process. `fds` are our copies of its log pipes: a new controller gets them too.
    `pidfd` is -1 for those that we started by exec. group: its cgroup, or ""."""

    __slots__ = ("fds", "group", "id", "is_own", "pid", "pidfd", "start_time")

    def __init__(self, id: str, pid: int, start_time: int, fds: list[int], group: str = "") -> None:
        self.id = id
        self.pid = pid
        self.start_time = start_time
        self.fds = fds
        self.pidfd = -1
        self.is_own = True
        self.group = group

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id, "pid": self.pid, "start_time": self.start_time, "group": self.group,
        }  # fmt: skip

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Zygote(Replica):
    """unborn: the forks that it was asked for, by id: the read ends of the pipes, the group; None
    when nobody wants it any more."""

    __slots__ = ("channel", "state", "unborn")

    def __init__(self, id: str, pid: int, start_time: int, fds: list[int], channel: socket) -> None:
        super().__init__(id, pid, start_time, fds)
        self.channel = channel
        self.state: dict[str, str] | None = None
        self.unborn: dict[str, tuple[list[int], str] | None] = {}
        channel.setblocking(False)

    def hush(self) -> None:
        """From now on nobody can say more; what was said is still there to be read."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(SHUT_RD)

    def read(self) -> tuple[bytes, int]:
        """(what was said, pid of who said it by the kernel's word); b"": it is over. Raises
        BlockingIOError: nothing yet."""
        try:
            data, extra, _, _ = self.channel.recvmsg(STATE_BYTES, CMSG_SPACE(12) + 64)
        except BlockingIOError:
            raise
        except OSError:
            return b"", 0
        pid = 0
        for level, kind, content in extra:
            if level == SOL_SOCKET and kind == SCM_CREDENTIALS:
                pid = struct.unpack_from("i", content)[0]
            elif level == SOL_SOCKET and kind == SCM_RIGHTS:  # nobody asked for these
                for fd in array("i", content[: len(content) // 4 * 4]):
                    os.close(fd)
        return data, pid

    def close(self) -> None:
        super().close()
        self.channel.close()
        for entry in self.unborn.values():
            for fd in entry[0] if entry else ():
                os.close(fd)
        self.unborn = {}


def kill(replica: Replica, number: int) -> None:
    """To its whole process group; KILL also to what it has started outside of that."""
    try:
        if not replica.is_own and start_time_of(replica.pid) != replica.start_time:
            return
        others = descendants_of(replica.pid) if number == signal.SIGKILL else []
        try:
            os.killpg(replica.pid, number)
        except ProcessLookupError:  # it made no group of its own
            if replica.pidfd >= 0:
                signal.pidfd_send_signal(replica.pidfd, number)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    except OSError:
        pass


def descendants_of(pid: int) -> list[int]:
    """Its children and theirs, as far as they still have their parents."""
    found: list[int] = []
    late = [pid]
    while late and len(found) < MOST_DESCENDANTS:
        parent = late.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", "rb") as file:
                    late += map(int, file.read().split())
        except OSError:
            pass
        if parent != pid:
            found.append(parent)
    return found

"""Replicas and zygotes: the master starts them on the controller's order and is their parent.

The channel is a SOCK_SEQPACKET pair, one JSON line a packet. Down from the controller:

    {"op": "start", "id": …, "argv": […], "env": {…}, "cwd": …, "uid": …, "gid": …,
     "limits": {"nofile": …, "core": …, "as": …, "cpu": …, "nproc": …}, "nice": …,
     "channel": true}                    every key but op, id and argv may be missing
    {"op": "signal", "id": …, "signal": 15}          goes to the whole process group
    {"op": "forget", "id": …}                        drop what an exited one left

Up from the master:

    {"op": "started", "id", "pid", "start_time", "cgroup": null}   with SCM_RIGHTS: the read ends of
                        stdout and stderr, then (channel) a socket whose other end is its fd 3
    {"op": "failed", "id", "error"}
    {"op": "exited", "id", "pid", "status"}   exit code, or minus the signal; null: not our child
    {"op": "running", …as started…}           to a new controller, for each that lives
    {"op": "listed"}                          after the last "running"

A new controller adopts what runs. The same rows lie as JSON in a memfd (`table_fd`), which a new
executable inherits; what its predecessor started it watches by pidfd.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, socket, socketpair
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PACKET = 256 * 1024
MAX_REPLICAS = 4096
CHANNEL_FD = 3
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "core": resource.RLIMIT_CORE,
    "as": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "nproc": resource.RLIMIT_NPROC,
}


class Replica:
    """One running process. `fds` are our copies of its log pipes and channel: a new controller
    gets them too. `pidfd` is -1 for our own children."""

    __slots__ = ("fds", "id", "pid", "pidfd", "start_time")

    def __init__(self, id: str, pid: int, start_time: int, fds: list[int], pidfd: int = -1) -> None:
        self.id = id
        self.pid = pid
        self.start_time = start_time
        self.fds = fds
        self.pidfd = pidfd

    def row(self) -> dict[str, Any]:
        return {"id": self.id, "pid": self.pid, "start_time": self.start_time}

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Replicas:
    """All replicas of this master. `say` gets lines for the error log."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._by_id: dict[str, Replica] = {}
        self._channel: socket | None = None
        self._late: list[tuple[bytes, list[int]]] = []
        self._is_ending = False
        self.table_fd = os.memfd_create("headrace-replicas", os.MFD_CLOEXEC)

    @property
    def channel_fd(self) -> int:
        """What to poll for the controller's orders; -1 without a controller."""
        return self._channel.fileno() if self._channel is not None else -1

    @property
    def is_waiting_to_write(self) -> bool:
        """Packets wait because the controller reads too slowly: poll for writing too."""
        return bool(self._late)

    def pidfds(self) -> list[int]:
        """Descriptors that become readable when a foreign replica ends."""
        return [it.pidfd for it in self._by_id.values() if it.pidfd >= 0]

    def new_channel(self) -> socket:
        """A channel for a new controller, already holding the list of what runs. The end given
        back is the controller's."""
        self.drop_channel()
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        for it in self._by_id.values():
            self._tell({"op": "running", **it.row()}, it.fds)
        self._tell({"op": "listed"})
        return theirs

    def drop_channel(self) -> None:
        self._late = []
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # -- the controller's orders ----------------------------------------------------------------
    def on_channel(self) -> None:
        """Obey what the controller ordered since."""
        self._flush()
        for _ in range(64):
            if self._channel is None:
                return
            try:
                data = self._channel.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.drop_channel()
                return
            self._obey(data)

    def _obey(self, data: bytes) -> None:
        try:
            order = json.loads(data)
            op, id = order["op"], str(order["id"])
        except (ValueError, KeyError, TypeError):
            self._say(f"the controller sent no order: {data[:80]!r}")
            return
        if op == "start":
            self._start(id, order)
        elif op == "signal":
            self._signal(id, int(order.get("signal", signal.SIGTERM)))
        elif op != "forget":
            self._say(f'the controller sent an unknown order "{op}"')

    def _start(self, id: str, order: dict[str, Any]) -> None:
        if self._is_ending:
            return self._tell({"op": "failed", "id": id, "error": "the gateway is leaving"})
        if id in self._by_id:
            return self._tell({"op": "failed", "id": id, "error": "it runs already"})
        if len(self._by_id) >= MAX_REPLICAS:
            return self._tell({"op": "failed", "id": id, "error": "too many replicas"})
        try:
            replica = _spawn(id, order)
        except (OSError, ValueError, TypeError, KeyError, LookupError) as error:
            return self._tell({"op": "failed", "id": id, "error": str(error)})
        self._by_id[id] = replica
        self._write_table()
        self._tell({"op": "started", **replica.row()}, replica.fds)
        return None

    def _signal(self, id: str, number: int) -> None:
        replica = self._by_id.get(id)
        if replica is None:
            return
        _kill(replica, number)

    def _tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._channel is None:
            return
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        # The descriptors are kept open by us as long as the replica lives, so they may wait.
        self._late.append((data, fds or []))
        self._flush()

    def _flush(self) -> None:
        while self._late and self._channel is not None:
            data, fds = self._late[0]
            try:
                if fds:
                    self._channel.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, array("i", fds))])
                else:
                    self._channel.send(data)
            except BlockingIOError:
                return
            except OSError as error:
                if self._channel is not None and (not fds or error.errno in GONE):
                    self.drop_channel()
                    return
                self._say(f"sendmsg() to the controller failed ({error.errno}: {error.strerror})")
            self._late.pop(0)

    # -- deaths ---------------------------------------------------------------------------------
    def on_exit(self, pid: int, status: int) -> bool:
        """A child of ours ended with `status` as waitpid gives it. Was it a replica?"""
        for replica in self._by_id.values():
            if replica.pid == pid and replica.pidfd < 0:
                self._end(replica, os.waitstatus_to_exitcode(status))
                return True
        return False

    def on_pidfd(self, fd: int) -> None:
        """A replica that the old executable had started ended."""
        for replica in self._by_id.values():
            if replica.pidfd == fd:
                self._end(replica, None)
                return

    def _end(self, replica: Replica, status: int | None) -> None:
        del self._by_id[replica.id]
        self._write_table()
        self._tell({"op": "exited", "id": replica.id, "pid": replica.pid, "status": status})
        self._late = [(data, [] if fds is replica.fds else fds) for data, fds in self._late]
        replica.close()

    def pids_of_own(self) -> list[int]:
        """The processes that are our children."""
        return [it.pid for it in self._by_id.values() if it.pidfd < 0]

    def signal_own(self, number: int) -> bool:
        """The end: signal every replica that is our child; no new one is started. Is there one?"""
        self._is_ending = True
        own = [it for it in self._by_id.values() if it.pidfd < 0]
        for replica in own:
            _kill(replica, number)
        return bool(own)

    # -- over to a new executable ---------------------------------------------------------------
    def _write_table(self) -> None:
        rows = [{**it.row(), "fds": it.fds} for it in self._by_id.values()]
        data = json.dumps(rows).encode()
        os.ftruncate(self.table_fd, 0)
        os.pwrite(self.table_fd, data, 0)

    def lend(self) -> list[int]:
        """Descriptors that a new executable must inherit under the same numbers."""
        return [self.table_fd, *(fd for it in self._by_id.values() for fd in it.fds)]

    def adopt(self, table_fd: int) -> None:
        """Take over what the old executable runs, from its table."""
        rows = json.loads(os.pread(table_fd, 1 << 24, 0) or b"[]")
        os.close(table_fd)
        for row in rows:
            for fd in row["fds"]:
                os.set_inheritable(fd, False)
            try:
                pidfd = os.pidfd_open(row["pid"])
            except OSError:
                continue
            replica = Replica(row["id"], row["pid"], row["start_time"], row["fds"], pidfd)
            if start_time_of(replica.pid) != replica.start_time:
                replica.close()
                continue
            self._by_id[replica.id] = replica
        self._write_table()

    def close_in_child(self) -> None:
        """A child of the master needs none of this."""
        self.drop_channel()
        for replica in self._by_id.values():
            replica.close()
        self._by_id = {}


def start_time_of(pid: int) -> int:
    """Clock ticks since boot at which `pid` began (proc(5), field 22); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _kill(replica: Replica, number: int) -> None:
    try:
        if replica.pidfd >= 0 and start_time_of(replica.pid) != replica.start_time:
            return
        os.killpg(replica.pid, number)
    except OSError:
        pass


def _spawn(id: str, order: dict[str, Any]) -> Replica:
    """fork + exec. Raises OSError with what failed in the child, up to and with exec."""
    argv = [str(word) for word in order["argv"]]
    if not argv:
        raise ValueError("argv is empty")
    env = {str(key): str(value) for key, value in order.get("env", {}).items()}
    ours: list[int] = []
    theirs: list[int] = []
    told, tell = os.pipe()
    try:
        for _ in range(2):
            read_end, write_end = os.pipe()
            ours.append(read_end)
            theirs.append(write_end)
        if order.get("channel"):
            near, far = socketpair(AF_UNIX, SOCK_STREAM)
            ours.append(near.detach())
            theirs.append(far.detach())
            env["HEADRACE_CHANNEL"] = str(CHANNEL_FD)
        pid = os.fork()
        if pid == 0:
            _become(argv, env, order, theirs, tell)
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
    return Replica(id, pid, start_time_of(pid), ours)


def _become(
    argv: list[str], env: dict[str, str], order: dict[str, Any], fds: list[int], tell: int
) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        null = os.open(os.devnull, os.O_RDONLY)
        # Out of the way of 0 … 3 first: a pipe may have one of these numbers.
        high = [_above(fd) for fd in [null, *fds, tell]]
        tell = high.pop()
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        last = len(high) - 1
        os.closerange(last + 1, tell)
        os.closerange(tell + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for name, value in order.get("limits", {}).items():
            resource.setrlimit(LIMITS[name], (int(value), int(value)))
        if order.get("nice"):
            os.setpriority(os.PRIO_PROCESS, 0, int(order["nice"]))
        if os.geteuid() == 0 and order.get("uid") is not None:
            gid = int(order.get("gid", order["uid"]))
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(int(order["uid"]))
        if order.get("cwd"):
            os.chdir(order["cwd"])
        os.execvpe(argv[0], argv, env)
    except BaseException as error:
        os.write(tell, f"{argv[0]}: {error}".encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)

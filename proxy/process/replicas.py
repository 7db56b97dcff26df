"""Replicas and zygotes: the master starts them on the controller's order and is their parent.

The channel is a SOCK_SEQPACKET pair, one JSON line a packet. Down from the controller:

    {"op": "start", "id": …, "argv": […], "env": {…}, "cwd": …, "uid": …, "gid": …,
     "limits": {"nofile": …, "data": …, "nproc": …}, "group": {"memory.max": …}, "nice": …,
     "zygote": true}                     every key but op, id and argv may be missing
    {"op": "fork", "id": …, "zygote": ID, "words": […], "env": …, "cwd": …, "limits": …, "group": …}
    {"op": "signal", "id": …, "signal": 15}          goes to the whole process group
    {"op": "forget", "id": …}                        drop what an exited one left

Up from the master:

    {"op": "started", "id", "pid", "start_time", "group": PATH or ""}   with SCM_RIGHTS: the read
                        ends of stdout and stderr
    {"op": "failed", "id", "error"}
    {"op": "exited", "id", "pid", "status"}   exit code, or minus the signal; null: not our child
    {"op": "zygote", "id", "state": "ready" | "unfit" | "failed", "why"}
    {"op": "running", …as started…}           to a new controller, for each that lives
    {"op": "listed"}                          after the last "running"

A zygote (functions/runtime.py) is told on its descriptor 3 what to fork, with the write ends of the
pipes. It forks twice, so that the replica is the master's own child; the replica says so itself on
the same channel, and the kernel says its pid (SO_PASSCRED). A zygote that says what it was not
asked is killed. At the end of its channel it leaves.

A new controller adopts what runs. A new executable inherits a table of the same rows (loan.py),
zygotes excepted; what its predecessor started it watches by pidfd.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair
from array import array
from typing import TYPE_CHECKING, Any

from proxy.process.groups import Groups
from proxy.process.loan import Loan, adopt, read_table
from proxy.process.replica import Replica, Zygote, kill
from proxy.process.spawn import spawn, start_time_of

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PACKET = 256 * 1024
MAX_REPLICAS = 4096
MOST_FORKS = 256  # asked of one zygote and not born yet
GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
FORK_KEYS = ("words", "env", "cwd", "limits", "nice")  # what of an order is the zygote's
STATES = ("ready", "unfit", "failed")


class Replicas:
    """All replicas of this master. `say` gets what should not be for the error log, `note` what is
    worth a line."""

    def __init__(
        self, say: Callable[[str], None], note: Callable[[str], None] = lambda line: None
    ) -> None:
        self._say = say
        self._by_id: dict[str, Replica] = {}
        self._by_pid: dict[int, Replica] = {}
        self._by_fd: dict[int, Replica] = {}  # pidfd or channel
        self._channel: socket | None = None
        self._late: list[tuple[bytes, list[int]]] = []
        self._is_ending = False
        self._is_heir = False
        self._groups = Groups(note)
        self._epoll = select.epoll()
        self._loan = Loan()
        self._held: list[bytes] | None = None

    @property
    def channel_fd(self) -> int:
        """What to poll for the controller's orders; -1 without a controller."""
        return self._channel.fileno() if self._channel is not None else -1

    @property
    def is_waiting_to_write(self) -> bool:
        """Packets wait because the controller reads too slowly: poll for writing too."""
        return bool(self._late)

    @property
    def watch_fd(self) -> int:
        """Readable when a zygote says something or a replica ends that waitpid will not tell."""
        return self._epoll.fileno()

    def new_channel(self) -> socket:
        """A channel for a new controller, already holding the list of what runs. The end given
        back is the controller's."""
        self.drop_channel()
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        for it in self._by_id.values():
            self._tell({"op": "running", **it.row()}, it.fds)
            if isinstance(it, Zygote) and it.state:
                self._tell({"op": "zygote", "id": it.id, **it.state})
        self._tell({"op": "listed"})
        return theirs

    def drop_channel(self) -> None:
        self._late = []
        self._held = None
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
        if op in ("start", "fork"):
            if self._held is not None:
                self._held.append(data)
                return
            try:
                self._check(id)
                if op == "start":
                    self._start(id, order)
                else:
                    self._fork(id, order)
            except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
                self._fail(id, str(error))
        elif op == "signal":
            self._signal(id, int(order.get("signal", signal.SIGTERM)))
        elif op != "forget":
            self._say(f'the controller sent an unknown order "{op}"')

    def _check(self, id: str) -> None:
        """Raises ValueError: there can be no such replica now."""
        if self._is_ending:
            raise ValueError("the gateway is leaving")
        if id in self._by_id:
            raise ValueError("it runs already")
        if len(self._by_id) >= MAX_REPLICAS:
            raise ValueError("too many replicas")

    def _start(self, id: str, order: dict[str, Any]) -> None:
        group, group_fd = self._groups.open(id, order.get("group"))
        try:
            pid, fds, channel = spawn(order, group_fd)
        except BaseException:
            self._groups.remove(group)
            raise
        finally:
            if group_fd >= 0:
                os.close(group_fd)
        if channel is not None:
            zygote = Zygote(id, pid, start_time_of(pid), fds, channel)
            self._watch(zygote, channel.fileno())
            self._add(zygote)
        else:
            self._add(Replica(id, pid, start_time_of(pid), fds, group))

    def _fork(self, id: str, order: dict[str, Any]) -> None:
        """Hand the order on to a zygote; `_on_born` hears of it."""
        zygote = self._by_id.get(order["zygote"])
        if not isinstance(zygote, Zygote) or len(zygote.unborn) >= MOST_FORKS:
            raise ValueError("there is no such zygote")
        group, group_fd = self._groups.open(id, order.get("group"))
        told = {key: order[key] for key in FORK_KEYS if order.get(key)}
        data = json.dumps({"id": id, **told}).encode()
        ends: list[int] = []
        try:
            for _ in range(2):
                ends += os.pipe()
            fds = array("i", [ends[1], ends[3], *([group_fd] if group_fd >= 0 else [])])
            zygote.channel.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, fds)])
        except OSError as error:
            for fd in ends[::2]:
                os.close(fd)
            self._groups.remove(group)
            raise OSError(f"its zygote takes no order: {error}") from None
        finally:
            for fd in ends[1::2]:
                os.close(fd)
            if group_fd >= 0:
                os.close(group_fd)
        zygote.unborn[id] = ends[::2], group

    def _add(self, replica: Replica) -> None:
        self._by_id[replica.id] = replica
        self._by_pid[replica.pid] = replica
        self._tell({"op": "started", **replica.row()}, replica.fds)

    def _fail(self, id: str, error: str) -> None:
        self._tell({"op": "failed", "id": id, "error": error})

    def _signal(self, id: str, number: int) -> None:
        replica = self._by_id.get(id)
        if replica is not None:
            kill(replica, number)
            return
        for zygote in [it for it in self._by_id.values() if isinstance(it, Zygote)]:
            if zygote.unborn.get(id):
                self._forget_unborn(zygote, id)
                zygote.unborn[id] = None
                self._fail(id, "it was called back before it was born")

    def _forget_unborn(self, zygote: Zygote, id: str) -> None:
        entry = zygote.unborn.pop(id, None)
        if entry:
            for fd in entry[0]:
                os.close(fd)
            self._groups.remove(entry[1])

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

    # -- what zygotes say -----------------------------------------------------------------------
    def _watch(self, replica: Replica, fd: int) -> None:
        self._by_fd[fd] = replica
        self._epoll.register(fd, select.EPOLLIN)

    def on_watch(self) -> None:
        """`watch_fd` is readable."""
        for fd, _ in self._epoll.poll(0):
            replica = self._by_fd.get(fd)
            if isinstance(replica, Zygote):
                self._hear(replica)
            elif replica is not None:
                self._on_pidfd(replica)

    def _hear(self, zygote: Zygote) -> None:
        for _ in range(MOST_FORKS):
            try:
                data, pid = zygote.read()
            except BlockingIOError:
                return
            if not data or not self._take(zygote, data, pid):
                self._lose(zygote)
                return

    def _take(self, zygote: Zygote, data: bytes, pid: int) -> bool:
        """One thing that it said. Was it to be expected?"""
        try:
            message = json.loads(data)
            state, id = message.get("state"), message.get("id")
            why = str(message.get("why", ""))[:2000]
        except (ValueError, AttributeError, RecursionError):
            return False
        if state in STATES:
            if zygote.state is not None or pid != zygote.pid:
                return False
            zygote.state = {"state": state, "why": why}
            self._tell({"op": "zygote", "id": zygote.id, **zygote.state})
            return True
        if id not in zygote.unborn:
            return False
        if state == "stillborn":
            if zygote.unborn[id]:
                self._fail(id, why)
            self._forget_unborn(zygote, id)
            return True
        if state != "born" or not pid or pid in self._by_pid:
            return False
        self._on_born(zygote, id, pid)
        return True

    def _on_born(self, zygote: Zygote, id: str, pid: int) -> None:
        entry = zygote.unborn.pop(id)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            pidfd = -1
        replica = Replica(id, pid, start_time_of(pid), *(entry or ([], "")))
        if pidfd < 0 or entry is None or self._is_ending:
            kill(replica, signal.SIGKILL)
            if pidfd >= 0:
                os.close(pidfd)
            if entry is not None:
                self._fail(id, "it ended at once")
                self._groups.remove(replica.group)
            replica.close()
            return
        replica.pidfd = pidfd
        self._watch(replica, pidfd)
        self._add(replica)

    def _lose(self, zygote: Zygote) -> None:
        """It left, or talks nonsense: nothing more is to be had of it."""
        fd = zygote.channel.fileno()
        if fd >= 0:
            self._epoll.unregister(fd)
            self._by_fd.pop(fd, None)
            zygote.channel.close()
        for id, entry in list(zygote.unborn.items()):
            self._forget_unborn(zygote, id)
            if entry is not None:
                self._fail(id, "its zygote ended")
        kill(zygote, signal.SIGKILL)

    # -- deaths ---------------------------------------------------------------------------------
    def on_exit(self, pid: int, status: int) -> bool:
        """A child of ours ended with `status` as waitpid gives it. Was it a replica?"""
        if pid not in self._by_pid:  # was it born meanwhile?
            for it in list(self._by_id.values()):
                if isinstance(it, Zygote) and it.unborn:
                    self._hear(it)
        replica = self._by_pid.get(pid)
        if replica is None or not replica.is_own:
            return False
        self._end(replica, os.waitstatus_to_exitcode(status))
        return True

    def _on_pidfd(self, replica: Replica) -> None:
        """It ended, and is perhaps no child of ours: the old executable had started it, or its
        zygote kept it for itself."""
        status = None
        try:
            pid, found = os.waitpid(replica.pid, os.WNOHANG)
            if pid == replica.pid:
                status = os.waitstatus_to_exitcode(found)
        except ChildProcessError:
            pass
        self._end(replica, status)

    def _end(self, replica: Replica, status: int | None) -> None:
        del self._by_id[replica.id]
        self._by_pid.pop(replica.pid, None)
        if isinstance(replica, Zygote):
            replica.hush()
            self._hear(replica)  # of whom it had born is not to be lost with it
            self._lose(replica)
        if replica.pidfd >= 0:
            self._epoll.unregister(replica.pidfd)
            self._by_fd.pop(replica.pidfd, None)
        self._groups.remove(replica.group)
        self._tell({"op": "exited", "id": replica.id, "pid": replica.pid, "status": status})
        self._late = [(data, [] if fds is replica.fds else fds) for data, fds in self._late]
        replica.close()

    def own_all(self) -> None:
        """There is no other master any more: what it started is ours to end, too."""
        self._is_heir = True

    def _own(self) -> list[Replica]:
        return [it for it in self._by_id.values() if it.is_own or self._is_heir]

    def pids_of_own(self) -> list[int]:
        """The processes that are ours to end."""
        return [it.pid for it in self._own()]

    def signal_own(self, number: int) -> bool:
        """The end: signal every replica that is ours; no new one is started. Is there one?"""
        self._is_ending = True
        own = self._own()
        for replica in own:
            kill(replica, number)
        return bool(own)

    # -- over to a new executable ---------------------------------------------------------------
    def lend(self) -> list[int]:
        """Descriptors that a new executable must inherit; loan.py says what they are."""
        return self._loan.make([it for it in self._by_id.values() if not isinstance(it, Zygote)])

    def hold(self) -> None:
        """A new executable starts and learns of those that run now: nobody is started until its
        controller has taken over (ours is gone then, and so is what it ordered), or `obey_held`."""
        self._held = []

    def obey_held(self) -> None:
        """There is no other controller after all."""
        held, self._held = self._held, None
        for data in held or ():
            self._obey(data)

    def end_unlent(self) -> None:
        """We leave: who was born too late for the new executable to know of would be nobody's."""
        for it in self._own():
            if it.id not in self._loan.ids and not isinstance(it, Zygote):
                kill(it, signal.SIGTERM)

    def adopt(self, table_fd: int) -> None:
        """Take over what the old executable runs, from its table."""
        for row in read_table(table_fd):
            replica = adopt(row)
            if replica is None:
                continue
            self._watch(replica, replica.pidfd)
            self._by_id[replica.id] = self._by_pid[replica.pid] = replica

    def close_in_child(self) -> None:
        """A child of the master needs none of this."""
        self._loan.close()
        self.drop_channel()
        self._epoll.close()
        for replica in self._by_id.values():
            replica.close()
        self._by_id, self._by_pid, self._by_fd = {}, {}, {}

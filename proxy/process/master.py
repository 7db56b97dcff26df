"""The master: no loop of asyncio, no threads; parent of everything, it touches no request.

It opens what is shared (sockets, zones, logs), gives birth to workers and the controller, and then
waits in poll(2) for signals, for what its children say, and for the controller's orders about
replicas. Signals are nginx's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket
from typing import TYPE_CHECKING

from proxy.conf.report import ConfError
from proxy.observe.error_log import ALERT, CRIT, EMERG, ERROR, LEVELS, NOTICE, ErrorLog
from proxy.process import _kernel, pidfile, upgrade
from proxy.process.children import (
    CONTROLLER,
    NEW_BINARY,
    REFUSED,
    WORKER,
    Child,
    exec_again,
    give_birth,
    work,
)
from proxy.process.generation import Generation, Refused, check_apart, read_model
from proxy.process.replicas import Replicas
from proxy.process.seat import QUIT, READY, RELOAD, REOPEN, TERMINATE, Seat
from proxy.process.sockets import BindError, Sockets
from proxy.process.zones import on_worker_death

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.process.options import Options

SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH, signal.SIGCHLD,
)  # fmt: skip
START_LIMIT_S = 30.0
TERMINATE_LIMIT_S = 1.0  # after TERM, then KILL
CONTROLLER_LIMIT_S = 5.0  # for the controller to leave in good order
SLOW_BIRTH_S = 1.0  # who dies younger is born again ever more slowly
MAX_PAUSE_S = 5.0
DRAINED_TWICE_S = 0.05  # a retired socket must be seen empty twice, so far apart


class Master:
    """One master from start to end; `run` gives the exit code."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sockets = Sockets()
        self.generation: Generation
        self.replicas = Replicas(lambda text: self.say(ALERT, text))
        self.children: list[Child] = []
        self.controller_socket: socket | None = None
        self.controller_path = ""
        self.signals_fd = -1
        self.is_leaving = False
        self.is_retired = False  # WINCH: the new executable has the workers
        self.successor: Child | None = None
        self.births: list[tuple[float, str, int]] = []  # when, kind, number: to be born again
        self.deaths: dict[tuple[str, int], int] = {}  # young ones, one after the other
        self.drained_at_s = 0.0
        self.is_shrinking = False
        self.pid_path = self.own_path = ""
        self.has_pid_file = self.is_successor = False

    @property
    def log(self) -> ErrorLog:
        return self.generation.log

    def say(self, level: int, text: str) -> None:
        self.log.write(level, text)

    # ---------------------------------------------------------------- the start

    def prepare(self) -> None:
        """Everything that can be refused before there is a process more. Raises ConfError,
        Refused, BindError."""
        model = read_model(self.options)
        self.generation = Generation(model, self.options)
        left, wrong = upgrade.take_up()
        for text in wrong:
            self.say(ERROR, text)
        for fd, slot in left.sockets:
            self.sockets.adopt(fd, slot)
        if left.table_fd >= 0:
            self.replicas.adopt(left.table_fd)
        self.is_successor = not left.is_empty
        self.open_sockets()
        self.pid_path = self.generation.pid_path

    def open_sockets(self) -> None:
        self.sockets.open(
            self.generation.addresses,
            self.generation.workers,
            lambda text: self.tell_operator(EMERG, text),
        )

    def tell_operator(self, level: int, text: str) -> None:
        """The log, and stderr while somebody looks at it."""
        self.say(level, text)
        with contextlib.suppress(OSError):
            os.write(2, f"headrace: [{LEVELS[level]}] {text}\n".encode("utf-8", "replace"))

    def run(self, on_started: Callable[[bool], None]) -> int:
        """Start, serve until told to leave. `on_started` hears whether the start succeeded."""
        _kernel.set_title(f"headrace: master process {' '.join(sys.orig_argv[1:])}"[:200])
        _kernel.become_subreaper()
        self.signals_fd = _kernel.open_signals(SIGNALS)
        self.open_controller_socket()
        for number in range(self.generation.workers):
            self.bear(WORKER, number)
        if not self.wait_for_birth():
            on_started(False)
            return 1
        self.bear(CONTROLLER, -1)
        try:
            self.take_pid_file()
        except pidfile.PidFileError as error:
            self.tell_operator(EMERG, str(error))
            self.end_children(TERMINATE)
            on_started(False)
            return 1
        on_started(True)
        while not self.is_over():
            try:
                self.wait()
            except Exception as error:  # the parent of everything goes on
                self.say(ALERT, f"the master stumbled: {error!r}")
        if self.has_pid_file:
            pidfile.remove(self.pid_path)
        self.say(NOTICE, "exit")
        self.sockets.close(keep_paths=self.successor is not None)
        self.close_controller_socket()
        return 0

    def open_controller_socket(self) -> None:
        """A Unix socket that workers and the controller meet at; its path must be short."""
        path = f"{self.generation.pid_path}.{os.getpid()}.sock"
        if len(os.fsencode(path)) > 100:
            path = f"/tmp/headrace.{os.getpid()}.sock"
        sock = socket(AF_UNIX, SOCK_STREAM)
        with contextlib.suppress(OSError):
            os.unlink(path)
        try:
            sock.bind(path)
            os.chmod(path, 0o600)
            user = self.generation.user
            if user is not None and user.uid:
                os.chown(path, user.uid, user.gid)
            sock.listen(64)
        except OSError as error:
            self.say(ALERT, f"bind() to unix:{path} failed ({error.errno}: {error.strerror})")
            sock.close()
            return
        self.controller_socket, self.controller_path = sock, path

    def close_controller_socket(self) -> None:
        if self.controller_socket is not None:
            self.controller_socket.close()
            with contextlib.suppress(OSError):
                os.unlink(self.controller_path)

    def take_pid_file(self) -> None:
        if self.is_successor and os.path.exists(self.pid_path):
            os.rename(self.pid_path, self.pid_path + pidfile.OLD)
        pidfile.write(self.pid_path)
        self.has_pid_file = True

    def wait_for_birth(self) -> bool:
        """Until every worker accepts; False when the conf turned out to be wrong after all."""
        limit = time.monotonic() + START_LIMIT_S
        while not all(child.is_ready for child in self.children):
            if self.is_leaving or not self.children or time.monotonic() > limit:
                self.end_children(TERMINATE)
                return False
            self.wait(limit)
            if self.births:  # it died before it ever worked
                self.end_children(TERMINATE)
                return False
        return True

    def end_children(self, order: str) -> None:
        """Told to leave, then waited for, then killed."""
        self.is_leaving = True
        for child in self.children:
            child.tell(order)
        limit = time.monotonic() + TERMINATE_LIMIT_S
        while self.children and time.monotonic() < limit:
            self.wait(limit)
        for child in self.children:
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGKILL)

    # ---------------------------------------------------------------- births

    def bear(self, kind: str, number: int) -> None:
        """A worker for that slot, or the controller (number -1)."""
        ledger = next(n for n in range(1, 65536) if n not in {it.ledger for it in self.children})
        child = Child(kind, number, self.generation, ledger)
        seat = Seat(number, self.generation.number, self.options, self.log)
        seat.ledger = ledger
        seat.controller_path = self.controller_path
        seat.shared = self.generation.shared
        keep = set()
        if kind == WORKER:
            seat.listeners = self.sockets.of_slot(number, self.generation.keys)
            keep = {fd for _, fd in seat.listeners}
        channel = None
        if kind == CONTROLLER:
            channel = self.replicas.new_channel()
            seat.replicas_fd = channel.fileno()
            if self.controller_socket is not None:
                fd = self.controller_socket.fileno()
                seat.listeners = [(f"unix:{self.controller_path}", fd)]
        try:
            give_birth(child, seat, lambda: self.let_go(keep, kind))
        except OSError as error:
            self.say(ALERT, f"fork() failed ({error.errno}: {error.strerror})")
            self.births.append((time.monotonic() + 1.0, kind, number))
            return
        finally:
            if channel is not None:
                channel.close()
        self.children.append(child)

    def let_go(self, keep: set[int], kind: str) -> None:
        """In a child: what is the master's alone is closed."""
        os.close(self.signals_fd)
        self.sockets.close_but(keep)
        self.replicas.close_in_child()
        for child in self.children:
            child.close()
        if kind == WORKER and self.controller_socket is not None:
            self.controller_socket.close()

    def on_death(self, child: Child, status: int) -> None:
        """Say how it ended, give back what it held, and have it born again if it is missed."""
        self.children.remove(child)
        child.close()
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            self.say(NOTICE, f"{child.kind} {child.pid} exited with code {code}")
        else:
            self.say(ALERT, f"{child.kind} {child.pid} exited on signal {-code}")
        if child is self.successor:
            self.on_successor_gone()
            return
        if child.kind == WORKER:
            on_worker_death(child.generation.zones, child.ledger, child.pid)
        if child.is_leaving or self.is_leaving or child.generation is not self.generation:
            return
        if code == REFUSED:
            self.say(CRIT, f"{child.kind} {child.pid} refused its conf, it is not started again")
            if child.kind == WORKER and not child.is_ready:
                self.births.append((time.monotonic() + MAX_PAUSE_S, child.kind, child.number))
            return
        if self.is_retired and child.kind == WORKER:
            return
        key = (child.kind, child.number)
        is_young = time.monotonic() - child.born_s < SLOW_BIRTH_S
        young = self.deaths[key] = self.deaths.get(key, 0) + 1 if is_young else 0
        pause_s = min(0.01 * 2**young, MAX_PAUSE_S) if young > 1 else 0.0
        self.births.append((time.monotonic() + pause_s, child.kind, child.number))

    # ---------------------------------------------------------------- waiting

    def is_over(self) -> bool:
        return self.is_leaving and not [it for it in self.children if it is not self.successor]

    def wait(self, until_s: float = 0.0) -> None:
        """One turn: whatever comes first of signals, words of children, replicas, times."""
        poll = select.poll()
        poll.register(self.signals_fd, select.POLLIN)
        by_fd = {}
        for child in self.children:
            if child.control is not None:
                by_fd[child.control.fileno()] = child
                poll.register(child.control.fileno(), select.POLLIN)
        channel_fd = self.replicas.channel_fd
        if channel_fd >= 0:
            late = select.POLLOUT if self.replicas.is_waiting_to_write else 0
            poll.register(channel_fd, select.POLLIN | late)
        for fd in self.replicas.pidfds():
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(self.pause_ms(until_s)):
            if fd == self.signals_fd:
                for number in _kernel.read_signals(fd):
                    self.on_signal(number[0] if isinstance(number, tuple) else number)
            elif fd in by_fd:
                self.on_words(by_fd[fd])
            elif fd == channel_fd:
                self.replicas.on_channel()
            elif fd in self.replicas.pidfds():
                self.replicas.on_pidfd(fd)
        self.on_time()

    def pause_ms(self, until_s: float) -> int | None:
        times = [at for at, _, _ in self.births]
        times += [it.terminate_at_s for it in self.children if it.terminate_at_s]
        times += [it.kill_at_s for it in self.children if it.kill_at_s]
        if until_s:
            times.append(until_s)
        if self.is_shrinking:
            times.append(time.monotonic() + DRAINED_TWICE_S)
        if not times:
            return None
        return max(int((min(times) - time.monotonic()) * 1000) + 1, 0)

    def on_time(self) -> None:
        now = time.monotonic()
        due = [it for it in self.births if it[0] <= now]
        self.births = [it for it in self.births if it[0] > now]
        for _, kind, number in due:
            if not self.is_leaving and (number < self.generation.workers):
                self.bear(kind, number)
        for child in self.children:
            if child.terminate_at_s and child.terminate_at_s <= now:
                child.terminate_at_s = 0.0
                child.tell(TERMINATE)
                child.kill_at_s = now + TERMINATE_LIMIT_S
            if child.kill_at_s and child.kill_at_s <= now:
                child.kill_at_s = 0.0
                with contextlib.suppress(OSError):
                    os.kill(child.pid, signal.SIGKILL)
        if self.is_shrinking:
            self.shrink(now)

    def on_words(self, child: Child) -> None:
        """What a child says: it is ready, or it was sent a signal that is ours to obey."""
        if child.control is None:  # it died in this very turn
            return
        for word in child.take():
            if word == READY:
                child.is_ready = True
                self.on_ready()
            elif word == "-":
                child.close()
            elif word == TERMINATE:
                child.tell(TERMINATE)
            elif word == QUIT:
                self.let_leave(child)
            elif word == REOPEN:
                child.tell(REOPEN)

    def let_leave(self, child: Child) -> None:
        """Graceful, with worker_shutdown_timeout for a worker."""
        child.tell(QUIT)
        timeout_ms = child.generation.model.get("worker_shutdown_timeout")
        if child.kind == CONTROLLER:
            child.terminate_at_s = time.monotonic() + CONTROLLER_LIMIT_S
        elif timeout_ms:
            child.terminate_at_s = time.monotonic() + timeout_ms / 1000

    # ---------------------------------------------------------------- signals

    def on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self.reap()
            return
        self.say(NOTICE, f"signal {int(number)} ({signal.Signals(number).name}) received")
        if number in (signal.SIGTERM, signal.SIGINT):
            self.is_leaving = True
            for child in self.children:
                if child is not self.successor:
                    child.tell(TERMINATE)
                    child.kill_at_s = time.monotonic() + TERMINATE_LIMIT_S
            self.end_replicas(signal.SIGTERM)
        elif number == signal.SIGQUIT:
            self.is_leaving = True
            for child in self.children:
                if child is not self.successor:
                    self.let_leave(child)
        elif number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGUSR1:
            self.reopen()
        elif number == signal.SIGUSR2:
            self.exec_successor()
        elif number == signal.SIGWINCH:
            self.is_retired = True
            for child in self.workers():
                self.let_leave(child)

    def workers(self) -> list[Child]:
        return [it for it in self.children if it.kind == WORKER and not it.is_leaving]

    def end_replicas(self, number: int) -> None:
        if self.successor is None:
            self.replicas.signal_own(number)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.pid == pid:
                    self.on_death(child, status)
                    break
            else:
                self.replicas.on_exit(pid, status)

    def reopen(self) -> None:
        self.say(NOTICE, "reopening logs")
        with contextlib.suppress(OSError):
            self.log.reopen()
        for child in self.children:
            if child is not self.successor:
                child.tell(REOPEN)

    # ---------------------------------------------------------------- reload

    def reload(self) -> None:
        """Check, then new workers, then the old ones leave; a bad conf changes nothing."""
        if self.is_retired:  # HUP backs out of an upgrade: the workers come again
            self.is_retired = False
            for number in range(self.generation.workers):
                self.bear(WORKER, number)
            return
        self.say(NOTICE, "reconfiguring")
        lines = check_apart(self.options)
        for level, text in lines:
            self.say(LEVELS.index(level), text)
        if any(level == "emerg" for level, _ in lines):
            return
        before = self.generation
        try:
            self.generation = Generation(read_model(self.options), self.options, before)
            self.open_sockets()
        except ConfError as error:
            self.generation = before
            self.say(EMERG, str(error))
            return
        except Refused as refused:
            self.generation = before
            for level, text in refused.lines:
                self.say(LEVELS.index(level), text)
            return
        except BindError:
            self.generation = before
            return
        for child in self.children:
            child.is_retiring = child.kind == WORKER
        if self.generation.workers < before.workers:
            self.sockets.choose_first(self.generation.workers)
        for number in range(self.generation.workers):
            self.bear(WORKER, number)
        for child in self.children:
            if child.kind == CONTROLLER:
                child.generation = self.generation
                child.tell(RELOAD)

    def on_ready(self) -> None:
        """Once all new workers accept, the old ones may leave."""
        news = [it for it in self.workers() if not it.is_retiring]
        if len(news) < self.generation.workers or not all(it.is_ready for it in news):
            return
        for child in self.workers():
            if not child.is_retiring:
                continue
            if child.number < self.generation.workers:
                self.let_leave(child)
            else:
                self.is_shrinking = True
        if not self.is_shrinking:
            self.sockets.keep(self.generation.keys)

    def shrink(self, now: float) -> None:
        """Fewer workers: the last ones leave when nobody waits in their queues any more."""
        slots = self.generation.workers
        if self.sockets.waiting(slots):
            self.drained_at_s = 0.0
            return
        if not self.drained_at_s:
            self.drained_at_s = now
            return
        if now - self.drained_at_s < DRAINED_TWICE_S:
            return
        self.is_shrinking = False
        self.drained_at_s = 0.0
        for child in self.workers():
            if child.is_retiring:
                self.let_leave(child)
        self.sockets.give_up(slots)
        self.sockets.keep(self.generation.keys)

    # ---------------------------------------------------------------- over to a new executable

    def exec_successor(self) -> None:
        """SIGUSR2: the same command line anew, with our sockets."""
        if self.successor is not None:
            return
        environment, keep = upgrade.hand_on(self.sockets, -1, self.replicas)
        child = Child(NEW_BINARY, -1, self.generation, 0)
        old = self.pid_path + pidfile.OLD
        try:
            os.rename(self.pid_path, old)
        except OSError as error:
            self.say(ALERT, pidfile.failed("rename", self.pid_path, error))
            return
        pid = os.fork()
        if pid == 0:
            try:
                exec_again(environment, keep)
            finally:
                os._exit(1)
        child.pid = pid
        child.is_leaving = True
        self.pid_path, self.own_path = old, self.pid_path
        self.successor = child
        self.children.append(child)
        self.say(NOTICE, f"start new binary process {pid}")

    def on_successor_gone(self) -> None:
        """Back out: the pid file and the sockets are ours again."""
        self.successor = None
        self.sockets.take_back()
        with contextlib.suppress(OSError):
            os.rename(self.pid_path, self.own_path)
        self.pid_path = self.own_path
        if self.is_retired and not self.is_leaving:
            self.reload()


def run_alone(options: Options, generation: Generation, sockets: Sockets) -> int:
    """master_process off: one worker in the process that was started."""
    from _socket import socketpair

    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    seat = Seat(0, 1, options, generation.log)
    seat.ledger = 1
    seat.shared = generation.shared
    seat.listeners = sockets.of_slot(0, generation.keys)
    seat.control_fd = theirs.detach()
    os.set_blocking(seat.control_fd, False)
    pidfile.write(generation.pid_path)

    def on_signal(number: int, _frame: object) -> None:
        orders = {signal.SIGQUIT: QUIT, signal.SIGUSR1: REOPEN}
        ours.send(orders.get(signal.Signals(number), TERMINATE).encode())

    try:
        work(WORKER, generation, seat, lambda _seat: _listen(on_signal))
    finally:
        pidfile.remove(generation.pid_path)
    return 0


def _listen(on_signal: Callable[[int, object], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, on_signal)


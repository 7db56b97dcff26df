"""The master: no loop but poll, no threads, no request. It obeys signals as nginx's master does.

TERM/INT stop, QUIT leaves in good order, HUP reloads, USR1 reopens the logs, USR2 starts a new
executable beside this one, WINCH retires the workers meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from _socket import AF_UNIX, SOCK_STREAM, socket
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from proxy.conf.report import ConfError
from proxy.observe.error_log import ALERT, CRIT, EMERG, NOTICE
from proxy.process import _kernel, children, pidfile, upgrade
from proxy.process.children import CONTROLLER, NEW_BINARY, WORKER, Child, exec_again
from proxy.process.crew import Crew
from proxy.process.generation import (
    Generation,
    Refused,
    check_apart,
    level_of,
    prepare_files,
    read_model,
    socket_path,
)
from proxy.process.replicas import Replicas
from proxy.process.seat import QUIT, REPLACED
from proxy.process.sockets import BindError
from proxy.process.timers import Timers

if TYPE_CHECKING:
    from proxy.process.options import Options
    from proxy.process.sockets import Sockets
    from proxy.process.upgrade import Inheritance

SIGNALS = {
    signal.SIGTERM: "exiting",
    signal.SIGINT: "exiting",
    signal.SIGQUIT: "shutting down",
    signal.SIGHUP: "reconfiguring",
    signal.SIGUSR1: "reopening logs",
    signal.SIGUSR2: "changing binary",
    signal.SIGWINCH: "",
    signal.SIGCHLD: "",
}
LOCK = ".lock"  # behind the name of the controller's socket
REPLICAS_END_S = 5.0
PRELOAD_AFTER_S = 0.5
HOLD_LIMIT_S = 5.0  # by then a new executable has its controller, or has none that asks for ours
REFUSE_AFTER_S = 0.1  # after QUIT: by then the workers have stopped to accept


class Master:
    """Runs once: `run` returns when everybody is gone."""

    def __init__(
        self, options: Options, generation: Generation, sockets: Sockets, left: Inheritance
    ) -> None:
        self.options = options
        self.sockets = sockets
        self.timers = Timers()
        self.replicas = Replicas(
            lambda line: self.crew.generation.log.write(ALERT, line),
            lambda line: self.crew.generation.log.write(NOTICE, line),
        )
        self._first = generation
        self._left = left
        self._is_inherited = not left.is_empty
        self._parent = os.getppid()
        self._elder_fd = -1  # tells the end of the old executable's master
        self._new_binary = 0
        self._is_retired = False  # WINCH: our workers left, the new executable serves
        self._phase = ""  # "quit" or "terminate"
        self._replicas_until_s = 0.0
        controller = self._open_controller_socket(generation)
        lock_fd = self._open_lock(os.fsdecode(controller.getsockname()))
        self.crew = Crew(options, sockets, controller, lock_fd, self.replicas, self.timers)
        self._signal_fd = -1

    def run(self) -> None:
        """Until TERM or QUIT was obeyed. Raises PidFileError when it cannot begin."""
        generation = self._first
        self._signal_fd = _kernel.open_signals(SIGNALS)
        pidfile.write(generation.pid_path)
        _kernel.set_title("headrace: master process")
        with contextlib.suppress(OSError):
            _kernel.become_subreaper()
        if self._left.table_fd >= 0:
            self.replicas.adopt(self._left.table_fd)
        self.crew.own_fds = [self._signal_fd]
        if self._is_inherited:
            with contextlib.suppress(OSError):
                self._elder_fd = os.pidfd_open(self._parent)
                self.crew.own_fds.append(self._elder_fd)
        self.crew.start(generation)
        self.timers.add(PRELOAD_AFTER_S, self._preload)
        while not self._is_done():
            self._wait()
            self.timers.run_due()
        self._end()

    def _preload(self) -> None:
        """Load what workers run, once the first ones are up: the next ones, after a death or a
        reload, then need no import and serve some 80 ms sooner. Nothing of it runs here."""
        with contextlib.suppress(ImportError):
            import_module(children.SERVE)

    def _open_controller_socket(self, generation: Generation) -> socket:
        if self._left.controller_fd >= 0:
            os.set_inheritable(self._left.controller_fd, False)
            return socket(fileno=self._left.controller_fd)
        path = socket_path(generation.pid_path, "controller")
        sock = socket(AF_UNIX, SOCK_STREAM)
        with contextlib.suppress(OSError):
            os.unlink(path)
        try:
            sock.bind(path)
            os.chmod(path, 0o600)
            if generation.user is not None and generation.user.uid:
                os.chown(path, generation.user.uid, generation.user.gid)
        except OSError as error:
            why = f"({error.errno}: {error.strerror})"
            raise Refused([("emerg", f"bind() to unix:{path} failed {why}")]) from None
        sock.setblocking(False)
        sock.listen(512)
        return sock

    def _open_lock(self, path: str) -> int:
        path += LOCK
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            why = f"({error.errno}: {error.strerror})"
            raise Refused([("emerg", f'open() "{path}" failed {why}')]) from None

    # -- waiting --------------------------------------------------------------------------------
    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._signal_fd, select.POLLIN)
        by_fd = {
            child.control.fileno(): child
            for child in self.crew.children.values()
            if child.control is not None
        }
        for fd in [*by_fd, self.replicas.watch_fd]:
            poll.register(fd, select.POLLIN)
        if self._elder_fd >= 0:
            poll.register(self._elder_fd, select.POLLIN)
        channel_fd = self.replicas.channel_fd
        if channel_fd >= 0:
            late = select.POLLOUT if self.replicas.is_waiting_to_write else 0
            poll.register(channel_fd, select.POLLIN | late)
        for fd, _ in poll.poll(self.timers.wait_ms()):
            if fd == self._signal_fd:
                for number, sender in _kernel.read_signals(fd):
                    self._on_signal(signal.Signals(number), sender)
            elif fd in by_fd:
                if by_fd[fd].control is not None:
                    self.crew.on_control(by_fd[fd])
            elif fd == self._elder_fd:
                self._on_elder_end()
            elif fd == channel_fd:
                if self.replicas.channel_fd == fd:
                    self.replicas.on_channel()
            else:
                self.replicas.on_watch()

    # -- signals --------------------------------------------------------------------------------
    def _on_signal(self, number: signal.Signals, sender: int) -> None:
        log = self.crew.generation.log
        action = SIGNALS[number]
        is_ignored = number == signal.SIGUSR2 and self._has_other_master()
        if is_ignored:
            action = "ignoring"
        elif number == signal.SIGWINCH and self._may_retire():
            action = "stop accepting connections"
        log.write(
            NOTICE,
            f"signal {int(number)} ({number.name}) received"
            f"{f' from {sender}' if sender else ''}{f', {action}' if action else ''}",
        )
        if is_ignored:
            log.write(
                CRIT,
                "the changing binary signal is ignored: you should shutdown or terminate "
                "before either old or new binary's process",
            )
            return
        if number == signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._terminate()
        elif number == signal.SIGQUIT:
            self._quit()
        elif self._phase:
            return
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR1:
            self._reopen()
        elif number == signal.SIGUSR2:
            self._change_binary()
        elif number == signal.SIGWINCH and self._may_retire():
            self._retire()

    def _has_other_master(self) -> bool:
        return bool(self._new_binary) or (self._is_inherited and os.getppid() == self._parent)

    def _may_retire(self) -> bool:
        """A terminal that changes its size must not stop a gateway in the foreground."""
        is_daemon = self.crew.generation.model.get("daemon")
        return bool(self._new_binary or self._is_inherited or is_daemon)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.replicas.on_exit(pid, status):
                continue
            child = self.crew.on_exit(pid, status)
            if child is not None and child.kind == NEW_BINARY:
                self._take_back()

    def _terminate(self) -> None:
        if self._phase != "terminate":
            self._phase = "terminate"
            self.crew.is_leaving = True
            self.crew.terminate()

    def _quit(self) -> None:
        if not self._phase:
            self._phase = "quit"
            self.crew.is_leaving = True
            has_other = self._has_other_master()
            if not has_other:
                self.crew.empty()
            # who shares a socket of QUIC must leave it to those of the other executable
            self.crew.dismiss_workers(REPLACED if has_other else QUIT)
            self.timers.add(REFUSE_AFTER_S, lambda: self._refuse(has_other))

    def _refuse(self, has_other: bool) -> None:
        """Listen no more, once each worker had its time to accept who was there."""
        if self.crew.is_starting:
            self.timers.add(REFUSE_AFTER_S, lambda: self._refuse(has_other))
        else:
            self.sockets.close(keep_paths=has_other)

    def _reopen(self) -> None:
        generation = self.crew.generation
        generation.log.write(NOTICE, "reopening logs")
        try:
            generation.log.reopen()
            if generation.user is not None and generation.user.uid:
                generation.log.own(generation.user.uid, generation.user.gid)
        except OSError as error:
            generation.log.write(EMERG, pidfile.failed("open", str(error.filename), error))
        redirect_stderr(generation)
        try:  # workers open their logs as who they are
            prepare_files(generation.model, self.options, generation.user)
        except Refused as refused:
            for level, line in refused.lines:
                generation.log.write(level_of(level), line)
        self.crew.reopen()

    def _reload(self) -> None:
        before = self.crew.generation
        if self._is_retired:  # back out of an upgrade: the workers of this executable return
            self._is_retired = False
            self.crew.start(before)
            return
        before.log.write(NOTICE, "reconfiguring")
        lines = check_apart(self.options)
        try:
            if any(level == "emerg" for level, _ in lines):
                raise Refused([])
            model = read_model(self.options)
            generation = Generation(model, self.options, before)
            self.sockets.open(
                generation.addresses,
                generation.workers,
                lambda line: before.log.write(EMERG, line),
            )
        except (ConfError, Refused, BindError) as error:
            if isinstance(error, ConfError):
                lines.append(("emerg", str(error)))
            elif isinstance(error, Refused):
                lines += error.lines
            say_all(before, lines)
            return
        say_all(generation, lines)
        redirect_stderr(generation)
        self.crew.start(generation)

    # -- upgrade --------------------------------------------------------------------------------
    def _change_binary(self) -> None:
        generation = self.crew.generation
        log, path = generation.log, generation.pid_path
        log.write(NOTICE, "changing binary")
        try:
            os.rename(path, path + pidfile.OLD)
        except OSError as error:
            why = f"({error.errno}: {error.strerror})"
            log.write(
                ALERT,
                f"rename() {path} to {path}{pidfile.OLD} failed {why} "
                "before executing new binary process",
            )
            return
        self.replicas.hold()
        self.timers.add(HOLD_LIMIT_S, self.replicas.obey_held)
        controller_fd = self.crew.controller_socket.fileno()
        environment, keep = upgrade.hand_on(
            self.sockets, generation.post, controller_fd, self.replicas
        )
        try:
            pid = os.fork()
        except OSError as error:
            log.write(ALERT, f"fork() failed ({error.errno}: {error.strerror})")
            self._take_back()
            return
        if pid == 0:
            self._become_new(environment, keep)
        child = Child(NEW_BINARY, -2, generation, 0)
        child.pid = self._new_binary = pid
        child.is_leaving = True  # it is nobody's to replace
        self.crew.children[pid] = child
        self.crew.has_heir = True
        log.write(NOTICE, f"start new binary process {pid}")

    def _become_new(self, environment: dict[str, str], keep: list[int]) -> NoReturn:
        try:
            exec_again(environment, keep)
        except BaseException as error:
            self.crew.generation.log.write(ALERT, f"execve() failed ({error})")
        finally:
            os._exit(1)

    def _take_back(self) -> None:
        """The new executable is gone, or never came: all is ours again."""
        self._new_binary = 0
        self.crew.has_heir = False
        self.replicas.obey_held()
        path = self.crew.generation.pid_path
        try:
            os.rename(path + pidfile.OLD, path)
        except OSError as error:
            self.crew.generation.log.write(
                ALERT,
                f"rename() {path}{pidfile.OLD} back to {path} failed "
                f"({error.errno}: {error.strerror}) after the new binary process exited",
            )
        self.sockets.take_back()
        if self._phase:
            return
        if self._is_retired:
            self._is_retired = False
            self.crew.start(self.crew.generation)
        self.crew.need_controller()

    def _on_elder_end(self) -> None:
        """The old executable is gone: what it shared with us is ours."""
        self.crew.own_fds.remove(self._elder_fd)
        os.close(self._elder_fd)
        self._elder_fd = -1
        self.sockets.take_back()
        self.crew.steer()

    def _retire(self) -> None:
        self._is_retired = True
        self.crew.dismiss_workers(REPLACED)
        controller = self.crew.controller
        if controller is not None:
            controller.tell("q")

    # -- the end --------------------------------------------------------------------------------
    def _is_done(self) -> bool:
        """Workers leave first, since they need the functions; then the controller; then the
        replicas."""
        if not self._phase:
            return False
        kinds = {it.kind for it in self.crew.children.values()}
        if WORKER in kinds:
            return False
        if CONTROLLER in kinds:
            controller = self.crew.controller
            if controller is not None:
                controller.tell("q")
                self.timers.add(REPLICAS_END_S, lambda: self.crew.kill(controller))
            return False
        if not self._has_other_master():
            self.replicas.own_all()
        if self._new_binary:
            self.replicas.end_unlent()
            return True
        if not self.replicas.pids_of_own():
            return True
        if not self._replicas_until_s:
            limit_s = REPLICAS_END_S if self._phase == "quit" else 1.0
            self._replicas_until_s = time.monotonic() + limit_s
            self.replicas.signal_own(signal.SIGTERM)
            self.timers.add(limit_s, lambda: None)
        elif time.monotonic() >= self._replicas_until_s:
            self.replicas.signal_own(signal.SIGKILL)
            self.timers.add(1.0, lambda: None)
        return False

    def _end(self) -> None:
        generation = self.crew.generation
        has_other = self._has_other_master()
        pidfile.remove(generation.pid_path)
        pidfile.remove(generation.pid_path + pidfile.OLD)
        self.sockets.close(keep_paths=has_other)
        if not has_other:
            path = os.fsdecode(self.crew.controller_socket.getsockname())
            for it in (path, path + LOCK):
                with contextlib.suppress(OSError):
                    os.unlink(it)
        generation.log.write(NOTICE, "exit")


def say_all(generation: Generation, lines: list[tuple[str, str]]) -> None:
    """Lines of a report into the error log."""
    for level, line in lines:
        generation.log.write(level_of(level), line)


def redirect_stderr(generation: Generation) -> None:
    """What a fault prints belongs into the error log, as in nginx."""
    if generation.log.fd != 2:
        os.dup2(generation.log.fd, 2)

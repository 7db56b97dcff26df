"""Births: how the master forks a worker or the controller, and what the child does first.

A child comes from fork without exec: it shares the master's memory until it writes to it, and
imports for itself what only it needs (the loop, the fast path).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from _socket import AF_UNIX, SOCK_STREAM, socketpair
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from proxy.conf.report import ConfError
from proxy.observe.error_log import ALERT, EMERG, NOTICE, ErrorLog
from proxy.process import _kernel
from proxy.process.late import import_late
from proxy.process.seat import LEAVING, QUIT, REOPEN, TERMINATE, Seat

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from types import FrameType

    from proxy.process.generation import Generation

WORKER = "worker process"
CONTROLLER = "controller process"
NEW_BINARY = "new binary process"

REFUSED = 3  # exit code of a child that found the conf wrong

# Who works in a child: each has `run(model, seat)`.
SERVE = "proxy.serve"
CONTROL = "proxy.functions.control"

# An order that reaches a worker as a signal goes to the master, who then gives it.
ASKED_BY = {signal.SIGTERM: TERMINATE, signal.SIGQUIT: QUIT, signal.SIGUSR1: REOPEN}
NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGPIPE)


class Child:
    """A worker, the controller or a new executable, as the master sees it."""

    __slots__ = (
        "born_s", "control", "generation", "is_leaving", "is_ready", "is_retiring", "kill_at_s",
        "kind", "ledger", "number", "pid", "terminate_at_s",
    )  # fmt: skip

    def __init__(self, kind: str, number: int, generation: Generation, ledger: int) -> None:
        self.kind = kind
        self.number = number
        self.generation = generation
        self.ledger = ledger
        self.pid = 0
        self.control: socket | None = None
        self.born_s = time.monotonic()
        self.is_ready = False
        self.is_leaving = False
        self.is_retiring = False
        self.terminate_at_s = 0.0
        self.kill_at_s = 0.0

    def tell(self, order: str) -> None:
        """Give an order; a child that died meanwhile does not mind."""
        if order in LEAVING or order == TERMINATE:
            self.is_leaving = True
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.send(order.encode())

    def take(self) -> str:
        """What the child said since; `-` at the end."""
        assert self.control is not None
        try:
            data = self.control.recv(64)
        except BlockingIOError:
            return ""
        except OSError:
            data = b""
        return data.decode("ascii", "replace") or "-"

    def close(self) -> None:
        if self.control is not None:
            self.control.close()
            self.control = None


def give_birth(child: Child, seat: Seat, in_child: Callable[[], None]) -> None:
    """Fork `child`. In it `in_child` lets go of what is the master's, then it works in `seat`.

    Raises OSError when there can be no further process.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    gc.freeze()  # what is here by now need not be copied by a collection in the child
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        status = 1
        try:
            ours.close()
            seat.control_fd = theirs.detach()
            in_child()
            work(child.kind, child.generation, seat)
            status = 0
        except ConfError as error:
            status = REFUSED
            seat.error_log.write(EMERG, str(error))
            with contextlib.suppress(OSError):
                os.write(2, f"headrace: [emerg] {error}\n".encode("utf-8", "replace"))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            _report(seat.error_log, child.kind)
        finally:
            os._exit(status)
    theirs.close()
    child.pid = pid
    child.control = ours
    seat.error_log.write(NOTICE, f"start {child.kind} {pid}")


def _report(log: ErrorLog, kind: str) -> None:
    import traceback

    text = traceback.format_exc().strip()
    log.write(ALERT, f"{kind} failed: {text.splitlines()[-1]}")
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "replace"))


def work(
    kind: str,
    generation: Generation,
    seat: Seat,
    listen: Callable[[Seat], None] | None = None,
) -> None:
    """What a child is for: returns when it may end. Signals and limits are set up first;
    `listen` replaces how signals become orders."""
    _kernel.set_title(f"headrace: {kind}")
    (listen or listen_for_orders)(seat)
    is_worker = kind == WORKER
    if is_worker:
        _set_limits(generation)
        for item in generation.model.get("env"):
            name, equals, value = item.partition("=")
            if equals:
                os.environ[name] = value
    # Imported as root: the interpreter may live where the workers' user cannot read.
    run = _runner(SERVE if is_worker else CONTROL)
    if _gives_up_root(generation):
        import_late(generation, not is_worker)
    _become_user(generation)
    if is_worker and generation.model.get("working_directory"):
        os.chdir(generation.model.get("working_directory"))
    run(generation.model, seat)
    seat.error_log.write(NOTICE, "exit")


def _runner(name: str) -> Callable[..., None]:
    try:
        return import_module(name).run  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if name != CONTROL or error.name != CONTROL:
            raise
        return idle


def idle(model: object, seat: Seat) -> None:
    """A controller with nothing to control: waits for the order to leave."""
    os.set_blocking(seat.control_fd, True)
    seat.tell_ready()
    while True:
        orders = seat.take_orders()
        if QUIT in orders or TERMINATE in orders:
            return


def listen_for_orders(seat: Seat) -> None:
    """Signals to a child, as nginx's workers obey them, through the master."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        seat.ask(ASKED_BY[signal.Signals(number)])

    for number in ASKED_BY:
        signal.signal(number, on_signal)
    for number in NOT_FOR_CHILDREN:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_limits(generation: Generation) -> None:
    import resource

    log, model = generation.log, generation.model
    for name, kind in (
        ("worker_rlimit_nofile", resource.RLIMIT_NOFILE),
        ("worker_rlimit_core", resource.RLIMIT_CORE),
    ):
        value = model.get(name)
        if value is not None:
            try:
                resource.setrlimit(kind, (value, value))
            except (OSError, ValueError) as error:
                log.write(ALERT, f"setrlimit({name}, {value}) failed ({error})")
    priority = model.get("worker_priority")
    if priority:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, priority)
        except OSError as error:
            why = f"({error.errno}: {error.strerror})"
            log.write(ALERT, f"setpriority({priority}) failed {why}")


def _gives_up_root(generation: Generation) -> bool:
    return generation.user is not None and generation.user.uid != 0 and os.geteuid() == 0


def _become_user(generation: Generation) -> None:
    """Give up root. Raises OSError: a worker that cannot must not go on."""
    user = generation.user
    if user is None or os.geteuid() != 0:
        return
    os.setgid(user.gid)
    os.initgroups(user.name, user.gid)
    os.setuid(user.uid)
    if user.uid:
        _kernel.allow_core_dump()


def exec_again(environment: dict[str, str], keep: list[int]) -> NoReturn:
    """Become the same command line anew, with the descriptors in `keep`. Raises OSError."""
    import sys

    for fd in keep:
        os.set_inheritable(fd, True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvpe(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)

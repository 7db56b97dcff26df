"""master_process off: one worker in the very process that was started, for debugging.

HUP reads the conf again by becoming the same command line anew, listening sockets kept.
"""

from __future__ import annotations

import contextlib
import os
import signal
from _socket import AF_UNIX, SOCK_STREAM, socketpair
from importlib import import_module
from typing import TYPE_CHECKING

from proxy.observe.error_log import NOTICE
from proxy.process import children, pidfile, upgrade
from proxy.process.generation import check_apart, level_of
from proxy.process.seat import QUIT, REOPEN, TERMINATE, Seat

if TYPE_CHECKING:
    from types import FrameType

    from proxy.process.generation import Generation
    from proxy.process.options import Options
    from proxy.process.sockets import Sockets

ORDERS = {
    signal.SIGTERM: TERMINATE,
    signal.SIGINT: TERMINATE,
    signal.SIGQUIT: QUIT,
    signal.SIGUSR1: REOPEN,
}


def run_alone(options: Options, generation: Generation, sockets: Sockets) -> None:
    """Serve until TERM, INT or QUIT. Raises PidFileError."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    seat = Seat(0, generation.number, options, generation.log)
    seat.control_fd = theirs.fileno()
    seat.listeners = sockets.of_slot(0, generation.keys)
    seat.shared = generation.shared
    seat.post, seat.quic_number = generation.post, generation.post.number_of(seat.ledger)
    is_again = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            ours.send(ORDERS[signal.Signals(number)].encode())

    def on_hangup(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_again
        lines = check_apart(options)
        for level, line in lines:
            generation.log.write(level_of(level), line)
        if not any(level == "emerg" for level, _ in lines):
            is_again = True
            ours.send(QUIT.encode())

    for number in ORDERS:
        signal.signal(number, on_signal)
    signal.signal(signal.SIGHUP, on_hangup)
    for number in (signal.SIGUSR2, signal.SIGWINCH, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    pidfile.write(generation.pid_path)
    import_module(children.SERVE).run(generation.model, seat)
    if is_again:
        children.exec_again(*upgrade.hand_on(sockets, generation.post, -1, None))
    pidfile.remove(generation.pid_path)
    sockets.close()
    generation.log.write(NOTICE, "exit")
    os.close(theirs.detach())

"""A child's seat: all that the master hands to a worker or to the controller at its birth.

The control socket carries orders down (one byte each) and, up, `k` for "ready" and the orders
that somebody sent to the child as a signal: the master alone decides who leaves, so it asks for
them. End of file on it says that the master is gone: that is an order to leave in good order.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from proxy.observe.error_log import NOTICE, WARN
from proxy.process._kernel import set_title

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.observe.error_log import ErrorLog
    from proxy.process.options import Options
    from proxy.process.post import Post

EMPTY = "e"  # accept who waits in the queues, then no more: nobody comes after us
QUIT = "q"  # finish what is running, then leave
REPLACED = "p"  # the same, for another one has this place now
RETIRED = "g"  # the same, and nobody has this place any more
TERMINATE = "t"  # leave now
REOPEN = "r"  # open the logs anew
RELOAD = "h"  # controller alone: there is a new conf, `Seat.load` has it
READY = "k"
LEAVING = frozenset(QUIT + REPLACED + RETIRED)


class Seat:
    """What one child needs to work.

    number         worker slot, 0 …; -1 for the controller
    ledger         a small number no other living worker has, 1 …: what is taken in shared memory
                   stands under it. The old and the new worker of one slot live side by side
                   during a reload, and each counts what it holds
    generation     counts reloads, from 1
    listeners      (address key, descriptor); the controller has its own Unix socket there
    control_fd     see above; `take_orders` reads it, `tell_ready` writes it
    controller_path  where the controller listens (a Unix socket)
    internal_path  where all workers listen for what the controller calls (a Unix socket), while
                   the conf has functions
    shared         name → descriptor of a zone of shared memory
    bells          an eventfd for each ledger: by it one worker wakes another
    post           what workers of QUIC share: mailboxes for datagrams that came to another worker
                   than whose connection they belong to, and a key
    quic_number    whose mailbox is whose: no other living worker has it, of either executable
    replicas_fd    controller alone: the channel of replicas.py, else -1
    lock_fd        controller alone: one of this gateway acts at a time, who holds a lock on it
    is_successor   controller alone: another one was there before it
    prefix         directory of -p, with a slash at its end
    """

    __slots__ = (
        "bells", "control_fd", "controller_path", "error_log", "generation", "internal_path",
        "is_successor", "ledger", "listeners", "lock_fd", "number", "options", "post",
        "prefix", "quic_number", "replicas_fd", "shared", "_is_leaving",
    )  # fmt: skip

    def __init__(self, number: int, generation: int, options: Options, log: ErrorLog) -> None:
        self.number = number
        self.ledger = 0
        self.generation = generation
        self.options = options
        self.prefix = options.prefix
        self.error_log = log
        self.ledger = 1
        self.listeners: list[tuple[str, int]] = []
        self.control_fd = -1
        self.controller_path = ""
        self.internal_path = ""
        self.shared: dict[str, int] = {}
        self.bells: list[int] = []
        self.post: Post | None = None
        self.quic_number = 0
        self.replicas_fd = -1
        self.lock_fd = -1
        self.is_successor = False
        self._is_leaving = False

    def open_counters(self) -> Any:
        """Counters of one's own, for who is no worker; None where nothing is counted."""
        from proxy.base._shm import Zone
        from proxy.observe._counters import open_counters
        from proxy.observe.zones import ZONE

        if ZONE not in self.shared:
            return None
        try:
            return open_counters(Zone.attach(self.shared[ZONE]))
        except ValueError as error:  # every block is taken
            self.error_log.write(WARN, str(error))
            return None

    def tell_ready(self) -> None:
        """Accepting now: the master may retire whoever sat here before."""
        self._tell(READY)

    def ask(self, order: str) -> None:
        """Somebody sent this process a signal that means `order`."""
        self._tell(order)

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self.control_fd, text.encode())

    def take_orders(self) -> str:
        """The orders that came, each a letter above; call it when control_fd can be read.

        Writes the notices that nginx writes, and the title of a leaving process. An order to
        quit comes once.
        """
        try:
            data = os.read(self.control_fd, 64)
        except BlockingIOError:
            return ""
        except OSError:
            data = b""
        orders = data.decode("ascii", "replace") or QUIT
        is_quit = bool(set(orders) & LEAVING)
        if REOPEN in orders:
            self.reopen_log()
        if TERMINATE in orders:
            self.error_log.write(NOTICE, "exiting")
        elif is_quit:
            if self._is_leaving:
                return "".join(it for it in orders if it not in LEAVING)
            self._is_leaving = True
            self.error_log.write(NOTICE, "gracefully shutting down")
            who = "controller" if self.number < 0 else "worker"
            set_title(f"headrace: {who} process is shutting down")
        return orders

    def reopen_log(self) -> None:
        self.error_log.write(NOTICE, "reopening logs")
        with contextlib.suppress(OSError):
            self.error_log.reopen()

    def load(self) -> Block:
        """The conf as it is now; the master has checked it. Raises ConfError."""
        from proxy.conf import load

        self.generation += 1
        return load(self.options.conf_path, self.options.prefix, self.options.globals)

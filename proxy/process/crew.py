"""The crew: the workers and the controller, from birth over handing on to death.

A reload starts the workers of the new generation first; when all of them are ready the old ones
are told to leave. Who dies unasked is born again at once, and slower each time if it keeps dying
at birth.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from proxy.observe.error_log import ALERT, DEBUG, NOTICE
from proxy.process import zones
from proxy.process.children import CONTROLLER, NEW_BINARY, WORKER, Child, give_birth
from proxy.process.seat import (
    EMPTY,
    QUIT,
    READY,
    RELOAD,
    REOPEN,
    REPLACED,
    RETIRED,
    TERMINATE,
    Seat,
)

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from proxy.process.generation import Generation
    from proxy.process.options import Options
    from proxy.process.replicas import Replicas
    from proxy.process.sockets import Sockets
    from proxy.process.timers import Timers

# Called with the slot of a worker that died unasked or left. Rooms that keep something by slot
# and not in a zone add theirs here.
on_worker_death: list[Callable[[int], None]] = []

EARLY_DEATH_S = 1.0
SLOWEST_BIRTH_S = 5.0
HANDSHAKE_S = 1.0  # a SYN may have chosen a slot before the filter came
DRAIN_STEP_S = 0.05
DRAIN_LIMIT_S = 5.0
CLOSE_AFTER_S = 0.5  # a worker that was told to leave has closed its listeners by then
GRACE_S = 2.0  # from the order to terminate to the kill


class Crew:
    """All children of the master but replicas, and the one generation in force."""

    def __init__(
        self,
        options: Options,
        sockets: Sockets,
        controller_socket: socket,
        lock_fd: int,
        replicas: Replicas,
        timers: Timers,
    ) -> None:
        self.options = options
        self.sockets = sockets
        self.controller_socket = controller_socket
        self.lock_fd = lock_fd
        self.replicas = replicas
        self.timers = timers
        self.generation: Generation
        self.children: dict[int, Child] = {}
        self.own_fds: list[int] = []  # of the master; a child closes them
        self.is_leaving = False  # nobody is born again
        self.has_heir = False  # a new executable runs: its controller is the one
        self._deaths: dict[int, int] = {}  # slot → deaths at birth in a row
        self._had_controller = False
        self._slots = 0  # that clients of QUIC begin in
        self._is_handing_on = False

    # -- births ---------------------------------------------------------------------------------
    def start(self, generation: Generation) -> None:
        """`generation` is in force from now on; its workers are born, and whoever lacks."""
        self.generation = generation
        self._is_handing_on = True
        self._deaths = {}
        self._slots = self._slots or generation.workers
        self.generation.log.write(NOTICE, "start worker processes")
        for number in range(generation.workers):
            self._bear(WORKER, number, generation)
        if self.controller is not None:
            self.controller.tell(RELOAD)
        self.need_controller()

    def need_controller(self) -> None:
        """There shall be one, here or in the new executable."""
        if self.controller is None and not self.has_heir and not self.is_leaving:
            self._bear(CONTROLLER, -1, self.generation)

    @property
    def controller(self) -> Child | None:
        for child in self.children.values():
            if child.kind == CONTROLLER and not child.is_leaving:
                return child
        return None

    @property
    def workers(self) -> list[Child]:
        return [it for it in self.children.values() if it.kind == WORKER]

    def _bear(self, kind: str, number: int, generation: Generation) -> None:
        taken = {it.ledger for it in self.workers}
        ledger = next(it for it in range(len(taken) + 1) if it not in taken)
        child = Child(kind, number, generation, ledger)
        seat = Seat(number, generation.number, self.options, generation.log)
        seat.shared = generation.shared
        seat.ledger = ledger
        seat.bells = generation.bells
        seat.post, seat.quic_number = generation.post, generation.post.number_of(ledger)
        seat.controller_path = os.fsdecode(self.controller_socket.getsockname())
        seat.internal_path = generation.internal_path
        channel = None
        if kind == WORKER:
            seat.listeners = self.sockets.of_slot(number, generation.keys)
        else:
            channel = self.replicas.new_channel()
            seat.replicas_fd, seat.lock_fd = channel.fileno(), self.lock_fd
            seat.is_successor, self._had_controller = self._had_controller, True
            fd = self.controller_socket.fileno()
            seat.listeners = [(f"unix:{seat.controller_path}", fd)]

        def in_child() -> None:
            self.let_go(seat)
            if channel is not None:
                channel.detach()

        try:
            give_birth(child, seat, in_child)
        except OSError as error:
            generation.log.write(ALERT, f"fork() failed ({error.errno}: {error.strerror})")
            self.timers.add(SLOWEST_BIRTH_S, lambda: self._bear_again(kind, number, generation))
            return
        finally:
            if channel is not None:
                channel.close()
        self.children[child.pid] = child
        self.steer()

    def steer(self) -> None:
        """The kernel learns whose datagrams are whose."""
        number_of = self.generation.post.number_of
        owners = [(number_of(it.ledger), it.number) for it in self.workers]
        self.sockets.steer(owners, self._slots)

    def let_go(self, seat: Seat) -> None:
        """In a child: close what belongs to the master or to other children."""
        for child in self.children.values():
            child.close()
        for fd in self.own_fds:
            os.close(fd)
        self.replicas.close_in_child()
        keep = {fd for _, fd in seat.listeners}
        self.sockets.close_but(keep)
        if seat.replicas_fd >= 0:
            self.controller_socket.detach()
        else:
            self.controller_socket.close()
            os.close(self.lock_fd)

    def _bear_again(self, kind: str, number: int, generation: Generation) -> None:
        """The successor of one that died, if the seat still exists."""
        if self.is_leaving:
            return
        if kind == CONTROLLER:
            self.need_controller()
            return
        if generation is not self.generation and not self._is_handing_on:
            return
        self._bear(kind, number, generation)

    # -- what children say ----------------------------------------------------------------------
    def on_control(self, child: Child) -> None:
        """A child said something on its control socket."""
        for letter in child.take():
            if letter == READY:
                child.is_ready = True
                self._hand_on()
            elif letter in (QUIT, TERMINATE):
                # As in nginx a worker that leaves on somebody's signal gets a successor.
                is_first = not child.is_leaving
                child.tell(letter)
                if is_first and not self.is_leaving and child.kind == WORKER:
                    self._bear_again(WORKER, child.number, child.generation)
            elif letter == REOPEN:
                child.tell(REOPEN)
            elif letter == "-":
                child.close()
                return

    def _hand_on(self) -> None:
        """All new workers are ready: the old ones may go."""
        ready = {
            it.number
            for it in self.workers
            if it.generation is self.generation and it.is_ready and not it.is_leaving
        }
        if not self._is_handing_on or len(ready) < self.generation.workers:
            return
        self._is_handing_on = False
        count = self._slots = self.generation.workers
        self.steer()
        for child in self.workers:
            if child.generation is not self.generation and not child.is_leaving:
                if child.number < count:
                    self.dismiss(child, REPLACED)
                else:
                    child.is_retiring = True
        self.timers.add(CLOSE_AFTER_S, self._close_unwanted)
        if self.sockets.slots > count:
            self.sockets.choose_first(count)
            generation = self.generation
            until_s = time.monotonic() + DRAIN_LIMIT_S
            self.timers.add(HANDSHAKE_S, lambda: self._drain(generation, until_s))

    def _close_unwanted(self) -> None:
        if not self._is_handing_on and not self.is_leaving:
            self.sockets.keep(self.generation.keys)

    def _drain(self, generation: Generation, until_s: float) -> None:
        """Slots are given up: wait until the workers in them have accepted all."""
        if generation is not self.generation:
            return  # the next generation decides anew
        if self.sockets.waiting(generation.workers) and time.monotonic() < until_s:
            self.timers.add(DRAIN_STEP_S, lambda: self._drain(generation, until_s))
            return
        for child in self.workers:
            if child.is_retiring and not child.is_leaving:
                self.dismiss(child, RETIRED)
        self.timers.add(CLOSE_AFTER_S, lambda: self._give_up(generation))

    def _give_up(self, generation: Generation) -> None:
        if generation is self.generation and not self.is_leaving:
            self.sockets.give_up(generation.workers)

    # -- deaths ---------------------------------------------------------------------------------
    def dismiss(self, child: Child, order: str = QUIT) -> None:
        """Tell `child` to leave in good order; with worker_shutdown_timeout not for ever."""
        if child.is_leaving:
            return
        child.tell(order)
        limit_ms = child.generation.model.get("worker_shutdown_timeout")
        if limit_ms and child.kind == WORKER:
            self.timers.add(limit_ms / 1000, lambda: self._insist(child))

    def _insist(self, child: Child) -> None:
        if self.children.get(child.pid) is child:
            child.tell(TERMINATE)
            self.timers.add(GRACE_S, lambda: self.kill(child))

    def kill(self, child: Child) -> None:
        """The end for one that does not obey."""
        if self.children.get(child.pid) is child:
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGKILL)

    def dismiss_workers(self, order: str = QUIT) -> None:
        """REPLACED: those of another executable serve."""
        for child in self.workers:
            self.dismiss(child, order)

    def empty(self) -> None:
        """Workers accept who has connected: sockets that close reset whoever is in their queue."""
        for child in self.workers:
            child.tell(EMPTY)

    @property
    def is_starting(self) -> bool:
        """Is there a worker that does not accept yet?"""
        return any(not it.is_ready for it in self.workers)

    def terminate(self) -> None:
        """Everybody leaves now; who has not within a second is killed."""
        for child in list(self.children.values()):
            if child.kind != NEW_BINARY:
                child.tell(TERMINATE)
                self.timers.add(1.0, lambda child=child: self.kill(child))  # type: ignore[misc]

    def reopen(self) -> None:
        for child in self.children.values():
            if child.kind != NEW_BINARY:
                child.tell(REOPEN)

    def on_exit(self, pid: int, status: int) -> Child | None:
        """A process ended. The child it was, or None; its seat is filled again if need be."""
        child = self.children.pop(pid, None)
        log = self.generation.log
        kind = child.kind if child is not None else "unknown process"
        code = os.waitstatus_to_exitcode(status)
        if child is None:
            log.write(DEBUG, f"{kind} {pid} exited with code {code}")
            return None
        if code < 0:
            core = " (core dumped)" if os.WCOREDUMP(status) else ""
            log.write(ALERT, f"{kind} {pid} exited on signal {-code}{core}")
        else:
            log.write(NOTICE, f"{kind} {pid} exited with code {code}")
        child.close()
        if child.kind == WORKER:
            self._settle(child)
        if child.kind != NEW_BINARY and not child.is_leaving and not self.is_leaving:
            self._replace(child)
        self._forget(child.generation)
        return child

    def _settle(self, child: Child) -> None:
        """Nothing that a dead worker held stays taken."""
        try:
            generation = child.generation
            zones.on_worker_death(
                generation.zones, child.ledger, child.pid, generation.bells
            )
            for hook in on_worker_death:
                hook(child.number)
        except Exception as error:  # a broken zone must not take the master along
            child.generation.log.write(ALERT, f"settling for {child.pid} failed: {error!r}")

    def _replace(self, child: Child) -> None:
        is_early = time.monotonic() - child.born_s < EARLY_DEATH_S
        deaths = self._deaths[child.number] = (
            self._deaths.get(child.number, 0) + 1 if is_early else 0
        )
        if deaths < 2:
            self._bear_again(child.kind, child.number, child.generation)
            return
        delay_s = min(0.1 * 2.0 ** min(deaths - 2, 10), SLOWEST_BIRTH_S)
        self.timers.add(
            delay_s, lambda: self._bear_again(child.kind, child.number, child.generation)
        )

    def _forget(self, generation: Generation) -> None:
        """Close the log of a generation that nobody lives in any more."""
        if generation is self.generation:
            return
        if all(it.generation is not generation for it in self.children.values()):
            generation.log.close()

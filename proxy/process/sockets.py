"""The listening sockets: owned by the master, one a worker slot and address (SO_REUSEPORT).

A worker inherits the sockets of its slot at fork; its successor inherits the same ones, so that a
reload or a death resets no connection that waits in an accept queue. A slot that is given up
(fewer workers) is first no longer chosen by the kernel, then drained by the worker that has it,
then closed. A Unix socket has no SO_REUSEPORT: all slots share one. A UDP socket (QUIC) has no
queue of clients: what it gets is passed on to whose it is by the workers themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from _socket import (
    AF_INET6,
    AF_UNIX,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_RECVPKTINFO,
    IPV6_V6ONLY,
    SHUT_RD,
    SO_KEEPALIVE,
    SO_RCVBUF,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_DEFER_ACCEPT,
    TCP_FASTOPEN,
    TCP_INFO,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    socket,
)
from typing import TYPE_CHECKING, Any

from proxy.engine.listen import UDP
from proxy.process import _kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.engine.listen import Address

TRIES = 5
PAUSE_S = 0.5
UNACKED_AT = 24  # tcp_info.tcpi_unacked: for a listening socket, those that wait in its queue
INFO_BYTES = 32
IP_PKTINFO = 8  # linux/in.h


class BindError(Exception):
    """An address that cannot be had; worded as nginx: `bind() to ADDRESS failed (98: …)`."""


class Held:
    """One address: its sockets by slot (one alone for a Unix socket). `is_lent` says that
    another master, the old or the new executable, has these very sockets too."""

    __slots__ = ("family", "is_lent", "sockaddr", "sockets")

    def __init__(self, family: int, sockaddr: Any) -> None:
        self.family = family
        self.sockaddr = sockaddr
        self.sockets: list[socket] = []
        self.is_lent = False

    @property
    def is_udp(self) -> bool:
        """QUIC's, whose connections the kernel does not know."""
        return bool(self.sockets) and self.sockets[0].type == SOCK_DGRAM

    @property
    def is_tcp(self) -> bool:
        return self.family != AF_UNIX and not self.is_udp


class Sockets:
    """All that the master listens on. Keys are addresses as in `Address.key`."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._kept: list[Held] = []  # closed, but the other master listens there
        self._chosen = 0  # the kernel chooses among the first so many slots; 0: among all

    def adopt(self, fd: int, slot: int) -> None:
        """Take over a listening socket that the old executable left to us. Raises OSError."""
        sock = socket(fileno=fd)
        os.set_inheritable(fd, False)
        key, name = key_of(sock)
        held = self._held.setdefault(key, Held(sock.family, name))
        held.is_lent = True
        while len(held.sockets) <= slot:
            held.sockets.append(sock)  # a hole cannot be: slots are handed over in order
        held.sockets[slot] = sock

    def lend(self) -> list[tuple[int, int]]:
        """All (fd, slot), to hand to a new executable."""
        pairs = []
        for held in self._held.values():
            held.is_lent = True
            pairs += [(sock.fileno(), slot) for slot, sock in enumerate(held.sockets)]
        return pairs

    def take_back(self) -> None:
        """The new executable is gone: the sockets are ours alone, and all are chosen again."""
        for held in self._held.values():
            held.is_lent = False
        self.choose_any()

    def open(self, addresses: list[Address], slots: int, say: Callable[[str], None]) -> None:
        """Listen on each address in each slot, where we do not already. All or nothing.

        `say` gets a line for each failed try. Raises BindError.
        """
        self._probe([it for it in addresses if it.key not in self._held], say)
        if self._chosen and self._chosen != slots:
            self.choose_any()
        fresh: list[tuple[str, socket]] = []
        try:
            for address in addresses:
                held = self._held.get(address.key)
                if held is None:
                    held = self._held[address.key] = Held(address.family, address.sockaddr)
                wanted = 1 if address.family == AF_UNIX else slots
                while len(held.sockets) < wanted:
                    sock = _bound(address)
                    fresh.append((address.key, sock))
                    held.sockets.append(sock)
                for sock in held.sockets:
                    _set_options(sock, address)
                    if not address.is_quic:
                        sock.listen(address.options.backlog)
        except OSError as error:
            self._undo(fresh)
            line = f"bind() to {address.key} failed ({error.errno}: {error.strerror})"
            say(line)
            raise BindError(line) from None

    def _undo(self, fresh: list[tuple[str, socket]]) -> None:
        for key, sock in reversed(fresh):
            self._held[key].sockets.remove(sock)
            if sock.family == AF_UNIX:
                _unlink(self._held[key])
            sock.close()
        for key in [key for key, held in self._held.items() if not held.sockets]:
            del self._held[key]

    def _probe(self, addresses: list[Address], say: Callable[[str], None]) -> None:
        """SO_REUSEPORT would share an address with whoever of the same user has it too, in
        silence. A bind without it tells, as it tells nginx; a taken address is tried again."""
        ours = {
            (held.sockaddr[1], key.endswith(UDP))
            for key, held in self._held.items()
            if held.family != AF_UNIX
        }
        left = [
            it
            for it in addresses
            if it.family != AF_UNIX and (it.sockaddr[1], it.is_quic) not in ours
        ]
        for attempt in range(TRIES):
            taken = []
            for address in left:
                error = probe(address)
                if error is None:
                    continue
                say(f"bind() to {address.key} failed ({error.errno}: {error.strerror})")
                if error.errno != errno.EADDRINUSE:
                    raise BindError(f"bind() to {address.key} failed")
                taken.append(address)
            if not taken:
                return
            left = taken
            if attempt < TRIES - 1:
                time.sleep(PAUSE_S)
        say("still could not bind()")
        raise BindError("still could not bind()")

    def keep(self, keys: set[str]) -> None:
        """Close every address but these.

        shutdown() refuses new clients at once; a leaving worker may hold the descriptor for long.
        """
        for key in [key for key in self._held if key not in keys]:
            held = self._held.pop(key)
            if not held.is_lent:
                _unlink(held)
            for sock in held.sockets:
                if not held.is_lent and not held.is_udp:
                    with contextlib.suppress(OSError):
                        sock.shutdown(SHUT_RD)
                sock.close()

    def of_slot(self, slot: int, keys: set[str]) -> list[tuple[str, int]]:
        """(key, descriptor) of each address in `keys`, for the worker in that slot."""
        found = []
        for key, held in self._held.items():
            if key in keys:
                number = 0 if held.family == AF_UNIX else slot
                if number < len(held.sockets):
                    found.append((key, held.sockets[number].fileno()))
        return found

    @property
    def slots(self) -> int:
        """How many slots have sockets."""
        counts = [len(it.sockets) for it in self._held.values() if it.family != AF_UNIX]
        return max(counts, default=0)

    def choose_first(self, slots: int) -> None:
        """From now on new connections go to the first `slots` slots alone."""
        self._chosen = slots
        for held in self._held.values():
            if held.is_tcp and len(held.sockets) > slots:
                _kernel.choose_first(held.sockets[0].fileno(), slots)

    def steer(self, owners: list[tuple[int, int]], slots: int) -> None:
        """QUIC's datagrams go to whose they are: (ledger number, slot) of each worker. Beginnings
        go to the first `slots` slots. A short cut alone: workers pass on what comes astray."""
        for held in self._held.values():
            if held.is_udp and not held.is_lent:
                with contextlib.suppress(OSError):
                    _kernel.steer(held.sockets[0].fileno(), owners, slots)

    def choose_any(self) -> None:
        """Undo `choose_first`."""
        self._chosen = 0
        for held in self._held.values():
            if held.is_tcp and held.sockets:
                _kernel.choose_any(held.sockets[0].fileno())

    def waiting(self, slots: int) -> int:
        """Connections that wait to be accepted in the slots from `slots` on."""
        count = 0
        for held in self._held.values():
            if held.is_tcp:
                count += sum(_waiting(sock) for sock in held.sockets[slots:])
        return count

    def give_up(self, slots: int) -> None:
        """Close the slots from `slots` on; they have been drained.

        shutdown() ends the listening whoever else has the descriptor, so that the places in the
        group move in an order that we know: from the last on.
        """
        for held in self._held.values():
            if held.family == AF_UNIX:
                continue
            while len(held.sockets) > slots:
                sock = held.sockets.pop()
                if not held.is_lent and not held.is_udp:
                    with contextlib.suppress(OSError):
                        sock.shutdown(SHUT_RD)
                sock.close()
            if held.sockets and not held.is_lent and not held.is_udp:
                _kernel.choose_any(held.sockets[0].fileno())
        self._chosen = 0

    def close(self, *, keep_paths: bool = False) -> None:
        """Stop listening; with `keep_paths` Unix sockets keep their names (somebody has them)
        until this is called without."""
        if keep_paths:
            self._kept += self._held.values()
        for held in self._held.values():
            held.is_lent = held.is_lent or keep_paths
        self.keep(set())
        if not keep_paths:
            for held in self._kept:
                _unlink(held)

    def close_but(self, keep: set[int]) -> None:
        """In a child: forget all descriptors but these."""
        for held in self._held.values():
            for sock in held.sockets:
                if sock.fileno() in keep:
                    sock.detach()
                else:
                    sock.close()
        self._held = {}


def probe(address: Address) -> OSError | None:
    """Could `address` be had? None, or why not."""
    if address.family == AF_UNIX:
        return None
    try:
        sock = socket(address.family, SOCK_DGRAM if address.is_quic else SOCK_STREAM)
        try:
            if not address.is_quic:  # two of UDP could both have it
                sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            if address.family == AF_INET6:
                sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, address.options.is_ipv6_only)
            sock.bind(address.sockaddr)
        finally:
            sock.close()
    except OSError as error:
        return error
    return None


def key_of(sock: socket) -> tuple[str, Any]:
    """The key of a listening socket, and the address as bind takes it."""
    name = sock.getsockname()
    if sock.family == AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:{path}", path
    host, port = name[0], name[1]
    key = f"[{host}]:{port}" if sock.family == AF_INET6 else f"{host}:{port}"
    return key + (UDP if sock.type == SOCK_DGRAM else ""), (host, port)


def _bound(address: Address) -> socket:
    sock = socket(address.family, SOCK_DGRAM if address.is_quic else SOCK_STREAM)
    try:
        sock.setblocking(False)
        if address.family == AF_UNIX:
            _remove_stale(address.sockaddr)
            sock.bind(address.sockaddr)
            owner = address.options.owner
            os.chmod(address.sockaddr, 0o666 if owner is None else 0o600)
            if owner is not None and owner[0] != os.getuid():
                os.chown(address.sockaddr, *owner)
            return sock
        if not address.is_quic:
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        if address.family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, address.options.is_ipv6_only)
        if address.is_quic:  # from the first datagram on: which address of ours it came to
            sock.setsockopt(
                *((IPPROTO_IPV6, IPV6_RECVPKTINFO) if sock.family == AF_INET6 else
                  (IPPROTO_IP, IP_PKTINFO)), 1,
            )  # fmt: skip
        sock.bind(address.sockaddr)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """A Unix socket that nobody listens on any more (its owner was killed) may be replaced."""
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass  # not there; or bind tells what is wrong
    finally:
        sock.close()


def _set_options(sock: socket, address: Address) -> None:
    options = address.options
    if options.receive_bytes is not None:
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, options.receive_bytes)
    if options.send_bytes is not None:
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, options.send_bytes)
    if address.family == AF_UNIX or address.is_quic:
        return
    if options.keepalive is not None:
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, options.keepalive)
    for name, value in (
        (TCP_KEEPIDLE, options.keep_idle_s),
        (TCP_KEEPINTVL, options.keep_interval_s),
        (TCP_KEEPCNT, options.keep_count),
    ):
        if value:
            sock.setsockopt(IPPROTO_TCP, name, value)
    if options.fastopen is not None:
        sock.setsockopt(IPPROTO_TCP, TCP_FASTOPEN, options.fastopen)
    sock.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, options.is_deferred)


def _waiting(sock: socket) -> int:
    try:
        info = sock.getsockopt(IPPROTO_TCP, TCP_INFO, INFO_BYTES)
    except OSError:
        return 0
    return int.from_bytes(info[UNACKED_AT : UNACKED_AT + 4], "little")


def _unlink(held: Held) -> None:
    if held.family == AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(held.sockaddr)

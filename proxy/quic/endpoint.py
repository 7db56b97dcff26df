"""One UDP address of one worker: datagrams find their connection, or the worker that has it.

Reads what came, at most READ_AT_ONCE at a time, and writes what its connections have to send
once for all of them. Connections that nobody here knows are begun, with a Retry first while many
handshakes are under way, and refused when there are too many.
"""

from __future__ import annotations

import contextlib
import time
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_PKTINFO,
    SOL_UDP,
    inet_ntop,
    socket,
)
from typing import TYPE_CHECKING, Any

from proxy.quic.engine import Code
from proxy.quic.ids import read_beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.quic.engine import Address, Client, Connection, Engine, Settings
    from proxy.quic.ids import Ids
    from proxy.quic.mailbox import Mailboxes

READ_AT_ONCE = 64  # datagrams: then others have their turn
MOST_BYTES = 65536  # of a datagram
LEAST_INITIAL = 1200  # what is shorter begins no connection (RFC 9000 §14.1)
LEAST_WAIT_S = 0.001  # the loop's clock has milliseconds: a sooner deadline would spin
RETRY_FROM = 64  # handshakes under way: from here on addresses are validated first
MOST_HANDSHAKES = 512  # more are not begun: a handshake costs milliseconds and 100 KB
UDP_SEGMENT = 103  # linux/udp.h
IP_PKTINFO = 8  # linux/in.h
ANCILLARY_BYTES = 64  # room for one of IPv6
SEGMENTS, SEGMENTS_BYTES = 64, 65000  # that the kernel cuts at once (UDP_MAX_SEGMENTS)


class Endpoint:
    """`fd` is ours from now on. `begin` makes the worker's Client of a finished handshake."""

    def __init__(
        self,
        loop: Any,
        fd: int,
        key: str,
        settings: Settings,
        engine: Engine,
        ids: Ids,
        mailboxes: Mailboxes,
        begin: Callable[[Connection, Address, int, str], Client],
    ) -> None:
        self.loop = loop
        self.key = key
        self.settings = settings
        self.engine = engine
        self.ids = ids
        self.mailboxes = mailboxes
        self.begin = begin
        self.sock = socket(fileno=fd)
        self.sock.setblocking(False)
        self.by_id: dict[bytes, Connection] = {}
        self.ids_of: dict[Connection, set[bytes]] = {}
        self.handshakes: set[Connection] = set()
        self.dirty: dict[Connection, None] = {}
        self.is_accepting = True
        self.is_flushing = False
        self.room = memoryview(bytearray(MOST_BYTES))
        # an answer must come from the address that was asked; who bound the socket let it tell
        self.is_wild = self.sock.getsockname()[0] in ("0.0.0.0", "::")
        mailboxes.open(key, self.take)
        loop.add_reader(self.sock.fileno(), self.on_readable)

    # -- in -------------------------------------------------------------------------------------
    def on_readable(self) -> None:
        for _ in range(READ_AT_ONCE):
            local = b""
            try:
                if self.is_wild:
                    count, more, _, address = self.sock.recvmsg_into([self.room], ANCILLARY_BYTES)
                    local = local_of(more)
                else:
                    count, address = self.sock.recvfrom_into(self.room)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error of an earlier datagram
            self.take(bytes(self.room[:count]), address, local, False)
        self.flush()

    def take(self, data: bytes, address: Address, local: bytes, is_forwarded: bool) -> None:
        """One datagram. local: which address of ours it came to, where that is not plain. A
        forwarded one came to another worker, and is not forwarded again."""
        beginning = read_beginning(data)
        if beginning is None:
            return
        now_s = time.monotonic()
        connection = self.by_id.get(beginning.target)
        if connection is None:
            owner = self.ids.owner_of(beginning.target)
            is_ours = owner == self.ids.owner
            if owner >= 0 and not is_ours and not is_forwarded:
                if self.mailboxes.is_there(owner):
                    self.mailboxes.send(owner, self.key, data, address, local)
                    return
                is_ours = True  # as much as anybody's: its owner is no more
            if not beginning.is_long:
                if is_ours:
                    reset = self.ids.reset(beginning.target, len(data))
                    if reset is not None:
                        self.write(reset, address, local)
                return
            if not self.is_accepting and not is_ours:  # ours: it answers our Retry
                return
            version = beginning.version
            is_new = self.may_begin(data)
            if owner < 0 and not is_forwarded and self.engine.is_version_known(version):
                owner = self.mailboxes.claim(beginning.target, is_new)
                if owner not in (-1, self.ids.owner):  # a part of what another began
                    self.mailboxes.send(owner, self.key, data, address, local)
                    return
            connection = self.accept(data, address, local, version, now_s)
            if connection is None:
                return
        connection.local = local
        connection.receive(data, address, now_s)
        self.will_send(connection)

    def may_begin(self, data: bytes) -> bool:
        """Is it large enough, and do we ask for no Retry, and have room?"""
        most = 0 if self.settings.retry else min(RETRY_FROM, MOST_HANDSHAKES)
        return len(data) >= LEAST_INITIAL and len(self.handshakes) < most

    def accept(
        self, data: bytes, address: Address, local: bytes, version: int, now_s: float
    ) -> Any:
        """A connection that begins with this datagram, or None."""
        if len(data) < LEAST_INITIAL or address[1] == 0:
            return None
        answer = None
        if not self.engine.is_version_known(version):
            answer = self.engine.refuse_version(data)
        elif self.settings.retry or len(self.handshakes) >= RETRY_FROM:
            answer = self.engine.retry(data, address, self.ids.new(), now_s)
        if answer is not None:
            self.write(answer, address, local)
            return None
        if len(self.handshakes) >= MOST_HANDSHAKES:
            return None
        connection = self.engine.accept(data, address, self, now_s)
        if isinstance(connection, bytes):
            self.write(connection, address, local)
            return None
        if connection is not None:
            self.handshakes.add(connection)
            connection.begun_s = now_s
        return connection

    # -- what connections ask -------------------------------------------------------------------
    def new_id(self) -> bytes:
        return self.ids.new()

    def reset_token(self, connection_id: bytes) -> bytes:
        return self.ids.reset_token(connection_id)

    def add_id(self, connection_id: bytes, connection: Connection) -> None:
        self.by_id[connection_id] = connection
        self.ids_of.setdefault(connection, set()).add(connection_id)

    def remove_id(self, connection_id: bytes) -> None:
        connection = self.by_id.pop(connection_id, None)
        if connection is not None:
            self.ids_of[connection].discard(connection_id)

    def on_handshake(self, connection: Connection) -> None:
        self.handshakes.discard(connection)

    def on_begun(self, connection: Connection, address: Address) -> Client:
        family = AF_INET if len(connection.local) == 4 else AF_INET6
        local = inet_ntop(family, connection.local) if connection.local else ""
        return self.begin(connection, address, self.sock.fileno(), local)

    def on_over(self, connection: Connection) -> None:
        """Its last event was told."""
        self.handshakes.discard(connection)
        self.dirty.pop(connection, None)
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        for it in self.ids_of.pop(connection, ()):
            self.by_id.pop(it, None)

    def will_send(self, connection: Connection) -> None:
        """It may have something to send: that leaves together with others'."""
        self.dirty[connection] = None
        if not self.is_flushing:
            self.is_flushing = True
            self.loop.call_soon(self.flush)

    # -- out ------------------------------------------------------------------------------------
    def flush(self) -> None:
        self.is_flushing = False
        while self.dirty:
            connection = next(iter(self.dirty))
            del self.dirty[connection]
            self.send_of(connection)

    def send_of(self, connection: Connection) -> None:
        now_s = time.monotonic()
        datagrams = connection.datagrams(now_s)
        if self.settings.gso:
            self.write_segments(datagrams, connection.local)
        else:
            for data, address in datagrams:
                self.write(data, address, connection.local)
        self.arm(connection, now_s)

    def arm(self, connection: Connection, now_s: float) -> None:
        deadline_s = connection.deadline_s()
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        if connection in self.handshakes:
            limit_s = connection.begun_s + self.settings.handshake_s
            deadline_s = limit_s if deadline_s is None else min(deadline_s, limit_s)
        if deadline_s is not None:
            wait_s = max(deadline_s - now_s, LEAST_WAIT_S)
            connection.timer = self.loop.call_later(wait_s, self.on_deadline, connection)

    def on_deadline(self, connection: Connection) -> None:
        connection.timer = None
        now_s = time.monotonic()
        if connection in self.handshakes and (
            now_s >= connection.begun_s + self.settings.handshake_s
        ):
            connection.abandon()  # without a word: its address may be forged
            return
        connection.on_deadline(now_s)
        self.will_send(connection)

    def write(self, data: bytes, address: Address, local: bytes) -> None:
        """What the kernel does not take is lost, as on any way: it is sent again in time."""
        with contextlib.suppress(OSError):
            if local:
                self.sock.sendmsg([data], from_local(local), 0, address)
            else:
                self.sock.sendto(data, address)

    def write_segments(self, datagrams: Any, local: bytes) -> None:
        """Datagrams of one length to one address in one call (UDP_SEGMENT); a shorter one may
        be the last of its row."""
        row: list[bytes] = []
        room, to = 0, None
        for data, address in datagrams:
            if row and (
                address != to
                or len(data) > len(row[0])
                or len(row[-1]) < len(row[0])
                or len(row) == SEGMENTS
                or room + len(data) > SEGMENTS_BYTES
            ):
                self.write_row(row, to, local)
                row, room = [], 0
            row.append(data)
            room += len(data)
            to = address
        if row:
            self.write_row(row, to, local)

    def write_row(self, row: list[bytes], address: Address | None, local: bytes) -> None:
        if address is None:
            return
        if len(row) == 1:
            self.write(row[0], address, local)
            return
        size = len(row[0]).to_bytes(2, "little")
        try:
            more = [(SOL_UDP, UDP_SEGMENT, size), *from_local(local)]
            self.sock.sendmsg([b"".join(row)], more, 0, address)
        except BlockingIOError:
            return
        except OSError:  # the device cannot
            for data in row:
                self.write(data, address, local)

    # -- the end --------------------------------------------------------------------------------
    def end(self) -> None:
        """Each client is told that this is all."""
        for connection in list(self.ids_of):
            connection.close(Code.NO_ERROR, is_sent_first=False)
        self.flush()

    def leave_socket(self) -> None:
        """A successor reads the socket and forwards what is ours."""
        self.is_accepting = False
        self.loop.remove_reader(self.sock.fileno())


def local_of(more: list[tuple[int, int, bytes]]) -> bytes:
    """The address of ours that a datagram came to, packed; empty if the kernel did not tell."""
    for level, kind, data in more:
        if (level, kind) == (IPPROTO_IP, IP_PKTINFO):
            return data[4:8]  # ipi_spec_dst
        if (level, kind) == (IPPROTO_IPV6, IPV6_PKTINFO):
            return data[:16]
    return b""


def from_local(local: bytes) -> list[tuple[int, int, bytes]]:
    """What lets a datagram leave from that address."""
    if len(local) == 4:
        return [(IPPROTO_IP, IP_PKTINFO, bytes(4) + local + bytes(4))]
    if local:
        return [(IPPROTO_IPV6, IPV6_PKTINFO, local + bytes(4))]
    return []

"""What the workers of QUIC share, over reloads and over a new executable: a key and mailboxes.

A connection id names its worker by a *number*: twice the ledger number, plus the side of its
master. Two masters that live at once, the old executable and the new, have different sides and the
same mailboxes, so that a datagram finds its worker whoever of the four generations reads it.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET, socketpair

KEY_BYTES = 32
MAILBOX_BYTES = 1024 * 1024  # of datagrams that wait for their worker, if the kernel allows it
SIDES = 2
NOTES = ("quic0", "quic1")  # in the environment of a new executable: whose note it is
MAILBOX = "mailbox"


class Post:
    """`mailboxes` are (descriptor to read, to write) by number. `note_fd` holds the key for the
    next executable, and the locks by which workers show that they live."""

    def __init__(self) -> None:
        self.key: bytes = os.urandom(KEY_BYTES)
        self.side = 0
        self.mailboxes: list[tuple[int, int]] = []
        self.note_fd = -1

    def number_of(self, ledger: int) -> int:
        return SIDES * ledger + self.side

    def grow(self, ledgers: int) -> None:
        """A mailbox for each of so many ledger numbers, of either side. Raises OSError."""
        if self.note_fd < 0:
            self.note_fd = os.memfd_create("headrace-quic")
            os.write(self.note_fd, self.key)
        while len(self.mailboxes) < SIDES * ledgers:
            self.mailboxes.append(open_mailbox())

    def lend(self) -> list[tuple[int, str]]:
        """(descriptor, role) of all that a new executable must have."""
        if self.note_fd < 0:
            return []
        pairs = [(fd, MAILBOX) for pair in self.mailboxes for fd in pair]
        return [(self.note_fd, NOTES[self.side]), *pairs]

    @classmethod
    def adopt(cls, side: int, note_fd: int, mailboxes: list[int]) -> Post:
        """The post of an old executable, who has that side. Raises OSError."""
        post = cls()
        for fd in (note_fd, *mailboxes):
            os.set_inheritable(fd, False)
        post.side, post.note_fd = SIDES - 1 - side, note_fd
        post.key = os.pread(note_fd, KEY_BYTES, 0)
        post.mailboxes = list(zip(mailboxes[::2], mailboxes[1::2], strict=False))
        return post


def open_mailbox() -> tuple[int, int]:
    """A pair of datagram sockets: (to read, to write)."""
    reader, writer = socketpair(AF_UNIX, SOCK_DGRAM)
    for sock in (reader, writer):
        sock.setblocking(False)
    writer.setsockopt(SOL_SOCKET, SO_SNDBUF, MAILBOX_BYTES)
    return reader.detach(), writer.detach()

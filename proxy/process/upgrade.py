"""Over to a new executable (SIGUSR2): what the old master hands on, and the new one takes up.

HEADRACE=fd/slot;fd/slot;…;fd/controller;fd/table;fd/quic0;fd/mailbox;… – listening sockets by
worker slot, the controller's Unix socket, the table of replicas, what QUIC's workers share. A
socket knows its own address.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proxy.process.post import MAILBOX, NOTES, Post

if TYPE_CHECKING:
    from proxy.process.replicas import Replicas
    from proxy.process.sockets import Sockets

VARIABLE = "HEADRACE"
CONTROLLER = "controller"
TABLE = "table"


class Inheritance:
    """What an old master left us. Empty when there is none."""

    __slots__ = ("controller_fd", "post", "sockets", "table_fd")

    def __init__(self) -> None:
        self.sockets: list[tuple[int, int]] = []
        self.controller_fd = -1
        self.table_fd = -1
        self.post: Post | None = None

    @property
    def is_empty(self) -> bool:
        return not self.sockets and self.controller_fd < 0


def take_up() -> tuple[Inheritance, list[str]]:
    """What the environment names, and what in it cannot be understood. Removes the variable."""
    left = Inheritance()
    wrong = []
    note_fd, side, mailboxes = -1, 0, []
    for item in os.environ.pop(VARIABLE, "").split(";"):
        number, _, role = item.partition("/")
        if not item:
            continue
        if not number.isdigit():
            wrong.append(f'invalid socket number "{number}" in {VARIABLE}, ignoring')
        elif role == CONTROLLER:
            left.controller_fd = int(number)
        elif role == TABLE:
            left.table_fd = int(number)
        elif role in NOTES:
            note_fd, side = int(number), NOTES.index(role)
        elif role == MAILBOX:
            mailboxes.append(int(number))
        elif role.isdigit() and int(role) < 4096:
            left.sockets.append((int(number), int(role)))
        else:
            wrong.append(f'invalid slot "{role}" in {VARIABLE}, ignoring')
    if note_fd >= 0:
        try:
            left.post = Post.adopt(side, note_fd, mailboxes)
        except OSError as error:
            wrong.append(f"connections of QUIC are not taken over ({error.strerror})")
    # A slot can be taken up only behind the one before it.
    left.sockets.sort(key=lambda pair: pair[1])
    return left, wrong


def hand_on(
    sockets: Sockets, post: Post, controller_fd: int, replicas: Replicas | None
) -> tuple[dict[str, str], list[int]]:
    """The environment of the new executable, and the descriptors that it must inherit."""
    pairs = sockets.lend()
    items = [f"{fd}/{slot}" for fd, slot in pairs]
    keep = [fd for fd, _ in pairs]
    for fd, role in post.lend():
        items.append(f"{fd}/{role}")
        keep.append(fd)
    if controller_fd >= 0:
        items.append(f"{controller_fd}/{CONTROLLER}")
        keep.append(controller_fd)
    if replicas is not None:
        lent = replicas.lend()
        items.append(f"{lent[0]}/{TABLE}")
        keep += lent
    return {**os.environ, VARIABLE: "".join(f"{item};" for item in items)}, keep

"""What of its replicas a master lends to a new executable (USR2): a table of them in a memfd, and
the pipes of their logs."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from proxy.process.replica import Replica
from proxy.process.spawn import start_time_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BYTES = 1 << 24


class Loan:
    """The last one made. ids: of those it names; fd: of its table, -1 without one."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.fd = -1

    def make(self, replicas: Sequence[Replica]) -> list[int]:
        """Descriptors that the new executable must inherit under the same numbers; the first is
        the table's."""
        self.close()
        self.ids = {it.id for it in replicas}
        self.fd = os.memfd_create("headrace-replicas", os.MFD_CLOEXEC)
        rows = [{**it.row(), "fds": it.fds} for it in replicas]
        os.pwrite(self.fd, json.dumps(rows).encode(), 0)
        return [self.fd, *(fd for it in replicas for fd in it.fds)]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def read_table(fd: int) -> list[dict[str, Any]]:
    """What was written; fd is closed."""
    rows: list[dict[str, Any]] = json.loads(os.pread(fd, MOST_BYTES, 0) or b"[]")
    os.close(fd)
    return rows


def adopt(row: dict[str, Any]) -> Replica | None:
    """What another executable started, by its row of the table and the descriptors in it."""
    for fd in row["fds"]:
        os.set_inheritable(fd, False)
    replica = Replica(
        row["id"], row["pid"], row["start_time"], row["fds"], str(row.get("group", ""))
    )
    replica.is_own = False
    with contextlib.suppress(OSError):
        replica.pidfd = os.pidfd_open(replica.pid)
    if replica.pidfd < 0 or start_time_of(replica.pid) != replica.start_time:
        replica.close()
        return None
    return replica

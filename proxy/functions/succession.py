"""One controller acts at a time: it holds a lock on a file beside its socket, which the master
opens. A successor, of a new executable (USR2) above all, asks who holds it to hand over."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct

HAND_OVER = signal.SIGUSR2
LOOK_S = 0.01
ASK_AGAIN_S = 1.0
FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Succession:
    """The lock of one gateway: a POSIX record lock, which names its holder and ends with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def holder(self) -> int:
        """The pid of the other process that holds it, or 0."""
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = struct.unpack(FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return int(found[4]) if found[0] != fcntl.F_UNLCK else 0

    def try_take(self) -> bool:
        """Is it ours now?"""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def wait(self, loop: asyncio.AbstractEventLoop, control_fd: int) -> bool:
        """Run the loop until no other controller of this gateway acts. False: an order came."""
        if self.try_take():
            return True
        taking = loop.create_task(self.take())
        loop.add_reader(control_fd, taking.cancel)
        loop.run_until_complete(asyncio.wait([taking]))
        loop.remove_reader(control_fd)
        return not taking.cancelled()

    async def take(self) -> None:
        """Until it is ours; whoever holds it is asked for it."""
        asked_s = -ASK_AGAIN_S
        loop = asyncio.get_running_loop()
        while not self.try_take():
            if loop.time() - asked_s >= ASK_AGAIN_S:
                asked_s = loop.time()
                holder = self.holder
                if holder:                       # else it has just let go
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(holder, HAND_OVER)
            await asyncio.sleep(LOOK_S)

    def give(self) -> None:
        """From here on another one acts."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

"""One thread that owns a SQLite connection, and writes what came together in one commit.

The loop hands over operations, functions of the connection; the thread runs all that wait inside
one transaction, commits with an fsync (synchronous=FULL), and only then tells the loop. When that
transaction fails each operation is tried again alone, so that a disk that has room for one of them
takes it; who fails alone is told so. Nothing is ever acknowledged that was not committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from proxy.functions.queue.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TOGETHER = 512
BUSY_S = 5.0
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM)
PRAGMAS = """
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA temp_store = MEMORY;
    PRAGMA foreign_keys = OFF;
"""

T = TypeVar("T")


class NotWritten(Refused):
    """It was not committed: 507 when there is no room."""

    def __init__(self, why: str, *, is_full: bool) -> None:
        super().__init__(507 if is_full else 503, f"it could not be stored: {why}", 5)


class Writer:
    """`path` is made if it is not there; `schema` is run each time it is opened."""

    def __init__(self, path: str, schema: str) -> None:
        self.path = path
        self.schema = schema
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[tuple[Callable[..., Any], asyncio.Future[Any]] | None]
        self._orders = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._thread.start()

    async def write(
        self,
        operation: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run it and commit. Raises NotWritten: then nothing of it is there.

        Once handed over it is done even if the caller is cancelled; `then` is called with its
        answer in any case.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if then is not None:
            future.add_done_callback(lambda it: None if it.exception() else then(it.result()))
        self._orders.put((operation, future))
        return await asyncio.shield(future)

    async def close(self) -> None:
        """After everything handed over is done."""
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- the thread -----------------------------------------------------------------------------
    def _run(self) -> None:
        is_over = False
        while not is_over:
            orders = []
            order = self._orders.get()
            while order is not None:
                orders.append(order)
                if len(orders) == MOST_TOGETHER or self._orders.empty():
                    break
                order = self._orders.get()
            is_over = order is None
            answers = self._try([operation for operation, _ in orders])
            futures = [future for _, future in orders]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                self._loop.call_soon_threadsafe(deliver, futures, answers)
        self._close()

    def _try(self, operations: list[Callable[..., Any]]) -> list[Any]:
        """The answers, or what each failed with."""
        if not operations:
            return []
        try:
            return self._commit(operations)
        except sqlite3.Error as error:
            self._on_error(error)
            if len(operations) == 1:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                return [NotWritten(str(error), is_full=code in NO_ROOM or is_io(error))]
        except Exception as error:
            self._on_error(error)
            if len(operations) == 1:
                return [error]
        return [answer for it in operations for answer in self._try([it])]

    def _commit(self, operations: list[Callable[..., Any]]) -> list[Any]:
        connection = self._connection or self._open()
        connection.execute("BEGIN IMMEDIATE")
        answers = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
        return answers

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.executescript(PRAGMAS + self.schema)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _on_error(self, error: Exception) -> None:
        """Nothing of the transaction stays. After an error of the disk a new connection reads
        what is really there."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if is_io(error):
                self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def is_io(error: Exception) -> bool:
    """Did the disk fail? A file size limit comes out so, too."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


def deliver(futures: list[asyncio.Future[Any]], answers: list[Any]) -> None:
    """On the loop: each future has its answer."""
    for future, answer in zip(futures, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
            future.exception()  # whoever waited may be gone: that is no news for the log
        else:
            future.set_result(answer)

"""What came by the API, in an SQLite file: functions, namespaces, weights set at run time.

All writing is done by one thread, each change its own transaction, on disk when it returns. Of two
controllers (an upgrade of the executable) only the one that holds the lock writes.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LAYOUT = 1
TABLES = """
    create table if not exists functions (key text primary key, document text not null) strict;
    create table if not exists namespaces (name text primary key, document text not null) strict;
    create table if not exists splits (key text primary key, weights text not null) strict;
"""


class Held(RuntimeError):
    """Another controller holds the store."""


class Store:
    """`path` is made with its folder. Raises OSError or sqlite3.Error when it cannot be."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        old = os.umask(0o077)  # documents hold environments
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._link = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        finally:
            os.umask(old)
        self._is_held = False
        self._thread = ThreadPoolExecutor(1, "store")
        self._link.execute("pragma journal_mode = wal")
        self._link.execute("pragma synchronous = full")
        (layout,) = self._link.execute("pragma user_version").fetchone()
        if layout > LAYOUT:
            raise sqlite3.DatabaseError(f"{path} was written by a newer Headrace")
        self._link.executescript(TABLES)
        self._link.execute(f"pragma user_version = {LAYOUT}")

    # -- reading ----------------------------------------------------------------------------------
    def functions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and documents, the oldest first."""
        rows = self._link.execute("select key, document from functions order by rowid")
        for key, document in rows:
            yield key, json.loads(document)

    def document(self, key: str) -> dict[str, Any] | None:
        """Of one function."""
        rows = self._link.execute("select document from functions where key = ?", (key,))
        found = rows.fetchone()
        return json.loads(found[0]) if found is not None else None

    def namespaces(self) -> dict[str, dict[str, Any]]:
        rows = self._link.execute("select name, document from namespaces order by name")
        return {name: json.loads(document) for name, document in rows}

    def splits(self) -> dict[str, dict[str, int]]:
        rows = self._link.execute("select key, weights from splits")
        return {key: json.loads(weights) for key, weights in rows}

    # -- writing ----------------------------------------------------------------------------------
    async def put_function(self, key: str, document: Mapping[str, Any]) -> None:
        await self._run(
            "insert into functions values (?, ?)"
            " on conflict (key) do update set document = excluded.document",
            key, json.dumps(document),
        )  # fmt: skip

    async def remove_function(self, key: str) -> None:
        await self._run("delete from functions where key = ?", key)
        await self.put_split(key, None)

    async def put_namespace(self, name: str, document: Mapping[str, Any]) -> None:
        await self._run(
            "insert into namespaces values (?, ?)"
            " on conflict (name) do update set document = excluded.document",
            name, json.dumps(document),
        )  # fmt: skip

    async def remove_namespace(self, name: str) -> None:
        await self._run("delete from namespaces where name = ?", name)

    async def put_split(self, key: str, weights: Mapping[str, int] | None) -> None:
        """None: the declared weights hold again."""
        if weights is None:
            await self._run("delete from splits where key = ?", key)
            return
        await self._run(
            "insert into splits values (?, ?)"
            " on conflict (key) do update set weights = excluded.weights",
            key, json.dumps(weights),
        )  # fmt: skip

    async def _run(self, statement: str, *values: str) -> None:
        """Raises Held, sqlite3.Error (the disk is full, …)."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._write, statement, values)

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        if not self._is_held:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Held("another controller holds the store") from None
            self._is_held = True
        self._link.execute(statement, values)

    def close(self, is_waiting: bool = True) -> None:
        """What is being written is written."""
        self._thread.shutdown(wait=is_waiting)
        self._link.close()
        os.close(self._lock)



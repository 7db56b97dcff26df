"""The tables of the SQLite queue, its statements, and what its rows mean."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from proxy.functions.queue.calls import STATES, Call, Record, Result

if TYPE_CHECKING:
    import sqlite3

NUMBERS = {name: number for number, name in enumerate(STATES)}
ROW_BYTES = 512  # what a call takes beside its bodies, roughly
SIZE = f"{ROW_BYTES} + length(body) + ifnull(length(result_body), 0)"
SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,       -- the place in STATES
    due_ms INTEGER NOT NULL,                -- queued: when; running: the end of the lease
    attempts INTEGER NOT NULL DEFAULT 0,    -- that ended
    owner TEXT NOT NULL DEFAULT '',
    forget_ms INTEGER,
    callback_due_ms INTEGER,
    callback_attempts INTEGER NOT NULL DEFAULT 0,
    callback_state TEXT NOT NULL DEFAULT '',
    head BLOB NOT NULL,
    result BLOB,
    body BLOB NOT NULL,
    result_body BLOB
);
CREATE INDEX IF NOT EXISTS due ON calls (state, function, due_ms);
CREATE INDEX IF NOT EXISTS dead ON calls (seq) WHERE state = 3;
CREATE INDEX IF NOT EXISTS forgettable ON calls (forget_ms) WHERE forget_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS callbacks ON calls (callback_due_ms) WHERE callback_due_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS salt (salt BLOB NOT NULL);
"""
_COLUMNS = "seq, head, {}, attempts, state, due_ms, callback_state, result, {}"
COLUMNS = _COLUMNS.format("body", "result_body")
COLUMNS_WITHOUT_BODIES = _COLUMNS.format("x''", "x''")
# Each function that has queued calls, and when the first of them is due: a step of the index each.
WAITING = """
WITH RECURSIVE waiting (name) AS (
    SELECT min(function) FROM calls WHERE state = 0
    UNION ALL
    SELECT (SELECT min(function) FROM calls WHERE state = 0 AND function > name)
    FROM waiting WHERE name IS NOT NULL
)
SELECT name, (SELECT min(due_ms) FROM calls WHERE state = 0 AND function = name)
FROM waiting WHERE name IS NOT NULL
"""
OLDEST = """
SELECT function, head FROM calls WHERE seq IN (
    SELECT min(seq) FROM calls WHERE state IN (0, 1) GROUP BY function
)
"""
CLAIM = """
UPDATE calls SET state = 1, owner = ?, due_ms = ? WHERE seq IN (
    SELECT seq FROM calls WHERE state = 0 AND function = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?
) RETURNING seq, head, body, attempts
"""
FINISH = """
UPDATE calls SET state = :state, due_ms = :due, attempts = :attempts, forget_ms = :forget,
    callback_due_ms = :callback, callback_attempts = 0, callback_state = :said,
    result = :result, result_body = :result_body, owner = '',
    body = CASE WHEN :keeps THEN body ELSE x'' END
WHERE seq = :seq AND state = 1 AND owner = :owner
"""
DROP = "DELETE FROM calls WHERE seq = :seq AND state = 1 AND owner = :owner"
FORGET = f"""
DELETE FROM calls WHERE seq IN (
    SELECT seq FROM calls WHERE forget_ms < ? AND callback_due_ms IS NULL ORDER BY forget_ms LIMIT ?
) RETURNING {SIZE}
"""
REPLAY = """
UPDATE calls SET state = 0, due_ms = ?, attempts = 0, callback_due_ms = NULL, callback_state = '',
    result_body = NULL
WHERE id = ? AND state = 3
"""
REVIVED = "SELECT function, ifnull(length(result_body), 0) FROM calls WHERE id = ? AND state = 3"


def record_of(row: tuple[Any, ...]) -> Record:
    _, head, body, attempts, number, due_ms, callback_state, result, result_body = row
    return Record(
        Call.unpack(head, body, attempts),
        STATES[number],
        Result.unpack(result, result_body or b"") if result is not None else None,
        due_ms,
        callback_state,
    )


def read_salt(db: sqlite3.Connection) -> bytes:
    row = db.execute("SELECT salt FROM salt").fetchone()
    if row is None:
        row = (secrets.token_bytes(32),)
        db.execute("INSERT INTO salt VALUES (?)", row)
    return bytes(row[0])


def read_sums(db: sqlite3.Connection) -> tuple[int, int]:
    count = db.execute("SELECT count(*) FROM calls WHERE state < 2").fetchone()[0]
    size = db.execute(f"SELECT sum({SIZE}) FROM calls").fetchone()[0]
    return count, size or 0

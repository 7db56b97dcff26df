"""The words of the queue: a call, what became of it, and how the queue is set.

    queued → running → done | dead           (running → queued: tried again later)
    queued | running → cancelled             dead → queued: replayed
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUEUED, RUNNING, DONE, DEAD, CANCELLED = "queued", "running", "done", "dead", "cancelled"
STATES = (QUEUED, RUNNING, DONE, DEAD, CANCELLED)
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")


class Refused(Exception):
    """What the queue does not do: `status` for the client, the reason in a sentence."""

    def __init__(self, status: int, why: str, retry_after_s: int = 0) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Call:
    """One accepted call. function: its key NAME.NAMESPACE; target: what stands behind the name
    in the path, "" or "/rest", and the query with its "?"; callback: an URL or ""."""

    id: str
    function: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    callback: str
    accepted_ns: int
    attempts: int = 0

    def pack(self) -> bytes:
        """All but body and attempts, as JSON."""
        row = [self.id, self.function, self.method, self.target, self.headers, self.callback,
               self.accepted_ns]  # fmt: skip
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, head: bytes, body: bytes, attempts: int = 0) -> Call:
        """The other way. Raises ValueError."""
        id, function, method, target, headers, callback, accepted_ns = json.loads(head)
        pairs = [(name, value) for name, value in headers]
        return cls(id, function, method, target, pairs, body, callback, accepted_ns, attempts)


@dataclass(slots=True)
class Result:
    """How an attempt ended. status: the function's, or 0 when no answer came and `error` says
    why. is_cut: the answer's body was over the limit and is not kept."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    duration_s: float = 0.0
    error: str = ""
    is_cut: bool = False

    def pack(self) -> bytes:
        row = [self.status, self.headers, self.duration_s, self.error, self.is_cut]
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, head: bytes, body: bytes) -> Result:
        status, headers, duration_s, error, is_cut = json.loads(head)
        pairs = [(name, value) for name, value in headers]
        return cls(status, pairs, body, duration_s, error, is_cut)


@dataclass(slots=True)
class Outcome:
    """What is to be done after an attempt: state DONE, DEAD, or QUEUED in `wait_ms`."""

    state: str
    result: Result
    wait_ms: int = 0


@dataclass(slots=True)
class Record:
    """A call as it is looked into. result: the last attempt's, if there was one. callback_state:
    "" (none was asked for), "pending", "delivered", or why it was given up."""

    call: Call
    state: str
    result: Result | None = None
    due_ms: int = 0
    callback_state: str = ""

    def row(self) -> dict[str, Any]:
        """For lists."""
        row: dict[str, Any] = {
            "id": self.call.id,
            "function": self.call.function,
            "state": self.state,
            "attempts": self.call.attempts,
            "acceptedAt": self.call.accepted_ns / 1e9,
        }
        if self.state == QUEUED and self.due_ms:
            row["dueAt"] = self.due_ms / 1000
        if self.result is not None:
            row["status"] = self.result.status
            row["durationSeconds"] = round(self.result.duration_s, 6)
            if self.result.error:
                row["error"] = self.result.error
        if self.callback_state:
            row["callback"] = self.callback_state
        return row


@dataclass(frozen=True, slots=True)
class Settings:
    """What the conf says. url: `sqlite:PATH` (absolute) or `nats://…`."""

    url: str
    body_bytes: int = 1 << 20
    result_bytes: int = 1 << 20
    results_keep_ms: int = 3_600_000
    parallelism: int = 100
    most_calls: int = 1_000_000
    most_bytes: int = 10 << 30
    callback_allow: tuple[str, ...] = ("public",)
    callback_secret: bytes = b""
    callback_attempts: int = 10


class Function(Protocol):
    """What the queue needs to know of a function."""

    @property
    def key(self) -> str: ...
    @property
    def annotations(self) -> Mapping[str, str]: ...


class House(Protocol):
    """What the queue needs of the controller."""

    def find_function(self, key: str) -> Function | None: ...
    def find_key(self, name: str) -> str | None: ...
    def call_addresses(self) -> Sequence[str]: ...
    def notice(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


class Queue(Protocol):
    """What sqlite.py and jetstream.py both are. is_shared: other gateways change it, too."""

    is_shared: bool

    def make_id(self, function: str, idempotency_key: str) -> str: ...
    async def open(self) -> None: ...
    async def close(self, grace_s: float = 0.0) -> None: ...
    async def accept(self, call: Call, *, is_idempotent: bool) -> str: ...
    async def find(self, id: str) -> Record | None: ...
    async def cancel(self, id: str) -> str: ...
    async def listing(self, state: str, function: str, after: int, limit: int) -> Listing: ...
    async def counts(self) -> dict[str, dict[str, int]]: ...
    async def oldest(self) -> dict[str, float]: ...
    async def replay(self, id: str) -> bool: ...
    async def forget(self, id: str) -> bool: ...


@dataclass(slots=True)
class Listing:
    """One page. next: what to give as `after` for the next one, 0 when this was the last."""

    records: list[Record]
    next: int = 0


def new_id() -> str:
    import uuid  # dear to who only reads our words

    return str(uuid.uuid4())


def id_of(salt: bytes, function: str, key: str) -> str:
    """The call id of an idempotency key."""
    mark = hmac.digest(salt, f"{function}\0{key}".encode("utf-8", "surrogateescape"), "sha256")
    import uuid

    return str(uuid.UUID(bytes=mark[:16], version=4))

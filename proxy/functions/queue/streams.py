"""Names, configurations and messages of the JetStream queue.

    stream HEADRACE_QUEUE            work queue   headrace.QUEUE.calls.FUNCTION.CALL-ID
    stream HEADRACE_QUEUE_CALLBACKS  work queue   headrace.QUEUE.callbacks.CALL-ID
    stream HEADRACE_QUEUE_RESULTS    one a call   headrace.QUEUE.results.CALL-ID     (results_keep)
    stream HEADRACE_QUEUE_DEAD       kept         headrace.QUEUE.dead.FUNCTION.CALL-ID
    stream HEADRACE_QUEUE_ADVISORIES work queue   the server's MAX_DELIVERIES advisories
    (no stream)                                   headrace.QUEUE.cancel, headrace.QUEUE.hint

FUNCTION is the key with "=" for "." (a dot parts the words of a subject). A function's calls are
pulled from the durable consumer FUNCTION of the first stream, by all gateways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from proxy.functions.queue.calls import Call, Refused, Result

if TYPE_CHECKING:
    from proxy.functions.queue.calls import Settings

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DUPLICATES_S = 120.0
ACK_WAIT_S = 30.0
MORE_DELIVERIES = 10  # than attempts: what a dying gateway had does not count as tried
MOST_UNACKED = 20_000  # calls that wait for another attempt are among them
ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"


@dataclass(frozen=True, slots=True)
class Address:
    """`nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT] …][/QUEUE][?replicas=N]`, or `tls://`."""

    servers: tuple[str, ...]
    queue: str
    replicas: int

    @classmethod
    def read(cls, url: str) -> Address:
        """Raises ValueError with a sentence."""
        parts = urlsplit(url)
        if parts.scheme not in ("nats", "tls") or not parts.netloc:
            raise ValueError(f'"{url}" is neither sqlite:FILE nor nats://HOST:PORT')
        queue = parts.path.strip("/") or "calls"
        if NAME.fullmatch(queue) is None:
            raise ValueError(f'"{queue}" cannot be the name of a queue')
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        replicas = options.pop("replicas", "1")
        if options or replicas not in ("1", "3", "5"):
            raise ValueError(f'"{parts.query}" is not replicas=1, 3 or 5')
        user, at, hosts = parts.netloc.rpartition("@")
        servers = tuple(f"{parts.scheme}://{user}{at}{host}" for host in hosts.split(","))
        return cls(servers, queue, int(replicas))


class Names:
    """Of one queue."""

    def __init__(self, queue: str) -> None:
        self.base = f"headrace.{queue}"
        self.calls = f"HEADRACE_{queue}"
        self.callbacks = f"{self.calls}_CALLBACKS"
        self.results = f"{self.calls}_RESULTS"
        self.dead = f"{self.calls}_DEAD"
        self.advisories = f"{self.calls}_ADVISORIES"

    def call(self, function: str, id: str) -> str:
        return f"{self.base}.calls.{token_of(function)}.{id}"

    def any_call(self, function: str = "", id: str = "*") -> str:
        return f"{self.base}.calls.{token_of(function) or '*'}.{id}"

    def letter(self, function: str, id: str) -> str:
        return f"{self.base}.dead.{token_of(function)}.{id}"

    def any_letter(self, function: str = "", id: str = "*") -> str:
        return f"{self.base}.dead.{token_of(function) or '*'}.{id}"

    def result(self, id: str) -> str:
        return f"{self.base}.results.{id}"

    def callback(self, id: str) -> str:
        return f"{self.base}.callbacks.{id}"

    @property
    def salt(self) -> str:
        return f"{self.base}.salt"

    @property
    def cancel(self) -> str:
        return f"{self.base}.cancel"

    @property
    def hint(self) -> str:
        return f"{self.base}.hint"

    def streams(self, settings: Settings, replicas: int) -> list[dict[str, Any]]:
        """What each stream shall be, as StreamConfig's fields."""
        from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType

        all_of_them = {"storage": StorageType.FILE, "num_replicas": replicas}
        work = {**all_of_them, "retention": RetentionPolicy.WORK_QUEUE}
        return [
            {
                **work,
                "name": self.calls,
                "subjects": [f"{self.base}.calls.>"],
                "discard": DiscardPolicy.NEW,
                "max_msgs": settings.most_calls,
                "max_bytes": settings.most_bytes,
                "duplicate_window": DUPLICATES_S,
            },
            {**work, "name": self.callbacks, "subjects": [f"{self.base}.callbacks.>"]},
            {**work, "name": self.advisories, "subjects": [f"{ADVISORY}.{self.calls}.>"]},
            {
                **all_of_them,
                "name": self.results,
                "subjects": [f"{self.base}.results.>"],
                "max_msgs_per_subject": 1,
                "max_age": max(settings.results_keep_ms / 1000, 1.0),
                "max_bytes": max(settings.most_bytes // 2, 1),
                "duplicate_window": 1.0,
                "allow_direct": True,
            },
            {
                **all_of_them,
                "name": self.dead,
                "subjects": [f"{self.base}.dead.>", self.salt],
                "max_msgs_per_subject": 1,
                "allow_direct": True,
            },
        ]


def token_of(function: str) -> str:
    return function.replace(".", "=")


def function_of(token: str) -> str:
    return token.replace("=", ".")


# Messages: heads are JSON without a line feed, so that one parts them.
def pack_call(call: Call) -> bytes:
    return call.pack() + b"\n" + call.body


def unpack_call(data: bytes, attempts: int = 0) -> Call:
    """Raises ValueError."""
    head, _, body = data.partition(b"\n")
    return Call.unpack(head, body, attempts)


def pack_ended(state: str, call: Call, result: Result, callback_state: str = "") -> bytes:
    """A call with its result; of the call's body nothing is left unless it is a dead letter."""
    word = f"{state} {call.attempts} {len(call.body)} {callback_state}".encode()
    head = b"\n".join((word, call.pack(), result.pack()))
    return head + b"\n" + call.body + result.body


def unpack_ended(data: bytes) -> tuple[str, Call, Result, str]:
    """state, call, result, callback_state. Raises ValueError."""
    word, call_head, result_head, bodies = data.split(b"\n", 3)
    state, attempts, size, callback_state = word.decode().split(" ", 3)
    at = int(size)
    call = Call.unpack(call_head, bodies[:at], int(attempts))
    return state, call, Result.unpack(result_head, bodies[at:]), callback_state


def unreachable(error: BaseException) -> Refused:
    return Refused(503, f"the NATS server did not do it: {type(error).__name__} {error}".strip(), 5)

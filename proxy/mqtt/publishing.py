"""`on_publish`: which function a message goes to, what it is told, and what becomes of a message
that it does not take."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from proxy.mqtt.topics import captures, expand

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from proxy.conf.inherit import Block

    Headers = list[tuple[str, str]]
    # (path, headers, body, seconds) → (status, headers, body); status 0: nobody answered
    Ask = Callable[[str, Headers, bytes, float], Awaitable[tuple[int, Headers, bytes]]]

AGAIN = frozenset((0, 408, 425, 429, 500, 502, 503, 504))
MOST_PROPERTIES, PROPERTY_BYTES = 32, 8192  # User Properties that become headers
EVENT_TYPE = "io.headrace.mqtt.publish"
ATTRIBUTES = frozenset(("specversion", "id", "source", "type", "subject", "time", "dataschema"))
OURS = "mqtt"  # begins the attributes that we vouch for: no User Property may
TCHAR = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
# CloudEvents' binding to HTTP §3.1.3.2: what stands in a header's value as it is
PLAIN = "".join(chr(it) for it in range(0x21, 0x7F) if chr(it) not in '"%')


@dataclass(slots=True)
class Handling:
    """One on_publish block. dead_letter: queue, off or topic:NAME."""

    filters: tuple[str, ...]
    function: str
    attempts: int
    min_wait_ms: int
    max_wait_ms: int
    timeout_ms: int
    dead_letter: str
    reply_topic: str

    def expanded_reply(self, client_id: str, user: str) -> str:
        """Where answers go that have no Response Topic; "": nowhere."""
        return expand(self.reply_topic, client_id, user) if self.reply_topic else ""


@dataclass(slots=True)
class Message:
    """A PUBLISH. content_type, answer_topic and properties are of MQTT 5, else empty."""

    topic: str
    payload: bytes
    qos: int
    client_id: str = ""
    user: str = ""
    source: str = "mqtt:"
    content_type: str = ""
    answer_topic: str = ""
    correlation: bytes | None = None
    properties: Sequence[tuple[str, str]] = ()
    captures: Sequence[str] = ()
    is_text: bool = False
    is_retained: bool = False
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Outcome:
    """is_taken: the message may be acknowledged. body: the function's answer, None without one."""

    is_taken: bool
    status: int = 0
    body: bytes | None = None
    content_type: str = ""
    is_dead: bool = False


def freeze_handling(block: Block) -> Handling:
    attempts, min_wait_ms, max_wait_ms = block.get("publish_retry")
    return Handling(
        filters=block.value,
        function=str(block.own("function_pass")),
        attempts=attempts,
        min_wait_ms=min_wait_ms,
        max_wait_ms=max_wait_ms,
        timeout_ms=block.get("publish_timeout"),
        dead_letter=block.get("dead_letter"),
        reply_topic=block.own("reply_topic") or "",
    )


class Rules:
    """All on_publish blocks of a server or a bridge, in the order of the conf."""

    message = Message

    def __init__(self, handlings: Sequence[Handling], replies: Sequence[str] = ()) -> None:
        self.handlings = list(handlings)
        own = [it.reply_topic for it in handlings if it.reply_topic]
        self.reply_patterns = [it.encode() for it in (*replies, *own)]

    def find(self, topic: str) -> tuple[Handling, list[str]] | None:
        """The first that has this topic, and what its wildcards stand for."""
        for handling in self.handlings:
            for it in handling.filters:
                found = captures(it, topic)
                if found is not None:
                    return handling, found
        return None

    @property
    def filters(self) -> list[str]:
        return [it for handling in self.handlings for it in handling.filters]


def freeze_rules(block: Block) -> Rules:
    """Of a server or a bridge. Raises ConfError."""
    handlings = [freeze_handling(it) for it in block.find("on_publish")]
    try:
        return Rules(handlings, block.get("mqtt_reply"))
    except LookupError:
        return Rules(handlings)


def headers_of(message: Message) -> Headers:
    """What a function is told beside the payload: a CloudEvent in binary mode, and X-…."""
    kind = message.content_type or (
        "text/plain; charset=utf-8" if message.is_text else "application/octet-stream"
    )
    event = {
        "specversion": "1.0",
        "id": message.id,
        "source": message.source,
        "type": EVENT_TYPE,
        "subject": message.topic,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    headers = [
        ("Host", "function"),
        ("Content-Type", as_field(kind)),
        ("X-Connector", "mqtt"),
        ("X-Topic", encoded(message.topic)),
        ("X-Mqtt-Qos", str(message.qos)),
    ]
    if message.is_retained:
        headers.append(("X-Mqtt-Retain", "1"))
    if message.client_id:
        headers.append(("X-Mqtt-Client-Id", encoded(message.client_id)))
    if message.user:
        headers.append(("X-Mqtt-User", encoded(message.user)))
    for number, text in enumerate(message.captures, 1):
        headers.append((f"X-Topic-{number}", encoded(text)))
        event[f"{OURS}topic{number}"] = text
    if message.client_id:
        event[f"{OURS}clientid"] = message.client_id
    if message.user:
        event[f"{OURS}user"] = message.user
    # CloudEvents' binding to MQTT §3.1: attributes are User Properties without a prefix
    is_event = any(name == "specversion" for name, _ in message.properties)
    size = 0
    for name, value in list(message.properties)[:MOST_PROPERTIES]:
        size += len(name) + len(value)
        if size > PROPERTY_BYTES:
            break
        low = name.lower()
        is_attribute = low.isalnum() and low.isascii() and not low.startswith(OURS)
        if is_attribute and (is_event or low not in ATTRIBUTES):
            event[low] = value
        if low and TCHAR.issuperset(low) and not (is_attribute and is_event):
            headers.append((f"X-Mqtt-Property-{low}", encoded(value)))
    return headers + [(f"ce-{name}", encoded(value)) for name, value in event.items()]


def encoded(text: str) -> str:
    """A header's value: everything but printable ASCII is percent-encoded."""
    return quote(text, safe=PLAIN)


def as_field(text: str) -> str:
    return "".join(it if it.isascii() and it.isprintable() else "?" for it in text)[:200]


class Deliverer:
    """Gives messages to functions. bury(topic, message): publishes a dead letter, or None."""

    def __init__(self, ask: Ask, say: Callable[[str], None]) -> None:
        self.ask = ask
        self.say = say

    async def deliver(
        self,
        message: Message,
        handling: Handling,
        bury: Callable[[str, Message], Awaitable[bool]] | None = None,
    ) -> Outcome:
        """Until the function has taken it, or its dead letter is durable; QoS 0 is tried once."""
        headers = headers_of(message)
        attempts = handling.attempts if message.qos else 1
        path = f"/function/{quote(handling.function)}"
        status, body = 0, b""
        for attempt in range(1, attempts + 1):
            told = [*headers, ("X-Retry", str(attempt - 1)), ("X-Retry-Max", str(attempts))]
            limit_s = handling.timeout_ms / 1000
            status, answered, body = await self.ask(path, told, message.payload, limit_s)
            if 200 <= status < 300:
                kind = next((v for k, v in answered if k.lower() == "content-type"), "")
                return Outcome(True, status, body or None, kind)
            if status not in AGAIN or attempt == attempts:
                break
            most = min(handling.min_wait_ms << min(attempt - 1, 20), handling.max_wait_ms)
            await asyncio.sleep(random.randint(most // 2, most) / 1000)
        self.say(
            f"function {handling.function} did not take a message of {message.topic!r}: "
            f"{status or 'no answer'}"
        )
        if not message.qos:
            return Outcome(True, status)
        is_kept = await self._keep(message, handling, headers, status, bury)
        return Outcome(is_kept, status, is_dead=is_kept)

    async def _keep(
        self,
        message: Message,
        handling: Handling,
        headers: Headers,
        status: int,
        bury: Callable[[str, Message], Awaitable[bool]] | None,
    ) -> bool:
        """Is the dead letter durable?"""
        where = handling.dead_letter
        if where.startswith("topic:"):
            return bury is not None and await bury(where[6:], message)
        if where != "queue":
            return False
        told = [*headers, ("X-Mqtt-Status", str(status)), ("Idempotency-Key", message.id)]
        path = f"/async-function/{quote(handling.function)}"
        stored, _, _ = await self.ask(path, told, message.payload, handling.timeout_ms / 1000)
        if stored != 202:
            self.say(f"a dead letter of {message.topic!r} could not be stored: {stored}")
        return stored == 202

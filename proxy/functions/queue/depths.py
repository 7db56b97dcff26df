"""How many calls of each function the JetStream queue has, and how old the oldest is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nats.js.errors import NotFoundError

from proxy.functions.queue.calls import DEAD, QUEUED, RUNNING, STATES
from proxy.functions.queue.pulls import LOST
from proxy.functions.queue.streams import function_of, unpack_call, unreachable

if TYPE_CHECKING:
    from nats.js.api import ConsumerInfo

    from proxy.functions.queue.jetstream import JetStreamQueue

MOST_LOOKED = 100  # functions whose oldest call is fetched, a message each


async def counts_of(queue: JetStreamQueue) -> dict[str, dict[str, int]]:
    """function → state → calls. Raises Refused."""
    found: dict[str, dict[str, int]] = {}

    def row(function: str) -> dict[str, int]:
        return found.setdefault(function, dict.fromkeys(STATES, 0))

    try:
        for info in await queue.consumers():
            row(function_of(info.name))[QUEUED] = waiting_of(info)
        subjects = queue.names.any_letter()
        dead = await queue.js.stream_info(queue.names.dead, subjects_filter=subjects)
        for subject, count in (dead.state.subjects or {}).items():
            row(function_of(subject.split(".")[-2]))[DEAD] += count
    except LOST as error:
        raise unreachable(error) from None
    for it in queue.pulls.active.values():
        one = row(it.call.function)
        one[RUNNING] += 1
        one[QUEUED] = max(one[QUEUED] - 1, 0)
    return found


async def oldest_of(queue: JetStreamQueue) -> dict[str, float]:
    """function → when the first call was accepted that is still in the stream. Raises Refused."""
    found: dict[str, float] = {}
    try:
        for info in await queue.consumers():
            if len(found) == MOST_LOOKED:
                break
            if not waiting_of(info):
                continue
            function = function_of(info.name)
            subject = queue.names.any_call(function)
            with contextlib.suppress(NotFoundError, ValueError):  # it has ended meanwhile
                first = await queue.js.get_msg(queue.names.calls, seq=1, subject=subject, next=True)
                call = unpack_call(bytes(first.data or b""))
                found[function] = call.accepted_ns / 1e9
    except LOST as error:
        raise unreachable(error) from None
    return found


def waiting_of(info: ConsumerInfo) -> int:
    return (info.num_pending or 0) + (info.num_ack_pending or 0)

"""When a call is tried again, and how much later.

A function's annotations say it, in OpenFaaS' words; the directives of a `function` block write
the same annotations. Waits grow by two from min_wait to max_wait with full jitter: anything from
nothing to that, so that calls that failed together do not come back together.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from proxy.conf.values import read_ms
from proxy.functions.queue.calls import DEAD, DONE, QUEUED, Outcome
from proxy.functions.queue.words import (
    ATTEMPTS,
    CODES,
    LONGEST_WAIT_MS,
    MAX_WAIT,
    MIN_WAIT,
    MOST_ATTEMPTS,
    MOST_PARALLELISM,
    PARALLELISM,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.functions.queue.calls import Result

RETRY_AFTER_CODES = (429, 503)


@dataclass(frozen=True, slots=True)
class Retry:
    """attempts: in all, the first included."""

    attempts: int = 10
    min_wait_ms: int = 10_000
    max_wait_ms: int = 120_000
    codes: frozenset[int] = frozenset((408, 429, 500, 502, 503, 504))
    parallelism: int = 10


DEFAULT = Retry()


def read_retry(annotations: Mapping[str, str]) -> Retry:
    """What a function's annotations say; one that makes no sense counts as not there."""
    attempts = _int(annotations.get(ATTEMPTS), DEFAULT.attempts, MOST_ATTEMPTS)
    min_wait_ms = _ms(annotations.get(MIN_WAIT), DEFAULT.min_wait_ms)
    max_wait_ms = _ms(annotations.get(MAX_WAIT), DEFAULT.max_wait_ms)
    codes = DEFAULT.codes
    if CODES in annotations:
        words = annotations[CODES].replace(" ", "").split(",")
        if all(len(it) == 3 and it.isdecimal() for it in words):
            codes = frozenset(map(int, words))
    parallelism = _int(annotations.get(PARALLELISM), DEFAULT.parallelism, MOST_PARALLELISM)
    return Retry(
        attempts=max(attempts, 1),  # OpenFaaS' 0 is "no retry"
        min_wait_ms=min_wait_ms,
        max_wait_ms=max(max_wait_ms, min_wait_ms),
        codes=codes,
        parallelism=max(parallelism, 1),
    )


def _int(text: str | None, default: int, most: int) -> int:
    if not text or not text.isascii() or not text.isdecimal():
        return default
    return min(int(text[:9]), most)


def _ms(text: str | None, default: int) -> int:
    found = read_ms(text) if text else None
    return default if found is None else min(found, LONGEST_WAIT_MS)


def judge(result: Result, attempts: int, retry: Retry) -> Outcome:
    """What becomes of a call after its attempt number `attempts` (1 is the first)."""
    if not should_retry(result, retry):
        return Outcome(DONE, result)
    if attempts >= retry.attempts:
        return Outcome(DEAD, result)
    return Outcome(QUEUED, result, wait_ms(result, attempts, retry))


def should_retry(result: Result, retry: Retry) -> bool:
    """No answer, one of the codes, or an error that the gateway made and not the function."""
    if result.status == 0 or result.status in retry.codes:
        return True
    return result.status >= 400 and any(
        name.lower() == "x-openfaas-internal" for name, _ in result.headers
    )


def wait_ms(result: Result, attempts: int, retry: Retry) -> int:
    """How long after attempt number `attempts`. Retry-After (RFC 9110 §10.2.3) is the least."""
    most = min(retry.min_wait_ms << min(attempts - 1, 20), retry.max_wait_ms)
    wait = random.randint(0, most)
    if result.status in RETRY_AFTER_CODES:
        for name, value in result.headers:
            if name.lower() == "retry-after":
                return max(wait, read_retry_after_ms(value))
    return wait


def read_retry_after_ms(text: str) -> int:
    """Seconds or a date; 0 for nonsense or the past."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]) * 1000, LONGEST_WAIT_MS)
    try:
        at_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(int((at_s - time.time()) * 1000), 0), LONGEST_WAIT_MS)

"""The small values of a function's words. They cost nothing at the start: a conf without functions
reads no more of this room than its grammar."""

from __future__ import annotations

import re
from typing import NamedTuple

NAMESPACE = "openfaas-fn"  # of whoever names none
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
SPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
LIMITLESS = 0


class Ready(NamedTuple):
    """`ready PATH`: interval_ms is the longest pause between two looks, timeout_ms is for one.
    path "": `ready grpc`, Health/Check of gRPC is asked for `service`."""

    path: str
    interval_ms: int = 20
    timeout_ms: int = 1000
    service: str = ""


class Limits(NamedTuple):
    """What one replica may use; 0: as much as there is."""

    memory_bytes: int = LIMITLESS
    cpu_milli: int = LIMITLESS
    nofile: int = LIMITLESS
    nproc: int = LIMITLESS

    @property
    def is_bounded(self) -> bool:
        """Has it limits that somebody must look at (usage.py)?"""
        return bool(self.memory_bytes or self.nproc)


class Balance(NamedTuple):
    """Which replica is asked. method: least_in_flight (of two taken at random), round_robin, or
    hash: the same one for the same value of key, a text with variables. One that failed max_fails
    times (0: any number) within fail_timeout_ms is left out for so long; a new one beside others
    gets its full share after slow_start_ms."""

    method: str = "least_in_flight"
    key: str = ""
    max_fails: int = 1
    fail_timeout_ms: int = 1000
    slow_start_ms: int = 0

"""What a limiter's check and a count cost; run by name, they assert nothing."""

import random

import pytest

from proxy.base._shm import Zone
from proxy.limits._conn import ConnZone
from proxy.limits._req import NODELAY, ReqLimits, ReqZone

ROUNDS = 10_000
rng = random.Random(1)
KEYS = {
    "one address": [[b"\x7f\0\0\1"]],
    "1000 addresses": [[rng.randbytes(4)] for _ in range(1000)],
    "200 bytes": [[b"x" * 200]],
}


@pytest.mark.parametrize("name", KEYS)
def test_limit_req(benchmark, name):
    z = ReqZone(Zone.create("one", 10 << 20, "limit_req"), 1_000_000)
    limits = ReqLimits([(z, 1_000_000, NODELAY)])
    keys = KEYS[name]
    benchmark.extra_info["checks a round"] = ROUNDS
    benchmark(limits.time_checks, keys, 1_000_000, ROUNDS // len(keys))


def test_limit_conn_take_and_give(benchmark):
    z = ConnZone(Zone.create("addr", 10 << 20, "limit_conn"))
    benchmark.extra_info["takes a round"] = ROUNDS
    benchmark(z.time_takes, b"\x7f\0\0\1", ROUNDS)

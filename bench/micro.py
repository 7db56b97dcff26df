"""What parser, router and bucket cost alone: `make bench-micro` (pytest-benchmark).

The times include the Python call into the compiled module, and for a head the copy and the
allocation that the test door makes; on the hot path neither exists. Good for before and after.
"""

from __future__ import annotations

import pytest

from proxy.base._shm import Zone
from proxy.limits._req import ReqLimits, ReqZone
from proxy.routing._function_routes import FunctionRoutes
from proxy.wire.h1_door import Reader

SMALL = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BROWSER = (
    b"GET /search?q=weir HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n"
)
HEADS = {"small": SMALL, "browser": BROWSER}
KEYS = 1000


@pytest.mark.parametrize("name", HEADS)
def test_read_head(benchmark, name):
    head = HEADS[name]
    assert benchmark(lambda: Reader().feed(head)) == len(head)


@pytest.mark.parametrize("name", HEADS)
def test_read_head_by_h11(benchmark, name):
    """The peer: the pure Python parser that our tests use as oracle."""
    import h11

    def read():
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(HEADS[name])
        return connection.next_event()

    assert benchmark(read).method == b"GET"


@pytest.mark.parametrize("count", [100, 10_000, 100_000])
def test_find_route(benchmark, count):
    routes = FunctionRoutes()
    routes.change([("", f"/function/team{n % 97}/fn-{n}", "", n) for n in range(count)])
    assert benchmark(routes.find, "x", "/function/team5/fn-5/a", "GET") == 5


def test_check_one_bucket(benchmark):
    """One address again and again: one key in the zone."""
    zone = ReqZone(Zone.create("one", 1 << 20, "limit_req", "$key"), 1_000_000_000)
    limits = ReqLimits([(zone, 1_000_000, 1_000_000)])
    benchmark(limits.check, [b"127.0.0.1"], 1_000_000)


def test_check_many_buckets(benchmark):
    """1,000 addresses in turn; the printed time is for all of them."""
    zone = ReqZone(Zone.create("many", 1 << 22, "limit_req", "$key"), 1_000_000_000)
    limits = ReqLimits([(zone, 1_000_000, 1_000_000)])
    rows = [[f"10.0.{n >> 8}.{n & 255}".encode()] for n in range(KEYS)]
    benchmark(limits.time_checks, rows, 1_000_000, 1)

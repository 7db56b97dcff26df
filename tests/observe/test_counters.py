"""Counters: summed over processes, never going down, named once, told as Prometheus reads them."""

import os
import signal

import pytest

from proxy.base._shm import Zone
from proxy.observe._counters import BOUNDS, Counters, counters_bytes
from proxy.observe.metrics import write_metrics, write_stub_status

SIZES = {"n_processes": 4, "rows": 8, "plain": 8}


@pytest.fixture
def zone():
    return Zone.create("counters", counters_bytes(**SIZES), "counters")


def counters(zone, process):
    return Counters(zone, process, **SIZES)


def test_processes_are_summed(zone):
    a, b = counters(zone, 1), counters(zone, 2)
    row = a.row("example.org", "/", "")
    assert b.row("example.org", "/", "") == row
    a.add_request(row, 200, 3_000)
    b.add_request(row, 204, 12_000)
    b.add_request(row, 503, 60_000_000)
    b.add_request(row, 444_000, 1)
    found = {k: (buckets, sum_s) for _, k, buckets, sum_s in counters(zone, 3).read().series}
    assert found[2] == ([1, 0, 1] + [0] * 12, 0.015)
    assert found[5] == ([0] * 14 + [1], 60.0)
    assert found[0][0][0] == 1


@pytest.mark.parametrize("place", range(14))
def test_a_bound_belongs_to_its_bucket(zone, place):
    c = counters(zone, 1)
    c.add_request(0, 200, round(BOUNDS[place] * 1e6))
    c.add_request(0, 200, round(BOUNDS[place] * 1e6) + 1)
    [(_, _, buckets, _)] = c.read().series
    assert [i for i, n in enumerate(buckets) if n] == [place, place + 1]


def test_folding_the_dead_lowers_no_counter_and_forgets_gauges(zone):
    master, worker = counters(zone, 0), counters(zone, 1)
    total = worker.counter("t_total", {"zone": "one"})
    depth = worker.counter("depth", {}, True)
    pid = os.fork()
    if pid == 0:
        worker.add_connections(accepted=3, handled=3, active=2, requests=9)
        worker.add_request(worker.row("s", "/", ""), 200, 10)
        worker.add(total, 5)
        worker.add(depth, 7)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    before = master.read()
    master.fold(1)
    after = master.read()
    assert before.connections["active"] == 2
    assert after.connections == {**before.connections, "active": 0}
    assert after.series == before.series
    assert [value for *_, value in before.plain] == [5, 7]
    assert [value for *_, value in after.plain] == [5, 0]
    master.fold(1)
    again = counters(zone, 1)
    again.add(total)
    assert [value for *_, value in master.read().plain] == [6, 0]


def test_gauges_go_down(zone):
    c = counters(zone, 1)
    depth = c.counter("depth", {}, True)
    c.add(depth, -2)
    c.add_connections(active=1)
    c.add_connections(active=-1)
    assert c.read().plain == [("depth", (), True, -2)]
    assert c.read().connections["active"] == 0


def test_what_finds_no_room_counts_as_other(zone):
    c = counters(zone, 1)
    numbers = [c.row("s", f"/{i}", "") for i in range(20)]
    assert numbers == [*range(1, 8), *[0] * 13]
    c.add_request(10**9, 200, 1)
    c.add(10**9)
    assert c.read().series[0][0] == ("", "", "")


def test_long_names_are_cut(zone):
    c = counters(zone, 1)
    row = c.row("s" * 500, "/" * 500, "f" * 500)
    c.add_request(row, 200, 1)
    server, location, function = c.read().series[0][0]
    assert (server, location, function) == ("s" * 83, "/" * 83, "f" * 83)


def test_prometheus_text(zone):
    c = counters(zone, 1)
    c.add_connections(accepted=2, handled=2, active=1, waiting=1)
    row = c.row('a"b\\c', "/x", "f")
    c.add_request(row, 200, 4_000)
    c.add_request(row, 200, 2_000_000)
    c.add(c.counter("headrace_limit_req_requests_total", {"zone": "one", "status": "PASSED"}))
    lines = write_metrics(c.read(), [("u", "127.0.0.1:80", True, 3)]).decode().splitlines()
    labels = 'server="a\\"b\\\\c",location="/x",function="f",status="2xx"'
    duration = "headrace_http_request_duration_seconds"
    for line in (
        "headrace_connections_accepted_total 2",
        'headrace_connections{state="waiting"} 1',
        f"headrace_http_requests_total{{{labels}}} 2",
        f"# TYPE {duration} histogram",
        f'{duration}_bucket{{{labels},le="0.005"}} 1',
        f'{duration}_bucket{{{labels},le="1"}} 1',
        f'{duration}_bucket{{{labels},le="2.5"}} 2',
        f'{duration}_bucket{{{labels},le="+Inf"}} 2',
        f"{duration}_sum{{{labels}}} 2.004",
        f"{duration}_count{{{labels}}} 2",
        'headrace_limit_req_requests_total{zone="one",status="PASSED"} 1',
        'headrace_upstream_peer_up{upstream="u",peer="127.0.0.1:80"} 1',
        'headrace_upstream_peer_active{upstream="u",peer="127.0.0.1:80"} 3',
    ):
        assert line in lines
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_stub_status_text(zone):
    c = counters(zone, 1)
    c.add_connections(accepted=7, handled=6, requests=12, active=3, reading=1, writing=1, waiting=1)
    assert write_stub_status(c.read()) == (
        b"Active connections: 3 \nserver accepts handled requests\n 7 6 12 \n"
        b"Reading: 1 Writing: 1 Waiting: 1 \n"
    )

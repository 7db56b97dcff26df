"""limit_req: the same answers as a plain model of the algorithm, and none too many."""

import os
import random
import signal
import time
from collections import OrderedDict

import pytest

from proxy.base._shm import Zone
from proxy.limits._req import NODELAY, REQ_STATUS, ReqLimits, ReqZone

NONE, PASSED, DELAYED, REJECTED, NO_ROOM = 0, 1, 2, 3, 6


def zone(rate, size=1 << 20, name="one"):
    return ReqZone(Zone.create(name, size, "limit_req", "$key"), rate)


class Model:
    """The algorithm in plain Python: one ordered dict a zone, nothing shared."""

    def __init__(self, rate):
        self.rate = rate
        self.buckets = OrderedDict()  # key -> (last, excess), oldest use first

    def look(self, key, now):
        if key not in self.buckets:
            self.forget_stale(now)
            self.buckets[key] = (now, 0)
            return 0, True
        self.buckets.move_to_end(key)
        last, excess = self.buckets[key]
        ms = now - last
        ms = 1 if ms < -60000 else max(ms, 0)
        return max(0, excess - self.rate * ms // 1000 + 1000), ms > 0

    def forget_stale(self, now):
        for _ in range(2):
            if not self.buckets:
                return
            key, (last, excess) = next(iter(self.buckets.items()))
            ms = abs(now - last)
            if ms < 60000 or excess > self.rate * ms // 1000:
                return
            del self.buckets[key]

    def store(self, key, now, excess, is_later):
        last = now if is_later else self.buckets[key][0]
        self.buckets[key] = (last, excess)


def model_check(limits, keys, now):
    looked = []
    for (model, burst, delay), key in zip(limits, keys, strict=True):
        if not key or len(key) > 65535:
            continue
        excess, is_later = model.look(key, now)
        if excess > burst:
            return REJECTED, 0
        looked.append((model, key, excess, is_later, delay))
    if not looked:
        return NONE, 0
    longest = 0
    for model, key, excess, is_later, delay in looked:
        model.store(key, now, excess, is_later)
        if excess > delay:
            longest = max(longest, (excess - delay) * 1000 // model.rate)
    return (DELAYED if longest else PASSED), longest


def test_rejects_past_burst_and_recovers():
    z = zone(2000)  # 2r/s
    now = 5_000_000
    assert z.check(b"a", 1000, NODELAY, now) == (PASSED, 0)
    assert z.check(b"a", 1000, NODELAY, now) == (PASSED, 1000)
    assert z.check(b"a", 1000, NODELAY, now) == (REJECTED, 2000)
    assert z.check(b"b", 1000, NODELAY, now) == (PASSED, 0)
    # what was rejected is not counted: half a second later one fits again
    assert z.check(b"a", 1000, NODELAY, now + 500) == (PASSED, 1000)
    assert z.check(b"a", 1000, NODELAY, now + 500)[0] == REJECTED


def test_delay_is_the_excess_over_the_rate():
    limits = ReqLimits([(zone(2000), 5000, 0)])
    assert limits.check([b"a"], 1000) == (PASSED, 0, 0, 0)
    assert limits.check([b"a"], 1000) == (DELAYED, 500, 1000, 0)
    assert limits.check([b"a"], 1000) == (DELAYED, 1000, 2000, 0)


def test_delay_threshold_lets_the_first_through_at_once():
    limits = ReqLimits([(zone(1000), 5000, 2000)])
    answers = [limits.check([b"a"], 1000)[:2] for _ in range(7)]
    assert answers == [(PASSED, 0)] * 3 + [
        (DELAYED, 1000), (DELAYED, 2000), (DELAYED, 3000), (REJECTED, 0)]


def test_the_longest_delay_of_several_counts():
    slow, fast = zone(16, name="slow"), zone(1_000_000, name="fast")
    limits = ReqLimits([(slow, 10_000, 0), (fast, 10_000, 0)])
    limits.check([b"a", b"a"], 1000)
    result, delay_ms, excess, which = limits.check([b"a", b"a"], 1000)
    assert (result, excess, which) == (DELAYED, 1000, 0)
    assert delay_ms == 1000 * 1000 // 16


def test_a_later_rejection_leaves_the_earlier_limit_uncounted():
    first, second = zone(1000, name="first"), zone(1000, name="second")
    limits = ReqLimits([(first, 5000, NODELAY), (second, 0, NODELAY)])
    assert limits.check([b"k", b"k"], 1000)[0] == PASSED
    for _ in range(20):
        assert limits.check([b"k", b"k"], 1000)[0] == REJECTED
    assert first.check(b"k", 5000, NODELAY, 1000, False) == (PASSED, 1000)


@pytest.mark.parametrize("key", [b"", b"x" * 65536])
def test_empty_and_huge_keys_are_not_limited(key):
    limits = ReqLimits([(zone(1000), 0, NODELAY)])
    for _ in range(5):
        assert limits.check([key], 1000)[0] == NONE


def test_keys_of_any_length_are_told_apart():
    z = zone(1000, size=8 << 20)
    lengths = [*range(1, 200), 4096, 65534, 65535]
    for n in lengths:
        for last in (b"a", b"b"):
            assert z.check(b"x" * (n - 1) + last, 0, NODELAY, 1000) == (PASSED, 0), n
    for n in lengths:
        for last in (b"a", b"b"):
            assert z.check(b"x" * (n - 1) + last, 0, NODELAY, 1000)[0] == REJECTED, n
    assert z.broken() is None


def test_a_key_that_never_fits_is_refused():
    z = zone(1000, size=32768)
    z.check(b"small", 0, NODELAY, 1000)
    assert z.check(b"x" * 65000, 0, NODELAY, 1000)[0] == NO_ROOM
    assert z.check(b"small", 0, NODELAY, 1000)[0] == REJECTED
    assert z.broken() is None


def test_a_clock_a_little_back_costs_nothing_and_one_far_back_recovers():
    z = zone(1000)
    z.check(b"a", 0, NODELAY, 200_000)
    assert z.check(b"a", 0, NODELAY, 199_000)[0] == REJECTED
    assert z.check(b"a", 5000, NODELAY, 100_000) == (PASSED, 999)
    assert z.check(b"a", 5000, NODELAY, 101_000) == (PASSED, 999)


def test_long_idle_and_high_rate_do_not_overflow():
    z = zone(2**31 - 1)
    z.check(b"a", 4_000_000_000, NODELAY, 0)
    assert z.check(b"a", 4_000_000_000, NODELAY, 2**62) == (PASSED, 0)


def test_the_least_recently_used_go_when_the_zone_is_full():
    z = zone(1, size=32768)
    cells = z.count()["cells"]
    for i in range(cells):
        assert z.check(b"%d" % i, 0, NODELAY, 1000) == (PASSED, 0)
    assert z.check(b"0", 0, NODELAY, 1000)[0] == REJECTED  # used again: young
    for i in range(cells, cells + 10):
        assert z.check(b"%d" % i, 0, NODELAY, 1000) == (PASSED, 0)
    assert z.count()["evicted"] == 10
    assert z.check(b"0", 0, NODELAY, 1000)[0] == REJECTED
    assert z.check(b"%d" % (cells - 1), 0, NODELAY, 1000)[0] == REJECTED
    assert z.check(b"1", 0, NODELAY, 1000) == (PASSED, 0)  # forgotten
    assert z.broken() is None


def test_old_empty_buckets_are_forgotten_by_and_by():
    z = zone(1000, size=32768)
    for i in range(50):
        z.check(b"%d" % i, 0, NODELAY, 1000)
    for i in range(25):
        z.check(b"new%d" % i, 0, NODELAY, 100_000)
    assert z.count()["keys"] == 25
    assert z.count()["evicted"] == 0


@pytest.mark.parametrize("seed", range(20))
def test_answers_are_those_of_the_model(seed):
    rng = random.Random(seed)
    rates = [rng.choice([16, 1000, 2000, 30_000, 1_000_000]) for _ in range(rng.randint(1, 3))]
    zones = [zone(rate, 1 << 18, name=f"z{i}") for i, rate in enumerate(rates)]
    models = [Model(rate) for rate in rates]
    knobs = [(rng.choice([0, 1000, 5000, 20_000]), rng.choice([0, 1000, 3000, NODELAY]))
             for _ in rates]
    limits = ReqLimits([(z, b, d) for z, (b, d) in zip(zones, knobs, strict=True)])
    modelled = [(m, b, d) for m, (b, d) in zip(models, knobs, strict=True)]
    pool = [b"", b"a", b"b", b"c" * 24, b"c" * 25, b"d" * 80, b"e" * 81, b"f" * 5000]
    now = 1_000_000_000
    for _ in range(1500):
        now += rng.choice([0, 0, 0, 1, 3, 20, 400, 2000, -1, -30, -70_000])
        keys = [rng.choice(pool) for _ in rates]
        assert limits.check(keys, now)[:2] == model_check(modelled, keys, now)
    assert all(z.broken() is None for z in zones)


def in_children(n, work):
    """Run work(i) in n forked processes; their exit codes."""
    pids = []
    for i in range(n):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = work(i) or 0
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_processes_together_let_through_exactly_the_burst():
    z = zone(1)  # leaks nothing worth counting
    tally = Zone.create("tally", 65536)

    def work(i):
        limits = ReqLimits([(ReqZone(Zone.attach(z.zone.fd), 1), 300_000, NODELAY)])
        passed = sum(limits.check([b"shared"], 1000)[0] == PASSED for _ in range(2000))
        os.pwrite(tally.fd, passed.to_bytes(4, "little"), 16384 + 4 * i)

    assert in_children(4, work) == [0] * 4
    passed = sum(int.from_bytes(os.pread(tally.fd, 4, 16384 + 4 * i), "little") for i in range(4))
    assert passed == 301
    assert z.broken() is None


def test_processes_with_several_limits_never_wait_for_each_other_and_stay_exact():
    a, b = zone(1, name="a"), zone(1, name="b")
    tally = Zone.create("tally", 65536)

    def work(i):
        # each maps the zones in its own order and lists them in its own order
        first, second = (a, b) if i % 2 else (b, a)
        mapped = [ReqZone(Zone.attach(z.zone.fd), 1) for z in (first, second)]
        limits = ReqLimits([(z, 200_000, NODELAY) for z in mapped])
        passed = sum(limits.check([b"k", b"k"], 1000)[0] == PASSED for _ in range(2000))
        os.pwrite(tally.fd, passed.to_bytes(4, "little"), 16384 + 4 * i)

    assert in_children(4, work) == [0] * 4
    passed = sum(int.from_bytes(os.pread(tally.fd, 4, 16384 + 4 * i), "little") for i in range(4))
    assert passed == 201


def test_a_worker_killed_with_the_lock_stops_nobody():
    z = zone(1000, size=65536)
    for i in range(100):
        z.check(b"key%d" % i * 10, 0, NODELAY, 1000)

    def work(_):
        for lock in range(z.count()["shards"]):
            z.zone.hold(lock)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_children(1, work) == [-signal.SIGKILL]
    # every bucket kept its state
    for i in range(100):
        assert z.check(b"key%d" % i * 10, 0, NODELAY, 1000)[0] == REJECTED
    assert z.count()["mended"] >= 1
    assert z.broken() is None


def test_workers_killed_anywhere_leave_a_whole_zone():
    z = zone(1000, size=32768)
    rng = random.Random(7)

    def work(i):
        mine = random.Random(i)
        keys = [b"k%d" % n * mine.choice([1, 20, 60]) for n in range(150)]
        limits = ReqLimits([(z, 0, NODELAY)])
        now = 1000
        while True:
            now += 30_000
            limits.time_checks([[mine.choice(keys)] for _ in range(50)], now, 3)

    for round_number in range(12):
        pids = []
        for i in range(2):
            pid = os.fork()
            if pid == 0:
                try:
                    work(round_number * 2 + i)
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(rng.uniform(0.01, 0.04))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert z.broken() is None
        assert z.check(b"after", 0, NODELAY, 10**9 + round_number * 10_000) == (PASSED, 0)


def test_state_stays_for_whoever_attaches_later():
    z = zone(1)
    assert z.check(b"a", 0, NODELAY, 1000)[0] == PASSED
    again = ReqZone(Zone.attach(z.zone.fd), 1)
    del z
    assert again.check(b"a", 0, NODELAY, 1000)[0] == REJECTED


def test_the_same_zone_twice_is_refused():
    z = zone(1000)
    with pytest.raises(ValueError, match="is duplicate"):
        ReqLimits([(z, 0, 0), (z, 0, 0)])


def test_status_words_are_those_of_nginx():
    assert REQ_STATUS[PASSED] == "PASSED"
    assert REQ_STATUS[4:6] == ("DELAYED_DRY_RUN", "REJECTED_DRY_RUN")

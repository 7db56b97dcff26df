"""limit_conn: never more than the limit over all workers, and nothing lost with the dead."""

import os
import random
import signal
import time

import pytest

from proxy.base._shm import Zone
from proxy.limits._conn import CONN_STATUS, ConnLimits, ConnZone

NONE, PASSED, REJECTED, _, NO_ROOM = range(5)


def zone(size=1 << 20, name="addr"):
    return ConnZone(Zone.create(name, size, "limit_conn", "$key"))


def test_take_up_to_the_limit_and_give():
    z = zone()
    handles = [z.take(b"k", 2, 1) for _ in range(3)]
    assert [r for r, _ in handles] == [PASSED, PASSED, REJECTED]
    assert z.take(b"other", 2, 1)[0] == PASSED
    z.give(handles[0][1], 1)
    assert z.take(b"k", 2, 1)[0] == PASSED
    assert z.take(b"k", 2, 1)[0] == REJECTED
    assert z.take(b"k", 3, 1)[0] == PASSED  # another location, another limit, the same count


def test_a_key_that_nobody_holds_is_gone():
    z = zone()
    for n in (1, 24, 25, 80, 81, 255):
        result, handle = z.take(b"x" * n, 1, 1)
        assert result == PASSED
        z.give(handle, 1)
        z.give(handle, 1)  # given twice does nothing
    assert z.keys() == 0
    assert z.broken() is None


@pytest.mark.parametrize("key", [b"", b"x" * 256])
def test_empty_and_long_keys_are_not_limited(key):
    z = zone()
    assert z.take(key, 1, 1) == (NONE, 0)
    assert z.take(key, 1, 1) == (NONE, 0)


def test_many_workers_share_one_key():
    z = zone()
    handles = [(w, z.take(b"k", 1000, w)[1]) for w in range(200) for _ in range(2)]
    assert z.held(b"k") == 400
    assert z.broken() is None
    for worker, handle in random.Random(1).sample(handles, len(handles)):
        z.give(handle, worker)
    assert z.keys() == 0
    assert z.broken() is None


def test_a_full_zone_rejects_and_recovers():
    z = zone(32768)
    held = []
    while True:
        result, handle = z.take(b"key%d" % len(held), 5, 1)
        if result != PASSED:
            break
        held.append(handle)
    assert result == NO_ROOM
    z.give(held.pop(), 1)
    assert z.take(b"again", 5, 1)[0] == PASSED
    assert z.broken() is None


def test_several_limits_take_all_or_none():
    a, b = zone(name="a"), zone(name="b")
    limits = ConnLimits([(a, 5), (b, 1)])
    result, handles, _ = limits.take([b"k", b"k"], 1)
    assert result == PASSED
    assert limits.take([b"k", b"k"], 1)[::2] == (REJECTED, 1)
    assert (a.held(b"k"), b.held(b"k")) == (1, 1)
    limits.give(handles, 1)
    assert (a.keys(), b.keys()) == (0, 0)
    assert limits.take([b"", b""], 1)[0] == NONE
    assert limits.take([b"", b"k"], 1)[0] == PASSED


def test_what_the_dead_held_is_given_back():
    z = zone()
    for key in (b"a", b"b", b"c" * 100):
        z.take(key, 10, 1)
        z.take(key, 10, 2)
        z.take(key, 10, 2)
    z.take(b"only two", 10, 2)
    assert z.give_back_dead(2) == 7
    assert [z.held(k) for k in (b"a", b"b", b"c" * 100, b"only two")] == [1, 1, 1, 0]
    assert z.keys() == 3
    assert z.give_back_dead(2) == 0
    assert z.broken() is None


def test_never_more_than_the_limit_over_processes():
    z = zone(65536)
    pids = []
    for worker in range(1, 4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                mine = ConnZone(Zone.attach(z.zone.fd))
                code = 0
                for _ in range(1500):
                    result, handle = mine.take(b"k", 2, worker)
                    if result == PASSED:
                        if mine.held(b"k") > 2:
                            code = 3
                        mine.give(handle, worker)
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert z.keys() == 0


def test_workers_killed_anywhere_leave_nothing_taken():
    z = zone(32768)
    rng = random.Random(3)
    survivor = z.take(b"k1", 65535, 9)[1]
    for _ in range(12):
        pids = []
        for worker in (1, 2):
            pid = os.fork()
            if pid == 0:
                try:
                    mine = random.Random(worker)
                    held = []
                    while True:
                        key = b"k%d" % mine.randrange(40) * mine.choice([1, 1, 20])
                        held.append(z.take(key, 65535, worker)[1])
                        if len(held) > 60:
                            z.give(held.pop(mine.randrange(60)), worker)
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(rng.uniform(0.005, 0.03))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        z.give_back_dead(1)
        z.give_back_dead(2)
        assert z.broken() is None
        assert z.keys() == 1
        assert z.held(b"k1") == 1
    z.give(survivor, 9)
    assert z.keys() == 0


def test_state_stays_for_whoever_attaches_later():
    z = zone()
    z.take(b"k", 1, 1)
    again = ConnZone(Zone.attach(z.zone.fd))
    del z
    assert again.take(b"k", 1, 2)[0] == REJECTED


def test_status_words_are_those_of_nginx():
    assert CONN_STATUS == (None, "PASSED", "REJECTED", "REJECTED_DRY_RUN", "REJECTED")

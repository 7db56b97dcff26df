"""Slots by number: never more than the limit, none lost with a dead worker."""

import os
import signal
import time

import pytest

from proxy.base._shm import Zone
from proxy.limits._slots import SlotZone, slot_zone_bytes


def slots(n_numbers=8, n_workers=4):
    return SlotZone(Zone.create("s", slot_zone_bytes(n_numbers, n_workers), "slots"),
                    n_numbers, n_workers)


def test_take_up_to_the_limit_and_give():
    s = slots()
    assert [s.take(3, 2, w) for w in (0, 1, 2)] == [True, True, False]
    assert s.taken(3) == 2
    s.give(3, 2)  # never held one
    assert s.taken(3) == 2
    s.give(3, 0)
    assert s.take(3, 2, 2)
    assert s.take(4, 2, 2)


def test_no_limit_counts_all_the_same():
    s = slots()
    assert all(s.take(0, 0, 1) for _ in range(100))
    assert s.taken(0) == 100


@pytest.mark.parametrize(("number", "worker"), [(8, 0), (2**31, 0), (0, 4), (0, 65535)])
def test_numbers_outside_are_refused(number, worker):
    s = slots()
    assert not s.take(number, 5, worker)
    s.give(number, worker)


def test_what_the_dead_held_is_given_back():
    s = slots()
    for number in (1, 2):
        for worker in (0, 1, 1):
            s.take(number, 0, worker)
    assert s.give_back_dead(1) == 4
    assert (s.taken(1), s.taken(2)) == (1, 1)


def test_a_large_zone_costs_only_what_is_used():
    s = slots(100_000, 64)
    s.take(99_999, 1, 63)
    assert s.zone.bytes_in_use() < 1 << 20


def test_workers_killed_anywhere_leave_exact_counts():
    s = slots()
    for _ in range(15):
        pids = []
        for worker in (1, 2):
            pid = os.fork()
            if pid == 0:
                try:
                    while True:
                        if s.take(5, 3, worker):
                            s.give(5, worker)
                        s.take(6, 0, worker)
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert s.taken(5) <= 3
        s.give_back_dead(1)
        s.give_back_dead(2)
        assert (s.taken(5), s.taken(6)) == (0, 0)


def test_state_stays_for_whoever_attaches_later():
    s = slots()
    s.take(1, 1, 0)
    again = SlotZone(Zone.attach(s.zone.fd))
    del s
    assert not again.take(1, 1, 1)

"""The zone of functions: found by name from any process, forgotten when nobody holds anything."""

from __future__ import annotations

import os

import pytest

from proxy.base._shm import Zone
from proxy.functions._counts import Counts
from proxy.functions._function import Functions
from proxy.functions.peers import peer_of

BYTES = 64 << 20
ROW = {
    "function": "f.ns",
    "versions": [{"name": "v1", "concurrency": 2, "replicas": [["f.ns/v1/1", "127.0.0.1:9"]]}],
}


@pytest.fixture
def zone() -> Zone:
    made = Zone.create("functions", BYTES, "functions")
    Counts(made)
    return made


def worker(zone: Zone, ledger: int) -> Functions:
    return Functions(peer_of, Counts(Zone.attach(zone.fd), ledger))


def test_what_nobody_named_counts_nothing(zone: Zone) -> None:
    counts = Counts(zone)
    assert counts.sample("f.ns/v1") == (0, 0, 0, 0)
    assert counts.slots("f.ns/v1/1") == 0
    counts.forget("f.ns/v1")
    assert counts.look("f.ns/v1")["requests"] == 0


def test_a_zone_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        Counts(Zone.create("functions", 1 << 20, "functions"))
    with pytest.raises(ValueError, match="no zone of functions"):
        Counts(Zone.create("functions", 1 << 20, "other"))


def test_workers_find_one_entry_and_the_last_one_drops_it(zone: Zone) -> None:
    one, two = worker(zone, 0), worker(zone, 1)
    for functions in (one, two):
        functions.change(ROW)
    entries = one.counts.room[1]
    assert entries == 2  # a version and a replica
    for functions in (one, two):
        functions.change_replicas("f.ns/v1", [])
        assert [it.id for it in functions.take_idle()] == ["f.ns/v1/1"]
    one.counts.forget("f.ns/v1")
    # what is free is used again
    for functions in (one, two):
        functions.change({**ROW, "function": "g.ns"})
    assert one.counts.room[1] == entries


def test_more_names_than_there_is_room_for_count_for_themselves(zone: Zone) -> None:
    functions = worker(zone, 0)
    room, _ = functions.counts.room
    for number in range(room + 10):
        functions.change({"function": f"f{number}.ns", "versions": [{"name": "v1"}]})
    assert functions.counts.room == (room, room)
    functions.change(ROW)
    assert not functions.find(b"f.ns").versions[0].has_slots


def test_a_process_that_died_holds_nothing(zone: Zone) -> None:
    pid = os.fork()
    if pid == 0:
        worker(zone, 3).change(ROW)
        os._exit(0)
    os.waitpid(pid, 0)
    counts = Counts(zone)
    entries = counts.room[1]
    counts.give_back_dead(3)
    counts.forget("f.ns/v1")
    counts.forget("f.ns/v1/1")
    worker(zone, 4).change({**ROW, "function": "g.ns"})
    assert counts.room[1] == entries

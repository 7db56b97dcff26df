"""Zones of shared memory: found again by descriptor, refused when foreign, unlocked by death."""

import os
import signal

import pytest

from proxy.base._shm import Zone, ZoneError

LOCKED, LOCKED_BROKEN = 0, 1


def test_create_says_what_it_is():
    zone = Zone.create("one", 1 << 20, "limit_req", "$remote_addr")
    assert (zone.name, zone.size, zone.kind, zone.label) == (
        "one", 1 << 20, "limit_req", "$remote_addr")
    assert zone.is_for("one", 1 << 20, "limit_req")
    assert not zone.is_for("one", 1 << 21, "limit_req")
    assert not zone.is_for("two", 1 << 20, "limit_req")
    assert not zone.is_for("one", 1 << 20, "limit_conn")


def test_attach_sees_the_same_memory_and_outlives_the_maker():
    zone = Zone.create("one", 65536)
    memoryview(zone)[:5] = b"hello"
    again = Zone.attach(zone.fd)
    del zone
    assert bytes(memoryview(again)[:5]) == b"hello"
    assert again.name == "one"


def test_memory_that_nobody_touched_costs_nothing():
    zone = Zone.create("big", 10 << 30)
    assert zone.bytes_in_use() <= 65536


def test_long_names_and_labels_are_cut_not_overrun():
    zone = Zone.create("n" * 5000, 32768, "other", "l" * 50_000)
    assert zone.name == "n" * 255
    assert zone.label == "l" * 2047


def test_too_small_is_refused():
    with pytest.raises(ZoneError, match='zone "tiny" is too small'):
        Zone.create("tiny", 32767)


def test_absurd_sizes_are_refused():
    with pytest.raises(ZoneError):
        Zone.create("huge", 1 << 62)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * 65536])
def test_a_foreign_file_is_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with open(tmp_path / "file", "r+b") as file, pytest.raises(ZoneError, match="no shared memory"):
        Zone.attach(file.fileno())


def test_another_layout_is_refused():
    zone = Zone.create("one", 32768)
    os.pwrite(zone.fd, (99).to_bytes(4, "little"), 8)
    with pytest.raises(ZoneError, match="layout 99"):
        Zone.attach(zone.fd)


def test_nobody_can_cut_the_file_under_a_mapping():
    zone = Zone.create("one", 32768)
    with pytest.raises(PermissionError):
        os.ftruncate(zone.fd, 4096)


def test_descriptors_are_closed_on_exec_and_with_the_zone():
    zone = Zone.create("one", 32768)
    fd = zone.fd
    assert not os.get_inheritable(fd)
    del zone
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_lock_whose_owner_was_killed_is_handed_on_as_broken_once():
    zone = Zone.create("one", 32768)
    pid = os.fork()
    if pid == 0:
        zone.hold(3)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert zone.hold(3) == LOCKED_BROKEN
    zone.free(3, is_mended=True)
    assert zone.hold(3) == LOCKED
    zone.free(3)
    assert zone.hold(4) == LOCKED
    zone.free(4)

"""cgroups of replicas, where this machine has a cgroup v2 that can be written."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.process import groups
from proxy.process.groups import Groups
from proxy.process.spawn import spawn


@pytest.fixture
def root() -> Iterator[str]:
    """A group of our own, below ours."""
    try:
        mount, own = groups._where()
        path = Path(mount + own.rstrip("/")) / f"headrace-test-{os.getpid()}"
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no writable cgroup v2: {error}")
    yield str(path)
    limit = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            assert time.monotonic() < limit, list(path.iterdir())
            time.sleep(0.02)


def test_a_replica_is_put_into_its_group_and_killed_with_it(root: str) -> None:
    it = Groups(print)
    it._root = root
    path, fd = it.open("a.b/v1/x/1/2//tmp/y", {"memory.max": "1000000", "no.such": "1"})
    assert path.startswith(root)
    argv = ["/bin/sh", "-c", "sleep 60 & setsid sleep 60 & wait"]
    pid, pipes, _ = spawn({"argv": argv, "env": {"PATH": os.environ["PATH"]}}, fd)
    for one in [fd, *pipes]:
        os.close(one)
    limit = time.monotonic() + 5
    while len(Path(path, "cgroup.procs").read_text().split()) < 3:
        assert time.monotonic() < limit
        time.sleep(0.01)
    it.remove(path)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    while Path(path).exists():
        assert time.monotonic() < limit
        it._sweep()
        time.sleep(0.01)


def test_without_limits_there_is_no_group() -> None:
    assert Groups(print).open("a", None) == ("", -1)
    assert Groups(print).open("a", {}) == ("", -1)


def test_where_nothing_can_be_written_replicas_go_without() -> None:
    said: list[str] = []
    it = Groups(said.append)
    it._root = ""
    assert it.open("a", {"memory.max": "1"}) == ("", -1)
    it._root = "/proc/none"
    assert it.open("a", {"memory.max": "1"}) == ("", -1)
    assert "a replica goes without" in said[0]


def test_a_cpu_limit_that_nothing_holds_is_told_by_name(tmp_path: Path) -> None:
    said: list[str] = []
    it = Groups(said.append)
    it._root = ""
    for serial in (1, 2):
        it.open(f"a.b/v1/x/{serial}/2//tmp/y", {"cpu.max": "50000 100000"})
    it.open("m.b/v1/x/1/2//tmp/y", {"memory.max": "1"})
    it.open("c.b/v2/x/1/2//tmp/y", {"cpu.max": "50000 100000"})
    assert [it.split(":")[0] for it in said] == ["function a.b/v1", "function c.b/v2"]
    said.clear()
    it = Groups(said.append)
    it._root = str(tmp_path)  # a folder that has no cpu.max, as without that controller
    it.open("d.b/v1/x/1/2//tmp/y", {"memory.max": "1", "cpu.max": "50000 100000"})
    assert said[0].startswith('function d.b/v1: nothing holds its "limits cpu"')


@pytest.mark.parametrize("controllers, has", [("cpuset io memory", False), ("io cpu", True)])
def test_which_controllers_there_could_be(tmp_path: Path, controllers: str, has: bool) -> None:
    assert not groups.has_controller("cpu", str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text(controllers + "\n")
    assert not groups.has_controller("cpu", str(tmp_path))  # nothing can be switched on
    (tmp_path / "cgroup.subtree_control").write_text("")
    assert groups.has_controller("cpu", str(tmp_path)) == has

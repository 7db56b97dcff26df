"""Copies of secrets in a replica's folder, which belongs to a user that is not trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from proxy.functions.secrets import COPIES, renew_copy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A replica's, with a copy of `key`."""
    inside = tmp_path / "replica" / COPIES
    inside.mkdir(parents=True)
    (inside / "key").write_text("old")
    return tmp_path / "replica"


def test_a_copy_is_replaced_whole(folder: Path) -> None:
    path = folder / COPIES / "key"
    with open(path) as before:
        renew_copy(str(folder), "key", b"new")
        assert before.read() == "old"  # who reads it meanwhile reads one state
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(folder / COPIES) == ["key"]


def test_who_has_none_gets_none(folder: Path) -> None:
    with pytest.raises(OSError):
        renew_copy(str(folder), "other", b"new")
    assert os.listdir(folder / COPIES) == ["key"]


@pytest.mark.parametrize("which", ["folder", "copies", "left over"])
def test_no_link_is_followed(folder: Path, tmp_path: Path, which: str) -> None:
    target = tmp_path / "target"
    (target / COPIES).mkdir(parents=True)
    for path in (target / COPIES / "key", target / "key"):
        path.write_text("precious")
    if which == "folder":
        folder.rename(tmp_path / "away")
        folder.symlink_to(target)
    elif which == "copies":
        (folder / COPIES).rename(folder / "away")
        (folder / COPIES).symlink_to(target)
    else:
        (folder / COPIES / ".key.new").symlink_to(target / "key")
    if which == "left over":
        renew_copy(str(folder), "key", b"new")
        assert (folder / COPIES / "key").read_text() == "new"
    else:
        with pytest.raises(OSError):
            renew_copy(str(folder), "key", b"new")
    assert (target / "key").read_text() == (target / COPIES / "key").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["secrets", "secrets/key"])
def test_files_of_others_are_left_alone(folder: Path, what: str) -> None:
    os.chown(folder, 12345, 12345)
    for path in (folder / COPIES, folder / COPIES / "key"):
        os.chown(path, 12345, 12345)
    renew_copy(str(folder), "key", b"new")
    copy = folder / COPIES / "key"
    assert (copy.stat().st_uid, copy.stat().st_gid, copy.read_text()) == (12345, 12345, "new")
    os.chown(folder / what, 0, 0)
    with pytest.raises(PermissionError):
        renew_copy(str(folder), "key", b"newer")
    assert copy.read_text() == "new"

"""open_log_file_cache: descriptors of logs whose path has variables, kept while they are in use."""

from __future__ import annotations

import os
from typing import NamedTuple

from proxy.observe._log import LogFile


class PathCacheSettings(NamedTuple):
    """`open_log_file_cache`: most files kept, times in ms, uses before a file is kept open."""

    most: int
    inactive_ms: int
    valid_ms: int
    min_uses: int


class Entry:
    """One path: its file while it is open, and what its use was."""

    __slots__ = ("checked_ms", "file", "inode", "used_ms", "uses")

    def __init__(self) -> None:
        self.file: LogFile | None = None
        self.uses = 0
        self.used_ms = 0
        self.checked_ms = 0
        self.inode = (0, 0)


class PathCache:
    """Least recently used goes first; `find` and `give` come in pairs."""

    def __init__(self, settings: PathCacheSettings) -> None:
        self.settings = settings
        self.entries: dict[bytes, Entry] = {}

    def find(self, path: bytes, now_ms: int) -> LogFile:
        """The open log of `path`. Raises OSError."""
        self.expire(now_ms)
        entry = self.entries.pop(path, None)
        if entry is None:
            entry = Entry()
        if entry.file is not None and now_ms - entry.checked_ms >= self.settings.valid_ms:
            entry.checked_ms = now_ms
            if not self.is_same(entry):
                entry.file.close()
                entry.file = None
        if entry.file is None:
            entry.file = open_log(path)
            entry.checked_ms = now_ms
            entry.inode = inode_of(path)
        entry.uses += 1
        entry.used_ms = now_ms
        self.entries[path] = entry
        if len(self.entries) > self.settings.most:
            self.drop(next(iter(self.entries)))
        return entry.file

    def give(self, file: LogFile) -> None:
        """The line is written; a file that is not yet in use enough closes."""
        entry = self.entries.get(file.path)
        if entry is None:
            file.close()
        elif entry.uses < self.settings.min_uses:
            file.close()
            entry.file = None

    def expire(self, now_ms: int) -> None:
        """Drop what nobody used for `inactive`, two at a time."""
        for path in list(self.entries)[:2]:
            if now_ms - self.entries[path].used_ms > self.settings.inactive_ms:
                self.drop(path)

    def is_same(self, entry: Entry) -> bool:
        assert entry.file is not None
        return inode_of(entry.file.path) == entry.inode

    def drop(self, path: bytes) -> None:
        entry = self.entries.pop(path)
        if entry.file is not None:
            entry.file.close()

    def close(self) -> None:
        """Forget all; the next line opens its file anew."""
        for path in list(self.entries):
            self.drop(path)


def open_log(path: bytes) -> LogFile:
    file = LogFile(path)
    file.open()
    return file


def inode_of(path: bytes) -> tuple[int, int]:
    """Device and inode, zeros for a file that is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)

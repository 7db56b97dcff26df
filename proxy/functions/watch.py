"""`watch on`: looks at the files of versions twice a second, and tells when they have changed.

A change is told when the files have been the same for one look: who writes a file in pieces is not
met in the middle. What the change means is the fingerprint's business (model.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from proxy.functions.model import Version

LOOK_S = 0.5
MOST_FILES = 500  # of one version


class Watch:
    """Calls `on_change(versions' keys)`; sleeps while nobody says `watch on`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_change: Callable[[list[str]], None]
    ) -> None:
        self._loop = loop
        self._on_change = on_change
        self._versions: dict[str, Version] = {}
        self._told: dict[str, tuple[object, ...]] = {}
        self._seen: dict[str, tuple[object, ...]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def want(self, versions: Iterable[Version]) -> None:
        """These are all versions from now on."""
        self._versions = {it.key: it for it in versions if it.watch}
        known = self._told  # what changed meanwhile is not yet told
        self._told = {
            key: known[key] if key in known else stamps(it) for key, it in self._versions.items()
        }
        self._seen = {key: self._seen.get(key, it) for key, it in self._told.items()}
        if self._timer is None and self._versions:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        changed = []
        for key, version in self._versions.items():
            found = stamps(version)
            if found == self._seen.get(key) and found != self._told.get(key):
                self._told[key] = found
                changed.append(key)
            self._seen[key] = found
        if self._versions:
            self._timer = self._loop.call_later(LOOK_S, self._look)
        if changed:
            self._on_change(changed)


def stamps(version: Version) -> tuple[object, ...]:
    """What tells one state of its files from another."""
    found: list[object] = []
    for path in version.files:
        try:
            it = os.stat(path)
            found.append((it.st_mtime_ns, it.st_size, it.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def beside(file: str) -> tuple[str, ...]:
    """The other Python files of its folder: a handler imports from there."""
    folder = os.path.dirname(file)
    try:
        names = sorted(it for it in os.listdir(folder) if it.endswith(".py"))
    except OSError:
        return ()
    return tuple(
        path for path in (os.path.join(folder, name) for name in names[:MOST_FILES]) if path != file
    )

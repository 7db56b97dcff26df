"""Tells workers of functions and replicas, and learns from them who is idle and who is waited for.

Every worker holds a stream (links.py, table.py). A new one is told everything once; then whoever
changes is told. Before the replicas that an older controller left are looked at nothing is told:
a table without them would take them away from workers that know them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.functions.keeper import Replica
    from proxy.functions.links import Link
    from proxy.functions.model import Function


class View(Protocol):
    """What is told of."""

    @property
    def functions(self) -> Mapping[str, Function]: ...

    def ready(self, key: str) -> list[Replica]: ...
    def on_wake(self, key: str) -> None: ...


class Teller:
    """One for all workers."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.links: set[Link] = set()
        self.is_settled = False
        self._drains: dict[str, tuple[set[Link], asyncio.Event]] = {}

    # -- down -------------------------------------------------------------------------------------
    def settle(self) -> None:
        """From now on workers are told."""
        if not self.is_settled:
            self.is_settled = True
            for link in self.links:
                self._tell_all(link)

    def tell_function(self, key: str) -> None:
        """All of it: it is new, or more than its replicas changed."""
        if self.is_settled:
            for link in self.links:
                self._tell(link, key)

    def tell_gone(self, key: str) -> None:
        if self.is_settled:
            for link in self.links:
                link.tell_gone(key)

    def tell_replicas(self, key: str) -> None:
        """Who is ready of a version. Of one that is no more they know: the function was told."""
        name, _, version = key.rpartition("/")
        function = self.view.functions.get(name)
        if self.is_settled and function is not None and function.version(version) is not None:
            rows = self._rows(key)
            for link in self.links:
                link.tell_replicas(key, rows)

    def tell_failed(self, key: str, error: str) -> None:
        """No replica of the version could be started."""
        if self.is_settled:
            for link in self.links:
                link.tell_failed(key, error)

    def _tell_all(self, link: Link) -> None:
        for key in self.view.functions:
            self._tell(link, key)
        link.tell_whole()

    def _tell(self, link: Link, key: str) -> None:
        function = self.view.functions.get(key)
        if function is not None:
            link.tell(function, {it.key: self._rows(it.key) for it in function.versions})

    def _rows(self, key: str) -> list[tuple[str, str]]:
        return [(it.id, it.address) for it in self.view.ready(key)]

    def begin_drain(self, replica: Replica) -> None:
        """While it is still ready: who knows it now has to say when it is idle. The next table
        that is told, be it for another one's sake, is without it."""
        knowing = {link for link in self.links if link.knows(replica.key, replica.id)}
        self._drains[replica.id] = knowing, asyncio.Event()

    async def drain(self, replica: Replica, timeout_ms: int) -> None:
        """Out of the table, then until no worker has a request at it, or the time is over."""
        if replica.id not in self._drains:  # it is no more already
            return
        knowing, is_over = self._drains[replica.id]
        self.tell_replicas(replica.key)
        if not knowing:
            is_over.set()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), timeout_ms / 1000)
        finally:
            self._drains.pop(replica.id, None)

    def on_gone(self, id: str) -> None:
        """The replica is no more: nobody waits for it."""
        waiting = self._drains.pop(id, None)
        if waiting:
            waiting[1].set()

    def leave(self) -> None:
        """Workers shall look for the controller anew."""
        for link in list(self.links):
            link.transport.close()

    # -- up (links.Source) ------------------------------------------------------------------------
    def on_link(self, link: Link) -> None:
        self.links.add(link)
        if self.is_settled:
            self._tell_all(link)

    def on_drained(self, link: Link, id: str) -> None:
        waiting = self._drains.get(id)
        if waiting:
            waiting[0].discard(link)
            if not waiting[0]:
                waiting[1].set()

    def on_wake(self, link: Link, key: str) -> None:
        self.view.on_wake(key)

    def on_link_lost(self, link: Link) -> None:
        self.links.discard(link)
        for id in list(self._drains):
            self.on_drained(link, id)

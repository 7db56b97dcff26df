"""Follows the functions of a worker: their routes, their versions' shares, who has which labels.

A hook of Functions (_function.pyx), run at each change of the table, between requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.functions._arms import Affinity, Arms
from proxy.functions._target import FunctionRoute, Selection
from proxy.functions.routes import Route, is_route, read_routes
from proxy.upstream.sticky import read_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proxy.functions._function import Function, Functions

STICKY = "headrace.io/sticky"  # the annotation of a function that came by the API


def read_labels(text: str) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE,…` behind "label:". Raises ValueError."""
    found = []
    for word in text.split(","):
        key, equals, value = word.strip().partition("=")
        if not key or not equals:
            raise ValueError(f'invalid label "{word}", it must be KEY=VALUE')
        found.append((key, value))
    return tuple(sorted(found))


class Directory:
    """functions: followed from now on. table: a FunctionRoutes, or None where no server has
    `function_routes on`. report: told what the operator should know, once each. is_open:
    functions may come that the conf does not know."""

    def __init__(
        self,
        functions: Functions,
        table: Any = None,
        report: Callable[[str], None] = lambda text: None,
        is_open: bool = False,
    ) -> None:
        self.table = table
        self.report = report
        self.is_open = is_open
        self._routes: dict[bytes, tuple[list[Route], Function, str]] = {}
        self._arms: dict[bytes, tuple] = {}
        self._labels: dict[tuple[tuple[str, str], ...], tuple[Selection, set[Function]]] = {}
        self._told: set[str] = set()
        self.functions = functions
        functions.on_change(self.on_change)

    def select(self, labels: tuple[tuple[str, str], ...]) -> Selection:
        """Kept up to date: the oldest function that has all these labels."""
        if labels not in self._labels:
            self._labels[labels] = Selection(), set()
            for function in self.functions:
                self._sort_in(labels, function, is_gone=False)
        return self._labels[labels][0]

    def on_change(self, function: Function, is_gone: bool) -> None:
        """Functions' hook."""
        for labels in self._labels:
            self._sort_in(labels, function, is_gone)
        if is_gone:
            self._arms.pop(function.key, None)
        else:
            self._share_out(function)
        if self.table is not None:
            self._change_routes(function, is_gone)

    def tell(self, text: str) -> None:
        if text not in self._told and len(self._told) < 10_000:
            self._told.add(text)
            self.report(text)

    # -- versions -------------------------------------------------------------------------------
    def _share_out(self, function: Function) -> None:
        sticky = function.sticky or function.annotations.get(STICKY)
        if len(function.versions) == 1 and not sticky:  # nothing to choose: most are so
            function.arms = None
            self._arms.pop(function.key, None)
            return
        rows = tuple((it.name, it.weight, it.tag, it.mirror) for it in function.versions)
        now = (rows, sticky)
        if self._arms.get(function.key) == now and function.arms is not None:
            return
        self._arms[function.key] = now
        affinity = None
        if sticky:
            try:
                affinity = Affinity(read_words(sticky.split()))
            except ValueError as error:
                self.tell(f'function "{name_of(function)}": sticky "{sticky}": {error}')
        function.arms = Arms(
            function.key,
            [(name.decode(), weight, tag.decode(), mirror) for name, weight, tag, mirror in rows],
            affinity,
        )

    # -- labels ---------------------------------------------------------------------------------
    def _sort_in(
        self, labels: tuple[tuple[str, str], ...], function: Function, is_gone: bool
    ) -> None:
        selection, members = self._labels[labels]
        if not is_gone and all(function.labels.get(key) == value for key, value in labels):
            members.add(function)
        elif function in members:
            members.discard(function)
        else:
            return
        selection.chosen = min(members, key=rank_of, default=None)
        if len(members) > 1:
            words = ",".join(f"{key}={value}" for key, value in labels)
            names = ", ".join(f'"{name_of(it)}"' for it in sorted(members, key=rank_of)[:8])
            self.tell(f'functions with the labels "{words}": {names}: the first is asked')

    # -- routes ---------------------------------------------------------------------------------
    def _change_routes(self, function: Function, is_gone: bool) -> None:
        key, owner = function.key, name_of(function)
        before, held, created_at = self._routes.get(key, ([], None, ""))
        after: list[Route] = []
        if not is_gone and any(map(is_route, function.annotations)):
            try:
                after = read_routes(function.annotations)
            except ValueError as error:
                self.tell(f'function "{owner}": {error}')
        is_same = after == before and created_at == function.created_at
        if is_same and (held is function or not after):
            return
        adds = []
        for it in after:
            rewrite = it.rewrite.encode()
            value = FunctionRoute(function, it.prefix.encode() if rewrite else b"", rewrite)
            adds += [(*row, value, it.conditions, it.priority) for row in it.rows]
        kept = set(after)
        removes = [
            (*row, it.conditions, it.priority) for it in before if it not in kept for row in it.rows
        ]
        try:
            self.table.change(adds, removes, owner=owner, rank=rank_of(function))
        except ValueError as error:
            self.tell(f'function "{owner}": {error}; it has the routes that it had')
            return
        if after:
            self._routes[key] = after, function, function.created_at
        else:
            self._routes.pop(key, None)
        for it in after:
            for host, path, method in it.rows:
                owners = self.table.owners(host, path, method, it.conditions, it.priority)
                if len(owners) > 1:
                    self.tell(
                        f'conflicting function route "{it.shown(method)}" of "{owners[0]}" and '
                        f'"{owners[1]}": "{owners[0]}" is older and answers'
                    )


def name_of(function: Function) -> str:
    return function.key.decode()


def rank_of(function: Function) -> tuple[str, str]:
    """The older before the younger; those of the conf, which have no date, before all."""
    return function.created_at, function.key.decode()

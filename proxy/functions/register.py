"""Which functions there are: those of the conf and those of the API in one register.

A name of the conf stands before one of the API. Weights that were set at run time lie over what
was declared, until the function's versions change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from proxy.functions.model import Function

Changed = Callable[[Function | None, Function | None], None]


class Unknown(LookupError):
    """There is no such function or version."""


class Register:
    """functions: what holds. on_change(before, after) is called for each that changes; None: it is
    not there. previous: weights before the last split, for going back."""

    def __init__(self, on_change: Changed) -> None:
        self.functions: dict[str, Function] = {}
        self.declared: dict[str, Function] = {}
        self.stored: dict[str, Function] = {}
        self.splits: dict[str, dict[str, int]] = {}
        self.previous: dict[str, dict[str, int]] = {}
        self.namespaces: dict[str, int] = {}  # namespace → how many functions
        self._on_change = on_change

    def declare(self, functions: Mapping[str, Function]) -> None:
        """The conf's, all of them."""
        before, now = self.declared, now_text()
        self.declared = {}
        for key, it in functions.items():
            born = before[key].created_at if key in before else now
            self.declared[key] = replace(it, created_at=born)
        for key in [*before, *(key for key in functions if key not in before)]:
            self._settle(key)

    def put(self, function: Function) -> None:
        """One of the API's."""
        self.stored[function.key] = function
        self._settle(function.key)

    def put_all(self, functions: Iterable[Function]) -> None:
        for it in functions:
            self.put(it)

    def remove(self, key: str) -> None:
        """One of the API's is no more."""
        self.stored.pop(key, None)
        self.splits.pop(key, None)
        self.previous.pop(key, None)
        self._settle(key)

    def split(self, key: str, weights: Mapping[str, int]) -> dict[str, int]:
        """New weights for some versions. Gives what holds now. Raises Unknown, ValueError."""
        function = self.functions.get(key)
        if function is None:
            raise Unknown(f'there is no function "{key}"')
        before = {it.name: it.weight for it in function.versions}
        for name in weights:
            if name not in before:
                raise Unknown(f'function "{key}" has no version "{name}"')
        shadows = [it.name for it in function.versions if it.is_shadow and weights.get(it.name)]
        if shadows:
            raise ValueError(f'version "{shadows[0]}" only mirrors: it can have no weight')
        after = {**before, **weights}
        if not any(after.values()):
            raise ValueError("no version would have a weight")
        self.previous[key] = before
        self.splits[key] = after
        self._settle(key)
        return after

    def go_back(self, key: str) -> dict[str, int]:
        """The weights before the last split; the last become those before. Raises Unknown."""
        if key not in self.previous:
            raise Unknown(f'function "{key}" has no earlier split')
        return self.split(key, self.previous[key])

    def _settle(self, key: str) -> None:
        """What holds for this key from now on."""
        before = self.functions.get(key)
        after = self.declared.get(key) or self.stored.get(key)
        if after is not None:
            after = self._weighted(after)
        if after == before:
            if after is not None:
                self._on_change(before, after)  # a file of it may have changed
            return
        if after is None:
            del self.functions[key]
        else:
            self.functions[key] = after
        self._count(before, -1)
        self._count(after, 1)
        self._on_change(before, after)

    def _weighted(self, function: Function) -> Function:
        split = self.splits.get(function.key)
        if split is None:
            return function
        if split.keys() != {it.name for it in function.versions}:
            del self.splits[function.key]
            return function
        versions = tuple(replace(it, weight=split[it.name]) for it in function.versions)
        return replace(function, versions=versions)

    def _count(self, function: Function | None, step: int) -> None:
        if function is not None:
            left = self.namespaces.get(function.namespace, 0) + step
            if left:
                self.namespaces[function.namespace] = left
            else:
                del self.namespaces[function.namespace]


def now_text() -> str:
    """RFC 3339, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

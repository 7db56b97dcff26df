"""The shared memory that all processes count in: the master opens it and keeps it over reloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

ZONE = "headrace counters"


def counter_zones(model: Block) -> dict[str, tuple[int, str]]:
    """{name: (bytes, kind)}."""
    if not model.find("http"):
        return {}
    from proxy.observe._counters import counters_bytes

    return {ZONE: (counters_bytes(), "counters")}

"""The shared memory in which all processes count functions: the master opens and keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

from proxy.functions.queue.tally import queue_zones

ZONE = "headrace functions"
ZONE_BYTES = 256 << 20


def function_zones(model: Block) -> dict[str, tuple[int, str]]:
    """{name: (bytes, kind)}. There is one without functions, too: a reload may bring some, and
    the controller, which outlives it, must have it then."""
    size = 0
    for http in model.find("http"):
        for block in http.find("functions"):
            size = block.get("zone_size")
        size = size or ZONE_BYTES
    return {ZONE: (size, "functions"), **queue_zones(model)} if size else {}

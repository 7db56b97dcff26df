"""The shared memory in which all workers know the clients of mqtt { }: the master keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

ZONE = "headrace mqtt"


def mqtt_zones(model: Block) -> dict[str, tuple[int, str]]:
    """{name: (bytes, kind)}."""
    for mqtt in model.find("mqtt"):
        return {ZONE: (mqtt.get("mqtt_zone_size"), "other")}
    return {}

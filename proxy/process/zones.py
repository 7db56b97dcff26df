"""The zones of shared memory that a conf asks for: opened by the master before it forks.

A limiter's zone of the same name and size goes on over a reload; an upstream's begins anew, as in
nginx. A worker attaches what its seat's `shared` names (`Zone.attach`). Names are one space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.conf.report import ConfError
from proxy.engine.tls import tls_zones
from proxy.functions.zones import function_zones
from proxy.mqtt.zones import ZONE as CLIENTS
from proxy.mqtt.zones import mqtt_zones
from proxy.observe.zones import counter_zones

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.conf.inherit import Block

# Rooms with zones that no directive names add theirs here: model → {name: (bytes, kind)}.
SOURCES: list[Callable[[Block], dict[str, tuple[int, str]]]] = [
    counter_zones,
    tls_zones,
    function_zones,
    mqtt_zones,
]


def open_zones(model: Block, before: dict[str, Any]) -> dict[str, Any]:
    """name → `proxy.base._shm.Zone`, laid out. Raises ConfError."""
    zones: dict[str, Any] = {}
    declaring = ("limit_req_zone", "limit_conn_zone")
    outer = (*model.find("http"), *model.find("stream"), *model.find("mqtt"))
    if any(block.own(name) for block in outer for name in declaring):
        zones.update(_limit_zones(model, before))
    for name, size, block in _upstream_zones(model):
        if name in zones:
            raise block.error(
                f'the shared memory zone "{name}" is already declared for a different use'
            )
        zones[name] = _new_upstream_zone(name, size, block)
    for source in SOURCES:
        for name, (size, kind) in source(model).items():
            if kind == "functions":
                zones[name] = before.get(name) or _new_functions_zone(name, size)
            else:
                zones[name] = _kept_or_new(name, size, kind, before)
    return zones


def on_worker_death(
    zones: dict[str, Any], ledger: int, pid: int, bells: Sequence[int] = ()
) -> None:
    """Give back what the dead worker of that ledger number held in `zones`."""
    for zone in zones.values():
        if zone.kind == "limit_conn":
            from proxy.limits._conn import ConnZone

            ConnZone(zone).give_back_dead(ledger)
        elif zone.kind == "functions":
            from proxy.functions._counts import Counts

            Counts(zone, bells=bells).give_back_dead(ledger)
        elif zone.kind == "upstream":
            from proxy.upstream._shared import forget_process

            forget_process(zone, pid)


def _limit_zones(model: Block, before: dict[str, Any]) -> dict[str, Any]:
    from proxy.limits.zones import open_zones as open_limit_zones
    from proxy.limits.zones import zones

    declared = zones(model)
    opened: dict[str, Any] = dict(open_limit_zones(declared, before))
    for name, zone in opened.items():
        if zone.kind == "limit_conn":
            from proxy.limits._conn import ConnZone

            ConnZone(zone)  # lays out a fresh one
        else:
            from proxy.limits._req import ReqZone

            ReqZone(zone, declared[name].rate)
    return opened


def _upstream_zones(model: Block) -> list[tuple[str, int, Block]]:
    sizes: dict[str, tuple[int, Block]] = {}
    for outer in (*model.find("http"), *model.find("stream"), *model.find("mqtt")):
        for upstream in outer.find("upstream"):
            zone = upstream.own("zone")
            if zone is None:
                continue
            size, _ = sizes.get(zone.name, (0, upstream))
            if size and zone.size_bytes and size != zone.size_bytes:
                raise upstream.error(
                    f'the size {zone.size_bytes} of shared memory zone "{zone.name}" conflicts '
                    f"with already declared size {size}"
                )
            sizes[zone.name] = (size or zone.size_bytes, upstream)
    return [(name, size, block) for name, (size, block) in sizes.items()]


def _new_upstream_zone(name: str, size: int, block: Block) -> Any:
    if not size:
        raise block.error(f'zero size shared memory zone "{name}"')
    from proxy.base._shm import Zone, ZoneError
    from proxy.upstream._shared import lay_out

    try:
        zone = Zone.create(name, size, "upstream")
        lay_out(zone)
    except (ZoneError, ValueError) as error:
        raise block.error(str(error)) from None
    return zone


def _new_functions_zone(name: str, size: int) -> Any:
    """Kept over reloads whatever its size: slots are taken in it, and the controller has it."""
    from proxy.base._shm import Zone, ZoneError
    from proxy.functions._counts import Counts

    try:
        zone = Zone.create(name, size, "functions")
        Counts(zone)  # lays it out
    except (ZoneError, ValueError) as error:
        raise ConfError(None, str(error)) from None
    return zone


def _kept_or_new(name: str, size: int, kind: str, before: dict[str, Any]) -> Any:
    from proxy.base._shm import Zone, ZoneError

    old = before.get(name)
    if old is not None and old.is_for(name, size, kind):
        return old
    try:
        zone = Zone.create(name, size, kind)
        if name == CLIENTS:
            from proxy.limits._paces import PaceZone

            PaceZone(zone)  # lays it out
        return zone
    except ZoneError as error:
        raise ConfError(None, str(error)) from None

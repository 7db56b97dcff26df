"""The limiters' zones from conf to memory: which there are, and what a reload may keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.base._shm import Zone, ZoneError
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.limits.directives import LimitZone, declared_in, different_use


def zones(model: Block) -> dict[str, LimitZone]:
    """The zones that a conf declares, by name, after every limit was seen to name one of them.

    Raises ConfError: a limit names a zone of the other kind, or one that is not declared.
    """
    found: dict[str, LimitZone] = {}
    for kind in ("http", "stream", "mqtt"):
        for outer in model.find(kind):
            for zone in declared_in(outer):
                if zone.name in found:
                    raise different_use(zone.token, zone.name)
                found[zone.name] = zone
    for block in every_block(model):
        for kind in ("limit_req", "limit_conn"):
            for limit in block.own(kind) or ():
                named = found.get(limit.zone)
                if named is None:
                    # nginx finds this out when it makes the zones, and names no place
                    raise ConfError(None, f'zero size shared memory zone "{limit.zone}"')
                if named.kind != kind:
                    raise different_use(limit.token, limit.zone)
    return found


def every_block(block: Block) -> Iterator[Block]:
    yield block
    for child in block.blocks:
        yield from every_block(child)


def open_zones(declared: Mapping[str, LimitZone], old: Mapping[str, Zone]) -> dict[str, Zone]:
    """Shared memory for what `declared` asks for; the master calls this before it forks.

    A zone of the same name, kind and size is kept with all that stands in it, also when its
    rate changed. Another size starts empty. Raises ConfError, as nginx, when a kept zone would
    be bound to another key, or when there is no memory.
    """
    opened: dict[str, Zone] = {}
    for name, zone in declared.items():
        kept = old.get(name)
        if kept is not None and kept.is_for(name, zone.size_bytes, zone.kind):
            if kept.label != Zone.cut_label(str(zone.key)):
                word = "limit_req" if zone.kind == "limit_req" else "limit_conn_zone"
                raise ConfError(
                    None,
                    f'{word} "{name}" uses the "{zone.key}" key '
                    f'while previously it used the "{kept.label}" key',
                )
            opened[name] = kept
            continue
        try:
            opened[name] = Zone.create(name, zone.size_bytes, zone.kind, str(zone.key))
        except ZoneError as error:
            raise ConfError(zone.token, str(error)) from None
    return opened

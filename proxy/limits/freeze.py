"""limit_req and limit_conn of a location become LimitSettings for the fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.base._shm import Zone
from proxy.limits._admit import LimitSettings
from proxy.limits._conn import ConnLimits, ConnZone
from proxy.limits._paces import PaceZone
from proxy.limits._req import ReqLimits, ReqZone
from proxy.limits.zones import zones
from proxy.variables._variables import compile as compile_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.conf.inherit import Block
    from proxy.limits.directives import LimitZone

LEVELS = {"info": 7, "notice": 6, "warn": 5, "error": 4}


class Limiters:
    """The zones of a plan, attached; without descriptors (a check) zones of its own."""

    def __init__(self, model: Block, shared: Mapping[str, int] | None, worker: int) -> None:
        self.declared: dict[str, LimitZone] = zones(model)
        self.worker = worker
        self.shared = shared
        self.attached: dict[str, ReqZone | ConnZone] = {}
        for name, zone in self.declared.items():
            if shared is not None and name in shared:
                memory = Zone.attach(shared[name])
            else:
                memory = Zone.create(name, zone.size_bytes, zone.kind, str(zone.key))
            if zone.kind == "limit_req":
                self.attached[name] = ReqZone(memory, zone.rate)
            else:
                self.attached[name] = ConnZone(memory)

    def freeze(self, block: Block) -> LimitSettings | None:
        """The settings of a location, or None when nothing is limited there."""
        conns, reqs = block.get("limit_conn"), block.get("limit_req")
        if not conns and not reqs:
            return None
        s = LimitSettings()
        s.worker = self.worker
        s.conn_status = block.get("limit_conn_status")
        s.conn_dry_run = block.get("limit_conn_dry_run")
        s.conn_level = LEVELS[block.get("limit_conn_log_level")]
        s.req_status = block.get("limit_req_status")
        s.req_dry_run = block.get("limit_req_dry_run")
        s.req_level = LEVELS[block.get("limit_req_log_level")]
        if conns:
            s.conns = ConnLimits([(self.attached[it.zone], it.number) for it in conns])
            s.conn_zones = [it.zone.encode() for it in conns]
            s.conn_keys = [self.key(it.zone, block) for it in conns]
        if reqs:
            s.reqs = ReqLimits([(self.attached[it.zone], it.burst, it.delay) for it in reqs])
            s.req_zones = [it.zone.encode() for it in reqs]
            s.req_keys = [self.key(it.zone, block) for it in reqs]
        return s

    def paces(self, name: str) -> PaceZone | None:
        """The zone in which workers keep what no conf names; None where nobody shares (a check)."""
        if self.shared is None or name not in self.shared:
            return None
        return PaceZone(Zone.attach(self.shared[name]))

    def key(self, zone: str, block: Block):
        return compile_text(str(self.declared[zone].key), block)

"""The counters of a plan: their shared memory, the series of each location, the pages that tell.

The zone is kept over reloads; without one (a check of the conf) a worker counts for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.base._shm import Zone
from proxy.observe._connections import put_counters
from proxy.observe._counters import Counters, open_counters
from proxy.observe.metrics import CONTENT_TYPE, write_metrics, write_stub_status
from proxy.observe.zones import ZONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from proxy.conf.inherit import Block

    Page = tuple[int, list[tuple[str, str]], bytes]

DECISIONS = ("", "passed", "delayed", "rejected", "delayed_dry_run", "rejected_dry_run")
CONN_DECISIONS = ("", "passed", "rejected", "rejected_dry_run")


class Numbers:
    """`counters` for the fast path; `upstreams` gives those whose peers are told, `more` further
    metrics as write_metrics takes them."""

    def __init__(self, shared: Mapping[str, int] | None) -> None:
        self.counters: Counters | None = None
        self.upstreams: Callable[[], Iterable[Any]] = tuple
        self.more: Callable[[], Iterable[Any]] = tuple
        if shared is not None and ZONE in shared:
            self.counters = open_counters(Zone.attach(shared[ZONE]))
            put_counters(self.counters)

    def row(self, server: str, location: str, function: str = "") -> int:
        """The series of a location; 0 when nothing is counted."""
        return self.counters.row(server, location, function) if self.counters else 0

    def decisions(self, kind: str, zone_names: Iterable[str]) -> list[int]:
        """Numbers of the counters of limit_req or limit_conn, by its status number."""
        if self.counters is None:
            return []
        words = DECISIONS if kind == "limit_req" else CONN_DECISIONS
        zone = ",".join(zone_names)
        name = f"headrace_{kind}_requests_total"
        return [
            self.counters.counter(name, {"zone": zone, "decision": word}) if word else 0
            for word in words
        ]

    def plain(self, names: Iterable[str], labels: dict[str, str]) -> list[int] | None:
        """The numbers of these counters, or None when nothing is counted."""
        if self.counters is None:
            return None
        return [self.counters.counter(name, labels) for name in names]

    def metrics(self, asked: Any) -> Page:
        """The answer of `metrics`."""
        assert self.counters is not None
        return (
            200,
            [("Content-Type", CONTENT_TYPE)],
            write_metrics(self.counters.read(), peer_states(self.upstreams()), self.more()),
        )

    def stub_status(self, asked: Any) -> Page:
        """The answer of `stub_status`."""
        assert self.counters is not None
        return 200, [("Content-Type", "text/plain")], write_stub_status(self.counters.read())

    def page(self, block: Block) -> Callable[[Any], Page] | None:
        """Who answers in a location that says `metrics` or `stub_status`."""
        if block.own("metrics"):
            return self.metrics
        if block.own("stub_status"):
            return self.stub_status
        return None


def peer_states(upstreams: Iterable[Any]) -> list[tuple[str, str, bool, int]]:
    """(upstream, peer, is it up, requests in flight), a line for each address.

    Workers share these through the upstream's zone; without one it is what this worker sees.
    """
    found: dict[tuple[str, str], tuple[bool, int]] = {}
    for upstream in upstreams:
        for peer in upstream.peers:
            name = (upstream.name.decode("latin-1"), peer.name.decode("latin-1"))
            is_up = not peer.is_out and not (peer.max_fails and peer.fails >= peer.max_fails)
            was_up, active = found.get(name, (False, 0))
            found[name] = (is_up or was_up, active + peer.conns)
    return [(*name, *state) for name, state in found.items()]

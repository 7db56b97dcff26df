"""The questions that the bench asks, one row each, with the figure that Headrace must reach."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """One row of the table.

    `unit`: "µs/req" (CPU per request), "s/GB" (CPU per 10^9 bytes of answer), "KiB", "MiB", "ms".
    `at_most`: ratio to a peer, by its name. `limit`: an absolute figure in the unit.
    """

    key: str
    title: str
    unit: str = "µs/req"
    server: str = "plain"
    path: str = "/"
    connections: int = 64
    routes: int = 0
    at_most: dict[str, float] = field(default_factory=dict)
    limit: float | None = None


LOADED = (
    Question("tiny", "tiny response", at_most={"nginx": 0.95, "haproxy": 0.95}),
    Question("c1000", "1,000 connections", connections=1000, at_most={"nginx": 0.70}),
    Question("tls", "tiny over TLS", server="tls", at_most={"nginx": 0.90}),
    Question("h2", "tiny, HTTP/2, 16×32 streams", server="h2", connections=16,
             at_most={"nginx": 0.5, "haproxy": 1.0}),
    Question("h2-16k", "16 KiB, HTTP/2, 16×32 streams", server="h2", path="/16k", connections=16,
             at_most={"nginx": 1.0, "haproxy": 1.0, "envoy": 1.0}),
    Question("16k", "16 KiB response", path="/16k", at_most={"nginx": 0.97}),
    Question("1m", "1 MiB response", path="/1m", connections=16,
             at_most={"nginx": 0.60, "envoy": 1.0}),
    Question("100m", "100 MiB response", "s/GB", path="/100m", connections=2,
             at_most={"nginx": 0.30, "envoy": 0.80}),
    Question("bare", "tiny, no log, no limiter", server="bare"),
    Question("log", "tiny, access log on", server="log"),
    Question("limit", "tiny, limiter on", server="limit"),
)  # fmt: skip
ROUTED = (
    Question("routes", "tiny, 10,000 routes", server="routes", path="/route/0/", routes=10_000),
)
STANDING = (
    Question("idle", "RSS per idle connection", "KiB", limit=2.0),
    Question("rss", "RSS at start", "MiB", limit=90.0),
    Question("start", "exec to listening", "ms", limit=300.0),
)
ALL = LOADED + ROUTED + STANDING

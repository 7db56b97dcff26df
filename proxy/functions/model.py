"""What a function is, whoever declared it: the conf (declared.py) or the API.

A *function* has the key `NAME.NAMESPACE` and one or more *versions* with keys
`NAME.NAMESPACE/VERSION`. Each version is scaled, queued and counted on its own; a *replica* is
one running copy of a version. Times in ms, sizes in bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxy.functions.values import NAMESPACE, Balance, Limits, Ready
from proxy.functions.watch import beside
from proxy.upstream.sticky import Sticky
from proxy.upstream.words import Queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = "v1"
KINDS = ("command", "python", "fork", "openwhisk", "lambda", "static")
TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas. max_scale 0: no bound. target: what one replica shall have to do, in
    requests at once or a second; 0: the version's `concurrency`, else Knative's 100 (rps: 200).
    utilization and panic_… are shares of 1. Meanings and defaults are Knative's."""

    min_scale: int = 0
    max_scale: int = 0
    initial_scale: int = 1
    activation_scale: int = 1
    prewarm: int = 0
    metric: str = "concurrency"
    target: float = 0
    utilization: float = 0.7
    window_ms: int = 60_000
    panic_window: float = 0.10
    panic_threshold: float = 2.0
    scale_down_delay_ms: int = 0
    retention_ms: int = 30_000
    max_up_rate: float = 1000.0
    max_down_rate: float = 2.0
    aggregation: str = "linear"


@dataclass(frozen=True, slots=True)
class Handler:
    """What makes a replica. kind: one of KINDS, or the name of a provider.

    words: command, fork: the program and its arguments; python, lambda: file, callable;
    openwhisk: file; static: addresses (`HOST:PORT`, `unix:PATH`); a provider: its arguments.
    Files are absolute.
    """

    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """One arm of a function. function: its key. concurrency: hard bound of requests at once for
    a replica, 0: none. ready: None – whoever accepts a connection is ready. mirror: the share in
    percent of requests that are copied here; such a version answers nobody. interpreter: a
    Python's path, empty: the gateway's. user: empty: the gateway's. settings: words of others
    that their kind of replica understands."""

    function: str
    name: str
    handler: Handler
    weight: int = 100
    tag: str = ""
    mirror: float = 0
    scale: Scale = Scale()
    queue: Queue = Queue()
    concurrency: int = 0
    timeout_ms: int = TIMEOUT_MS
    ready: Ready | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    interpreter: str = ""
    user: str = ""
    limits: Limits = Limits()
    secrets: tuple[str, ...] = ()
    watch: bool = False
    start_timeout_ms: int = 60_000
    drain_timeout_ms: int = 30_000
    count_streams: bool = True
    http_version: str = "1.1"
    balance: Balance = Balance()

    @property
    def key(self) -> str:
        return f"{self.function}/{self.name}"

    @property
    def is_shadow(self) -> bool:
        """It only gets copies."""
        return self.mirror > 0

    @property
    def namespace(self) -> str:
        return self.function.rpartition(".")[2]

    @property
    def files(self) -> tuple[str, ...]:
        """Whose change makes it another version."""
        kind, words = self.handler.kind, self.handler.words
        if kind in ("command", "fork"):
            return tuple(os.path.join(self.cwd, word) for word in words[:2])
        if kind not in ("python", "openwhisk", "lambda"):
            return ()
        return (words[0], *beside(words[0])) if self.watch else words[:1]

    @property
    def fingerprint(self) -> str:
        """12 hex digits: the same for two versions whose replicas need not be told apart."""
        told: list[Any] = [
            self.handler, self.env, self.cwd, self.ready, self.interpreter, self.user, self.limits,
            self.secrets,
        ]  # fmt: skip
        told += [_stamp(path) for path in self.files]
        return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def order(self, port: int, socket: str) -> dict[str, Any]:
        """What the master needs to start one replica (process/replicas.py)."""
        from proxy.functions.orders import order_of

        return order_of(self, port, socket)


@dataclass(frozen=True, slots=True)
class Function:
    """created_at: RFC 3339. is_from_conf: the API may not change it (its weights it may)."""

    name: str
    namespace: str
    versions: tuple[Version, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    sticky: Sticky | None = None
    is_async: bool = False
    schedule: tuple[str, ...] = ()
    created_at: str = ""
    is_from_conf: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}.{self.namespace}"

    def version(self, name: str) -> Version | None:
        return next((it for it in self.versions if it.name == name), None)


def find_function(name: str, keys: Iterable[str]) -> str | None:
    """Whom `function_pass NAME` and `/function/NAME` mean, of these keys: the key itself, the one
    in the default namespace, else the only one of that name."""
    known = keys if isinstance(keys, (dict, set, frozenset)) else set(keys)
    if name in known:
        return name
    if f"{name}.{NAMESPACE}" in known:
        return f"{name}.{NAMESPACE}"
    found = [key for key in known if key.rpartition(".")[0] == name]
    return found[0] if len(found) == 1 else None


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size

"""proxy_pass with variables: a URL of the moment becomes an Upstream, at once or after a look-up.

As in nginx a name is looked for among the upstreams of the conf first, then it is an address, then
the resolver is asked. What was found is remembered, bounded, so that the same URL again costs one
dict look-up and the resolver's clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxy.conf.values import AddressError
from proxy.upstream.proxy_pass import Target, find_upstream
from proxy.upstream.proxy_pass import read_url as read_http_url
from proxy.upstream.servers import ServerLine, is_literal, make_implicit, make_peers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.upstream._balance import Upstream

MOST_URLS = 4096
MOST_UPSTREAMS = 1024


class TargetError(Exception):
    """A URL that leads nowhere, worded as nginx's error log. is_ours: it is no URL at all, which
    is answered with 500; else there is nobody behind it, 502."""

    def __init__(self, message: str, *, is_ours: bool = False) -> None:
        super().__init__(message)
        self.is_ours = is_ours


class Resolver(Protocol):
    """What engine/resolver.py has; its errors are Exceptions that say the nginx message."""

    def find(self, name: str) -> list[str] | None: ...
    async def resolve(self, name: str, timeout_ms: int | None = None) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Where a request goes. uri: replaces the request's own, whole; empty: the request's own.
    proxy_host and proxy_port: `$proxy_host`, `$proxy_port`."""

    upstream: Upstream
    is_tls: bool
    uri: bytes
    proxy_host: bytes
    proxy_port: bytes


class DynamicTargets:
    """The URLs of one location. named and implicit: the upstreams of the conf (freeze.Upstreams);
    resolver: of the location, None without one; timeout_ms: its resolver_timeout; read_url: what
    a text means, ValueErrors as of proxy_pass.read_url."""

    def __init__(
        self,
        named: Mapping[str, Upstream],
        implicit: Mapping[str, Upstream],
        resolver: Resolver | None,
        timeout_ms: int = 30_000,
        read_url: Callable[[str], Target] = read_http_url,
    ) -> None:
        self.named = named
        self.implicit = implicit
        self.resolver = resolver
        self.timeout_ms = timeout_ms
        self.read_url = read_url
        self._targets: OrderedDict[bytes, tuple[Target, Upstream | None]] = OrderedDict()
        self._looked_up: OrderedDict[str, tuple[Upstream, tuple[str, ...]]] = OrderedDict()

    def find(self, url: bytes) -> Found | None:
        """Where the URL goes, or None: ask look_up, it takes a while. Raises TargetError."""
        target, upstream = self._read(url)
        if upstream is None:
            if self.resolver is None:
                raise TargetError(f"no resolver defined to resolve {target.endpoint.host}")
            try:
                addresses = self.resolver.find(target.endpoint.host)
            except Exception as error:
                raise TargetError(str(error)) from None
            if addresses is None:
                return None
            upstream = self._upstream_of(target, addresses)
        return _found(target, upstream)

    async def look_up(self, url: bytes) -> Found:
        """The same, waiting for the resolver. Raises TargetError."""
        found = self.find(url)
        if found is not None:
            return found
        target, _ = self._read(url)
        assert self.resolver is not None
        try:
            addresses = await self.resolver.resolve(target.endpoint.host, self.timeout_ms)
        except Exception as error:
            raise TargetError(str(error)) from None
        return _found(target, self._upstream_of(target, addresses))

    def _read(self, url: bytes) -> tuple[Target, Upstream | None]:
        kept = self._targets.get(url)
        if kept is not None:
            self._targets.move_to_end(url)
            return kept
        text = url.decode("utf-8", "surrogateescape")
        try:
            target = self.read_url(text)
        except AddressError as error:
            raise TargetError(
                f'{error} in upstream "{text.partition("://")[2]}"', is_ours=True
            ) from None
        except ValueError as error:
            raise TargetError(f'{error} in "{text}"', is_ours=True) from None
        self._targets[url] = target, self._known(target)
        if len(self._targets) > MOST_URLS:
            self._targets.popitem(last=False)
        return self._targets[url]

    def _known(self, target: Target) -> Upstream | None:
        try:
            name = find_upstream(target, dict.fromkeys(self.named, True))
        except ValueError:
            name = ""  # a port beside a block's name: at run time nginx takes it for a host
        if name:
            return self.named[name]
        if target.upstream_name in self.implicit:
            return self.implicit[target.upstream_name]
        if is_literal(target.endpoint):
            return make_implicit(target, [target.endpoint.host])
        return None

    def _upstream_of(self, target: Target, addresses: list[str]) -> Upstream:
        """The upstream of a looked-up name. Its peers are never marked down: nginx knows them for
        one request only."""
        key = target.upstream_name
        now = tuple(sorted(addresses))
        kept = self._looked_up.get(key)
        if kept is not None and kept[1] == now:
            self._looked_up.move_to_end(key)
            return kept[0]
        line = ServerLine(key, target.endpoint, max_fails=0)
        upstream = make_implicit(target, []) if kept is None else kept[0]
        upstream.change(make_peers(line, now))
        self._looked_up[key] = upstream, now
        if len(self._looked_up) > MOST_UPSTREAMS:
            self._looked_up.popitem(last=False)
        return upstream


def _found(target: Target, upstream: Upstream) -> Found:
    uri = "/" + target.uri if target.uri.startswith("?") else target.uri
    return Found(
        upstream,
        target.is_tls,
        uri.encode("utf-8", "surrogateescape"),
        target.proxy_host.encode("utf-8", "surrogateescape"),
        target.proxy_port.encode(),
    )

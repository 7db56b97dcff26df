"""Upstream blocks and proxy_… directives become Upstream and ProxySettings for the fast path."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import proxy.upstream._variables  # noqa: F401  (declares $proxy_host and its kin)
from proxy.base._shm import Zone
from proxy.upstream._health import begin as begin_checks
from proxy.upstream._rewrite import freeze_cookies, freeze_redirects
from proxy.upstream._settings import ProxySettings
from proxy.upstream._sticky import StickyCookie, StickyKey
from proxy.upstream.directives import DEFAULT_FIELDS, HIDDEN_FIELDS, read_buffers
from proxy.upstream.dynamic import DynamicTargets
from proxy.upstream.proxy_pass import VariableTarget, find_upstream
from proxy.upstream.proxy_pass import read_url as read_http_url
from proxy.upstream.servers import (
    make_implicit,
    make_upstream,
    read_upstream,
    resolve,
    system_addresses,
)
from proxy.upstream.websocket import freeze_websocket
from proxy.variables._variables import compile as compile_text
from proxy.variables.freeze import put_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.conf.inherit import Block
    from proxy.upstream._balance import Upstream
    from proxy.upstream.dynamic import Resolver
    from proxy.upstream.health import HealthCheck
    from proxy.upstream.proxy_pass import Target
    from proxy.upstream.servers import UpstreamSettings
    from proxy.upstream.sticky import Sticky
    from proxy.upstream.tls import TlsContexts

# What a request carries to the upstream unless proxy_set_header says otherwise.
DEFAULT_SET = {"Host": "$proxy_host", "Connection": ""}
DEFAULT_SET_10 = {"Host": "$proxy_host", "Connection": "close"}
OBEYED = ("X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset")

PROXY_FIELDS = {  # of a ProxySettings → the directive whose value it is
    "version": "proxy_http_version",
    "is_buffered": "proxy_buffering",
    "is_request_buffered": "proxy_request_buffering",
    "passes_fields": "proxy_pass_request_headers",
    "passes_body": "proxy_pass_request_body",
    "passes_trailers": "proxy_pass_trailers",
    "intercepts": "proxy_intercept_errors",
    "ignores_abort": "proxy_ignore_client_abort",
    "connect_ms": "proxy_connect_timeout",
    "send_ms": "proxy_send_timeout",
    "read_ms": "proxy_read_timeout",
    "next_conditions": "proxy_next_upstream",
    "next_tries": "proxy_next_upstream_tries",
    "next_timeout_ms": "proxy_next_upstream_timeout",
    "so_keepalive": "proxy_socket_keepalive",
    "receive_bytes": "proxy_socket_rcvbuf",
    "send_bytes": "proxy_socket_sndbuf",
}


class Upstreams:
    """All upstreams of an http block, by lower-case name; implicit ones are made when asked for."""

    def __init__(
        self,
        http: Block,
        resolver_of: Callable[[Any], Resolver | None],
        make_context: Callable[..., Any] = lambda _block: None,
        make_probe: Callable[[Any, bool], Any] = lambda _block, _is_h2: None,
    ) -> None:
        self.resolver_of = resolver_of
        self.make_context = make_context
        self.make_probe = make_probe
        self.named: dict[str, Upstream] = {}
        self.implicit: dict[str, Upstream] = {}
        self.settings: dict[str, UpstreamSettings] = {}
        self.checks: list[tuple[Upstream, HealthCheck]] = []
        self.contexts: TlsContexts | None = None
        for block in http.find("upstream"):
            settings = read_upstream(block)
            try:
                upstream = make_upstream(settings, system_addresses)
            except ValueError as error:
                raise block.error(str(error)) from None
            if upstream.key is not None:
                upstream.compiled_key = compile_text(upstream.key, block)
            sticky = block.own("sticky")
            if sticky is not None:
                upstream.sticky = make_sticky(sticky, block)
            upstream.queue = block.own("queue")
            check = block.own("health_check")
            if check is not None:
                begin_checks(upstream, check.is_mandatory)
                self.checks.append((upstream, check))
            key = upstream.name.decode().lower()
            self.named[key] = upstream
            self.settings[key] = settings

    def share(self, zones: Mapping[str, Any]) -> None:
        """In a worker: keep the peers of upstreams with a zone in it; zones: name → base Zone."""
        for key, settings in self.settings.items():
            if settings.zone is not None and settings.zone.name in zones:
                self.named[key].share(zones[settings.zone.name])

    def all(self) -> list[Upstream]:
        """Every upstream there is by now."""
        return [*self.named.values(), *self.implicit.values()]

    def to_follow(self) -> list[tuple[Upstream, UpstreamSettings]]:
        """The upstreams whose names a worker follows: follow.follow(upstream, settings, resolver)
        with a resolver of settings.resolver."""
        return [
            (self.named[key], settings)
            for key, settings in self.settings.items()
            if any(line.is_resolved for line in settings.servers)
        ]

    def find(self, target: Target, block: Block) -> Upstream:
        """The Upstream that a proxy_pass URL means. Raises ConfError."""
        try:
            name = find_upstream(target, dict.fromkeys(self.named, True))
            if name:
                return self.named[name]
            key = target.upstream_name
            if key not in self.implicit:
                addresses = resolve(target.endpoint, system_addresses, target.proxy_host)
                self.implicit[key] = make_implicit(target, addresses)
            return self.implicit[key]
        except ValueError as error:
            raise block.error(str(error)) from None

    def freeze_grpc(self, block: Block, target: Any) -> ProxySettings:
        """What the grpc_… directives say in this location. Raises ConfError."""
        from proxy.upstream.grpc import AsProxy, read_grpc_url

        seen: Any = AsProxy(block)
        s = self.freeze_proxy(seen, target, read_url=read_grpc_url)
        s.is_grpc = True
        return s

    def freeze_proxy(
        self,
        block: Block,
        target: Any,
        upstream: Upstream | None = None,
        read_url: Callable[[str], Target] = read_http_url,
    ) -> ProxySettings:
        """What the proxy_… directives say in this location; upstream: who target is, if known;
        read_url: what a text with variables means."""
        s = ProxySettings()
        get = block.get
        if isinstance(target, VariableTarget):
            s.url = compile_text(target.text, block)
            s.targets = DynamicTargets(
                self.named,
                self.implicit,
                self.resolver_of(get("resolver")),
                get("resolver_timeout"),
                read_url,
            )
        else:
            s.upstream = upstream or self.find(target, block)
            s.is_tls = target.is_tls
            s.proxy_host = target.proxy_host.encode()
            s.proxy_port = target.proxy_port.encode()
            s.has_uri = bool(target.uri)
            s.uri = target.uri.encode()
            s.prefix_n = len(target.location.encode())
        if s.is_tls or isinstance(target, VariableTarget):
            tls = self.tls_contexts().find(block, is_h2=block.get("proxy_http_version") == 20)
            s.tls = tls
            s.certificates = getattr(tls.context, "certificates", None)
            from proxy.upstream.tls import bare_name, sent_name

            s.sent_name, s.bare_name = sent_name, bare_name
            s.tls_name = compile_text(tls.name, block)
            s.tls_verify = tls.verifies
            s.tls_sni = tls.sends_name
            self.prove_to_checks(s.upstream, block)
        block.copy(s, PROXY_FIELDS)
        buffers = read_buffers(block)
        s.head_bytes = buffers.first
        s.buffer_bytes = buffers.count * buffers.size
        s.file_bytes = buffers.temp_max
        s.temp_path = block.path(get("proxy_temp_path"))
        s.body_path = block.path(get("client_body_temp_path"))
        s.method = self.template(block, "proxy_method")
        s.body = self.template(block, "proxy_set_body")
        bind = get("proxy_bind")
        s.bind = compile_text(bind.text, block) if bind else None
        put_size(s, "limit_rate", get("proxy_limit_rate"), block)
        s.hints = [compile_text(value, block) for value in get("early_hints") or ()] or None
        if read_url is read_http_url:            # gRPC has no redirects
            s.redirects = freeze_redirects(block, target)
        s.cookie_rules = freeze_cookies(block)
        s.websocket = freeze_websocket(block)
        s.is_web = get("grpc_web")
        self.freeze_fields(block, s)
        return s

    def tls_contexts(self) -> TlsContexts:
        """Made when first asked for: few confs need it."""
        if self.contexts is None:
            from proxy.upstream.tls import TlsContexts

            self.contexts = TlsContexts(self.make_context)
        return self.contexts

    def prove_to_checks(self, upstream: Upstream | None, block: Any) -> None:
        """Who passes to it by TLS says what its checks by TLS ask to be proven; of several the
        first that verifies. Raises ConfError."""
        for number, (checked, check) in enumerate(self.checks):
            if checked is upstream and check.is_tls and not (check.tls and check.tls.verifies):
                from proxy.upstream.tls import bare_name

                found = self.make_probe(block, check.kind == "grpc")
                name = str(block.get("proxy_ssl_name"))
                name = "" if "$" in name else bare_name(name)  # $proxy_host: its own
                if check.tls is None or found.verifies:
                    self.checks[number] = checked, replace(check, tls=found, tls_name=name)

    def template(self, block: Block, name: str) -> Any:
        text = block.get(name)
        return compile_text(text, block) if text is not None else None

    def freeze_fields(self, block: Block, s: ProxySettings) -> None:
        """proxy_set_header with the defaults it leaves; what is hidden of answers."""
        pairs = list(block.get("proxy_set_header") or [])
        given = {name.lower() for name, _ in pairs}
        s.sets_host = "host" in given
        defaults = DEFAULT_SET_10 if s.version == 10 else DEFAULT_SET
        for name, text in defaults.items():
            if name.lower() not in given:
                pairs.append((name, text))
        pairs += [
            (name, "")
            for name in DEFAULT_FIELDS
            if name.lower() not in given and name not in defaults
        ]
        s.set_fields(
            [(str(name).encode(), self.field_template(text, block, s)) for name, text in pairs]
        )
        passed = {str(name).lower() for name in block.get("proxy_pass_header") or []}
        hidden = [name for name in HIDDEN_FIELDS if name.lower() not in passed]
        hidden += [str(name) for name in block.get("proxy_hide_header") or []]
        s.set_hidden([name.encode() for name in hidden])
        ignored = block.get("proxy_ignore_headers")
        s.set_obeyed([name.encode() for name in OBEYED if name.lower() not in ignored])

    def field_template(self, text: str, block: Block, s: ProxySettings) -> Any:
        if text == "$proxy_host" and s.proxy_host is not None:
            text = s.proxy_host.decode()
        return compile_text(text, block)


def make_sticky(sticky: Sticky, block: Block) -> StickyCookie | StickyKey:
    """What `sticky` of an upstream block becomes. Raises ConfError for an unknown variable."""
    if sticky.kind != "cookie":
        keys = [compile_text(text, block) for text in sticky.keys]
        return StickyKey(keys, sticky.kind == "route")
    age_s, others = sticky.lifetime
    return StickyCookie(sticky.name.encode(), compile_text(others, block), age_s)


def zones_of(outer: Block, shared: Mapping[str, int]) -> dict[str, Zone]:
    """The zones that upstream blocks of `outer` name, attached; `shared`: their descriptors."""
    named = {zone.name for block in outer.find("upstream") if (zone := block.own("zone"))}
    return {name: Zone.attach(shared[name]) for name in named if name in shared}

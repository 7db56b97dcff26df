"""The servers of stream { } become StreamServers for the sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import proxy.stream._preread  # noqa: F401  (declares what stream alone knows)
from proxy.base._request import Location, Server
from proxy.stream._settings import StreamServer
from proxy.stream.target import read_url
from proxy.upstream.dynamic import DynamicTargets
from proxy.upstream.freeze import Upstreams
from proxy.upstream.proxy_pass import VariableTarget
from proxy.variables._variables import compile as compile_text
from proxy.variables._variables import define_stored
from proxy.variables.freeze import put_size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

FIELDS = {  # of a StreamServer → the directive whose value it is
    "connect_ms": "proxy_connect_timeout",
    "silence_ms": "proxy_timeout",
    "header_ms": "proxy_protocol_timeout",
    "preread_ms": "preread_timeout",
    "handshake_ms": "ssl_handshake_timeout",
    "preread_bytes": "preread_buffer_size",
    "prereads": "ssl_preread",
    "tries_next": "proxy_next_upstream",
    "next_tries": "proxy_next_upstream_tries",
    "next_timeout_ms": "proxy_next_upstream_timeout",
    "half_closes": "proxy_half_close",
    "so_keepalive": "proxy_socket_keepalive",
}
PROXY_VERSIONS = {"off": 0, "on": 1, "v2": 2}


def freeze_server(
    block: Block, upstreams: Upstreams, limits: Any, access: Any, logs: Any, tls: Any
) -> StreamServer:
    """One server block; limits, access, logs and tls are what their rooms made of it.

    Raises ConfError.
    """
    server = StreamServer()
    block.copy(server, FIELDS)
    server.proxy_version = PROXY_VERSIONS[block.get("proxy_protocol")]
    server.tls = tls
    names = [name for names in block.get("server_name") or () for name in names]
    server.name = names[0].shown.encode() if names else b""
    server.block = block
    put_size(server, "upload_rate", block.get("proxy_upload_rate"), block)
    put_size(server, "download_rate", block.get("proxy_download_rate"), block)
    bind = block.get("proxy_bind")
    server.bind = compile_text(bind.text, block) if bind else None
    sets = block.own("set")
    if sets:
        server.sets = [
            (define_stored(name[1:], name), compile_text(text, block)) for name, text in sets
        ]
    target, text = block.own("proxy_pass"), block.own("return")
    if target is not None and text is not None:
        raise block.error('"proxy_pass" and "return" exclude each other')
    if text is not None:
        server.text = compile_text(text, block)
    elif isinstance(target, VariableTarget):
        server.url = compile_text(target.text, block)
        server.targets = DynamicTargets(
            upstreams.named,
            upstreams.implicit,
            upstreams.resolver_of(block.get("resolver")),
            block.get("resolver_timeout"),
            read_url,
        )
    elif target is not None:
        is_group = target.endpoint.host.lower() in upstreams.named
        if not (is_group or target.has_port or target.endpoint.path):
            raise block.error(f'no port in upstream "{target.url}"')
        server.upstream = upstreams.find(target, block)
    location = Location(b"")
    location.server = Server(b"")
    location.limits = limits
    location.access = access
    location.logs = logs
    server.location = location
    return server

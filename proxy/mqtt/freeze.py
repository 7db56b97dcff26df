"""The servers of mqtt { } become MqttServers for the sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import proxy.mqtt._facts  # noqa: F401  (declares $mqtt_…)
from proxy.base._request import Location, Server
from proxy.mqtt._settings import MqttServer
from proxy.mqtt._topics import TopicRules
from proxy.mqtt.credentials import Keeper
from proxy.mqtt.directives import MOST_PATTERNS
from proxy.mqtt.publishing import freeze_rules
from proxy.variables._variables import compile as compile_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.conf.inherit import Block
    from proxy.upstream.freeze import Upstreams

MOST_NS = 2**62  # a burst may not be longer: 146 years
FIELDS = {  # of an MqttServer → the directive whose value it is
    "connect_ms": "proxy_connect_timeout",
    "hello_ms": "mqtt_connect_timeout",
    "connack_ms": "mqtt_connack_timeout",
    "header_ms": "proxy_protocol_timeout",
    "handshake_ms": "ssl_handshake_timeout",
    "idle_ms": "mqtt_idle_timeout",
    "packet_most": "mqtt_max_packet_size",
    "next_tries": "proxy_next_upstream_tries",
    "next_timeout_ms": "proxy_next_upstream_timeout",
    "so_keepalive": "proxy_socket_keepalive",
    "in_flight": "mqtt_in_flight",
}


def freeze_server(
    block: Block,
    upstreams: Upstreams,
    limits: Any,
    access: Any,
    logs: Any,
    tls: Any,
    passwords: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
) -> MqttServer:
    """One server block; limits, access, logs, tls and passwords are what their rooms made of it.

    Raises ConfError.
    """
    server = MqttServer()
    block.copy(server, FIELDS)
    server.tls = tls
    server.block = block
    target, has_rules = block.own("mqtt_pass"), bool(block.find("on_publish"))
    if target is not None and has_rules:
        raise block.error('"mqtt_pass" and "on_publish" exclude each other')
    if target is None and not has_rules:
        raise block.error('a server in mqtt wants "mqtt_pass" or "on_publish"')
    if target is not None:
        is_group = target.endpoint.host.lower() in upstreams.named
        if not (is_group or target.has_port or target.endpoint.path):
            raise block.error(f'no port in upstream "{target.url}"')
        server.upstream = upstreams.find(target, block)
    else:
        server.publishing = freeze_rules(block)
    lines = [it for line in block.get("mqtt_allow") for it in line]
    if len(lines) > MOST_PATTERNS:
        raise block.error(f"more than {MOST_PATTERNS} patterns of topics")
    if lines:
        server.topics = TopicRules([(verbs, text.encode()) for verbs, text in lines])
    rate, size = block.get("mqtt_publish_rate"), block.get("mqtt_publish_bytes")
    if rate is not None:
        server.publish_ns = 10**12 // rate[0]
        server.publish_burst_ns = min(rate[1] * server.publish_ns, MOST_NS)
    if size is not None:
        server.bytes_rate = size[0]
        server.bytes_burst_ns = min(size[1] * 10**9 // size[0], MOST_NS)
    key = block.get("mqtt_publish_key")
    server.publish_key = compile_text(key, block) if key else None
    server.name = str(block.own("listen")[0].token).encode()
    freeze_keeper(server, block, passwords)
    location = Location(b"")
    location.server = Server(b"")
    location.limits = limits
    location.access = access
    location.logs = logs
    server.location = location
    return server


# Clients of MQTT are silent for as long as they said they would be; the server there looks at that.



def freeze_keeper(server: MqttServer, block: Block, passwords: tuple[Any, Any, Any]) -> None:
    users, keys = block.get("auth_basic_user_file"), block.get("mqtt_jwt_key_file")
    if users is not None and "$" in users:
        raise block.error('"auth_basic_user_file" in mqtt knows no variables')
    if users is not None or keys is not None:
        path = block.conf_path(str(users)) if users is not None else ""
        server.keeper = Keeper(path, keys or "", *passwords)
    if block.get("mqtt_certificate_user"):
        if block.get("ssl_verify_client") not in ("on", "optional"):
            raise block.error('"mqtt_certificate_user" wants "ssl_verify_client"')
        server.certificate_name = compile_text("$ssl_client_s_dn", block)

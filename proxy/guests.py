"""What speaks no HTTP becomes part of a plan: servers and listeners of stream { } and mqtt { }."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy._mqtt import COUNTED, MqttListener
from proxy._session import StreamListener
from proxy.base._request import Server
from proxy.conf.directive import MQTT_SERVER
from proxy.engine import tls
from proxy.filters.access import check_slow, files, freeze_access
from proxy.filters.users import check_fast
from proxy.mqtt import freeze as mqtt_freeze
from proxy.stream import freeze as stream_freeze
from proxy.upstream.freeze import Upstreams
from proxy.variables.freeze import names_of_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.base._request import Location
    from proxy.conf.inherit import Block
    from proxy.plan import Plan


def freeze_streams(plan: Plan, model: Block) -> None:
    """The servers of stream { }, which has variables and upstreams of its own."""
    with names_of_stream():
        for stream in model.find("stream"):
            plan.stream_upstreams = upstreams = Upstreams(stream, plan.resolver_of)
            plan.share(upstreams, stream)
            for block in stream.find("server"):
                plan.servers[id(block)] = stream_freeze.freeze_server(
                    block, upstreams, *frozen(plan, block)
                )


def freeze_mqtt(plan: Plan, model: Block) -> None:
    """The servers of mqtt { }: it has upstreams of its own, and the variables of stream { }."""
    with names_of_stream():
        for mqtt in model.find("mqtt"):
            plan.mqtt_upstreams = upstreams = Upstreams(mqtt, plan.resolver_of)
            plan.share(upstreams, mqtt)
            for block in mqtt.find("server"):
                server = mqtt_freeze.freeze_server(
                    block, upstreams, *frozen(plan, block), (files.find, check_fast, check_slow)
                )
                name = str(block.own("listen")[0].token)
                server.counters = plan.numbers.plain(COUNTED, {"server": name})
                plan.servers[id(block)] = server


def frozen(plan: Plan, block: Block) -> tuple[Any, Any, Any, Any]:
    """Its limits, access, logs and tls."""
    return (
        plan.limiters.freeze(block),
        freeze_access(block, freeze_nothing),
        plan.logs.freeze(block),
        tls.freeze_server(block),
    )


def freeze_nothing(block: Block) -> Location:
    """No block stands in a server of stream or mqtt."""
    raise block.error(f'"{block.name}" directive is not allowed here')


def open_listener(plan: Plan, address: Any, door: Callable[..., Any]) -> Any:
    """An address of stream { } or mqtt { } has one server. door: plan.tls_door."""
    server = plan.servers[id(address.default_server)]
    listener: Any = StreamListener()
    if address.default_server.where == MQTT_SERVER:
        listener = MqttListener()
        listener.is_websocket = address.is_websocket
    listener.key = address.key
    listener.address = Server(address.key.encode())
    listener.server = server
    listener.is_proxied = address.is_proxy_protocol
    if address.is_ssl:
        listener.tls = door(address, [server], server, None)
    return listener

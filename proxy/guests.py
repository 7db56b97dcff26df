"""What speaks no HTTP becomes part of a plan: servers and listeners of stream { } and mqtt { }."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from proxy._mqtt import COUNTED, MqttListener
from proxy._session import StreamListener
from proxy.base._request import Server
from proxy.conf.directive import MQTT_SERVER, STREAM_SERVER
from proxy.conf.parser import read_inside
from proxy.conf.report import located, nearest
from proxy.engine import probe_tls, tls
from proxy.engine._way import Way
from proxy.filters.access import check_slow, files, freeze_access
from proxy.filters.users import check_fast
from proxy.mqtt.zones import ZONE
from proxy.routing.server_name import build_names, names_of
from proxy.stream import freeze as stream_freeze
from proxy.upstream.freeze import Upstreams
from proxy.upstream.tls import bare_name, sent_name
from proxy.variables._variables import adopt
from proxy.variables._variables import compile as compile_text
from proxy.variables.freeze import names_of_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.base._request import Location
    from proxy.conf.inherit import Block
    from proxy.plan import Plan

TO_WEBSOCKET = """
    proxy_pass http://ADDRESS;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_read_timeout 30h;
    proxy_send_timeout 30h;
"""


def freeze_streams(plan: Plan, model: Block) -> None:
    """The servers of stream { }, which has variables and upstreams of its own."""
    with names_of_stream():
        for stream in model.find("stream"):
            plan.stream_upstreams = upstreams = new_upstreams(plan, stream)
            plan.share(upstreams, stream)
            for it in (name for block in stream.find("server") for name in names_of(block)):
                if it.pattern is not None:
                    adopt(it.pattern)  # its groups are variables
            for block in stream.find("server"):
                server = stream_freeze.freeze_server(block, upstreams, *frozen(plan, block))
                server.way = freeze_way(block, upstreams, server.upstream)
                tls.place(server.tls, Server(server.name), server.location)
                plan.servers[id(block)] = server


def freeze_mqtt(plan: Plan, model: Block) -> None:
    """The servers of mqtt { }: it has upstreams of its own, and the variables of stream { }."""
    if not model.find("mqtt"):
        return
    from proxy.mqtt import freeze as mqtt_freeze  # dear to who has none

    with names_of_stream():
        for mqtt in model.find("mqtt"):
            plan.mqtt_upstreams = upstreams = new_upstreams(plan, mqtt)
            plan.share(upstreams, mqtt)
            paces = plan.limiters.paces(ZONE)
            for block in mqtt.find("server"):
                server = mqtt_freeze.freeze_server(
                    block, upstreams, *frozen(plan, block), (files.find, check_fast, check_slow)
                )
                name = str(block.own("listen")[0].token)
                server.way = freeze_way(block, upstreams, server.upstream)
                tls.place(server.tls, Server(name.encode()), server.location)
                server.paces = paces
                server.counters = plan.numbers.plain(COUNTED, {"server": name})
                plan.servers[id(block)] = server
            check_functions(plan, mqtt)
        if plan.seat is None and any(it.find("bridge") for it in model.find("mqtt")):
            from proxy.functions.bridge import read_bridges

            read_bridges(model)  # the controller's, but what is wrong is told now


def check_functions(plan: Plan, mqtt: Block) -> None:
    """Is there a function for each on_publish? One that is not declared may still come, where
    functions are deployed while we run. Raises ConfError."""
    declared = [str(it.value) for http in plan.model.find("http") for it in http.find("function")]
    for block in (*mqtt.find("server"), *mqtt.find("bridge")):
        for rule in block.find("on_publish"):
            name = str(rule.own("function_pass"))
            if plan.functions.find_name(name) is not None:
                continue
            near = nearest(name, declared)
            words = f'function "{name}" is not declared'
            words += f', did you mean "{near}"?' if near else ""
            if not plan.directory.is_open:
                raise rule.error(words)
            plan.warnings.append(located(words, rule.file, rule.line))


def new_upstreams(plan: Plan, outer: Block) -> Upstreams:
    return Upstreams(outer, plan.resolver_of, tls.make_client, probe_tls.make_probe)


def freeze_way(block: Block, upstreams: Upstreams, upstream: Any) -> Way | None:
    """TLS towards the peers of a server that says proxy_ssl; upstream: None if variables say."""
    if not block.get("proxy_ssl"):
        return None
    found = upstreams.tls_contexts().find(block)
    upstreams.prove_to_checks(upstream, block)
    way = Way()
    way.context = found.context
    # there is no $proxy_host here: unless it is told, it is the host that is passed to
    way.name = compile_text(found.name, block) if block.has("proxy_ssl_name") else None
    protocols = block.get("proxy_ssl_alpn")
    way.alpn = [compile_text(it, block) for it in protocols] if protocols else None
    way.bare_name = bare_name
    way.sent_name = partial(sent_name, found)
    way.verifies = found.verifies
    way.reuses = found.reuses
    return way


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
    """An address of stream { }, whose servers TLS chooses by name, or of mqtt { }, which has one.
    door: plan.tls_door."""
    server = plan.servers[id(address.default_server)]
    listener: Any = StreamListener()
    if address.default_server.where == MQTT_SERVER:
        listener = MqttListener()
        listener.is_websocket = address.is_websocket
    listener.key = address.key
    listener.address = Server(address.key.encode())
    listener.server = server
    names = None
    if address.default_server.where == STREAM_SERVER:
        pairs = [(it, plan.servers[id(it)]) for it in address.servers]
        names, warnings = build_names(address.key, pairs, server)
        plan.warnings += warnings
        listener.names = names
    listener.is_proxied = address.is_proxy_protocol
    if address.is_ssl:
        servers = [plan.servers[id(it)] for it in address.servers]
        listener.tls = door(address, servers, server, names)
    return listener


def websocket_location(location: Block, model: Block) -> Block | None:
    """What a location with mqtt_websocket is for the http side, or None: it has none.

    Raises ConfError: nobody listens there.
    """
    address = location.own("mqtt_websocket")
    if address is None:
        return None
    servers = [it for mqtt in model.find("mqtt") for it in mqtt.find("server")]
    listens = [it for server in servers for it in server.own("listen") if it.is_websocket]
    wanted = address if address.startswith("unix:") or ":" in address else f"0.0.0.0:{address}"
    if not any(key == wanted for it in listens for key, _, _ in it.places):
        raise location.error(f'no server in mqtt says "listen {address} websocket"')
    target = f"{address}:" if address.startswith("unix:") else address
    return read_inside(location, TO_WEBSOCKET.replace("ADDRESS", target), "mqtt_websocket")

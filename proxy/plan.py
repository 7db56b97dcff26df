"""Settings freeze here into read-only tables for the fast path; a reload makes a whole new plan.

`check(model)` builds and drops a plan, so that whatever cannot be held is refused before a worker
starts; `build(model, seat)` makes the one that a worker serves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import proxy.engine._tls_variables  # noqa: F401  (declares $ssl_…)
from proxy import guests
from proxy._fastpath import Listener
from proxy.base._pcre import set_limits
from proxy.base._request import Location, Server
from proxy.base._shm import Zone
from proxy.conf.directive import SERVER
from proxy.conf.inherit import only_grows
from proxy.conf.report import ConfError
from proxy.content import freeze as content_freeze
from proxy.content.ssi import freeze_ssi
from proxy.engine import probe_tls, tls
from proxy.engine._client_certificate import ClientCertificate
from proxy.engine.listen import addresses
from proxy.filters.access import freeze_access
from proxy.filters.gzip import freeze_gzip, gather
from proxy.filters.headers import freeze_headers
from proxy.functions.contradictions import contradictions
from proxy.functions.directory import Directory
from proxy.functions.freeze import declare_functions, freeze_pass
from proxy.functions.hidden import (
    CONTROLLER,
    api_locations,
    async_location,
    internal_server,
    route_location,
)
from proxy.functions.numbers import function_numbers
from proxy.functions.queue.tally import find_zone, queue_numbers
from proxy.limits.freeze import Limiters
from proxy.observe.error_log import WARN
from proxy.observe.freeze import Logs
from proxy.observe.numbers import Numbers
from proxy.process.groups import has_controller
from proxy.quic.freeze import freeze_quic
from proxy.routing._function_routes import FunctionRoutes
from proxy.routing._names import host_of
from proxy.routing.location import PASSING, add_hidden, build_tree, patterns_of
from proxy.routing.rewrite import compile_rewrite
from proxy.routing.server_name import build_names, names_of
from proxy.stream._preread import tell_tls_names
from proxy.upstream import freeze as upstream_freeze
from proxy.upstream._balance import Peer, Upstream
from proxy.upstream.servers import pack_unix
from proxy.variables._variables import adopt
from proxy.variables.freeze import begin as begin_variables
from proxy.variables.freeze import finish as check_variables
from proxy.variables.freeze import put_size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.process.seat import Seat

WINDOW_MOST, FRAME_MOST = 2**31 - 1, 2**24 - 1  # bytes (RFC 9113 §6.9.1, §6.5.2)
PREREAD_USUAL = 65536  # http2_body_preread_size where none is set
HANDLE_FILES, HANDLE_PROXY, HANDLE_RETURN, HANDLE_PYTHON = range(4)
CLIENT_FIELDS = {  # of a Location → the directive whose value it is
    "max_body": "client_max_body_size",
    "body_buffer": "client_body_buffer_size",
    "body_timeout_ms": "client_body_timeout",
    "send_timeout_ms": "send_timeout",
    "keepalive_requests": "keepalive_requests",
    "keepalive_time_ms": "keepalive_time",
    "lingering_time_ms": "lingering_time",
    "lingering_timeout_ms": "lingering_timeout",
    "chunked_ok": "chunked_transfer_encoding",
    "absolute_redirect": "absolute_redirect",
    "server_name_in_redirect": "server_name_in_redirect",
    "port_in_redirect": "port_in_redirect",
    "reset_timedout": "reset_timedout_connection",
}
LINGERING = {"off": 0, "on": 1, "always": 2}
KEEPALIVE_BITS = {"none": 0, "msie6": 1, "safari": 2}
IN_FILE = {"off": 0, "clean": 1, "on": 2}


class Plan:
    """One generation of settings. `listeners` are address key → Listener."""

    def __init__(self, model: Block, seat: Seat | None) -> None:
        self.model = model
        self.seat = seat
        self.listeners: dict[str, Any] = {}  # Listener, or what a guest is
        self.servers: dict[int, Any] = {}  # Server, StreamServer, MqttServer
        self.locations: list[Location] = []
        self.resolvers: dict[Any, Any] = {}
        self.named: dict[int, dict[bytes, Location]] = {}
        self.file_caches: dict[Any, Any] = {}
        self.warnings: list[str] = []
        self.hidden: list[Block] = []  # servers are known by their blocks' identity
        self.limiters = Limiters(model, seat.shared if seat else None, seat.ledger if seat else 1)
        self.logs = Logs()
        self.numbers = Numbers(seat.shared if seat else None)
        self.upstreams: Any = None
        self.stream_upstreams: Any = None
        self.mqtt_upstreams: Any = None
        set_limits(model.get("pcre_match_limit"), 1000)
        tell_tls_names()
        begin_variables(model)
        self.functions = declare_functions(model, seat)  # their texts have variables, too
        queue = find_zone(seat.shared if seat else {})
        self.numbers.more = lambda: [*function_numbers(self.functions), *queue_numbers(queue)]
        self.directory = self.open_directory(model)
        self.has_async = self.directory.is_open or any(it.is_async for it in self.functions)
        self.is_inside = False  # in the server that only the controller calls
        for http in model.find("http"):
            self.upstreams = upstream_freeze.Upstreams(
                http, self.resolver_of, tls.make_client, probe_tls.make_probe
            )
            self.numbers.upstreams = self.upstreams.all
            self.share(self.upstreams, http)
            for block in http.find("server"):
                self.servers[id(block)] = self.freeze_server(block)
            self.listen_inside(http)
        guests.freeze_streams(self, model)
        guests.freeze_mqtt(self, model)
        for address in addresses(model):
            if address.default_server.where != SERVER:
                self.listeners[address.key] = guests.open_listener(self, address, tls_door)
                continue
            pairs = [(block, self.servers[id(block)]) for block in address.servers]
            default = self.servers[id(address.default_server)]
            names, warnings = build_names(address.key, pairs, default)
            self.warnings += warnings
            listener = Listener()
            listener.key = address.key
            listener.names = names
            listener.default_server = default
            listener.is_tls = address.is_ssl or address.is_quic
            if address.is_quic:
                key = seat.post.key if seat and seat.post else None
                judges = {
                    it: partial(ClientCertificate, server.tls)
                    for it, server in self.servers.items() if server.tls and server.tls.verify
                }  # fmt: skip
                quic = finder(names), judges, tls.pem_of, key, tls.ticket_key_of
                freeze_quic(listener, address, *quic)
            freeze_h2(listener, address, [it for _, it in pairs])
            if address.is_ssl:
                listener.tls = tls_door(address, [it for _, it in pairs], default, names)
            listener.is_proxied = address.is_proxy_protocol
            self.listeners[address.key] = listener
            for pattern in names.all_patterns:
                adopt(pattern)
        check_variables()

    def share(self, upstreams: Any, outer: Block) -> None:
        """In a worker: peers of upstreams with a zone stand in it."""
        if self.seat is not None:
            upstreams.share(upstream_freeze.zones_of(outer, self.seat.shared))

    def open_directory(self, model: Block) -> Directory:
        """Who follows the functions: the first worker tells what is odd about them."""
        servers = [it for http in model.find("http") for it in http.find("server")]
        has_routes = any(it.get("function_routes") for it in servers)
        is_open = any(it.get("openfaas_api") for it in servers)
        is_open = is_open or any(http.find("functions") for http in model.find("http"))
        table, log = FunctionRoutes() if has_routes else None, None
        if self.seat is not None and self.seat.number == 0:
            log = self.seat.error_log
        report = (lambda text: log.write(WARN, text)) if log else (lambda text: None)
        return Directory(self.functions, table, report, is_open)

    def listen_inside(self, http: Block) -> None:
        """The server that the controller's calls come to, where the seat has a socket for it."""
        key = f"unix:{self.seat.internal_path}" if self.seat else ""
        if self.seat is None or key not in dict(self.seat.listeners):
            return
        block = internal_server(http)
        self.is_inside = True
        server = self.freeze_server(block)
        self.is_inside = False
        listener = Listener()
        listener.key = key
        listener.names, _ = build_names(key, [(block, server)], server)
        listener.default_server = server
        self.servers[id(block)] = server
        self.listeners[key] = listener
        self.hidden.append(block)

    def controller(self) -> Upstream:
        """The controller as an upstream; its HTTP server does not take long to come back."""
        path = self.seat.controller_path if self.seat else CONTROLLER
        peer = Peer(*pack_unix(path), max_fails=0)
        return Upstream(b"controller", [peer], keepalive=64, keepalive_is_local=False)

    def resolver_of(self, settings: Any) -> Any:
        """The resolver of a `resolver` directive; one serves all that say the same."""
        if settings is None:
            return None
        if settings not in self.resolvers:
            from proxy.engine.resolver import Resolver

            self.resolvers[settings] = Resolver(
                [(server.host, server.port) for server in settings.servers],
                valid_s=settings.valid_s,
                has_ipv4=settings.has_ipv4,
                has_ipv6=settings.has_ipv6,
            )
        return self.resolvers[settings]

    def freeze_server(self, block: Block) -> Server:
        """One server with all its locations."""
        server = Server(names_of(block)[0].shown.encode())
        server.block = block
        server.number = len(self.servers)
        server.merge_slashes = block.get("merge_slashes")
        server.ignore_invalid = block.get("ignore_invalid_headers")
        server.underscores = block.get("underscores_in_headers")
        server.max_fields = min(block.get("max_headers") or 1000, 1024)
        count, size = block.get("large_client_header_buffers")
        first = block.get("client_header_buffer_size")  # nginx begins a head in this one
        server.line_bytes = max(first, size)
        server.head_bytes = first + count * size
        server.head_timeout_ms = block.get("client_header_timeout")
        server.tls = tls.freeze_server(block)
        server.tls.is_h3 = block.get("http3")
        server.locations = build_tree(block, lambda inner: self.freeze_location(inner, server))
        server.settings = server.locations.settings
        tls.place(server.tls, server, server.settings)
        self.add_functions(block, server)
        for pattern in patterns_of(server.locations):
            adopt(pattern)
        server.rewrite = compile_rewrite(block)
        return server

    def add_functions(self, block: Block, server: Server) -> None:
        """The locations of openfaas_api, and where requests go that a function's route has."""
        if block.get("openfaas_api"):
            self.upstreams.implicit.setdefault(f"unix:{CONTROLLER}", self.controller())
            inside = api_locations(block)
            add_hidden(server.locations, inside, lambda it: self.freeze_location(it, server))
        if block.get("function_routes"):
            inside = route_location(block)
            server.locations.function_settings = self.freeze_location(inside, server)
            server.locations.function_routes = self.directory.table

    def freeze_location(self, block: Block, server: Server) -> Location:
        """The settings that hold in a location, or at the level of the server itself."""
        key: Any = block.value if block.name == "location" else None
        location = Location(key.pattern.encode() if key else b"")
        location.server = server
        location.block = block
        location.number = self.numbers.row(server.name.decode(), location.name.decode())
        self.locations.append(location)
        location.is_internal = bool(key) and block.get("internal")
        location.is_named = key is not None and key.modifier == "@"
        location.is_exact = key is not None and key.modifier == "="
        if location.is_named:
            self.named.setdefault(server.number, {})[location.name] = location
        self.freeze_handler(location, block)  # before what is inside and takes it over
        freeze_client(location, block)
        self.freeze_content(location, block)
        self.freeze_filters(location, block)
        self.freeze_telling(location, block)
        if block.name != "server":
            location.rewrite = compile_rewrite(block, lambda it: self.freeze_if(it, location))
        return location

    def freeze_if(self, block: Block, outer: Location) -> Location:
        """The settings of an `if` in a location; who answers is the location's, unless it says."""
        location = Location(outer.name)
        location.server = outer.server
        location.block = block
        location.number = outer.number
        location.is_internal = outer.is_internal
        location.is_named = outer.is_named
        location.is_exact = outer.is_exact
        freeze_client(location, block)
        self.freeze_content(location, block)
        self.freeze_filters(location, block)
        self.freeze_telling(location, block)
        self.freeze_handler(location, block, outer)
        return location

    def freeze_telling(self, location: Location, block: Block) -> None:
        """What is limited here, what is logged, and how both are counted."""
        location.limits = self.limiters.freeze(block)
        location.logs = self.logs.freeze(block)
        if location.limits is not None:
            for kind in ("limit_req", "limit_conn"):
                names = [it.zone for it in block.get(kind)]
                counters = self.numbers.decisions(kind, names) if names else []
                setattr(location.limits, kind.removeprefix("limit_") + "_counters", counters)

    def freeze_filters(self, location: Location, block: Block) -> None:
        """Who may come in, and what answers get."""
        location.access = freeze_access(block, lambda it: self.freeze_if(it, location))
        location.headers = freeze_headers(block)
        location.filters = gather(freeze_ssi(block), freeze_gzip(block))

    def freeze_content(self, location: Location, block: Block) -> None:
        """Where files lie, and which pages stand for errors."""
        named = self.named.setdefault(location.server.number, {})
        location.content = content_freeze.freeze(block, named, self.file_caches)
        location.errors = content_freeze.freeze_errors(block, named)

    def freeze_handler(
        self, location: Location, block: Block, outer: Location | None = None
    ) -> None:
        """Who answers here; inside `if` what the location itself says holds on."""
        page = self.numbers.page(block)
        if page is not None:
            location.handler, location.handler_kind = page, HANDLE_PYTHON
            return
        said = {key: block.own(key) for key in PASSING if block.own(key) is not None}
        tunnel = guests.websocket_location(block, self.model)
        if len(said) > 1:
            first, second = list(said)[:2]
            raise block.error(f'"{first}" and "{second}" exclude each other')
        if not said and outer is not None and outer.handler_kind == HANDLE_PROXY:
            said = {key: outer.block.own(key) for key in PASSING}
            tunnel = guests.websocket_location(outer.block, self.model)
        target, name = said.get("proxy_pass"), said.get("function_pass")
        call = said.get("grpc_pass")
        if tunnel is not None:
            location.proxy = self.upstreams.freeze_proxy(tunnel, tunnel.own("proxy_pass"))
            location.handler_kind = HANDLE_PROXY
        elif name is not None:
            location.handler, location.proxy = freeze_pass(
                self.directory, block, name, self.upstreams
            )
            location.handler_kind = HANDLE_PROXY
            self.freeze_async(location, outer.block if outer is not None else block)
        elif target is not None:
            location.proxy = self.upstreams.freeze_proxy(block, target)
            location.handler_kind = HANDLE_PROXY
        elif call is not None:
            location.proxy = self.upstreams.freeze_grpc(block, call)
            location.handler_kind = HANDLE_PROXY

    def freeze_async(self, location: Location, block: Block) -> None:
        """A location of functions passes calls to the controller that are to be made later; what
        the controller itself calls is made now."""
        is_async = block.get("async")
        if self.is_inside or not (is_async or self.has_async):
            return
        self.upstreams.implicit.setdefault(f"unix:{CONTROLLER}", self.controller())
        location.handler.is_async = is_async
        inside = async_location(block)
        location.handler.asynchronous = self.freeze_location(inside, location.server)


def freeze_h2(listener: Listener, address: Any, servers: list[Server]) -> None:
    """HTTP/2 on a listen address: whether a server there wants it, and the default one's bounds."""
    get = address.default_server.get
    listener.h2_streams = get("http2_max_concurrent_streams")
    listener.h2_preread = min(get("http2_body_preread_size"), WINDOW_MOST)
    # Frames are wider than all must take (16 KiB) where the conf lets in wider things than nginx's
    # defaults do: small frames of other streams wait behind wide ones, so only whoever asks has it.
    wide = [get("large_client_header_buffers")[1]]
    if listener.h2_preread > PREREAD_USUAL:
        wide.append(listener.h2_preread)
    listener.h2_frame = min(max(wide), FRAME_MOST)
    listener.h2_parts = get("http2_max_continuations")
    count, listener.h2_field = get("large_client_header_buffers")
    listener.h2_head = count * listener.h2_field
    listener.h2_resets = get("http2_max_resets")
    listener.h2_control = get("http2_max_control_frames")
    for server in servers:
        if (address.is_h2 or server.block.get("http2")) and not address.is_quic:
            listener.is_h2 = server.tls.is_h2 = True


def tls_door(address: Any, servers: list[Any], default: Any, names: Any) -> Any:
    """TLS of a listen address. Raises ConfError where a certificate is missing, as nginx does:
    the default server's stands in for those that have none. Without names SNI chooses nobody."""
    from proxy.engine._tls import Door

    for server in (default, *servers) if default.tls.rejects else (default,):
        if server.tls.context is None:
            listens = server.block.own("listen") or ()
            token = next((it.token for it in listens if it.is_ssl), server.block.token)
            raise ConfError(
                token, 'no "ssl_certificate" is defined for the "listen ... ssl" directive'
            )

    return Door(default.tls, finder(names))


def finder(names: Any) -> Any:
    """Who answers for a name of SNI: its Server; None: it is no name, or nobody is chosen so."""

    def find(name: bytes) -> Server | None:
        try:
            return names.find(host_of(name)[0])[0] if names else None
        except ValueError:
            return None

    return find


def freeze_client(location: Location, block: Block) -> None:
    """What the client's side of the fast path reads of a location."""
    get = block.get
    block.copy(location, CLIENT_FIELDS)
    location.keepalive_timeout_ms, location.keepalive_header_s = get("keepalive_timeout")
    location.keepalive_disable = sum({KEEPALIVE_BITS[it] for it in get("keepalive_disable")})
    location.lingering_close = LINGERING[get("lingering_close")]
    location.server_tokens = get("server_tokens") != "off"
    location.satisfy_any = get("satisfy") == "any"
    location.h2_chunk = min(max(get("http2_chunk_size"), 1), FRAME_MOST)
    location.body_in_file = IN_FILE[get("client_body_in_file_only")]
    put_size(location, "limit_rate", get("limit_rate"), block)
    put_size(location, "limit_rate_after", get("limit_rate_after"), block)


@only_grows
def check(model: Block) -> None:
    """Raises ConfError for what only freezing can find wrong."""
    try:
        plan = Plan(model, None)
    except ValueError as error:
        raise ConfError(None, str(error)) from None
    # of a machine is asked here, as root: a worker may not even read what it is asked by
    warnings = plan.warnings + contradictions(model, has_controller("cpu"))
    model.notes.extend(("warn", text) for text in warnings)


@only_grows
def build(model: Block, seat: Seat) -> Plan:
    """The plan of a worker."""
    names = [name for name in tls.tls_zones(model) if name in seat.shared]
    tls.share({name: Zone.attach(seat.shared[name]) for name in names})
    return Plan(model, seat)

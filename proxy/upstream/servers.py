"""The upstream block: its servers, its method, its idle connections, read and made an Upstream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import MQTT, STREAM_UPSTREAM
from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    Endpoint,
    read_address,
    read_int,
    read_seconds,
    read_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token
    from proxy.upstream._balance import Peer, Upstream
    from proxy.upstream.proxy_pass import Target

METHODS = ("hash", "ip_hash", "least_conn", "random")
WITHOUT_BACKUP = ("hash", "ip_hash", "random")
KNOWN_TO_NGINX = ("drain", "service=", "slow_start=")
LEAST_ZONE_BYTES = 8 * 4096


@dataclass(frozen=True, slots=True)
class ServerLine:
    """One `server` of an upstream block.

    text: the address as written (ring points of `hash consistent` come from it). endpoint:
    port 80 when none was written. fail_timeout_ms: whole seconds, as nginx reads it.
    max_conns: 0 is no bound. is_resolved: `resolve`, follow the name at run time. route: the word
    that `sticky route` looks for.
    """

    text: str
    endpoint: Endpoint
    weight: int = 1
    max_fails: int = 1
    fail_timeout_ms: int = 10_000
    max_conns: int = 0
    is_backup: bool = False
    is_down: bool = False
    is_resolved: bool = False
    route: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """`zone NAME [SIZE]`: size_bytes is 0 when another upstream's line tells it."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """An upstream block, typed. method: a key of _balance.METHODS; key: text of `hash KEY`.

    keepalive: idle connections a worker keeps, 0 for none; is_local: they are reused only by
    the location that opened them. resolver: as Block.get("resolver") gives it.
    """

    name: str
    servers: tuple[ServerLine, ...]
    method: str = "round_robin"
    key: str | None = None
    keepalive: int = 32
    is_local: bool = True
    keepalive_requests: int = 1000
    keepalive_time_ms: int = 3_600_000
    keepalive_timeout_ms: int = 60_000
    zone: Zone | None = None
    resolver: Any = None
    resolver_timeout_ms: int = 30_000


def read_server(args: list[Token], block: Block) -> ServerLine:
    """The arguments of `server` in an upstream block. Raises ConfError where nginx refuses it."""
    address = args[0]
    try:
        line = ServerLine(str(address), read_address(address))
    except AddressError as error:
        raise ConfError(address, f'{error} in upstream "{address}"') from None
    methods = [it.name for it in block.statements if it.name in METHODS]
    for word in args[1:]:
        line = replace(line, **_read_parameter(word, methods))
    return line


def _read_parameter(word: Token, methods: list[str]) -> dict[str, Any]:
    name, equals, text = word.partition("=")
    number = read_int(text) if equals else None
    if name == "weight" and number and number <= 1_000_000:
        return {"weight": number}
    if name in ("max_fails", "max_conns") and number is not None and number < 1 << 32:
        return {name: number}
    if name == "fail_timeout" and (seconds := read_seconds(text)) is not None:
        return {"fail_timeout_ms": seconds * 1000}
    if word == "backup":
        if methods and methods[-1] in WITHOUT_BACKUP:
            raise ConfError(word, f'balancing method does not support parameter "{word}"')
        return {"is_backup": True}
    if word == "down":
        return {"is_down": True}
    if word == "resolve":
        return {"is_resolved": True}
    if name == "route" and text:
        return {"route": text}
    if name + equals in KNOWN_TO_NGINX:
        raise ConfError(word, f'parameter "{name}" is known to nginx, not supported by Headrace')
    raise ConfError(word, f'invalid parameter "{word}"')


def read_keepalive(args: list[Token], _block: Block) -> tuple[int, bool]:
    """(connections, is_local) of `keepalive N [local]`."""
    number = read_int(args[0])
    if number is None or number > 1 << 20:
        raise ConfError(args[0], f'invalid value "{args[0]}" in "keepalive" directive')
    if len(args) > 1 and args[1] != "local":
        raise ConfError(args[1], f'invalid parameter "{args[1]}"')
    return number, len(args) > 1


def read_zone(args: list[Token], _block: Block) -> Zone:
    """`zone NAME [SIZE]`."""
    if not args[0]:
        raise ConfError(args[0], 'invalid zone name ""')
    if len(args) == 1:
        return Zone(str(args[0]), 0)
    size = read_size(args[1])
    if size is None:
        raise ConfError(args[1], f'invalid zone size "{args[1]}"')
    if size < LEAST_ZONE_BYTES:
        raise ConfError(args[1], f'zone "{args[0]}" is too small')
    return Zone(str(args[0]), size)


def read_hash(args: list[Token], _block: Block) -> tuple[str, str]:
    """(method, key) of `hash KEY [consistent]`; key is text with variables."""
    if len(args) > 1 and args[1] != "consistent":
        raise ConfError(args[1], f'invalid parameter "{args[1]}"')
    return ("consistent" if len(args) > 1 else "hash"), args[0]


def read_random(args: list[Token], _block: Block) -> str:
    """The method of `random [two [least_conn]]`."""
    if not args:
        return "random"
    if args[0] != "two":
        raise ConfError(args[0], f'invalid parameter "{args[0]}"')
    if len(args) > 1 and args[1].startswith("least_time"):
        raise ConfError(args[1], '"least_time" is known to nginx, not supported by Headrace')
    if len(args) > 1 and args[1] != "least_conn":
        raise ConfError(args[1], f'invalid parameter "{args[1]}"')
    return "random_two"


def check_upstream(block: Block) -> None:
    """What can only be said when the block is closed."""
    name = block.args[0]
    servers = block.own("server") or []
    if all(line.is_backup for line in servers):
        raise block.error(f'no servers in upstream "{name}"')
    used = [it for it in block.statements if it.name in METHODS]
    sticky = block.own("sticky")
    if sticky is not None and sticky.kind == "route" and not any(line.route for line in servers):
        raise block.error(f'no server of upstream "{name}" has a "route=" for its "sticky route"')
    for again in used[1:]:
        block.warn("load balancing method redefined", again.token)
    if any(line.is_resolved for line in servers) and block.own("zone") is None:
        raise block.error(
            f'resolving names at run time requires upstream "{name}" to be in shared memory'
        )
    if block.own("health_check") is not None and block.own("zone") is None:
        raise block.error(f'checks of health require upstream "{name}" to be in shared memory')
    for other in block.parent.find("upstream") if block.parent else ():
        if other is not block and other.args[0].lower() == name.lower():
            raise block.error(f'duplicate upstream "{name}"')


def read_upstream(block: Block) -> UpstreamSettings:
    """The settings of an upstream block; ask once the whole conf is read."""
    method: str = "round_robin"
    key: str | None = None
    if block.parent is not None and block.parent.where == MQTT:  # whose session a broker keeps
        method, key = "consistent", "$mqtt_client_id"
    for it in block.statements:
        if it.name == "hash":
            method, key = it.value
        elif it.name == "random":
            method, key = it.value, None
        elif it.name in METHODS:
            method, key = it.name, None
    kept: dict[str, Any] = {"keepalive": 0}
    if block.where != STREAM_UPSTREAM:  # there each session has a connection of its own
        kept["keepalive"], kept["is_local"] = block.get("keepalive")
        kept["keepalive_requests"] = block.get("keepalive_requests")
        kept["keepalive_time_ms"] = block.get("keepalive_time")
        kept["keepalive_timeout_ms"] = block.get("keepalive_timeout")
    servers = tuple(block.own("server"))
    sticky = block.own("sticky")
    if sticky is None or sticky.kind != "route":
        servers = tuple(replace(line, route="") for line in servers)
    resolver = block.get("resolver")
    if resolver is None and any(line.is_resolved for line in servers):
        raise block.error(
            f'no resolver defined to resolve names at run time in upstream "{block.args[0]}"'
        )
    return UpstreamSettings(
        name=str(block.args[0]),
        servers=servers,
        method=method,
        key=key,
        zone=block.own("zone"),
        resolver=resolver,
        resolver_timeout_ms=block.get("resolver_timeout"),
        **kept,
    )


def make_upstream(
    settings: UpstreamSettings, find_addresses: Callable[[str], Iterable[str]]
) -> Upstream:
    """An Upstream of the settings. find_addresses(name) gives the IP addresses of a host name,
    raising OSError when there are none; it is not asked for `resolve` servers, which begin
    without peers. Raises ValueError, worded as nginx: `host not found in upstream "x"`.
    """
    from proxy.upstream._balance import Upstream

    peers = []
    for line in settings.servers:
        if not line.is_resolved or is_literal(line.endpoint):
            peers += make_peers(line, resolve(line.endpoint, find_addresses, line.text))
    return Upstream(
        settings.name.encode(),
        peers,
        method=settings.method,
        key=settings.key,
        keepalive=settings.keepalive,
        keepalive_is_local=settings.is_local,
        keepalive_requests=settings.keepalive_requests,
        keepalive_time_ms=settings.keepalive_time_ms,
        keepalive_timeout_ms=settings.keepalive_timeout_ms,
    )


def make_implicit(target: Target, addresses: Iterable[str]) -> Upstream:
    """The upstream of a proxy_pass that names no block; addresses as of find_addresses, unread
    for a Unix socket. As in nginx it keeps no idle connections and has nginx's default peers."""
    from proxy.upstream._balance import Upstream

    peers = make_peers(ServerLine(target.upstream_name, target.endpoint), addresses)
    return Upstream(target.upstream_name.encode(), peers, keepalive=0)


def make_peers(line: ServerLine, addresses: Iterable[str]) -> list[Peer]:
    """A Peer for each IP address, with the settings of the line; one for a Unix socket."""
    from proxy.upstream._balance import Peer

    settings: dict[str, Any] = {
        "server": line.text.encode(),
        "weight": line.weight,
        "max_fails": line.max_fails,
        "fail_timeout_ms": line.fail_timeout_ms,
        "max_conns": line.max_conns,
        "is_backup": line.is_backup,
        "is_down": line.is_down,
        "sticky_id": line.route.encode(),
    }
    if line.endpoint.path:
        return [Peer(*pack_unix(line.endpoint.path), **settings)]
    return [Peer(*pack_ip(address, line.endpoint.port), **settings) for address in addresses]


def resolve(
    endpoint: Endpoint, find_addresses: Callable[[str], Iterable[str]], text: str
) -> list[str]:
    """The IP addresses of an endpoint. ValueError: `host not found in upstream "text"`."""
    if endpoint.path:
        return []
    if is_literal(endpoint):
        return [endpoint.host]
    try:
        found = list(dict.fromkeys(find_addresses(endpoint.host)))
    except OSError:
        found = []
    if not found:
        raise ValueError(f'host not found in upstream "{text}"')
    return found


def system_addresses(host: str) -> list[str]:
    """All addresses of a name by the system's resolver; blocks, so only while reading a conf."""
    import socket

    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def pack_ip(address: str, port: int) -> tuple[bytes, int, bytes]:
    """(name as in $upstream_addr, family, sockaddr for connect(2)) of a literal address."""
    import socket
    import struct

    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        shown = socket.inet_ntop(socket.AF_INET6, packed)
        head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
        name = f"[{shown}]:{port}".encode()
        return name, socket.AF_INET6, head + packed + b"\0\0\0\0"
    packed = socket.inet_pton(socket.AF_INET, address)
    head = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
    return f"{address}:{port}".encode(), socket.AF_INET, head + packed + b"\0" * 8


def pack_unix(path: str) -> tuple[bytes, int, bytes]:
    """The same of a Unix socket."""
    import os
    import socket
    import struct

    raw = os.fsencode(path)
    return b"unix:" + raw, socket.AF_UNIX, struct.pack("=H", socket.AF_UNIX) + raw + b"\0"


def is_literal(endpoint: Endpoint) -> bool:
    """A Unix socket or an IP address: nothing to look up."""
    import socket

    if endpoint.path or endpoint.is_ipv6:
        return True
    try:
        socket.inet_pton(socket.AF_INET, endpoint.host)
    except (OSError, ValueError):
        return False
    return True

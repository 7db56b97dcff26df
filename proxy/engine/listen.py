"""Where servers listen: reads `listen` and merges all of them into the addresses to open.

`read_listen` types one directive; `addresses(model)` gives each address once, with the servers
that answer on it, and refuses what nginx refuses (two default servers, options given twice).
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, AF_UNIX, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import MQTT_SERVER, SERVER, STREAM_SERVER, directive
from proxy.conf.report import ConfError
from proxy.conf.values import read_address, read_int, read_seconds, read_size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

BACKLOG = 511  # nginx's on Linux
PORT_WITHOUT_LISTEN = 80
PORT_WITHOUT_LISTEN_OR_ROOT = 8000
NOT_IN_STREAM = ("udp", "http2", "quic")
NOT_IN_MQTT = (*NOT_IN_STREAM, "default_server", "default")  # a client says no name there
NOT_YET = ("multipath",)
UDP = "/udp"  # at the end of a key: HTTP/3 may be spoken where TCP listens too


NOT_WITH_QUIC = (
    "ssl", "http2", "proxy_protocol", "backlog", "fastopen", "deferred", "so_keepalive",
)  # fmt: skip


class SocketOptions:
    """What is asked of the listening socket itself. None: leave it to the kernel."""

    __slots__ = (
        "backlog", "fastopen", "is_deferred", "is_ipv6_only", "keep_count", "keep_idle_s",
        "keep_interval_s", "keepalive", "owner", "receive_bytes", "send_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.backlog = BACKLOG
        self.fastopen: int | None = None
        self.is_deferred = False
        self.is_ipv6_only = True
        self.keepalive: bool | None = None
        self.keep_idle_s = 0
        self.keep_interval_s = 0
        self.keep_count = 0
        self.receive_bytes: int | None = None
        self.send_bytes: int | None = None
        self.owner: tuple[int, int] | None = None  # who alone may connect to a Unix socket


class Listen:
    """One `listen` directive. `places` are (key, family, sockaddr) triples: a port range or a
    name can mean several. `is_set` says that an option of the socket itself was given."""

    __slots__ = (
        "is_default",
        "is_h2",
        "is_proxy_protocol",
        "is_quic",
        "is_set",
        "is_ssl",
        "is_websocket",
        "options",
        "places",
        "token",
    )

    def __init__(self, token: Token) -> None:
        self.token = token
        self.places: list[tuple[str, int, Any]] = []
        self.options = SocketOptions()
        self.is_default = False
        self.is_h2 = False
        self.is_proxy_protocol = False
        self.is_quic = False
        self.is_set = False
        self.is_ssl = False
        self.is_websocket = False


class Address:
    """One address to listen on: `key` as nginx prints it (`0.0.0.0:80`, `[::1]:80`,
    `unix:/path`), and UDP behind it for QUIC; `sockaddr` as bind takes it, `servers` in the order
    of the conf."""

    __slots__ = (
        "default_server", "family", "has_default", "is_h2", "is_proxy_protocol", "is_quic",
        "is_ssl", "is_websocket", "key",
        "options", "servers", "sockaddr", "_is_changed", "_is_set", "_protocols",
    )  # fmt: skip

    def __init__(self, key: str, family: int, sockaddr: Any, listen: Listen, server: Block) -> None:
        self.key = key
        self.family = family
        self.sockaddr = sockaddr
        self.options = listen.options
        self.is_ssl = listen.is_ssl
        self.is_quic = listen.is_quic
        self.is_h2 = listen.is_h2
        self.is_proxy_protocol = listen.is_proxy_protocol
        self.is_websocket = listen.is_websocket
        self.servers = [server]
        self.default_server = server
        self.has_default = listen.is_default
        self._is_set = listen.is_set
        self._is_changed = False
        self._protocols: tuple[bool, bool] | None = None

    @classmethod
    def internal(cls, path: str, options: SocketOptions) -> Address:
        """A Unix socket that no `listen` names."""
        from proxy.conf.inherit import Block
        from proxy.conf.lexer import Token

        token = Token("listen", "internal", 1)
        listen = Listen(token)
        listen.options = options
        return cls(f"unix:{path}", AF_UNIX, path, listen, Block("server", SERVER, token))

    def add(self, listen: Listen, server: Block) -> None:
        """Another server listens here too. Raises ConfError."""
        both = server.where & self.default_server.where
        if server in self.servers or not both & (SERVER | STREAM_SERVER):
            raise ConfError(listen.token, f"a duplicate listen {self.key}")
        self.servers.append(server)
        was_set = self._is_set
        before = (self.is_proxy_protocol, self.is_ssl)
        if listen.is_set:
            if was_set:
                raise ConfError(listen.token, f"duplicate listen options for {self.key}")
            self.options = listen.options
            self._is_set = True
        if listen.is_default:
            if self.has_default:
                raise ConfError(listen.token, f"a duplicate default server for {self.key}")
            self.has_default = True
            self.default_server = server
        self._check_protocols(before, listen, server, was_set)
        self.is_ssl |= listen.is_ssl
        self.is_h2 |= listen.is_h2
        self.is_proxy_protocol |= listen.is_proxy_protocol

    def _check_protocols(
        self, before: tuple[bool, bool], listen: Listen, server: Block, was_set: bool
    ) -> None:
        """Warn where nginx does: one address, two opinions on what is spoken there."""
        now = (listen.is_proxy_protocol, listen.is_ssl)
        adds = any(n and not b for n, b in zip(now, before, strict=True))
        drops = any(b and not n for n, b in zip(now, before, strict=True))
        is_other = self._protocols is not None and now != self._protocols
        if adds:
            is_odd = (was_set and not listen.is_set) or self._is_changed or drops
            self._protocols = before
            self._is_changed = True
        elif drops:
            is_odd = listen.is_set or is_other
            self._protocols = now
            self._is_changed = True
        else:
            is_odd = (listen.is_set and self._is_changed) or is_other
            self._protocols = now
        if is_odd:
            server.warn(f"protocol options redefined for {self.key}", listen.token)


def read_listen(args: list[Token], block: Block) -> Listen:
    """Type one `listen`. Raises ConfError, worded as nginx."""
    listen = Listen(args[0])
    for parameter in args[1:]:
        if parameter == "http2":
            listen.is_h2 = True
            block.warn(
                'the "listen ... http2" directive is deprecated, use the "http2" directive instead',
                parameter,
            )
        else:
            _read_parameter(listen, parameter)
    listen.places = _read_places(args[0])
    if listen.is_quic:
        _become_quic(listen, args)
    return listen


def _become_quic(listen: Listen, args: list[Token]) -> None:
    """What is said of TCP cannot be said of QUIC. Raises ConfError, worded as nginx."""
    for parameter in args[1:]:
        name = parameter.partition("=")[0]
        if name in NOT_WITH_QUIC:
            raise ConfError(parameter, f'"{name}" parameter is incompatible with "quic"')
    if any(family == AF_UNIX for _, family, _ in listen.places):
        raise ConfError(listen.token, '"quic" parameter is not supported on a Unix socket')
    listen.places = [(key + UDP, family, name) for key, family, name in listen.places]


def read_stream_listen(args: list[Token], block: Block) -> Listen:
    """The same of a server in stream or mqtt: a port must stand there. Raises ConfError."""
    listen = Listen(args[0])
    for parameter in args[1:]:
        if parameter in (NOT_IN_STREAM if block.where == STREAM_SERVER else NOT_IN_MQTT):
            place = "stream" if block.where == STREAM_SERVER else "mqtt"
            raise ConfError(
                parameter,
                f'the "{parameter}" parameter of "listen" in {place} is known to nginx, '
                "not supported by Headrace",
            )
        if parameter == "websocket" and block.where == MQTT_SERVER:
            listen.is_websocket = True
            continue
        _read_parameter(listen, parameter)
    listen.places = _read_places(args[0], 0)
    for _, _, sockaddr in listen.places:
        if isinstance(sockaddr, tuple) and sockaddr[1] == 0:
            raise _refused(args[0], "no port")
    return listen


def _read_parameter(listen: Listen, token: Token) -> None:
    options = listen.options
    name, _, value = token.partition("=")
    if token in ("default_server", "default"):
        listen.is_default = True
        return
    if token == "ssl":
        listen.is_ssl = True
        return
    if token == "proxy_protocol":
        listen.is_proxy_protocol = True
        return
    if token == "quic":
        listen.is_quic = True
        return
    if token in NOT_YET:
        raise ConfError(
            token,
            f'the "{token}" parameter of "listen" is known to nginx, not supported by Headrace',
        )
    listen.is_set = True
    if token in ("bind", "reuseport"):
        return  # always so here: each worker has a socket of its own on each address
    if token == "deferred":
        options.is_deferred = True
    elif name == "backlog":
        options.backlog = _number(token, name, value, least=1)
    elif name == "fastopen":
        options.fastopen = _number(token, name, value, least=0)
    elif name == "rcvbuf":
        options.receive_bytes = _size(token, name, value)
    elif name == "sndbuf":
        options.send_bytes = _size(token, name, value)
    elif name == "ipv6only":
        if value not in ("on", "off"):
            raise ConfError(token, f'invalid ipv6only flags "{value}"')
        options.is_ipv6_only = value == "on"
    elif name == "so_keepalive":
        _read_keepalive(options, token, value)
    elif name == "accept_filter":
        raise ConfError(token, f'accept filters "{token}" are not supported on this platform')
    else:
        raise ConfError(token, f'invalid parameter "{token}"')


def _number(token: Token, name: str, value: str, least: int) -> int:
    number = read_int(value)
    if number is None or not least <= number < 2**31:
        raise ConfError(token, f'invalid {name} "{token}"')
    return number


def _size(token: Token, name: str, value: str) -> int:
    size = read_size(value)
    if size is None or size >= 2**31:
        raise ConfError(token, f'invalid {name} "{token}"')
    return size


def _read_keepalive(options: SocketOptions, token: Token, value: str) -> None:
    """`on`, `off`, or `idle:interval:count` with parts that may be empty."""
    if value in ("on", "off"):
        options.keepalive = value == "on"
        return
    parts = value.split(":", 2) + ["", ""]
    idle = read_seconds(parts[0]) if parts[0] else 0
    interval = read_seconds(parts[1]) if parts[1] else 0
    count = read_int(parts[2]) if parts[2] else 0
    if idle is None or interval is None or count is None or not (idle or interval or count):
        raise ConfError(token, f'invalid so_keepalive value: "{value}"')
    options.keepalive = True
    options.keep_idle_s, options.keep_interval_s, options.keep_count = idle, interval, count


def _read_places(token: Token, port: int = PORT_WITHOUT_LISTEN) -> list[tuple[str, int, Any]]:
    """The addresses that the first argument of `listen` means."""
    text, last = str(token), 0
    head, dash, tail = text.rpartition("-")
    if dash and not text.startswith("unix:") and tail.isdigit() and head[-1:].isdigit():
        last = read_int(tail) or 0
        if not 1 <= last <= 65535:
            raise _refused(token, "invalid port")
        text = head
    try:
        endpoint = read_address(text, port, is_listen=True)
    except ValueError as error:
        raise _refused(token, str(error)) from None
    if endpoint.path:
        return [(f"unix:{endpoint.path}", AF_UNIX, endpoint.path)]
    if "/" in endpoint.host:
        raise _refused(token, "invalid host")
    if last and endpoint.port > last:
        raise _refused(token, "invalid port range")
    hosts = _hosts(token, endpoint.host)
    return [
        _inet(family, host, port)
        for port in range(endpoint.port, max(last, endpoint.port) + 1)
        for family, host in hosts
    ]


def _inet(family: int, host: str, port: int) -> tuple[str, int, Any]:
    return (f"[{host}]:{port}" if family == AF_INET6 else f"{host}:{port}", family, (host, port))


def _hosts(token: Token, host: str) -> list[tuple[int, str]]:
    """(family, numeric text) of `*`, a numeric address, or all that a name resolves to."""
    if host == "*":
        return [(AF_INET, "0.0.0.0")]
    for family in (AF_INET, AF_INET6):
        try:
            return [(family, inet_ntop(family, inet_pton(family, host)))]
        except OSError:
            continue
    from _socket import SOCK_STREAM, gaierror, getaddrinfo

    try:
        found = getaddrinfo(host, None, 0, SOCK_STREAM)
    except (gaierror, UnicodeError):
        raise _refused(token, "host not found") from None
    hosts: dict[tuple[int, str], None] = {}
    for family, _, _, _, sockaddr in found:
        if family in (AF_INET, AF_INET6):
            hosts[family, str(sockaddr[0])] = None
    return sorted(hosts, key=lambda it: it[0])


def _refused(token: Token, why: str) -> ConfError:
    return ConfError(token, f'{why} in "{token}" of the "listen" directive')


def addresses(model: Block) -> list[Address]:
    """Each address that the servers of `model` listen on, once. Raises ConfError."""
    found: dict[str, Address] = {}
    servers = [it for http in model.find("http") for it in http.find("server")]
    for name in ("stream", "mqtt"):
        servers += [it for outer in model.find(name) for it in outer.find("server")]
    for server in servers:
        listens: list[Listen] = server.own("listen") or [_listen_by_default(server)]
        for listen in listens:
            for key, family, sockaddr in dict.fromkeys(listen.places):
                address = found.get(key)
                if address is None:
                    found[key] = Address(key, family, sockaddr, listen, server)
                else:
                    address.add(listen, server)
    return list(found.values())


def _listen_by_default(server: Block) -> Listen:
    listen = Listen(server.token)
    port = PORT_WITHOUT_LISTEN if os.geteuid() == 0 else PORT_WITHOUT_LISTEN_OR_ROOT
    listen.places = [_inet(AF_INET, "0.0.0.0", port)]
    return listen


directive(
    "listen",
    SERVER,
    read=read_listen,
    many=True,
    inherit=False,
    syntax="address[:port] | port | unix:path [default_server] [ssl] [http2] [quic] "
    "[proxy_protocol] "
    "[backlog=number] [rcvbuf=size] [sndbuf=size] [fastopen=number] [deferred] [bind] "
    "[ipv6only=on|off] [reuseport] [so_keepalive=on|off|[idle]:[interval]:[count]]",
    doc="An address this server answers on; ports may be a range. Each worker has its own socket "
    "there, so reuseport is always on.",
)
directive(
    "listen",
    STREAM_SERVER,
    read=read_stream_listen,
    many=True,
    inherit=False,
    syntax="address:port | port | unix:path [default_server] [ssl] [proxy_protocol] "
    "[backlog=number] [rcvbuf=size] [sndbuf=size] [fastopen=number] [deferred] [bind] "
    "[ipv6only=on|off] [reuseport] [so_keepalive=on|off|[idle]:[interval]:[count]]",
    doc="An address whose connections this server takes; ports may be a range.",
)
directive(
    "listen",
    MQTT_SERVER,
    read=read_stream_listen,
    many=True,
    inherit=False,
    syntax="address:port | port | unix:path [ssl] [websocket] [proxy_protocol] "
    "[backlog=number] [rcvbuf=size] [sndbuf=size] [fastopen=number] [deferred] [bind] "
    "[ipv6only=on|off] [reuseport] [so_keepalive=on|off|[idle]:[interval]:[count]]",
    doc="An address whose clients this server takes; with websocket they speak MQTT in a "
    "WebSocket of any path.",
)

"""The directives of passing on: upstream blocks, proxy_…, resolver; defaults of nginx 1.31.

What Block.get(name) gives is said beside each group; times are ms, sizes bytes, texts may hold
$variables. Sums over several directives: `read_buffers`, `servers.read_upstream`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.conf.directive import (
    BRIDGE,
    HTTP,
    IN_MQTT,
    LIMIT_EXCEPT,
    LOCATION,
    LOCATION_IF,
    SERVER,
    STREAM,
    STREAM_SERVER,
    STREAM_UPSTREAM,
    UPSTREAM,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    Duration,
    Endpoint,
    Enum,
    Flag,
    Int,
    Rest,
    Size,
    SizeText,
    SocketSize,
    Text,
    Word,
    read_address,
    read_seconds,
    read_temp_path,
)
from proxy.upstream.health import read_health_check
from proxy.upstream.next_upstream import read_next_upstream
from proxy.upstream.proxy_pass import read_proxy_pass
from proxy.upstream.rewrite_reply import (
    read_cookie_domain,
    read_cookie_flags,
    read_cookie_path,
    read_redirect,
)
from proxy.upstream.servers import (
    check_upstream,
    read_hash,
    read_keepalive,
    read_random,
    read_server,
    read_zone,
)
from proxy.upstream.sticky import read_sticky
from proxy.upstream.words import read_queue

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
GROUP = UPSTREAM | STREAM_UPSTREAM
IN_STREAM = STREAM | STREAM_SERVER | IN_MQTT
IGNORABLE = (
    "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering",
    "X-Accel-Charset", "Expires", "Cache-Control", "Set-Cookie", "Vary",
)  # fmt: skip
# Fields of a request that are not passed on, or made anew, unless proxy_set_header names them.
DEFAULT_FIELDS = (
    "Host", "Connection", "Proxy-Connection", "Content-Length", "Transfer-Encoding", "TE",
    "Keep-Alive", "Expect", "Upgrade",
)  # fmt: skip
# Fields of an answer that the client does not get unless proxy_pass_header names them.
HIDDEN_FIELDS = (
    "Date", "Server", "X-Pad", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate",
    "X-Accel-Buffering", "X-Accel-Charset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bind:
    """`proxy_bind`: address to connect from. endpoint: None when text holds variables; port 0
    lets the system choose."""

    text: str
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """`resolver`: name servers, how long an answer holds (valid_s; None: its own TTL), and
    which address families are asked for."""

    servers: tuple[Endpoint, ...]
    valid_s: int | None = None
    has_ipv4: bool = True
    has_ipv6: bool = True


@dataclass(frozen=True, slots=True)
class Buffers:
    """What an answer may take, in bytes: first (proxy_buffer_size, holds the head), count
    buffers of size, busy of them on the way to the client, temp_write at once to a temporary
    file of temp_max (0: no file)."""

    first: int
    count: int
    size: int
    busy: int
    temp_write: int
    temp_max: int


def read_buffers(block: Block) -> Buffers:
    """The buffers of a location, checked against each other as nginx does. Raises ConfError."""
    first = block.get("proxy_buffer_size")
    count, size = block.get("proxy_buffers")
    largest = max(first, size)
    busy = block.get("proxy_busy_buffers_size")
    busy = 2 * largest if busy is None else busy
    temp_write = block.get("proxy_temp_file_write_size")
    temp_write = 2 * largest if temp_write is None else temp_write
    temp_max = block.get("proxy_max_temp_file_size")
    bound = 'the maximum of the value of "proxy_buffer_size" and one of the "proxy_buffers"'
    if count < 2:
        raise block.error('there must be at least 2 "proxy_buffers"')
    if busy < largest:
        raise block.error(f'"proxy_busy_buffers_size" must be equal to or greater than {bound}')
    if busy > (count - 1) * size:
        raise block.error(
            '"proxy_busy_buffers_size" must be less than '
            'the size of all "proxy_buffers" minus one buffer'
        )
    if temp_write < largest:
        raise block.error(f'"proxy_temp_file_write_size" must be equal to or greater than {bound}')
    if temp_max and temp_max < largest:
        raise block.error(
            '"proxy_max_temp_file_size" must be equal to zero to disable temporary files usage '
            f"or must be equal to or greater than {bound}"
        )
    return Buffers(first, count, size, busy, temp_write, temp_max)


def read_http_version(args: list[Token], _block: Block) -> int:
    """10, 11 or 20."""
    versions = {"1.0": 10, "1.1": 11, "2": 20}
    if args[0] not in versions:
        raise ConfError(args[0], f'invalid value "{args[0]}"')
    return versions[args[0]]


def read_bind(args: list[Token], _block: Block) -> Bind | None:
    """`proxy_bind off | ADDRESS[:PORT]`."""
    if len(args) > 1:
        if args[1] != "transparent":
            raise ConfError(args[1], f'invalid parameter "{args[1]}"')
        raise ConfError(
            args[1], '"proxy_bind … transparent" is known to nginx, not supported by Headrace'
        )
    if args[0] == "off":
        return None
    if "$" in args[0]:
        return Bind(args[0], None)
    try:
        return Bind(args[0], read_address(args[0], 0))
    except AddressError:
        raise ConfError(args[0], f'invalid address "{args[0]}"') from None


def read_ignore_headers(args: list[Token], _block: Block) -> frozenset[str]:
    """The names in lower case."""
    known = {name.lower() for name in IGNORABLE}
    for word in args:
        if word.lower() not in known:
            raise ConfError(word, f'invalid value "{word}"')
    return frozenset(word.lower() for word in args)


def read_resolver(args: list[Token], _block: Block) -> ResolverSettings:
    """`resolver ADDRESS … [valid=TIME] [ipv4=on|off] [ipv6=on|off]`."""
    servers: list[Endpoint] = []
    valid_s: int | None = None
    families = {"ipv4": True, "ipv6": True}
    for word in args:
        name, equals, text = word.partition("=")
        if name == "valid" and equals:
            valid_s = read_seconds(text)
            if valid_s is None:
                raise ConfError(word, f"invalid parameter: {word}")
        elif name in families and equals:
            if text not in ("on", "off"):
                raise ConfError(word, f"invalid parameter: {word}")
            families[name] = text == "on"
        elif name == "status_zone" and equals:
            raise ConfError(
                word, 'parameter "status_zone" is known to nginx, not supported by Headrace'
            )
        else:
            try:
                servers.append(read_address(word, 53))
            except AddressError as error:
                raise ConfError(word, f'{error} in resolver "{word}"') from None
    if not any(families.values()):
        raise ConfError(args[0], '"ipv4" and "ipv6" cannot both be "off"')
    if not servers:
        raise ConfError(args[0], "no name servers defined")
    return ResolverSettings(tuple(servers), valid_s, families["ipv4"], families["ipv6"])


# fmt: off
# --- upstream blocks: read with servers.read_upstream(block) ---

directive(
    "upstream", HTTP, Word(), block=UPSTREAM, many=True, check=check_upstream,
    doc="A named group of servers that proxy_pass may send to.",
)
directive(
    "server", UPSTREAM, read=read_server, many=True, inherit=False,
    syntax="address [weight=N] [max_fails=N] [fail_timeout=time] [max_conns=N] [backup] [down] "
    "[resolve]",
    doc="One server of the group, or all addresses of a name.",
)
directive(
    "queue", UPSTREAM, read=read_queue, least=1, most=3, inherit=False,
    syntax="[size=NUMBER] [bytes=SIZE] [wait=TIME]",
    doc="How many requests of a worker may wait while all servers are at max_conns, what is held "
    "of them, and how long.",
)
directive(
    "keepalive", UPSTREAM, read=read_keepalive, most=2, default="32 local", inherit=False,
    syntax="number [local]",
    doc="How many idle connections a worker keeps; local: only for the location that opened them.",
)
directive(
    "keepalive_requests", UPSTREAM, Int(), default="1000", inherit=False,
    doc="After how many requests a connection to the upstream is closed.",
)
directive(
    "keepalive_time", UPSTREAM, Duration(), default="1h", inherit=False,
    doc="How old a connection to the upstream may be and still be kept.",
)
directive(
    "keepalive_timeout", UPSTREAM, Duration(), default="60s", inherit=False,
    doc="How long an idle connection to the upstream is kept.",
)
directive(
    "zone", GROUP, read=read_zone, most=2, inherit=False, syntax="name [size]",
    doc="Shares the state of the servers among all workers.",
)
directive(
    "health_check", GROUP, read=read_health_check, least=0, most=None, inherit=False,
    syntax="[type=http|grpc|tcp] [uri=PATH] [status=CODE[-CODE],…] [grpc_service=NAME] "
    "[grpc_status=CODE] [interval=TIME] [jitter=TIME] [timeout=TIME] [fails=N] [passes=N] "
    "[port=N] [host=NAME] [tls] [mandatory]",
    doc="Asks each server now and then, and leaves out who does not answer well; needs a zone. "
    "mandatory: who was never asked is left out, too. tls: the server must prove what it must to"
    " requests that go there by TLS (proxy_ssl_verify, …).",
)
directive(
    "hash", GROUP, read=read_hash, most=2, inherit=False, syntax="key [consistent]",
    doc="Chooses the server by a hash of the key; consistent: few keys move when servers change.",
)
directive(
    "sticky", UPSTREAM, read=read_sticky, least=1, most=None, inherit=False,
    syntax="cookie NAME | cookie=NAME [expires=TIME|max] [domain=NAME] [path=PATH] [httponly] "
    "[secure] [samesite=strict|lax|none] | route $NAME … | header=NAME | variable=$NAME | "
    "claim=NAME | address",
    doc="Sends a client to the server that its cookie or route names, or whose share its value is, "
    "while that one can be asked.",
)
directive(
    "ip_hash", UPSTREAM, inherit=False,
    doc="Chooses the server by the client's address: three octets of IPv4, or all of IPv6.",
)
directive(
    "least_conn", GROUP, inherit=False,
    doc="Chooses the server with the fewest connections for its weight.",
)
directive(
    "random", GROUP, read=read_random, least=0, most=2, inherit=False,
    syntax="[two [least_conn]]",
    doc="Chooses a server at random; two: the one with fewer connections of two.",
)

# --- where to, and what if it fails ---
# proxy_pass: Target | VariableTarget. proxy_next_upstream: bits of next_upstream.CONDITIONS.

directive(
    "proxy_pass", LOCATION | LOCATION_IF | LIMIT_EXCEPT, read=read_proxy_pass, most=1,
    inherit=False, syntax="URL",
    doc="Sends the request to a server or an upstream; a URI replaces the location's prefix.",
)
directive(
    "proxy_http_version", EVERY, read=read_http_version, most=1, default="1.1",
    syntax="1.0 | 1.1 | 2",
    doc="The HTTP version spoken to the upstream; requests share connections of version 2.",
)
directive("proxy_connect_timeout", EVERY | IN_STREAM, Duration(), default="60s",
          doc="How long connecting to the upstream may take.")
directive("proxy_send_timeout", EVERY, Duration(), default="60s",
          doc="How long the upstream may take nothing of the request.")
directive("proxy_read_timeout", EVERY, Duration(), default="60s",
          doc="How long the upstream may send nothing of its answer.")
directive(
    "proxy_next_upstream", EVERY, read=read_next_upstream, default="error timeout",
    syntax="error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | "
    "http_403 | http_404 | http_429 | non_idempotent | off …",
    doc="After which failures the request goes to the next server.",
)
directive("proxy_next_upstream_tries", EVERY | IN_STREAM, Int(), default="0",
          doc="How many servers a request may be sent to; 0 is no bound.")
directive("proxy_next_upstream_timeout", EVERY | IN_STREAM, Duration(), default="0",
          doc="For how long a request may go to a next server; 0 is no bound.")
directive("proxy_bind", EVERY | IN_STREAM, read=read_bind, most=2, syntax="address | off",
          doc="The local address that connections to the upstream come from.")
directive("proxy_socket_keepalive", EVERY | IN_STREAM, Flag(), default="off",
          doc="Sets SO_KEEPALIVE on connections to the upstream.")
directive("proxy_socket_rcvbuf", EVERY, SocketSize(), default="0",
          doc="SO_RCVBUF of connections to the upstream; 0 is the system's choice.")
directive("proxy_socket_sndbuf", EVERY, SocketSize(), default="0",
          doc="SO_SNDBUF of connections to the upstream; 0 is the system's choice.")
directive("resolver", EVERY | IN_STREAM | GROUP, read=read_resolver,
          syntax="address … [valid=time] [ipv4=on | off] [ipv6=on | off]",
          doc="The name servers that names in proxy_pass are looked up at.")
directive("resolver_timeout", EVERY | IN_STREAM | GROUP, Duration(), default="30s",
          doc="How long looking up a name may take.")

# --- bodies, both ways ---
# proxy_buffers: (count, size). The rest of the sizes: read_buffers(block).

directive("proxy_buffering", EVERY, Flag(), default="on",
          doc="Reads the answer as fast as the upstream sends it, into buffers and files.")
directive("proxy_request_buffering", EVERY, Flag(), default="on",
          doc="Reads the request's body whole before it is sent on.")
directive("proxy_buffer_size", EVERY, Size(), default="4k",
          doc="The buffer of the answer's beginning; its head must fit.")
directive("proxy_buffers", EVERY, Int(), Size(), default="8 4k",
          doc="Number and size of the buffers of one answer.")
directive("proxy_busy_buffers_size", EVERY, Size(),
          doc="How much of the buffers may be on its way to the client; twice one of them.")
directive("proxy_max_temp_file_size", EVERY, Size(), default="1024m",
          doc="How large the temporary file of an answer may grow; 0: none is made.")
directive("proxy_temp_file_write_size", EVERY, Size(),
          doc="How much is written to the temporary file at once; twice one buffer.")
directive("proxy_temp_path", EVERY, read=read_temp_path, most=4, default="proxy_temp",
          syntax="path [level [level [level]]]",
          doc="Where the temporary files of answers are.")
directive("early_hints", EVERY, Rest(Text()), default=None,
          doc="Passes 103 (Early Hints) of upstreams on, where one of the values is neither empty "
          "nor 0.")
directive("proxy_limit_rate", EVERY, SizeText(), default="0",
          doc="Bytes per second read from the upstream; 0 is no limit.")
directive("proxy_ignore_client_abort", EVERY, Flag(), default="off",
          doc="Goes on with the upstream when the client has left.")

# --- the request that goes on ---
# proxy_set_header: [(name, text)] – an empty text takes the field away; see DEFAULT_FIELDS.

directive("proxy_set_header", EVERY, Word(), Text(), many=True,
          doc="Sets a field of the request to the upstream; an empty value removes it.")
directive("proxy_set_body", EVERY, Text(),
          doc="Replaces the request's body.")
directive("proxy_method", EVERY, Text(),
          doc="Replaces the request's method.")
directive("proxy_pass_request_headers", EVERY, Flag(), default="on",
          doc="Sends the client's fields on.")
directive("proxy_pass_request_body", EVERY, Flag(), default="on",
          doc="Sends the client's body on.")

# --- the answer that comes back ---
# proxy_redirect, proxy_cookie_*: lists of rewrite_reply.Rule / FlagRule, compiled with
# rewrite_reply.compile_rules. No proxy_redirect at all means [Rule("default")].

directive("proxy_hide_header", EVERY, Word(), many=True,
          doc="A field of the answer that the client does not get.")
directive("proxy_pass_header", EVERY, Word(), many=True,
          doc="A field that the client gets although it is hidden by default.")
directive("proxy_ignore_headers", EVERY, read=read_ignore_headers, default=frozenset(),
          syntax=" | ".join(IGNORABLE) + " …",
          doc="Fields of the answer that are passed on but not obeyed.")
directive("proxy_redirect", EVERY, read=read_redirect, most=2, many=True,
          syntax="default | off | redirect replacement",
          doc="Changes what Location and Refresh of the answer begin with.")
directive("proxy_cookie_domain", EVERY, read=read_cookie_domain, most=2, many=True,
          syntax="off | domain replacement",
          doc="Changes the domain of cookies in the answer.")
directive("proxy_cookie_path", EVERY, read=read_cookie_path, most=2, many=True,
          syntax="off | path replacement",
          doc="Changes the path of cookies in the answer.")
directive("proxy_cookie_flags", EVERY, read=read_cookie_flags, most=4, many=True,
          syntax="off | cookie [flag …]",
          doc="Sets or removes Secure, HttpOnly and SameSite of cookies in the answer.")
directive("proxy_intercept_errors", EVERY, Flag(), default="off",
          doc="Lets error_page see answers of 300 and above.")
directive("proxy_pass_trailers", EVERY, Flag(), default="off",
          doc="Sends the trailer fields of the answer on.")

# --- proxy_pass https:// ---

directive("proxy_ssl", IN_STREAM | BRIDGE, Flag(), default="off",
          doc="Speaks TLS to upstreams, or to brokers.")
directive("proxy_ssl_alpn", IN_STREAM, Rest(Text(), least=1), default=(),
          doc="The protocols that ALPN offers; one that is empty now is left out.")
directive("proxy_ssl_certificate", EVERY | IN_STREAM | BRIDGE, Text(),
          doc="Our certificate towards the upstream.")
directive("proxy_ssl_certificate_key", EVERY | IN_STREAM | BRIDGE, Text(),
          doc="The key of our certificate.")
directive("proxy_ssl_password_file", EVERY | IN_STREAM, Word(),
          doc="Passwords of the key, one a line.")
directive("proxy_ssl_verify", EVERY | IN_STREAM | BRIDGE, Flag(), default="off",
          doc="Verifies the upstream's certificate and name.")
directive("proxy_ssl_verify_depth", EVERY | IN_STREAM, Int(), default="1",
          doc="How many certificates may stand between the upstream's and a trusted one.")
directive("proxy_ssl_trusted_certificate", EVERY | IN_STREAM | BRIDGE, Word(),
          doc="The authorities that the upstream's certificate may come from.")
directive("proxy_ssl_crl", EVERY | IN_STREAM, Word(),
          doc="Certificates that are revoked.")
directive("proxy_ssl_name", EVERY | IN_STREAM | BRIDGE, Text(), default="$proxy_host",
          doc="The name that is verified, and sent by SNI.")
directive("proxy_ssl_server_name", EVERY | IN_STREAM, Flag(), default="off",
          doc="Sends the name by SNI.")
directive("proxy_ssl_protocols", EVERY | IN_STREAM,
          Rest(Enum("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")),
          default="TLSv1.2 TLSv1.3", doc="The TLS versions offered to the upstream.")
directive("proxy_ssl_ciphers", EVERY | IN_STREAM, Word(), default="DEFAULT",
          doc="The cipher suites offered to the upstream, as OpenSSL writes them.")
directive("proxy_ssl_session_reuse", EVERY | IN_STREAM, Flag(), default="on",
          doc="Resumes TLS sessions with the upstream.")

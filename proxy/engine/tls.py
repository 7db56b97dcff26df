"""TLS of servers (ssl_…) and towards upstreams (proxy_ssl_…): directives, and contexts of them.

`freeze_server(block)` gives what hangs on Server.tls, `make_client(block)` a context to dial
with; both raise ConfError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LOCATION,
    MQTT_SERVER,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import (
    Enum,
    Flag,
    Int,
    Rest,
    Seconds,
    Size,
    Text,
    Word,
    read_int,
    read_size,
)
from proxy.engine.certificates import are_variable, freeze_certificates
from proxy.engine.held import bytes_of, lines_of, read_passwords

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.base._request import Location, Server
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token
    from proxy.engine._tls_context import Context, ServerTls

BOTH = HTTP | SERVER | STREAM | STREAM_SERVER | IN_MQTT
VERIFY = {"off": 0, "on": 1, "optional": 2, "optional_no_ca": 3}
RECORD_LEAST, RECORD_MOST = 512, 16384  # bytes (RFC 6066 §4, RFC 8446 §5.1)
SESSION_LEAST = 8 * 4096  # bytes of a shared cache
CACHE_ZONE = "ssl_session_cache "  # and its name
SESSION_BUILTIN = 20480  # OpenSSL's own default
SECRET_ZONE = "tls secret"
SECRET_BYTES = 64 * 1024
caches: dict[str, Any] = {}


class SessionCaching(NamedTuple):
    """ssl_session_cache: off says that sessions are refused; builtin: how many each worker keeps;
    zone: name and bytes of what all workers share (0: declared elsewhere)."""

    is_off: bool = False
    builtin: int = 0
    zone: str = ""
    zone_bytes: int = 0


def read_session_cache(args: list[Token], _block: Block) -> SessionCaching:
    """Raises ConfError, worded as nginx."""
    found = SessionCaching()
    for token in args:
        name, _, rest = token.partition(":")
        wrong = ConfError(token, f'invalid session cache "{token}"')
        if token in ("off", "none"):
            found = found._replace(is_off=token == "off")
        elif name == "builtin":
            number = read_int(rest) if rest else SESSION_BUILTIN
            if not number:
                raise wrong
            found = found._replace(builtin=number)
        elif name == "shared":
            zone, colon, text = rest.partition(":")
            size = read_size(text) if colon else 0
            if not zone or size is None:
                raise wrong
            if colon and size < SESSION_LEAST:
                raise ConfError(token, f'session cache "{token}" is too small')
            found = found._replace(zone=zone, zone_bytes=size)
        else:
            raise wrong
    return found


def read_password_file(args: list[Token], block: Block) -> tuple[bytes, ...]:
    """Its lines. Read once, with the conf: it may be a pipe."""
    path = block.conf_path(args[0])
    try:
        with open(path, "rb") as file:
            return lines_of(file.read())
    except OSError as error:
        why = f"{error.errno}: {error.strerror}"
        raise ConfError(args[0], f'open() "{path}" failed ({why})') from None


# fmt: off
directive("ssl_certificate", BOTH, Text(), many=True,
          doc="A certificate with its chain, in PEM; more than once for several kinds of key.")
directive("ssl_certificate_key", BOTH, Text(), many=True,
          doc="The key of the certificate that stands at the same place.")
directive("ssl_password_file", BOTH, read=read_password_file, most=1, syntax="file",
          doc="Passwords of the keys, one a line.")
directive("ssl_protocols", BOTH,
          Rest(Enum("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")),
          default="TLSv1.2 TLSv1.3", doc="The TLS versions that are spoken.")
directive("ssl_ciphers", BOTH, Word(), default="HIGH:!aNULL:!MD5",
          doc="The cipher suites of TLS 1.2 and below, as OpenSSL writes them.")
directive("ssl_prefer_server_ciphers", BOTH, Flag(), default="off",
          doc="Chooses the cipher suite by our order, not by the client's.")
directive("ssl_ecdh_curve", BOTH, Word(), default="auto",
          doc="The curves that are offered, with colons between; auto is OpenSSL's own list.")
directive("ssl_dhparam", BOTH, Word(), doc="Parameters for DHE cipher suites, in PEM.")
directive("ssl_conf_command", BOTH, Word(), Word(), many=True,
          doc="A command of OpenSSL's own configuration.")
directive("proxy_ssl_conf_command", BOTH | LOCATION, Word(), Word(), many=True,
          doc="The same for connections to upstreams.")
directive("ssl_session_cache", BOTH, read=read_session_cache, most=2, default=SessionCaching(),
          syntax="off | none | [builtin[:size]] [shared:name:size]",
          doc="Where sessions without tickets are kept: in each worker, or shared by all.")
directive("ssl_session_timeout", BOTH, Seconds(), default="5m",
          doc="How long a session can be resumed.")
directive("ssl_session_tickets", BOTH, Flag(), default="on",
          doc="Resumes sessions by tickets, on any worker and over reloads.")
directive("ssl_session_ticket_key", BOTH, Word(), many=True,
          doc="A file of 48 or 80 random bytes that seals tickets; those after the first only "
              "open them. Without one they are sealed with keys that change by themselves.")
directive("ssl_buffer_size", HTTP | SERVER, Size(), default="16k",
          doc="How much of an answer goes into one record; a record holds 512 bytes to 16k.")
directive("ssl_verify_client", BOTH, Enum("off", "on", "optional", "optional_no_ca"),
          default="off", doc="Asks clients for a certificate and verifies it.")
directive("ssl_verify_depth", BOTH, Int(), default="1",
          doc="How many certificates may stand between a client's and a trusted one.")
directive("ssl_client_certificate", BOTH, Word(),
          doc="The authorities that clients' certificates may come from; clients are told them.")
directive("ssl_trusted_certificate", BOTH, Word(),
          doc="More authorities that are trusted, which clients are not told.")
directive("ssl_crl", BOTH, Word(), doc="Client certificates that are revoked, in PEM.")
directive("ssl_alpn", STREAM | STREAM_SERVER, Rest(Text(), least=1), default=(),
          doc="The protocols that may be agreed on by ALPN, the first is liked best.")
directive("ssl_reject_handshake", BOTH, Flag(), default="off",
          doc="Ends handshakes for the names of this server.")
# fmt: on


# ---------------------------------------------------------------- zones


def tls_zones(model: Block) -> dict[str, tuple[int, str]]:
    """name → (bytes, kind) of the zone whose birth gives the tickets' keys, and of shared session
    caches (process.zones.SOURCES). Raises ConfError."""
    found: dict[str, tuple[int, str]] = {}
    asked: list[tuple[Block, SessionCaching]] = []
    for outer in (*model.find("http"), *model.find("stream")):
        for block in (outer, *outer.find("server")):
            caching = block.own("ssl_session_cache")
            if caching and caching.zone:
                asked.append((block, caching))
            if any(it.is_ssl for it in block.own("listen") or ()):
                found[SECRET_ZONE] = (SECRET_BYTES, "other")
    for block, caching in asked:
        key, size = CACHE_ZONE + caching.zone, caching.zone_bytes
        before = found.get(key, (size, ""))[0]
        if size and before != size:
            raise block.error(
                f'the size {size} of shared memory zone "{caching.zone}" conflicts with already '
                f"declared size {before}"
            )
        if size:
            found[key] = (size, "other")
    for block, caching in asked:
        if CACHE_ZONE + caching.zone not in found:
            raise block.error(f'zero size shared memory zone "{caching.zone}"')
    return found


def share(zones: Mapping[str, Any]) -> None:
    """In a worker: what of `tls_zones` it got, name → base Zone."""
    from proxy.engine._sessions import SessionCache
    from proxy.engine._tls_context import share_secret

    caches.clear()
    for name, zone in zones.items():
        if name == SECRET_ZONE:
            share_secret(zone)
        elif name.startswith(CACHE_ZONE):
            caches[name] = SessionCache(zone)


# ---------------------------------------------------------------- contexts


def freeze_server(block: Block) -> ServerTls:
    """What a server block says of TLS. Raises ConfError for what cannot be held."""
    from proxy.engine._tls_context import ServerTls

    get = block.get
    server = ServerTls()
    server.verify = VERIFY[get("ssl_verify_client")]
    server.rejects = get("ssl_reject_handshake")
    server.record_bytes = min(max(get("ssl_buffer_size"), RECORD_LEAST), RECORD_MOST)
    certificates, keys = get("ssl_certificate"), get("ssl_certificate_key")
    server.rules = None
    if not certificates and not server.rejects:
        return server
    if len(keys) < len(certificates):
        raise block.error(
            f'no "ssl_certificate_key" is defined for certificate "{certificates[-1]}"'
        )
    server.rules = (
        server.verify,
        get("ssl_client_certificate"),
        get("ssl_trusted_certificate"),
        get("ssl_crl"),
        get("ssl_verify_depth"),
    )
    server.context = _make_server(block, server)
    return server


def place(found: ServerTls, server: Server, location: Location) -> None:
    """Whose variables name its certificates, if variables do: a handshake has no request."""
    if found.context is not None and found.context.certificates is not None:
        found.context.certificates.server = server
        found.context.certificates.location = location


def _make_server(block: Block, server: ServerTls) -> Context:
    from proxy.engine._tls import prepare
    from proxy.engine._tls_context import Context

    get, context = block.get, Context(True)
    is_stream = block.where in (STREAM_SERVER, MQTT_SERVER)
    prepare(context, not is_stream, _alpn_list(block))  # only ssl_alpn knows what a stream speaks
    import hashlib  # few confs need it

    identity = hashlib.sha256(b"STREAM" if is_stream else b"HTTP")
    try:
        context.set_versions(get("ssl_protocols"))
        context.set_ciphers(str(get("ssl_ciphers")), get("ssl_prefer_server_ciphers"))
        passwords = get("ssl_password_file") or ()
        pairs = list(zip(get("ssl_certificate"), get("ssl_certificate_key"), strict=False))
        if any(are_variable(*pair) for pair in pairs):
            cache = get("ssl_certificate_cache")
            freeze_certificates(block, pairs, passwords, cache).wait_for(context)
            identity.update("".join(name for name, _ in pairs).encode())  # as nginx
        else:
            for pair in pairs:
                identity.update(_add_certificate(context, block, *pair, passwords))
        if server.verify not in (0, VERIFY["optional_no_ca"]) and not (
            get("ssl_client_certificate") or get("ssl_trusted_certificate")
        ):
            raise block.error(
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client"
            )
        if server.verify:
            context.verify_peer()
        context.set_depth(get("ssl_verify_depth"))
        if server.verify and get("ssl_client_certificate"):
            told = _add_authorities(context, block, get("ssl_client_certificate"), True)
            identity.update(told)
        if get("ssl_trusted_certificate"):
            identity.update(_add_authorities(context, block, get("ssl_trusted_certificate")))
        if get("ssl_crl"):
            _add_authorities(context, block, get("ssl_crl"))
            context.check_revoked()
        if get("ssl_dhparam"):
            context.set_dhparam(bytes_of(block, get("ssl_dhparam"), "cannot load DH parameters"))
        if get("ssl_ecdh_curve") != "auto":
            context.set_curves(str(get("ssl_ecdh_curve")))
        caching = get("ssl_session_cache")
        context.keep_sessions(
            identity.digest(),
            get("ssl_session_timeout"),
            caching.is_off,
            caching.builtin,
            caches.get(CACHE_ZONE + caching.zone),
            get("ssl_session_tickets"),
            [ticket_key_of(block, name) for name in get("ssl_session_ticket_key")],
        )
        for name, value in get("ssl_conf_command"):
            context.command(str(name), str(value), block.conf_path(value))
    except ValueError as error:
        raise block.error(str(error)) from None
    return context


def _alpn_list(block: Block) -> bytes:
    """ssl_alpn as RFC 7301 §3.1 writes it. Raises ConfError."""
    found = block.get("ssl_alpn") if block.where == STREAM_SERVER else ()
    if any(not 0 < len(it.encode()) <= 255 for it in found):
        raise block.error('a protocol of "ssl_alpn" has 1 to 255 bytes')
    return b"".join(bytes([len(it.encode())]) + it.encode() for it in found)


def pem_of(block: Block) -> tuple[bytes, bytes, tuple[bytes, ...]] | None:
    """The first certificate of a server with its chain, its key, and passwords, as the files have
    them; None: it has none. Raises ConfError."""
    certificates, keys = block.get("ssl_certificate"), block.get("ssl_certificate_key")
    if not certificates or not keys:
        return None
    if are_variable(certificates[0], keys[0]):
        raise block.error(
            'variables in "ssl_certificate" are not supported on a server with "listen ... quic"'
        )
    return (
        bytes_of(block, certificates[0], "cannot load certificate"),
        bytes_of(block, keys[0], "cannot load certificate key"),
        tuple(block.get("ssl_password_file") or ()),
    )


def make_client(block: Block, is_h2: bool = False) -> Context:
    """A context to dial upstreams with, as the proxy_ssl_… directives say; is_h2: ALPN offers
    HTTP/2. Raises ConfError."""
    from proxy.engine._tls import prepare
    from proxy.engine._tls_context import Context

    get = block.get
    context = Context(False)
    prepare(context)
    if is_h2:
        context.offer(b"h2")
    try:
        context.set_versions(get("proxy_ssl_protocols"))
        context.set_ciphers(str(get("proxy_ssl_ciphers")))
        certificate, key = get("proxy_ssl_certificate"), get("proxy_ssl_certificate_key")
        if certificate:
            if not key:
                raise block.error(
                    f'no "proxy_ssl_certificate_key" is defined for certificate "{certificate}"'
                )
            passwords = read_passwords(block, get("proxy_ssl_password_file"))
            if are_variable(certificate, key):
                cache = get("proxy_ssl_certificate_cache")
                pair = [(certificate, key)]
                context.certificates = freeze_certificates(block, pair, passwords, cache)
            else:
                _add_certificate(context, block, certificate, key, passwords)
        if get("proxy_ssl_verify"):
            if not get("proxy_ssl_trusted_certificate"):
                raise block.error("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
            context.verify_peer()
            context.set_depth(get("proxy_ssl_verify_depth"))
            _add_authorities(context, block, get("proxy_ssl_trusted_certificate"))
            if get("proxy_ssl_crl"):
                _add_authorities(context, block, get("proxy_ssl_crl"))
                context.check_revoked()
        # a session is resumed without a certificate: it would be that of whoever began it
        if get("proxy_ssl_session_reuse") and context.certificates is None:
            context.resume_sessions()
        for name, value in get("proxy_ssl_conf_command"):
            context.command(str(name), str(value), block.conf_path(value))
    except ValueError as error:
        raise block.error(str(error)) from None
    return context


def _add_certificate(
    context: Context, block: Block, certificate: str, key: str, passwords: tuple[bytes, ...]
) -> bytes:
    for name in (certificate, key):
        if name.startswith(("engine:", "store:")):
            raise block.error(f'"{name}" is known to nginx, not supported by Headrace')
    what = "cannot load certificate"
    pem = bytes_of(block, certificate, what)
    try:
        context.add_certificate(pem)
    except ValueError as error:
        raise block.error(f'{what} "{_shown(block, certificate)}": {error}') from None
    what = "cannot load certificate key"
    try:
        context.add_key(bytes_of(block, key, what), passwords)
    except ValueError as error:
        raise block.error(f'{what} "{_shown(block, key)}": {error}') from None
    return pem


def _shown(block: Block, name: str) -> str:
    return "data:..." if name.startswith("data:") else block.conf_path(name)


def _add_authorities(context: Context, block: Block, name: str, are_named: bool = False) -> bytes:
    pem = bytes_of(block, name, "cannot load certificates")
    try:
        context.add_authorities(pem, are_named)
    except ValueError as error:
        path = block.conf_path(name)
        raise block.error(f'SSL_CTX_load_verify_locations("{path}") failed ({error})') from None
    return pem


def ticket_key_of(block: Block, name: str) -> bytes:
    data = bytes_of(block, name, "cannot load session ticket key")
    if len(data) not in (48, 80):
        raise block.error(f'"{block.conf_path(name)}" must be 48 or 80 bytes')
    return data

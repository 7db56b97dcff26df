"""grpc_pass and the grpc_… directives of nginx: passing on as proxy_… does, always over HTTP/2.

What freezes a location reads proxy_… names; `AsProxy` answers them with what grpc_… says there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.conf.directive import HTTP, LIMIT_EXCEPT, LOCATION, LOCATION_IF, SERVER, directive
from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    Duration,
    Enum,
    Flag,
    Int,
    Rest,
    Size,
    SocketSize,
    Text,
    Word,
    read_address,
)
from proxy.upstream.directives import read_bind, read_ignore_headers
from proxy.upstream.next_upstream import read_next_upstream
from proxy.upstream.proxy_pass import Target, VariableTarget

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
SCHEMES = {"grpc": False, "grpcs": True}
TWINS = {  # of proxy_… → of grpc_…
    "proxy_bind": "grpc_bind",
    "proxy_buffer_size": "grpc_buffer_size",
    "proxy_connect_timeout": "grpc_connect_timeout",
    "proxy_hide_header": "grpc_hide_header",
    "proxy_ignore_headers": "grpc_ignore_headers",
    "proxy_intercept_errors": "grpc_intercept_errors",
    "proxy_next_upstream": "grpc_next_upstream",
    "proxy_next_upstream_timeout": "grpc_next_upstream_timeout",
    "proxy_next_upstream_tries": "grpc_next_upstream_tries",
    "proxy_pass_header": "grpc_pass_header",
    "proxy_read_timeout": "grpc_read_timeout",
    "proxy_send_timeout": "grpc_send_timeout",
    "proxy_set_header": "grpc_set_header",
    "proxy_socket_keepalive": "grpc_socket_keepalive",
    "proxy_socket_rcvbuf": "grpc_socket_rcvbuf",
    "proxy_socket_sndbuf": "grpc_socket_sndbuf",
    "proxy_ssl_certificate": "grpc_ssl_certificate",
    "proxy_ssl_certificate_cache": "grpc_ssl_certificate_cache",
    "proxy_ssl_certificate_key": "grpc_ssl_certificate_key",
    "proxy_ssl_ciphers": "grpc_ssl_ciphers",
    "proxy_ssl_conf_command": "grpc_ssl_conf_command",
    "proxy_ssl_crl": "grpc_ssl_crl",
    "proxy_ssl_name": "grpc_ssl_name",
    "proxy_ssl_password_file": "grpc_ssl_password_file",
    "proxy_ssl_protocols": "grpc_ssl_protocols",
    "proxy_ssl_server_name": "grpc_ssl_server_name",
    "proxy_ssl_session_reuse": "grpc_ssl_session_reuse",
    "proxy_ssl_trusted_certificate": "grpc_ssl_trusted_certificate",
    "proxy_ssl_verify": "grpc_ssl_verify",
    "proxy_ssl_verify_depth": "grpc_ssl_verify_depth",
}
# What has no twin: messages go on as they come, both ways.
FIXED: dict[str, Any] = {
    "proxy_buffering": False,
    "proxy_busy_buffers_size": None,
    "proxy_cookie_domain": [],
    "proxy_cookie_flags": [],
    "proxy_cookie_path": [],
    "proxy_http_version": 20,
    "proxy_ignore_client_abort": False,
    "proxy_limit_rate": 0,
    "proxy_max_temp_file_size": 0,
    "proxy_method": None,
    "proxy_pass_request_body": True,
    "proxy_pass_request_headers": True,
    "proxy_pass_trailers": True,
    "proxy_redirect": [],
    "proxy_request_buffering": False,
    "proxy_set_body": None,
    "proxy_temp_file_write_size": None,
    "websocket_inspect": False,
}
BUFFERS = 8


class AsProxy:
    """A location with grpc_pass as those see it who read proxy_… directives: a Block."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def get(self, name: str) -> Any:
        """As Block.get."""
        if name == "proxy_buffers":
            return BUFFERS, self._block.get("grpc_buffer_size")
        return FIXED[name] if name in FIXED else self._block.get(TWINS.get(name, name))

    def has(self, name: str) -> bool:
        """As Block.has."""
        return self._block.has(TWINS.get(name, name))

    def copy(self, into: Any, fields: dict[str, str]) -> None:
        """As Block.copy."""
        for attribute, name in fields.items():
            setattr(into, attribute, self.get(name))

    def error(self, message: str) -> ConfError:
        """As Block.error; the directives are those that the conf has."""
        return self._block.error(message.replace("proxy_ssl_", "grpc_ssl_"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


def read_grpc_url(url: str) -> Target:
    """The Target of `[grpc[s]://]host[:port]` or `[grpc[s]://]unix:/path`. Raises ValueError."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        scheme, rest = "grpc", url
    if scheme.lower() not in SCHEMES:
        raise ValueError("invalid URL prefix")
    is_tls = SCHEMES[scheme.lower()]
    port = 443 if is_tls else 80
    if rest[:5].lower() == "unix:":
        path = rest[5:].partition(":")[0]
        return Target(url, is_tls, read_address(f"unix:{path}"), False, "", "localhost", "")
    if "/" in rest:
        raise ValueError("invalid host")
    endpoint = read_address(rest, port)
    host = f"[{endpoint.host}]" if endpoint.is_ipv6 else endpoint.host
    return Target(url, is_tls, endpoint, rest != host, "", rest, str(endpoint.port))


def read_grpc_pass(args: list[Token], _block: Block) -> Target | VariableTarget:
    """The value of grpc_pass. Raises ConfError where nginx refuses it."""
    url = args[0]
    if "$" in url:
        return VariableTarget(url)
    try:
        return read_grpc_url(url)
    except AddressError as error:
        raise ConfError(url, f'{error} in upstream "{url.rpartition("://")[2]}"') from None
    except ValueError as error:
        raise ConfError(url, str(error)) from None


# fmt: off
directive("grpc_pass", LOCATION | LOCATION_IF | LIMIT_EXCEPT, read=read_grpc_pass, most=1,
          inherit=False, syntax="address",
          doc="Sends the call to a gRPC server or an upstream: host:port, grpc://… or grpcs://….")
directive("grpc_web", EVERY, Flag(), default="off",
          doc="Translates gRPC-Web, binary and text, into gRPC: browsers can call what is behind. "
              "CORS is for add_header.")
directive("grpc_connect_timeout", EVERY, Duration(), default="60s",
          doc="How long connecting to the gRPC server may take.")
directive("grpc_send_timeout", EVERY, Duration(), default="60s",
          doc="How long the gRPC server may take nothing of the call.")
directive("grpc_read_timeout", EVERY, Duration(), default="60s",
          doc="How long the gRPC server may send nothing.")
directive("grpc_next_upstream", EVERY, read=read_next_upstream, default="error timeout",
          syntax="error | timeout | invalid_header | http_500 | http_502 | http_503 | http_504 | "
          "http_403 | http_404 | http_429 | non_idempotent | off …",
          doc="After which failures the call goes to the next server.")
directive("grpc_next_upstream_tries", EVERY, Int(), default="0",
          doc="How many servers a call may be sent to; 0 is no bound.")
directive("grpc_next_upstream_timeout", EVERY, Duration(), default="0",
          doc="For how long a call may go to a next server; 0 is no bound.")
directive("grpc_bind", EVERY, read=read_bind, most=2, syntax="address | off",
          doc="The local address that connections to the gRPC server come from.")
directive("grpc_socket_keepalive", EVERY, Flag(), default="off",
          doc="Sets SO_KEEPALIVE on connections to the gRPC server.")
directive("grpc_socket_rcvbuf", EVERY, SocketSize(), default="0",
          doc="SO_RCVBUF of connections to the gRPC server; 0 is the system's choice.")
directive("grpc_socket_sndbuf", EVERY, SocketSize(), default="0",
          doc="SO_SNDBUF of connections to the gRPC server; 0 is the system's choice.")
directive("grpc_buffer_size", EVERY, Size(), default="4k",
          doc="How large the head of an answer may be, if that is more than 64k.")
directive("grpc_set_header", EVERY, Word(), Text(), many=True,
          doc="Sets a field of the call to the gRPC server; an empty value removes it.")
directive("grpc_hide_header", EVERY, Word(), many=True,
          doc="A field of the answer that the client does not get.")
directive("grpc_pass_header", EVERY, Word(), many=True,
          doc="A field that the client gets although it is hidden by default.")
directive("grpc_ignore_headers", EVERY, read=read_ignore_headers, default=frozenset(),
          syntax="field …", doc="Fields of the answer that are passed on but not obeyed.")
directive("grpc_intercept_errors", EVERY, Flag(), default="off",
          doc="Lets error_page see answers of 300 and above.")
directive("grpc_ssl_certificate", EVERY, Text(), doc="Our certificate towards the gRPC server.")
directive("grpc_ssl_certificate_key", EVERY, Text(), doc="The key of our certificate.")
directive("grpc_ssl_password_file", EVERY, Word(), doc="Passwords of the key, one a line.")
directive("grpc_ssl_verify", EVERY, Flag(), default="off",
          doc="Verifies the gRPC server's certificate and name.")
directive("grpc_ssl_verify_depth", EVERY, Int(), default="1",
          doc="How many certificates may stand between the server's and a trusted one.")
directive("grpc_ssl_trusted_certificate", EVERY, Word(),
          doc="The authorities that the gRPC server's certificate may come from.")
directive("grpc_ssl_crl", EVERY, Word(), doc="Certificates that are revoked.")
directive("grpc_ssl_name", EVERY, Text(), default="$proxy_host",
          doc="The name that is verified, and sent by SNI.")
directive("grpc_ssl_server_name", EVERY, Flag(), default="off", doc="Sends the name by SNI.")
directive("grpc_ssl_protocols", EVERY,
          Rest(Enum("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")),
          default="TLSv1.2 TLSv1.3", doc="The TLS versions offered to the gRPC server.")
directive("grpc_ssl_ciphers", EVERY, Word(), default="DEFAULT",
          doc="The cipher suites offered to the gRPC server, as OpenSSL writes them.")
directive("grpc_ssl_session_reuse", EVERY, Flag(), default="on",
          doc="Resumes TLS sessions with the gRPC server.")
directive("grpc_ssl_conf_command", EVERY, Word(), Word(), many=True,
          doc="A command of OpenSSL's own configuration.")
# fmt: on

"""The directives of stream { } alone: where a connection goes, and what is read before that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.directive import (
    STREAM,
    STREAM_SERVER,
    STREAM_UPSTREAM,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import (
    AddressError,
    Duration,
    Enum,
    Flag,
    Size,
    SizeText,
    Text,
    Word,
    read_address,
)
from proxy.stream.target import NoPort, read_target
from proxy.upstream.proxy_pass import Target, VariableTarget
from proxy.upstream.servers import ServerLine, check_upstream, read_server

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = STREAM | STREAM_SERVER


def read_stream_server(args: list[Token], block: Block) -> ServerLine:
    """`server` of an upstream in stream: a port has no default there. Raises ConfError."""
    line = read_server(args, block)
    if not line.endpoint.path and not read_address(args[0], 0).port:
        raise ConfError(args[0], f'no port in upstream "{args[0]}"')
    return line


def read_pass(args: list[Token], block: Block) -> Target | VariableTarget:
    """`proxy_pass ADDRESS | UPSTREAM | text with variables`. Raises ConfError."""
    text = args[0]
    if "$" in text:
        return VariableTarget(text)
    try:
        return read_target(text, is_group_ok=True)
    except NoPort:
        raise ConfError(text, f'no port in upstream "{text}"') from None
    except AddressError as error:
        raise ConfError(text, f'{error} in upstream "{text}"') from None


def read_set(args: list[Token], block: Block) -> tuple[Token, Token]:
    """(variable with its $, value) of `set`. Raises ConfError."""
    if len(args[0]) < 2 or args[0][0] != "$":
        raise ConfError(args[0], f'invalid variable name "{args[0]}"')
    return args[0], args[1]


directive(
    "upstream", STREAM, Word(), block=STREAM_UPSTREAM, many=True, check=check_upstream,
    doc="A named group of servers that proxy_pass may send to.",
)  # fmt: skip
directive(
    "server", STREAM_UPSTREAM, read=read_stream_server, many=True, inherit=False,
    syntax="address:port [weight=N] [max_fails=N] [fail_timeout=time] [max_conns=N] [backup] "
    "[down] [resolve]",
    doc="One server of the group, or all addresses of a name.",
)  # fmt: skip
directive(
    "proxy_pass", STREAM_SERVER, read=read_pass, most=1, inherit=False,
    syntax="address:port | unix:path | upstream | $variable",
    doc="Where the bytes of a connection go.",
)  # fmt: skip
directive("return", STREAM_SERVER, Text(), inherit=False,
          doc="Sends this text to the client and closes the connection.")  # fmt: skip
directive("set", STREAM_SERVER, read=read_set, least=2, most=2, many=True, inherit=False,
          syntax="$variable value", doc="Gives a variable a value.")  # fmt: skip
directive("proxy_timeout", EVERY, Duration(), default="10m",
          doc="How long both sides of a session may be silent.")  # fmt: skip
directive("proxy_next_upstream", EVERY, Flag(), default="on",
          doc="Whether a connection that fails is tried at the next server.")  # fmt: skip
directive("proxy_protocol", EVERY, Enum("off", "on", "v2"), default="off",
          doc="Begins connections to upstreams with a PROXY header, version 1 or 2.")  # fmt: skip
directive("proxy_upload_rate", EVERY, SizeText(), default="0",
          doc="Bytes a second read of a client; 0 is no limit.")  # fmt: skip
directive("proxy_download_rate", EVERY, SizeText(), default="0",
          doc="Bytes a second read of an upstream; 0 is no limit.")  # fmt: skip
directive("proxy_half_close", EVERY, Flag(), default="off",
          doc="Passes on that one side has ended, and goes on with the other.")  # fmt: skip
directive("proxy_protocol_timeout", EVERY, Duration(), default="30s",
          doc="How long the PROXY header of a client may take.")  # fmt: skip
directive("preread_buffer_size", EVERY, Size(), default="16k",
          doc="How much is read of a client before its server is chosen.")  # fmt: skip
directive("preread_timeout", EVERY, Duration(), default="30s",
          doc="How long reading of a client before its server is chosen may take.")  # fmt: skip
directive("ssl_preread", EVERY, Flag(), default="off",
          doc="Reads what a TLS client says in clear, without ending its TLS.")  # fmt: skip
directive("ssl_handshake_timeout", EVERY, Duration(), default="60s",
          doc="How long a client's TLS handshake may take.")  # fmt: skip

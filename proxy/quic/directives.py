"""The directives of HTTP/3 and QUIC; names and defaults of nginx 1.31, and bounds of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.directive import HTTP, MAIN, SERVER, directive, ignored
from proxy.conf.report import ConfError
from proxy.conf.values import Flag, Int, Size

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token


def read_host_key(args: list[Token], block: Block) -> bytes:
    """The bytes of a file; read with the conf, while the process may. Raises ConfError."""
    path = block.conf_path(args[0])
    try:
        with open(path, "rb") as file:
            key = file.read()
    except OSError as error:
        why = f"{error.errno}: {error.strerror}"
        raise ConfError(args[0], f'open() "{path}" failed ({why})') from None
    if not key:
        raise ConfError(args[0], f'"quic_host_key" "{path}" is empty')
    return key


# fmt: off
directive("http3", HTTP | SERVER, Flag(), default="on",
          doc="Speaks HTTP/3 where the server has a listen … quic.")
directive("http3_max_concurrent_streams", HTTP | SERVER, Int(1), default="128",
          doc="How many requests a client may have under way on one HTTP/3 connection.")
directive("http3_stream_buffer_size", HTTP | SERVER, Size(), default="64k",
          doc="How much of a body may come before somebody takes it, and the longest head as it "
          "is sent: the window of a stream.")
directive("http3_max_resets", HTTP | SERVER, Int(1), default="100",
          doc="How many requests a client may take back, or make us refuse as malformed, within "
          "10 seconds.")
directive("quic_retry", HTTP | SERVER, Flag(), default="off",
          doc="Lets each client prove its address before a handshake; while many handshakes are "
          "under way that is always so.")
directive("quic_gso", HTTP | SERVER, Flag(), default="off",
          doc="Lets the kernel cut one large write into datagrams (UDP_SEGMENT).")
directive("quic_host_key", HTTP | SERVER, read=read_host_key, most=1, syntax="file",
          doc="A secret that Retry tokens are made with, for several machines with one address; "
          "without it each start draws one.")
directive("ssl_early_data", HTTP | SERVER, Flag(), default="off",
          doc="Takes early data (0-RTT) over HTTP/3. Whoever saw it can send it again, for 10 "
          "seconds: so GET, HEAD and OPTIONS are done at once, and upstreams get Early-Data: 1 "
          "with them (RFC 8470); anything else waits for the end of the handshake. "
          "$ssl_early_data is 1 for what is done early; over TCP there is none.")
directive("quic_active_connection_id_limit", HTTP | SERVER, Int(2), default="2",
          doc="How many connection ids of a client are kept.")
# fmt: on
ignored("quic_bpf", MAIN, "a datagram that reaches another worker is passed on to whose it is")

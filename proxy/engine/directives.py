"""The directives about a client's connection and the heads on it; defaults of nginx 1.31."""

from __future__ import annotations

from proxy.conf.directive import HTTP, LOCATION, LOCATION_IF, SERVER, directive
from proxy.conf.report import ConfError
from proxy.conf.values import (
    Duration,
    Enum,
    Flag,
    Int,
    Rest,
    Size,
    SizeText,
    read_ms,
    read_seconds,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION


def read_keepalive_timeout(args: list[Token], _block: Block) -> tuple[int, int]:
    """(ms until an idle connection is closed, seconds that the Keep-Alive field says; 0: none)."""
    ms = read_ms(args[0])
    if ms is None:
        raise ConfError(args[0], '"keepalive_timeout" directive invalid value')
    shown = read_seconds(args[1]) if len(args) > 1 else 0
    if shown is None:
        raise ConfError(args[1], '"keepalive_timeout" directive invalid value')
    return ms, shown


# fmt: off
directive("client_header_timeout", HTTP | SERVER, Duration(), default="60s",
          doc="How long a client may take to send the whole head of a request.")
directive("client_header_buffer_size", HTTP | SERVER, Size(), default="1k",
          doc="One more buffer of a head, and the longest line if it is the largest.")
directive("large_client_header_buffers", HTTP | SERVER, Int(), Size(), default="4 8k",
          doc="Number and size of buffers: one bounds a line of a head, all of them the head.")
directive("max_headers", HTTP | SERVER, Int(), default="1000",
          doc="How many fields a request may have.")
directive("ignore_invalid_headers", HTTP | SERVER, Flag(), default="on",
          doc="Drops fields whose names nginx calls invalid, instead of passing them on.")
directive("underscores_in_headers", HTTP | SERVER, Flag(), default="off",
          doc="Takes field names with underscores for valid.")
directive("keepalive_timeout", EVERY, read=read_keepalive_timeout, most=2, default=(75000, 0),
          syntax="timeout [header_timeout]",
          doc="How long an idle client connection stays open.")
directive("keepalive_requests", EVERY, Int(), default="1000",
          doc="After how many requests a client connection is closed.")
directive("keepalive_time", EVERY, Duration(), default="1h",
          doc="How old a client connection may be and still be kept.")
directive("keepalive_disable", EVERY, Rest(Enum("none", "msie6", "safari")), default="msie6",
          doc="Browsers whose connections are not kept.")
directive("send_timeout", EVERY, Duration(), default="60s",
          doc="How long a client may take nothing, or next to nothing, of an answer.")
directive("lingering_close", EVERY, Enum("off", "on", "always"), default="on",
          doc="Reads on after the last answer, so that it is not reset away.")
directive("lingering_time", EVERY, Duration(), default="30s",
          doc="For how long in all a closing connection is read.")
directive("lingering_timeout", EVERY, Duration(), default="5s",
          doc="How long a closing connection may be silent.")
directive("reset_timedout_connection", EVERY, Flag(), default="off",
          doc="Ends connections that timed out with a reset.")
directive("server_tokens", EVERY, Enum("on", "off", "build"), default="on",
          doc="Whether Server and the error pages tell the version.")
directive("chunked_transfer_encoding", EVERY, Flag(), default="on",
          doc="Lets answers of unknown length to HTTP/1.1 be chunked.")
directive("absolute_redirect", EVERY, Flag(), default="on",
          doc="Whether redirects made here name scheme and host.")
directive("server_name_in_redirect", EVERY, Flag(), default="off",
          doc="Names the server by server_name in redirects, not by Host.")
directive("port_in_redirect", EVERY, Flag(), default="on",
          doc="Names the port in redirects.")
directive("http2", HTTP | SERVER, Flag(), default="off",
          doc="Speaks HTTP/2 too: by ALPN over TLS, and with clients that begin with it.")
directive("http2_max_concurrent_streams", HTTP | SERVER, Int(1), default="128",
          doc="How many requests a client may have under way on one HTTP/2 connection.")
directive("http2_body_preread_size", HTTP | SERVER, Size(), default="64k",
          doc="How much of a body may come before somebody takes it: the window of a stream; above "
          "64k of a frame, too.")
directive("http2_chunk_size", EVERY, Size(), default="8k",
          doc="The largest frame that a body is sent in.")
directive("http2_max_continuations", HTTP | SERVER, Int(), default="16",
          doc="In how many frames behind the first the head of a request may come.")
directive("http2_max_resets", HTTP | SERVER, Int(1), default="100",
          doc="How many streams a client may cancel, or make us cancel, within 10 seconds.")
directive("http2_max_control_frames", HTTP | SERVER, Int(1), default="1000",
          doc="How many frames that ask for work and carry none (PING, SETTINGS, PRIORITY, empty "
          "ones) a client may send within 10 seconds.")
directive("satisfy", EVERY, Enum("all", "any"), default="all",
          doc="Whether all access checks must pass, or any.")
directive("limit_rate", EVERY | LOCATION_IF, SizeText(), default="0",
          doc="Bytes per second of an answer; 0 is no limit.")
directive("limit_rate_after", EVERY | LOCATION_IF, SizeText(), default="0",
          doc="Bytes of an answer that are sent at full speed first.")

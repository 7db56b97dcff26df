"""The directives about WebSockets that pass through, and how they freeze."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.conf.directive import HTTP, LOCATION, SERVER, directive
from proxy.conf.report import ConfError
from proxy.conf.values import Duration, Flag, Size, read_int, read_rate
from proxy.upstream._websocket import WebSocketSettings

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
MOST_FRAMES = 1_000_000  # a second or at once: what is more is no bound


def read_websocket_rate(args: list[Token], _block: Block) -> tuple[int, int]:
    """(1/1000 frames a second, 1/1000 frames at once above that); rate 0 is no bound."""
    if args[0] == "off" and len(args) == 1:
        return 0, 0
    rate = read_rate(args[0])
    if not rate:
        raise ConfError(args[0], f'invalid rate "{args[0]}"')
    rate = min(rate, MOST_FRAMES * 1000)
    burst = max(rate, 1000)
    if len(args) > 1:
        word, _, number = args[1].partition("=")
        frames = read_int(number)
        if word != "burst" or frames is None:
            raise ConfError(args[1], f'invalid parameter "{args[1]}"')
        burst = min(frames, MOST_FRAMES) * 1000
    return rate, burst


def freeze_websocket(block: Block) -> WebSocketSettings | None:
    """What holds in this location; None: WebSockets are opaque tunnels."""
    if not block.get("websocket_inspect"):
        return None
    s = WebSocketSettings()
    s.most_bytes = block.get("websocket_max_message")
    s.rate, s.burst = block.get("websocket_rate")
    s.ping_ms = block.get("websocket_ping")
    return s


# fmt: off
directive("websocket_inspect", EVERY, Flag(), default="off",
          doc="Reads the frames of WebSockets: what RFC 6455 forbids ends the connection, messages "
              "are counted, and a worker that leaves says so (1001, after a reload 1012).")
directive("websocket_max_message", EVERY, Size(), default="0",
          doc="How large a message of a client may be, as it is sent; a larger one ends the "
              "connection (1009). 0 is no bound. Wants websocket_inspect.")
directive("websocket_rate", EVERY, read=read_websocket_rate, least=1, most=2, default="off",
          syntax="rate [burst=number] | off",
          doc="How many messages, control frames and empty fragments a client may send on one "
              "connection, as 10r/s or 30r/m, and how many at once above that (those of a "
              "second); more end it (1008). Wants websocket_inspect.")
directive("websocket_ping", EVERY, Duration(), default="0",
          doc="A client that was silent for so long gets a Ping, and after as long again without "
              "a byte its connection ends. 0 sends none. Wants websocket_inspect.")

"""Every way to fail: number, kind, whose fault, may it be retried, which status the client sees.

The numbers are those of base/verdict.pxd; compiled code knows only them, and this table is the
one place that turns them into something to say.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """side: client, upstream or us. status: what the client is answered, 0: nothing, cut."""

    kind: str
    side: str
    is_retried: bool
    status: int
    message: str


TABLE: dict[int, Fault] = {
    -1: Fault("bad_request", "client", False, 400, "client sent invalid request"),
    -2: Fault("uri_too_large", "client", False, 414, "client sent too long URI"),
    -3: Fault("head_too_large", "client", False, 494, "client sent too large request header"),
    -4: Fault("body_too_large", "client", False, 413, "client intended to send too large body"),
    -5: Fault("client_header_timeout", "client", False, 408, "client_header_timeout expired"),
    -6: Fault("client_body_timeout", "client", False, 408, "client_body_timeout expired"),
    -7: Fault("send_timeout", "client", False, 408, "send_timeout expired"),
    -8: Fault("client_gone", "client", False, 499, "client closed the connection"),
    -9: Fault("bad_version", "client", False, 505, "client sent invalid version"),
    -10: Fault("not_implemented", "client", False, 501, "client sent unknown Transfer-Encoding"),
    -11: Fault("too_many_fields", "client", False, 400, "client sent too many header lines"),
    -12: Fault("bad_chunk", "client", False, 400, "client sent invalid chunked body"),
    -13: Fault("plain_on_tls", "client", False, 497, "client sent plain HTTP to HTTPS port"),
    -32: Fault("refused", "upstream", True, 502, "connect() failed"),
    -33: Fault("proxy_connect_timeout", "upstream", True, 504, "upstream timed out (connect)"),
    -34: Fault("proxy_send_timeout", "upstream", True, 504, "upstream timed out (send)"),
    -35: Fault("proxy_read_timeout", "upstream", True, 504, "upstream timed out (read)"),
    -36: Fault("closed", "upstream", True, 502, "upstream prematurely closed connection"),
    -37: Fault("bad_head", "upstream", True, 502, "upstream sent invalid header"),
    -38: Fault("upstream_head_too_large", "upstream", True, 502, "upstream sent too big header"),
    -39: Fault("cut", "upstream", False, 502, "upstream prematurely closed connection in the body"),
    -40: Fault("no_live_upstream", "upstream", False, 502, "no live upstreams"),
    -41: Fault("status", "upstream", True, 502, "upstream answered a status to be retried"),
    -42: Fault("upstream_bad_chunk", "upstream", False, 502, "upstream sent invalid chunked body"),
    -43: Fault("not_resolved", "upstream", False, 502, "upstream could not be resolved"),
    -44: Fault("queue_full", "upstream", False, 503, "the function's queue is full"),
    -45: Fault("queue_wait", "upstream", False, 504, "waited too long for a replica"),
    -46: Fault("start_failed", "upstream", False, 502, "no replica could be started"),
    -47: Fault("timeout", "upstream", False, 504, "the function's timeout expired"),
    -64: Fault("internal", "us", False, 500, "internal error"),
    -65: Fault("no_memory", "us", False, 500, "a memory bound of the request was reached"),
    -66: Fault("disk_full", "us", False, 500, "a temporary file could not be written"),
    -67: Fault("redirect_loop", "us", False, 500, "rewrite or internal redirection cycle"),
    -68: Fault("forbidden", "us", False, 403, "access forbidden by rule"),
    -69: Fault("not_found", "us", False, 404, "not found"),
    -70: Fault("not_allowed", "us", False, 405, "method not allowed"),
    -71: Fault("limited", "us", False, 503, "limiting requests"),
    -72: Fault("unauthorized", "us", False, 401, "no valid credentials"),
}


def fault(number: int) -> Fault:
    """The row of a FaultCode; an unknown number is our own fault."""
    return TABLE.get(number, TABLE[-64])

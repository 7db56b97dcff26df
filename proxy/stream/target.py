"""What the text of a stream's proxy_pass means: an address with its port, or an upstream's name."""

from __future__ import annotations

from proxy.conf.values import AddressError, read_address
from proxy.upstream.proxy_pass import Target


class NoPort(AddressError):
    """It may be an upstream's name, but as an address it lacks its port."""


def read_target(text: str, *, is_group_ok: bool = False) -> Target:
    """The Target of `host:port`, `[::1]:port`, `unix:/path`; with is_group_ok also of `name`.

    Raises AddressError, worded as nginx.
    """
    endpoint = read_address(text, 0)
    has_port = endpoint.port != 0
    if not has_port and not endpoint.path and not is_group_ok:
        raise NoPort("no port")
    return Target(text, False, endpoint, has_port, "", text, "")


def read_url(text: str) -> Target:
    """The same for a text of the moment, which may name an upstream: dynamic.DynamicTargets asks.

    Raises ValueError.
    """
    return read_target(text, is_group_ok=True)

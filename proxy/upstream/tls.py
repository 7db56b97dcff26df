"""TLS towards the upstream: which context of the proxy_ssl_… directives, and whom we talk to.

The context itself is the dialer's affair: whoever makes the plan hands in how to make one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.conf.inherit import Block


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What one location says. name: text of proxy_ssl_name, see `bare_name`; sends_name:
    proxy_ssl_server_name; reuses: session reuse."""

    context: Any
    name: str
    sends_name: bool
    verifies: bool
    reuses: bool


class TlsContexts:
    """The contexts of one plan, made by `make(block)`, with True behind for HTTP/2: locations that
    say the same share one."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self._made: dict[tuple[Any, ...], Any] = {}

    def find(self, block: Block, is_h2: bool = False) -> TlsSettings:
        """The settings of a location that passes to https; is_h2: HTTP/2 is offered, and nothing
        else. Raises ConfError."""
        get = block.get
        key = (
            get("proxy_ssl_certificate") or "",
            get("proxy_ssl_certificate_key") or "",
            get("proxy_ssl_password_file") or "",
            get("proxy_ssl_certificate_cache"),
            bool(get("proxy_ssl_verify")),
            get("proxy_ssl_verify_depth"),
            get("proxy_ssl_trusted_certificate") or "",
            get("proxy_ssl_crl") or "",
            tuple(get("proxy_ssl_protocols")),
            str(get("proxy_ssl_ciphers")),
            get("proxy_ssl_session_reuse"),
            tuple(get("proxy_ssl_conf_command")),
            is_h2,
        )
        if key not in self._made:
            self._made[key] = self.make(block, True) if is_h2 else self.make(block)
        return TlsSettings(
            self._made[key],
            str(get("proxy_ssl_name")),
            get("proxy_ssl_server_name"),
            get("proxy_ssl_verify"),
            get("proxy_ssl_session_reuse"),
        )


def bare_name(name: str) -> str:
    """What of proxy_ssl_name is verified and sent: no port, no brackets."""
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def sent_name(settings: TlsSettings, name: str) -> str | None:
    """The name that is sent by SNI; None: none is. An address is none
    (RFC 6066 §3)."""
    bare = bare_name(name)
    if not settings.sends_name or not bare or ":" in bare or bare.replace(".", "").isdigit():
        return None
    return bare

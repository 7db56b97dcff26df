"""Where proxy_pass sends requests: its URL read into a Target, and what proxy_redirect derives.

A URL with variables becomes a Target at run time by the same `read_url`, then looked up among
the upstream blocks (`name`) and else resolved by `resolver`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.conf.directive import LIMIT_EXCEPT, LOCATION, LOCATION_IF
from proxy.conf.report import ConfError
from proxy.conf.values import AddressError, Endpoint, read_address

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

NO_URI_HERE = (
    '"proxy_pass" cannot have URI part in location given by regular expression, or inside '
    'named location, or inside "if" statement, or inside "limit_except" block'
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL of proxy_pass says.

    url: as written. is_tls: https. endpoint: host and port or Unix socket; the port is the
    scheme's (80, 443) when none was written, and has_port False then. uri: from `/` or `?` on,
    empty without one. proxy_host, proxy_port: `$proxy_host` (the default Host field) and
    `$proxy_port`. location: the prefix that uri replaces; empty where uri cannot stand.
    """

    url: str
    is_tls: bool
    endpoint: Endpoint
    has_port: bool
    uri: str
    proxy_host: str
    proxy_port: str
    location: str = ""

    @property
    def name(self) -> str:
        """The upstream block it may mean, lower case; empty when a port or a path was given."""
        return "" if self.has_port or self.endpoint.path else self.endpoint.host.lower()

    @property
    def upstream_name(self) -> str:
        """How an upstream made for it alone is called: host:port or unix:path."""
        return str(self.endpoint)


@dataclass(frozen=True, slots=True)
class VariableTarget:
    """A proxy_pass URL with $variables: `text` is compiled by the plan and read per request."""

    text: str
    location: str = ""


def read_url(url: str) -> Target:
    """The Target of `http://host[:port][/uri]` or `http://unix:/path[:/uri]`, or with https.

    Raises ValueError, worded as nginx: `invalid URL prefix`, `no host`, `invalid port`, …
    """
    scheme, slashes, rest = url.partition("://")
    scheme = scheme.lower()
    if not slashes or scheme not in ("http", "https"):
        raise ValueError("invalid URL prefix")
    is_tls = scheme == "https"
    port = 443 if is_tls else 80
    if rest[:5].lower() == "unix:":
        path, _, uri = rest[5:].partition(":")
        endpoint = read_address(f"unix:{path}")
        return Target(url, is_tls, endpoint, False, uri, "localhost", "")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, uri = rest[:end], rest[end:]
    endpoint = read_address(authority, port)
    host = f"[{endpoint.host}]" if endpoint.is_ipv6 else endpoint.host
    has_port = authority != host
    if endpoint.port == port:
        return Target(url, is_tls, endpoint, has_port, uri, host, str(port))
    shown = authority[len(host) + 1 :]
    return Target(url, is_tls, endpoint, has_port, uri, f"{host}:{shown}", shown)


def read_proxy_pass(args: list[Token], block: Block) -> Target | VariableTarget:
    """The value of proxy_pass in `block`. Raises ConfError where nginx refuses it."""
    url = args[0]
    location = replaced_prefix(block)
    if "$" in url:
        return VariableTarget(url, location)
    try:
        target = read_url(url)
    except AddressError as error:
        raise ConfError(url, f'{error} in upstream "{url.partition("://")[2]}"') from None
    except ValueError as error:
        raise ConfError(url, str(error)) from None
    if target.uri and not location:
        raise ConfError(url, NO_URI_HERE)
    return Target(
        target.url, target.is_tls, target.endpoint, target.has_port, target.uri,
        target.proxy_host, target.proxy_port, location,
    )  # fmt: skip


def replaced_prefix(block: Block) -> str:
    """The name of a prefix or exact location; empty for a regex or named one, `if` and others."""
    if block.where != LOCATION or block.where & (LOCATION_IF | LIMIT_EXCEPT):
        return ""
    key = block.value
    if key is None or key.is_regex or key.modifier == "@":
        return ""
    return str(key.pattern)


def default_redirect(target: Target | VariableTarget | None) -> tuple[str, str]:
    """What `proxy_redirect default` replaces, and by what. ValueError: there is no proxy_pass
    yet, or its URL has variables."""
    if target is None:
        raise ValueError(
            '"proxy_redirect default" should be placed after the "proxy_pass" directive'
        )
    if isinstance(target, VariableTarget):
        raise ValueError(
            '"proxy_redirect default" cannot be used with "proxy_pass" directive with variables'
        )
    if target.uri:
        return target.url, target.location
    return target.url + "/", "/"


def find_upstream(target: Target, names: dict[str, bool]) -> str:
    """The upstream block that target means (its key in names), or "" for the address itself.

    names holds the blocks' names in lower case. ValueError: a block that may not have a port.
    """
    host = target.endpoint.host.lower()
    if not host or host not in names:
        return ""
    if target.has_port:
        raise ValueError(
            f'upstream "{target.endpoint.host}" may not have port {target.endpoint.port}'
        )
    return host

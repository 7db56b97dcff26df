"""Where a callback may go: an URL taken apart, and which names and addresses are allowed."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_BYTES = 2048
PUBLIC = "public"
URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)
NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?")
# Ranges whose addresses carry an IPv4 address somewhere inside: where they lead is not to be seen.
EMBEDDING = [
    ipaddress.ip_network(it) for it in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")
]


class Target:
    """An URL taken apart. path has the query."""

    __slots__ = ("host", "is_tls", "path", "port")

    def __init__(self, url: str) -> None:
        """Raises ValueError with a sentence."""
        if len(url) > URL_BYTES or URL.fullmatch(url) is None:
            raise ValueError("it is not an absolute http or https URL")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("it has a user name in it")
        if not parts.hostname or not (":" in parts.hostname or NAME.fullmatch(parts.hostname)):
            raise ValueError("its host is not valid")
        self.is_tls = parts.scheme.lower() == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.is_tls else 80)
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


class Allowed:
    """`callback_allow`: `public`, networks, addresses, names, `*.names`; nothing else may be
    called."""

    def __init__(self, words: tuple[str, ...]) -> None:
        """Raises ValueError for a word that is none of those."""
        self.is_public = PUBLIC in words
        self.networks = []
        self.names = set()
        for word in words:
            if word in (PUBLIC, "off"):
                continue
            try:
                self.networks.append(ipaddress.ip_network(word))
            except ValueError:
                if NAME.fullmatch(word) is None or word.replace(".", "").isdecimal():
                    raise ValueError(f'"{word}" is no network and no name') from None
                self.names.add(word.lower().rstrip("."))

    def has_name(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        if host in self.names:
            return True
        parts = host.split(".")
        return any("*." + ".".join(parts[at:]) in self.names for at in range(1, len(parts)))

    def has_address(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in it for it in self.networks if it.version == address.version):
            return True
        return self.is_public and is_public(address)


def is_public(address: Address) -> bool:
    """Is it an ordinary address of the internet?"""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None or any(address in it for it in EMBEDDING):
            return False
        if address.is_site_local:
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )

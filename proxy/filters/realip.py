"""set_real_ip_from, real_ip_header and real_ip_recursive: declared, and frozen for a location."""

from __future__ import annotations

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LOCATION,
    MQTT_SERVER,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import Flag
from proxy.filters._access import AccessSettings
from proxy.filters._realip import RealipSettings
from proxy.variables.networks import read_ip, read_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

    Trusted = tuple[int, bytes, bytes]

EVERY = HTTP | SERVER | LOCATION
FROM_FIELD, FROM_CHAIN, FROM_PROXY_HEADER = range(3)


def rule_of(text: str) -> Trusted | None:
    """(kind, net, mask) of an address or network as AccessSettings.add_rule takes it, or None."""
    try:
        found = read_network(text)
    except ConfError:
        return None
    if found is None:
        return None
    first, prefix, bits = found
    mask = ((1 << prefix) - 1) << (bits - prefix)
    size = bits // 8
    return size, (first & mask).to_bytes(size, "big"), mask.to_bytes(size, "big")


def read_trusted(args: list[Token], block: Block) -> list[Trusted]:
    """An address, a network, `unix:` or a host name, which is looked up now. Raises ConfError."""
    word = args[0]
    if word == "unix:":
        return [(1, b"", b"")]
    rule = rule_of(word)
    if rule is not None:
        return [rule]
    if "/" in word or read_ip(word.strip("[]")) is not None:
        raise ConfError(word, f'invalid parameter "{word}"')
    import socket

    try:
        found = {it[4][0] for it in socket.getaddrinfo(word, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise ConfError(word, f'host not found in set_real_ip_from "{word}"') from None
    return [rule for text in sorted(map(str, found)) if (rule := rule_of(text)) is not None]


def read_header(args: list[Token], block: Block) -> tuple[int, bytes]:
    """Where the address stands: (source, field name in lower case)."""
    name = args[0].lower()
    if name == "proxy_protocol":
        return FROM_PROXY_HEADER, b""
    source = FROM_CHAIN if name == "x-forwarded-for" else FROM_FIELD
    return source, name.encode("utf-8", "surrogateescape")


directive("set_real_ip_from", EVERY | STREAM | STREAM_SERVER | IN_MQTT,
          read=read_trusted, least=1, most=1, many=True,
          syntax="address | network | hostname | unix:",
          doc="Proxies whose word about the client's address is believed: in http that of"
          " real_ip_header, in stream and mqtt that of the PROXY header.")
directive("real_ip_header", EVERY, read=read_header, least=1, most=1,
          syntax="field | X-Real-IP | X-Forwarded-For | proxy_protocol",
          doc="Where a trusted proxy writes the client's address; X-Real-IP by default.")
directive("real_ip_recursive", EVERY, Flag(), default="off",
          doc="Goes on to the last address that is not a trusted proxy's.")


def freeze_realip(block: Block) -> RealipSettings | None:
    """The settings of a location, or None where nobody is trusted."""
    rules = [rule for found in block.get("set_real_ip_from") for rule in found]
    if not rules:
        return None
    s = RealipSettings()
    s.trusted = AccessSettings()
    for kind, net, mask in rules:
        s.trusted.add_rule(True, kind, net, mask)
    if block.where in (STREAM_SERVER, MQTT_SERVER):  # nothing else is said before TLS
        s.source = FROM_PROXY_HEADER
        return s
    s.source, s.field = block.get("real_ip_header") or (FROM_FIELD, b"x-real-ip")
    s.is_recursive = block.get("real_ip_recursive")
    return s

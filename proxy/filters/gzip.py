"""The gzip directives, and how a block of the conf freezes them."""

from __future__ import annotations

from proxy.base._pcre import Pattern
from proxy.conf.directive import HTTP, LOCATION, LOCATION_IF, SERVER, directive, ignored
from proxy.conf.report import ConfError
from proxy.conf.values import Enum, Flag, Int, Rest, Size, Word
from proxy.filters._gzip import BodyFilters, GzipSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
PROXIED = {
    "off": 0, "any": 1, "expired": 2, "no-cache": 4, "no-store": 8, "private": 16,
    "no_last_modified": 32, "no_etag": 64, "auth": 128,
}  # fmt: skip
# nginx's word for browsers that could not; Service Pack 2 of Windows XP (SV1) mended them
MSIE6 = r"MSIE (?:4|5|6(?!.*SV1))\."


def read_patterns(args: list[Token], block: Block) -> list[Pattern]:
    """Each a pattern of User-Agent, or msie6. Raises ConfError."""
    found = []
    for token in args:
        source = MSIE6 if token == "msie6" else str(token)
        try:
            found.append(Pattern(source.encode("utf-8", "surrogateescape"), caseless=True))
        except ValueError as error:
            raise ConfError(token, str(error)) from None
    return found


directive("gzip", EVERY | LOCATION_IF, Flag(), default="off",
          doc="Compresses answers for clients that take gzip.")
directive("gzip_types", EVERY, Rest(Word(), least=1), default="text/html",
          doc="Types that are compressed besides text/html; *: all but event streams and gRPC.")
directive("gzip_min_length", EVERY, Size(), default="20",
          doc="Answers that are known to be shorter stay as they are.")
directive("gzip_comp_level", EVERY, Int(least=1, most=9), default="1",
          doc="How hard it is tried: 1 is fast, 9 small.")
directive("gzip_vary", EVERY, Flag(), default="off",
          doc="Adds Vary: Accept-Encoding to what may be compressed.")
directive("gzip_proxied", EVERY, Rest(Enum(*PROXIED), least=1), default="off",
          doc="Which answers are compressed when the request came by a proxy (Via).")
directive("gzip_http_version", EVERY, Enum("1.0", "1.1"), default="1.1",
          doc="The lowest version of HTTP that gets compressed answers.")
directive("gzip_disable", EVERY, read=read_patterns, least=1, most=None, default=None,
          syntax="regex …", doc="Clients whose User-Agent matches get answers as they are.")
ignored("gzip_buffers", EVERY, "what zlib gives goes to the client's side, which has bounds")


def freeze_gzip(block: Block) -> GzipSettings | None:
    """The settings of a location, or None without gzip."""
    if not block.get("gzip"):
        return None
    s = GzipSettings()
    types = [name.lower() for name in block.get("gzip_types")]
    s.types = None if "*" in types else frozenset(
        [b"text/html", *(name.encode("utf-8", "surrogateescape") for name in types)])
    s.least = block.get("gzip_min_length")
    s.level = block.get("gzip_comp_level")
    s.is_vary = block.get("gzip_vary")
    s.proxied = sum({PROXIED[name] for name in block.get("gzip_proxied")})
    s.version = 10 if block.get("gzip_http_version") == "1.0" else 11
    s.disabled = block.get("gzip_disable") or []
    return s


def gather(ssi: object, gzip: GzipSettings | None) -> BodyFilters | None:
    """What Location.filters is, None where no body is filtered."""
    if ssi is None and gzip is None:
        return None
    filters = BodyFilters()
    filters.ssi = ssi
    filters.gzip = gzip
    return filters

"""TLS towards the upstream: contexts of the proxy_ssl_… directives, and whom we talk to.

The dialer wraps a connection with `context`, sends SNI if `sends_name`, and asks `check_peer`
after the handshake when `verifies`: nginx verifies a name also where it sends none, which the
ssl module cannot do by itself.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
HOLES = {
    "TLSv1.1": ssl.OP_NO_TLSv1_1,
    "TLSv1.2": ssl.OP_NO_TLSv1_2,
}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What one location says. name: text of proxy_ssl_name, see `bare_name`; sends_name:
    proxy_ssl_server_name; depth: intermediate certificates allowed; reuses: session reuse."""

    context: ssl.SSLContext
    name: str
    sends_name: bool
    verifies: bool
    depth: int
    reuses: bool


class TlsContexts:
    """The contexts of one plan: locations that say the same share one."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], ssl.SSLContext] = {}

    def find(self, block: Block) -> TlsSettings:
        """The settings of a location that passes to https. Raises ConfError."""
        get = block.get
        key = (
            get("proxy_ssl_certificate") or "",
            get("proxy_ssl_certificate_key") or "",
            get("proxy_ssl_password_file") or "",
            bool(get("proxy_ssl_verify")),
            get("proxy_ssl_trusted_certificate") or "",
            get("proxy_ssl_crl") or "",
            tuple(get("proxy_ssl_protocols")),
            str(get("proxy_ssl_ciphers")),
        )
        if key not in self._made:
            self._made[key] = make_context(block)
        return TlsSettings(
            self._made[key],
            str(get("proxy_ssl_name")),
            get("proxy_ssl_server_name"),
            get("proxy_ssl_verify"),
            get("proxy_ssl_verify_depth"),
            get("proxy_ssl_session_reuse"),
        )


def make_context(block: Block) -> ssl.SSLContext:
    """A client's context as the proxy_ssl_… directives say. Raises ConfError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # check_peer does
    context.verify_mode = ssl.CERT_NONE
    _set_versions(context, block)
    ciphers = str(block.get("proxy_ssl_ciphers"))
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise block.error(f'SSL_CTX_set_cipher_list("{ciphers}") failed') from None
    if block.get("proxy_ssl_certificate"):
        _load_certificate(context, block)
    if block.get("proxy_ssl_verify"):
        trusted = block.get("proxy_ssl_trusted_certificate")
        if not trusted:
            raise block.error("no proxy_ssl_trusted_certificate for proxy_ssl_verify")
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST
        _load_authorities(context, block, trusted)
        crl = block.get("proxy_ssl_crl")
        if crl:
            _load_authorities(context, block, crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _set_versions(context: ssl.SSLContext, block: Block) -> None:
    import warnings

    wanted = [name for name in VERSIONS if name in block.get("proxy_ssl_protocols")]
    if not wanted:
        raise block.error("no TLS version that OpenSSL has in proxy_ssl_protocols")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLSv1 is the conf's own wish
        context.minimum_version = VERSIONS[wanted[0]]
        context.maximum_version = VERSIONS[wanted[-1]]
        for name, option in HOLES.items():
            if name not in wanted:
                context.options |= option


def _load_certificate(context: ssl.SSLContext, block: Block) -> None:
    certificate = block.get("proxy_ssl_certificate")
    key = block.get("proxy_ssl_certificate_key")
    if not key:
        raise block.error(
            f'no "proxy_ssl_certificate_key" is defined for certificate "{certificate}"'
        )
    if "$" in certificate or "$" in key:
        raise block.error(
            'variables in "proxy_ssl_certificate" are known to nginx, not supported by Headrace'
        )
    paths = block.conf_path(certificate), block.conf_path(key)
    why: Exception | None = None
    for password in _passwords(block):
        try:
            # without this OpenSSL would ask the terminal
            context.load_cert_chain(*paths, password=lambda word=password: word)
            return
        except (OSError, ValueError) as error:
            why = error
    raise block.error(f'cannot load certificate "{paths[0]}": {_reason(why)}')


def _passwords(block: Block) -> list[str]:
    file = block.get("proxy_ssl_password_file")
    if not file:
        return [""]
    try:
        with open(block.conf_path(file), encoding="utf-8", errors="surrogateescape") as lines:
            return [line.rstrip("\r\n") for line in lines] or [""]
    except OSError as error:
        path = block.conf_path(file)
        raise block.error(f'open() "{path}" failed ({error.errno}: {error.strerror})') from None


def _load_authorities(context: ssl.SSLContext, block: Block, file: str) -> None:
    path = block.conf_path(file)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise block.error(
            f'SSL_CTX_load_verify_locations("{path}") failed ({_reason(error)})'
        ) from None


def _reason(error: Exception | None) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return f"{error.errno}: {os.strerror(error.errno)}"
    return f"SSL: {error}"


def bare_name(name: str) -> str:
    """What of proxy_ssl_name is verified and sent: no port, no brackets."""
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def sent_name(settings: TlsSettings, name: str) -> str | None:
    """The server_hostname to hand to the ssl module; None: send no SNI. An address is none
    (RFC 6066 §3)."""
    bare = bare_name(name)
    if not settings.sends_name or not bare or ":" in bare or bare.replace(".", "").isdigit():
        return None
    return bare


def check_peer(link: Any, settings: TlsSettings, name: str) -> None:
    """Is the other side of a finished handshake the one named? link: its SSLObject, from
    get_extra_info("ssl_object"). Raises ssl.SSLCertVerificationError; nothing when it is."""
    if not settings.verifies:
        return
    certificate = link.getpeercert()
    if not certificate:
        raise ssl.SSLCertVerificationError("upstream sent no certificate")
    bare = bare_name(name)
    if not is_name_of(certificate, bare):
        raise ssl.SSLCertVerificationError(f'upstream SSL certificate does not match "{bare}"')
    chain = _verified_chain(link)
    if chain is not None and len(chain) - 2 > settings.depth:
        raise ssl.SSLCertVerificationError("certificate chain too long")


def _verified_chain(link: Any) -> list[Any] | None:
    # public since Python 3.13; before, the same under the object that does the work
    for owner in (link, getattr(link, "_sslobj", None)):
        get = getattr(owner, "get_verified_chain", None)
        if get is not None:
            return list(get() or ())
    return None


def is_name_of(certificate: dict[str, Any], name: str) -> bool:
    """Does a certificate (as of getpeercert) name this host? RFC 6125 §6.4: its DNS names count,
    and only without any its common name; `*` stands for one whole leftmost label."""
    wanted = name.rstrip(".").lower()
    if not wanted:
        return False
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if not names:
        names = [
            value
            for part in certificate.get("subject", ())
            for kind, value in part
            if kind == "commonName"
        ]
    return any(_is_match(pattern.lower(), wanted) for pattern in names)


def _is_match(pattern: str, name: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == name
    label, _, rest = name.partition(".")
    return bool(label) and rest == pattern[2:] and "." in rest

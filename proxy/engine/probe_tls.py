"""TLS of a `health_check`: a peer proves the same to who asks how it is as to what is passed."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.engine.certificates import are_variable
from proxy.engine.held import bytes_of, read_passwords

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

WHAT = "cannot load for health_check"


@dataclass(frozen=True, slots=True)
class ProbeTls:
    """context: for asyncio. verifies: the certificate must name whom the connection asks for."""

    context: ssl.SSLContext
    verifies: bool


def make_probe(block: Any, is_h2: bool) -> ProbeTls:
    """What proxy_ssl_… (or grpc_ssl_…) say in a location, whose own context was made before; is_h2:
    ALPN offers HTTP/2. Raises ConfError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if is_h2:
        context.set_alpn_protocols(["h2"])
    verifies = bool(block.get("proxy_ssl_verify"))
    try:
        if verifies:
            verify(context, block)
        certificate = block.get("proxy_ssl_certificate")
        if certificate and not are_variable(certificate, block.get("proxy_ssl_certificate_key")):
            prove(context, block)  # variables are a request's, and a probe is none
    except ssl.SSLError as error:
        raise block.error(f"TLS of health_check: {error}") from None
    return ProbeTls(context, verifies)


def verify(context: ssl.SSLContext, block: Any) -> None:
    import ssl

    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    names = [block.get("proxy_ssl_trusted_certificate")]
    if block.get("proxy_ssl_crl"):
        names.append(block.get("proxy_ssl_crl"))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    for name in names:
        with as_file(bytes_of(block, name, WHAT)) as path:
            context.load_verify_locations(path)


def prove(context: ssl.SSLContext, block: Any) -> None:
    """Who we are, to a peer that asks."""
    import ssl

    certificate = bytes_of(block, block.get("proxy_ssl_certificate"), WHAT)
    key = bytes_of(block, block.get("proxy_ssl_certificate_key"), WHAT)
    words = read_passwords(block, block.get("proxy_ssl_password_file")) or (b"",)
    with as_file(certificate) as of_certificate, as_file(key) as of_key:
        for number, word in enumerate(words, 1):
            try:
                context.load_cert_chain(of_certificate, of_key, word)
            except ssl.SSLError:
                if number == len(words):
                    raise
            else:
                break


@contextlib.contextmanager
def as_file(content: bytes) -> Iterator[str]:
    """A path to bytes that are in no file which this process may still read: Python's ssl wants
    one."""
    descriptor = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

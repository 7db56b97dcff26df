"""Files of TLS that the conf names, read while the process may read them: a worker makes its
contexts after it gave up the rights of the master."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

HELD = frozenset(
    prefix + name
    for prefix in ("ssl_", "proxy_ssl_", "grpc_ssl_")
    for name in (
        "certificate", "certificate_key", "client_certificate", "crl", "dhparam",
        "session_ticket_key", "trusted_certificate",
    )
) | {"proxy_ssl_password_file", "grpc_ssl_password_file"}  # fmt: skip
files: dict[str, bytes] = {}


def hold_files(model: Block) -> None:
    """Read what the conf names, before rights are given up; what cannot be read is told later."""
    files.clear()
    waiting = [model]
    while waiting:
        block = waiting.pop()
        waiting += block.blocks
        for it in block.statements:
            if it.name in HELD and it.args and "$" not in it.args[0]:
                path = block.conf_path(it.args[0])
                try:
                    with open(path, "rb") as file:
                        files[path] = file.read()
                except OSError:
                    continue


def content_of(path: str) -> bytes:
    """As it was held, or as it is. Raises OSError."""
    if path in files:
        return files[path]
    with open(path, "rb") as file:
        return file.read()


def bytes_of(block: Block, name: str, what: str) -> bytes:
    """The bytes of a file that the conf names (or of `data:…`). Raises ConfError: what failed."""
    if name.startswith("data:"):
        return name[5:].encode()
    path = block.conf_path(name)
    try:
        return content_of(path)
    except OSError as error:
        reason = f"{error.errno}: {os.strerror(error.errno or 0)}"
        raise block.error(f'{what} "{path}": BIO_new_file() failed ({reason})') from None


def read_passwords(block: Block, name: str | None) -> tuple[bytes, ...]:
    """Each line of a file that the conf names. Raises ConfError."""
    if not name:
        return ()
    path = block.conf_path(name)
    try:
        data = content_of(path)
    except OSError as error:
        raise block.error(f'open() "{path}" failed ({error.errno}: {error.strerror})') from None
    return lines_of(data)


def lines_of(data: bytes) -> tuple[bytes, ...]:
    return tuple(line.rstrip(b"\r") for line in data.split(b"\n") if line)

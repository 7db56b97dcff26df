"""Who may use the API: one user and one password, from a file that is made at the first start.

The file holds `USER:PASSWORD`; a folder in its place holds OpenFaaS' basic-auth-user and
basic-auth-password. It is read again when it changes. Which file holds for a server the worker
says with each request (hidden.py), in a field that no client can set.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from typing import TYPE_CHECKING

from proxy.functions.api.wanted import OFF, mark_of
from proxy.functions.http import Answer, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.functions.http import Handle, Request

FIELD = "x-headrace-auth"
USER = "admin"
CHALLENGE = ("WWW-Authenticate", 'Basic realm="Restricted"')


class Auth:
    """`paths`: the files of all servers, absolute, or `off`."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._paths: dict[str, str] = {}
        self._read: dict[str, tuple[object, bytes]] = {}

    def open(self, paths: set[str]) -> None:
        """Make the files that are not there. Raises OSError."""
        self._paths = {mark_of(it): it for it in paths}
        for path in paths - {OFF}:
            if not os.path.exists(path):
                self._make(path)

    def _make(self, path: str) -> None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with os.fdopen(fd, "w") as file:
            file.write(f"{USER}:{secrets.token_urlsafe(24)}\n")
        self._notice(f'the password of the OpenFaaS API is in "{path}" (user {USER})')

    def guard(self, handle: Handle) -> Handle:
        """The same handler for whoever has the password. Others get 401."""

        async def guarded(request: Request) -> Answer:
            if not self.is_allowed(request):
                raise Refused(401, "invalid credentials", CHALLENGE)
            return await handle(request)

        return guarded

    def is_allowed(self, request: Request) -> bool:
        path = self._paths.get(request.header(FIELD))
        if path == OFF:
            return True
        wanted = self._wanted(path) if path is not None else b""
        scheme, _, text = request.header("authorization").partition(" ")
        if not wanted or scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(text.strip(), validate=True)
        except (ValueError, binascii.Error):
            return False
        return hmac.compare_digest(given, wanted)

    def _wanted(self, path: str) -> bytes:
        """`USER:PASSWORD` of the file; nothing when it cannot be read or is empty."""
        try:
            if os.path.isdir(path):
                files = [os.path.join(path, f"basic-auth-{it}") for it in ("user", "password")]
            else:
                files = [path]
            stamp = [(it.st_mtime_ns, it.st_size, it.st_ino) for it in map(os.stat, files)]
            found = self._read.get(path)
            if found is None or found[0] != stamp:
                words = []
                for name in files:
                    with open(name, "rb") as file:
                        words.append(file.read(4096).strip())
                found = self._read[path] = (stamp, b":".join(words))
        except OSError:
            return b""
        user, colon, password = found[1].partition(b":")
        return found[1] if user and colon and password else b""

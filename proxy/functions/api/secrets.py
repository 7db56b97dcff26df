"""Secrets: files that only the gateway may read, a folder for each namespace."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from typing import TYPE_CHECKING, Any

from proxy.functions.grammar import SECRET_NAME
from proxy.functions.http import Answer, Refused, json_answer

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes

MOST_BYTES = 1 << 20


class Secrets:
    """The files below `folder`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, namespace: str, name: str) -> str:
        """Where it is or would be. Raises ValueError for what is no name."""
        if SECRET_NAME.fullmatch(name) is None or "/" in namespace or namespace[:1] in ("", "."):
            raise ValueError(f'invalid name of a secret "{name}"')
        return os.path.join(self.folder, namespace, name)

    def has(self, namespace: str, name: str) -> bool:
        return os.path.isfile(self.path(namespace, name))

    def names(self, namespace: str) -> list[str]:
        with contextlib.suppress(OSError):
            found = os.listdir(os.path.join(self.folder, namespace))
            return sorted(it for it in found if SECRET_NAME.fullmatch(it))
        return []

    def read(self, namespace: str, name: str) -> bytes:
        """Raises OSError."""
        with open(self.path(namespace, name), "rb") as file:
            return file.read()

    def write(self, namespace: str, name: str, value: bytes) -> None:
        """Whole or not at all. Raises OSError."""
        path = self.path(namespace, name)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        part = os.path.join(os.path.dirname(path), f".{name}.new")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(value)
        os.replace(part, path)

    def remove(self, namespace: str, name: str) -> None:
        """Raises FileNotFoundError."""
        os.unlink(self.path(namespace, name))


class SecretApi:
    """`/system/secrets`."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def add_routes(self, routes: Routes) -> None:
        guard = self.api.auth.guard
        routes.add("GET", "/system/secrets", guard(self.listing))
        routes.add("POST", "/system/secrets", guard(self.create))
        routes.add("PUT", "/system/secrets", guard(self.update))
        routes.add("DELETE", "/system/secrets", guard(self.remove))

    async def listing(self, request: Request) -> Answer:
        namespace = self.api.namespace_of(request.query)
        names = self.api.secrets.names(namespace)
        return json_answer([{"name": it, "namespace": namespace} for it in names])

    async def _read(self, request: Request) -> tuple[str, str, dict[str, Any], bool]:
        body = await request.json(2 * MOST_BYTES)
        namespace, name = self.api.namespace_of(body), str(body.get("name", ""))
        try:
            return namespace, name, body, self.api.secrets.has(namespace, name)
        except ValueError as error:
            raise Refused(400, str(error)) from None

    async def create(self, request: Request) -> Answer:
        namespace, name, body, is_there = await self._read(request)
        if is_there:
            raise Refused(409, f'secret "{name}" exists already in namespace "{namespace}"')
        self.api.check_namespace(namespace)
        return self._write(namespace, name, body)

    async def update(self, request: Request) -> Answer:
        namespace, name, body, is_there = await self._read(request)
        if not is_there:
            raise Refused(404, f'there is no secret "{name}" in namespace "{namespace}"')
        return self._write(namespace, name, body)

    async def remove(self, request: Request) -> Answer:
        namespace, name, _, is_there = await self._read(request)
        if not is_there:
            raise Refused(404, f'there is no secret "{name}" in namespace "{namespace}"')
        self.api.secrets.remove(namespace, name)
        return Answer(202)

    def _write(self, namespace: str, name: str, body: dict[str, Any]) -> Answer:
        value = str(body.get("value") or "").encode()
        if body.get("rawValue"):
            try:
                value = base64.b64decode(str(body["rawValue"]), validate=True)
            except (ValueError, binascii.Error):
                raise Refused(400, '"rawValue" is no base64') from None
        if len(value) > MOST_BYTES:
            raise Refused(413, f"a secret holds at most {MOST_BYTES} bytes")
        try:
            self.api.secrets.write(namespace, name, value)
        except OSError as error:
            raise Refused(507, f"the secret could not be written: {error.strerror}") from None
        return Answer(202)

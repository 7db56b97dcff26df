"""`/system/secrets`: names can be listed, values only be written."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from proxy.functions.http import Answer, Refused, json_answer

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes

MOST_BYTES = 1 << 20


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
        answer = self._write(namespace, name, body)
        self.api.controller.on_secret(namespace, name)
        return answer

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

"""Namespaces: tenants of functions. The default one, those of functions, and those made here.

    GET    /system/namespaces           ["openfaas-fn", …]
    POST   /system/namespace/           {"name", "labels", "annotations"}: 201; 409 it is there
    GET    /system/namespace/NAME       the same object: 200; 404
    PUT    /system/namespace/NAME       202; 404
    DELETE /system/namespace/NAME       202; 404; 409 it has functions
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.functions.api.deployment import texts_of
from proxy.functions.http import Answer, Refused, json_answer
from proxy.functions.model import NAMESPACE

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes


class NamespaceApi:
    """See above."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def add_routes(self, routes: Routes) -> None:
        guard = self.api.auth.guard
        routes.add("GET", "/system/namespaces", guard(self.listing))
        routes.add("POST", "/system/namespace", guard(self.create))
        routes.add("POST", "/system/namespace/{name}", guard(self.create))
        routes.add("GET", "/system/namespace/{name}", guard(self.show))
        routes.add("PUT", "/system/namespace/{name}", guard(self.update))
        routes.add("DELETE", "/system/namespace/{name}", guard(self.remove))

    async def listing(self, request: Request) -> Answer:
        return json_answer(self.api.all_namespaces())

    async def _read(self, request: Request) -> tuple[str, dict[str, Any]]:
        body = await request.json()
        name = self.api.namespace_of({"namespace": body.get("name") or request.names.get("name")})
        labels, annotations = texts_of(body, "labels"), texts_of(body, "annotations")
        return name, {"labels": labels, "annotations": annotations}

    async def create(self, request: Request) -> Answer:
        name, document = await self._read(request)
        if name in self.api.all_namespaces():
            raise Refused(409, f'namespace "{name}" exists already')
        await self.api.write(self.api.store.put_namespace(name, document))
        self.api.namespaces[name] = document
        return Answer(201)

    def _find(self, name: str) -> str:
        if name not in self.api.all_namespaces():
            raise Refused(404, f'there is no namespace "{name[:100]}"')
        return name

    async def show(self, request: Request) -> Answer:
        name = self._find(request.names["name"])
        found = self.api.namespaces.get(name, {"labels": {}, "annotations": {}})
        return json_answer({"name": name, **found})

    async def update(self, request: Request) -> Answer:
        name = self._find(request.names["name"])
        _, document = await self._read(request)
        await self.api.write(self.api.store.put_namespace(name, document))
        self.api.namespaces[name] = document
        return Answer(202)

    async def remove(self, request: Request) -> Answer:
        name = self._find(request.names["name"])
        if self.api.controller.register.namespaces.get(name):
            raise Refused(409, f'namespace "{name}" has functions')
        if name == NAMESPACE:
            raise Refused(409, f'namespace "{name}" is the default one')
        await self.api.write(self.api.store.remove_namespace(name))
        self.api.namespaces.pop(name, None)
        return Answer(202)

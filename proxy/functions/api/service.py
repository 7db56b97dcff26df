"""The OpenFaaS API as the controller has it: its store, its secrets, its password, its routes.

It is there when a server of the conf says `openfaas_api on;`, or when the conf names a store.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from proxy.functions.api.auth import Auth
from proxy.functions.api.deployment import Reader, names_of
from proxy.functions.api.status import Statuses
from proxy.functions.api.wanted import auth_path
from proxy.functions.http import Refused, Routes
from proxy.functions.model import NAMESPACE
from proxy.functions.provider import Refusal
from proxy.functions.register import now_text
from proxy.functions.secrets import Secrets, secrets_of
from proxy.functions.store import Held, Store
from proxy.functions.values import SPACE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from proxy.conf.inherit import Block
    from proxy.functions.control import Controller
    from proxy.functions.http import Handle, Request
    from proxy.functions.model import Function, Version

DEPLOYMENT = (
    "service", "image", "namespace", "envProcess", "envVars", "constraints", "secrets", "labels",
    "annotations", "limits", "requests", "readOnlyRootFilesystem",
)  # fmt: skip


class Api:
    """One for each controller. Raises OSError or sqlite3.Error when the store cannot be opened."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.auth = Auth(controller.notice)
        self.secrets: Secrets
        self.reader: Reader
        self.store: Store
        self.statuses = Statuses(controller)
        self.namespaces: dict[str, dict[str, Any]] = {}
        self._is_open = False

    def open(self, model: Block) -> list[Function]:
        """For a new conf too. Gives the functions of the store when it is opened first."""
        http = model.find("http")[0]
        blocks = http.find("functions")
        block = blocks[0] if blocks else http
        root = block.own("root") if blocks else None
        self.reader = Reader(http, block.path(root) if root else "")
        self.secrets = secrets_of(model)
        servers = [it for it in http.find("server") if it.get("openfaas_api")]
        self.auth.open({auth_path(it) for it in servers})
        if self._is_open:
            return []
        path = block.path(block.get("store"))
        self.store = Store(os.path.abspath(path))
        self._is_open = True
        self.namespaces = self.store.namespaces()
        self.controller.register.splits.update(self.store.splits())
        found = []
        for key, document in self.store.functions():
            try:
                function = self.reader.read(document)
            except Refused as error:
                self.controller.warn(f"function {key} of the store cannot be: {error.text}")
                continue
            self.statuses.put(function, document["deployment"])
            found.append(function)
        return found

    async def close(self) -> None:
        if self._is_open:
            self.store.close()

    def add_routes(self, routes: Routes) -> None:
        from proxy.functions.api.functions import FunctionsApi
        from proxy.functions.api.logs import LogsApi
        from proxy.functions.api.namespaces import NamespaceApi
        from proxy.functions.api.page import PageApi
        from proxy.functions.api.secrets import SecretApi
        from proxy.functions.api.system import SystemApi
        from proxy.functions.api.versions import VersionsApi
        from proxy.functions.queue.api import Api as QueueApi

        parts = (FunctionsApi, VersionsApi, LogsApi, NamespaceApi, SecretApi, SystemApi, PageApi)
        for it in parts:
            it(self).add_routes(routes)
        QueueApi(self.controller.queue).add_system(Guarded(routes, self.auth))

    # -- what the handlers share ------------------------------------------------------------------
    def namespace_of(self, said: Mapping[str, Any]) -> str:
        """Of a query or a body; the default where none is named. Raises Refused."""
        namespace = str(said.get("namespace") or NAMESPACE)
        if SPACE.fullmatch(namespace) is None:
            raise Refused(400, f'invalid namespace "{namespace[:100]}"')
        return namespace

    def all_namespaces(self) -> list[str]:
        found = {NAMESPACE, *self.namespaces, *self.controller.register.namespaces}
        return sorted(found, key=lambda it: (it != NAMESPACE, it))

    def check_namespace(self, namespace: str) -> None:
        """Raises Refused when it is not there."""
        if namespace not in self.all_namespaces():
            raise Refused(
                400, f'there is no namespace "{namespace}"; POST /system/namespace/ makes one'
            )

    def find(self, request: Request) -> Function:
        """The function that the path names. Raises Refused (404)."""
        name = request.names["name"]
        key = f"{name}.{self.namespace_of(request.query)}"
        found = self.controller.register.functions.get(key)
        if found is None and "namespace" not in request.query:
            found = self.controller.register.functions.get(name)  # NAME.NAMESPACE
        if found is None:
            raise Refused(404, f"there is no function {key}")
        return found

    async def write(self, writing: Awaitable[None]) -> None:
        """A change of the store. Raises Refused: it did not come to be."""
        try:
            await writing
        except Held as error:
            raise Refused(503, str(error), ("Retry-After", "1")) from None
        except sqlite3.Error as error:
            self.controller.warn(f"the store could not be written: {error}")
            raise Refused(507, f"the store could not be written: {error}") from None

    def check_is_ours(self, key: str) -> None:
        """Raises Refused (409) for a function of the conf."""
        if key in self.controller.register.declared:
            raise Refused(409, f"function {key} stands in the conf: change it there")

    def document_of(self, key: str) -> dict[str, Any]:
        """Of the store. Raises Refused."""
        found = self.store.document(key)
        if found is None:
            raise Refused(404, f"there is no function {key} in the store")
        return found

    async def deploy(self, said: dict[str, Any]) -> None:
        """Make or replace a function; its other versions stay. Raises Refused."""
        name, namespace = names_of(said)
        key = f"{name}.{namespace}"
        before = self.store.document(key) or {"created_at": now_text()}
        kept = {it: said[it] for it in DEPLOYMENT if it in said}
        await self.change(key, {**before, "deployment": kept})

    async def change(self, key: str, document: dict[str, Any]) -> None:
        """Check it, keep it, do it. Raises Refused."""
        function = self.reader.read(document)
        for version in function.versions:
            self._check(version)
        await self.write(self.store.put_function(key, document))
        self.statuses.put(function, document["deployment"])
        self.controller.register.put(function)

    def _check(self, version: Version) -> None:
        for secret in version.secrets:
            if not self.secrets.has(version.namespace, secret):
                raise Refused(
                    400, f'there is no secret "{secret}" in namespace "{version.namespace}"'
                )
        try:
            self.controller.provider(version.handler.kind).check(version)
        except Refusal as error:
            raise Refused(400, f"{version.key} cannot be run: {error}") from None

    def forget(self, key: str) -> None:
        self.statuses.forget(key)


class Guarded(Routes):
    """Adds to `routes` what only who has the password may ask."""

    def __init__(self, routes: Routes, auth: Auth) -> None:
        self._routes = routes
        self._auth = auth

    def add(self, methods: str, pattern: str, handle: Handle) -> None:
        self._routes.add(methods, pattern, self._auth.guard(handle))

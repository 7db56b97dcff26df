"""The API of functions: list, deploy, update, remove, describe, scale, and alerts.

    GET    /system/functions?namespace=NS           [FunctionStatus]; NS `*`: of all namespaces
    POST   /system/functions                        FunctionDeployment: 202; 409 it is there already
    PUT    /system/functions                        the same: 202; 404 there is none
    DELETE /system/functions                        {"functionName", "namespace"}: 202
    GET    /system/function/NAME?namespace=&usage=1 FunctionStatus, with "versions" beside
    POST   /system/scale-function/NAME?namespace=   {"replicas": N}: 202; ?version= for one arm
    POST   /system/alert                            Alertmanager's webhook: up by a step, or down

A function of the conf is the conf's: 409. Facts: OpenFaaS' API description and faas-provider.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from proxy.functions.api.deployment import names_of
from proxy.functions.http import Answer, Refused, json_answer
from proxy.functions.provider import Refusal

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes
    from proxy.functions.model import Function, Version

MOST_REPLICAS = 1000
ALERT_MOST = 20  # replicas, where no bound is said: OpenFaaS' com.openfaas.scale.max
ALERT_FACTOR = 20  # percent of the most that one alert adds


class FunctionsApi:
    """See above."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.controller = api.controller

    def add_routes(self, routes: Routes) -> None:
        guard = self.api.auth.guard
        routes.add("GET", "/system/functions", guard(self.listing))
        routes.add("POST", "/system/functions", guard(self.create))
        routes.add("PUT", "/system/functions", guard(self.update))
        routes.add("DELETE", "/system/functions", guard(self.remove))
        routes.add("GET", "/system/function/{name}", guard(self.describe))
        routes.add("POST", "/system/scale-function/{name}", guard(self.scale))
        routes.add("POST", "/system/alert", guard(self.alert))

    async def listing(self, request: Request) -> Answer:
        functions = self.controller.register.functions.values()
        if request.query.get("namespace") != "*":
            namespace = self.api.namespace_of(request.query)
            functions = [it for it in functions if it.namespace == namespace]  # type: ignore[assignment]
        rows = [self.api.statuses.row_text(it) for it in functions]
        return Answer(200, f"[{','.join(rows)}]\n".encode(), "application/json")

    async def describe(self, request: Request) -> Answer:
        function = self.api.find(request)
        has_usage = request.query.get("usage", "0") in ("1", "true")
        return json_answer(self.api.statuses.describe(function, has_usage))

    # -- deployments ------------------------------------------------------------------------------
    async def create(self, request: Request) -> Answer:
        said = await request.json()
        key = ".".join(names_of(said))
        if key in self.controller.register.functions:
            raise Refused(409, f"function {key} exists already; PUT changes it")
        self.api.check_namespace(names_of(said)[1])
        await self.api.deploy(said)
        return Answer(202)

    async def update(self, request: Request) -> Answer:
        said = await request.json()
        key = ".".join(names_of(said))
        if key not in self.controller.register.functions:
            raise Refused(404, f"there is no function {key}")
        self.api.check_is_ours(key)
        await self.api.deploy(said)
        return Answer(202)

    async def remove(self, request: Request) -> Answer:
        body = await request.json()
        name = str(body.get("functionName") or "")
        if not name:
            raise Refused(400, '"functionName" is missing')
        key = f"{name}.{self.api.namespace_of({**request.query, **body})}"
        if key not in self.controller.register.functions:
            raise Refused(404, f"there is no function {key}")
        self.api.check_is_ours(key)
        await self.api.write(self.api.store.remove_function(key))
        self.api.forget(key)
        self.controller.register.remove(key)
        return Answer(202)

    # -- scale ------------------------------------------------------------------------------------
    async def scale(self, request: Request) -> Answer:
        body = await request.json()
        count = body.get("replicas")
        if not isinstance(count, int) or isinstance(count, bool):
            raise Refused(400, '"replicas" must be a number')
        if not 0 <= count <= MOST_REPLICAS:
            raise Refused(400, f'"replicas" must be between 0 and {MOST_REPLICAS}')
        if "namespace" in body and "namespace" not in request.query:
            request.query_text += f"&namespace={self.api.namespace_of(body)}"
        function = self.api.find(request)
        name = request.query.get("version", "")
        if name:
            version = function.version(name)
            if version is None:
                raise Refused(404, f'function {function.key} has no version "{name}"')
            self._scale(version, count)
        elif count:
            self._scale(main_version(function), count)
        else:
            for version in function.versions:
                self._scale(version, 0)
        return Answer(202)

    def _scale(self, version: Version, count: int) -> None:
        if version.scale.max_scale:
            count = min(count, version.scale.max_scale)
        try:
            provider = self.controller.provider(version.handler.kind)
        except Refusal as error:
            raise Refused(400, str(error)) from None
        if provider.places(version) is not None:
            raise Refused(400, f"{version.key} has a fixed number of replicas")
        self.controller.awaken(version.key, version)
        self.controller.scaler.hold(version.key, count)

    async def alert(self, request: Request) -> Answer:
        body = await request.json()
        alerts = body.get("alerts")
        if not isinstance(alerts, list):
            raise Refused(400, '"alerts" must be a list')
        for it in alerts:
            labels = it.get("labels") if isinstance(it, dict) else None
            name = labels.get("function_name") if isinstance(labels, dict) else None
            if not isinstance(name, str):
                raise Refused(400, 'an alert has no label "function_name"')
            function = self._alerted(name)
            if function is not None:
                self._on_alert(function, it.get("status") == "firing")
        return Answer(200)

    def _alerted(self, name: str) -> Function | None:
        from proxy.functions.model import find_function

        functions = self.controller.register.functions
        key = find_function(name, functions)
        return functions[key] if key is not None else None

    def _on_alert(self, function: Function, is_firing: bool) -> None:
        version = main_version(function)
        keeper = self.controller.keepers.get(version.key)
        count = keeper.desired if keeper else 0
        if not is_firing:
            self._scale(version, version.scale.min_scale or min(count, 1))
            return
        most = version.scale.max_scale or ALERT_MOST
        factor = function.labels.get("com.openfaas.scale.factor", "")
        percent = int(factor) if factor.isdigit() else ALERT_FACTOR
        self._scale(version, min(count + math.ceil(most * percent / 100), most))


def main_version(function: Function) -> Version:
    """The one that most requests go to."""
    return max(function.versions, key=lambda it: it.weight)



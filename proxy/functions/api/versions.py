"""Versions of a function at run time: ours, beside OpenFaaS' API.

    GET    /system/function/NAME/versions            {"versions": […], "sticky": …}
    PUT    /system/function/NAME/versions/VERSION    a FunctionDeployment (what it does not say it
                                                     has from the function), "weight", "tag",
                                                     "mirror" (percent): 202
    DELETE /system/function/NAME/versions/VERSION    202; its share goes back to v1
    PUT    /system/function/NAME/split               {"weights": {"v1": 90, "v2": 10}}: 200, what
                                                     holds now; the others keep theirs
    POST   /system/function/NAME/rollback            200: the weights before the last split

All with ?namespace=. Weights change at once, in every worker, without a reload; they are kept, and
hold for functions of the conf too, until their versions change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.functions.grammar import VERSION_NAME
from proxy.functions.http import Answer, Refused, json_answer
from proxy.functions.model import VERSION
from proxy.functions.register import Unknown

if TYPE_CHECKING:
    from proxy.functions.api.service import Api
    from proxy.functions.http import Request, Routes

MOST_WEIGHT = 10_000
MOST_VERSIONS = 32


class VersionsApi:
    """See above."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.register = api.controller.register

    def add_routes(self, routes: Routes) -> None:
        guard = self.api.auth.guard
        routes.add("GET", "/system/function/{name}/versions", guard(self.listing))
        routes.add("PUT", "/system/function/{name}/versions/{version}", guard(self.put))
        routes.add("DELETE", "/system/function/{name}/versions/{version}", guard(self.remove))
        routes.add("PUT", "/system/function/{name}/split", guard(self.split))
        routes.add("POST", "/system/function/{name}/rollback", guard(self.roll_back))

    async def listing(self, request: Request) -> Answer:
        function = self.api.find(request)
        rows = [self.api.statuses.version_row(it, has_usage=True) for it in function.versions]
        sticky = str(function.sticky) if function.sticky else None
        return json_answer({"versions": rows, "sticky": sticky})

    async def put(self, request: Request) -> Answer:
        function, name = self.api.find(request), request.names["version"]
        self.api.check_is_ours(function.key)
        said = await request.json()
        if VERSION_NAME.fullmatch(name) is None:
            raise Refused(400, f'invalid version name "{name[:100]}"')
        if name == VERSION:
            raise Refused(400, f'version "{VERSION}" is the function itself: deploy that')
        document = self.api.document_of(function.key)
        arms = dict(document.get("versions") or {})
        before = arms.get(name, {})
        arm = {
            "deployment": {key: it for key, it in said.items() if key not in NOT_DEPLOYED},
            "weight": number_of(said, "weight", before.get("weight", 0), MOST_WEIGHT),
            "mirror": number_of(said, "mirror", before.get("mirror", 0), 100),
            "tag": str(said.get("tag", before.get("tag", ""))),
        }
        if arm["weight"] and arm["mirror"]:
            raise Refused(400, "a version that mirrors can have no weight")
        arms[name] = arm
        if len(arms) > MOST_VERSIONS:
            raise Refused(400, f"a function has at most {MOST_VERSIONS} versions")
        await self.api.change(function.key, {**document, "versions": arms})
        return Answer(202)

    async def remove(self, request: Request) -> Answer:
        function, name = self.api.find(request), request.names["version"]
        self.api.check_is_ours(function.key)
        document = self.api.document_of(function.key)
        arms = dict(document.get("versions") or {})
        if arms.pop(name, None) is None:
            raise Refused(404, f'function {function.key} has no version "{name}" to be removed')
        await self.api.change(function.key, {**document, "versions": arms})
        return Answer(202)

    async def split(self, request: Request) -> Answer:
        function = self.api.find(request)
        weights = (await request.json()).get("weights")
        if not isinstance(weights, dict) or not weights:
            raise Refused(400, '"weights" must be an object of numbers')
        read = {str(it): number_of(weights, it, 0, MOST_WEIGHT) for it in weights}
        return await self._change(function.key, lambda: self.register.split(function.key, read))

    async def roll_back(self, request: Request) -> Answer:
        function = self.api.find(request)
        return await self._change(function.key, lambda: self.register.go_back(function.key))

    async def _change(self, key: str, change: Any) -> Answer:
        try:
            after = change()
        except Unknown as error:
            raise Refused(404, str(error)) from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        await self.api.write(self.api.store.put_split(key, after))
        return json_answer({"weights": after})


NOT_DEPLOYED = ("weight", "mirror", "tag", "service", "namespace")


def number_of(said: dict[str, Any], name: str, default: Any, most: int) -> int:
    """Raises Refused."""
    found = said.get(name, default)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= most:
        raise Refused(400, f'"{name}" must be a number from 0 to {most}')
    return found if name == "mirror" else int(found)  # type: ignore[return-value]

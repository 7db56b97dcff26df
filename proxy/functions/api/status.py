"""What the API says of a function: OpenFaaS' FunctionStatus, and what is ours beside it.

The part that does not change is made once for each function and kept as text: a list of ten
thousand is then a matter of joining.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxy.functions.provider import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.functions.control import Controller
    from proxy.functions.model import Function, Version

COPIED = ("image", "envProcess", "envVars", "constraints", "secrets", "limits", "requests",
          "readOnlyRootFilesystem")  # fmt: skip


def fixed_part(function: Function, said: Mapping[str, Any] | None) -> dict[str, Any]:
    """said: its deployment; None for a function of the conf."""
    row: dict[str, Any] = {"name": function.name, "namespace": function.namespace}
    if said is not None:
        row |= {key: said[key] for key in COPIED if said.get(key)}
        row.setdefault("image", "")
    else:
        first = function.versions[0]
        words = first.handler.words
        row["image"] = words[0] if first.handler.kind != "command" else ""
        row["envProcess"] = " ".join(words) if first.handler.kind in ("command", "fork") else ""
        if first.env:
            row["envVars"] = dict(first.env)
        if first.secrets:
            row["secrets"] = list(first.secrets)
    row["labels"] = dict(function.labels)
    row["annotations"] = dict(function.annotations)
    row["createdAt"] = function.created_at
    return row


class Statuses:
    """Of the functions of one controller."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._fixed: dict[str, tuple[Function, str]] = {}

    def put(self, function: Function, said: Mapping[str, Any] | None) -> None:
        """It is new or has changed."""
        text = json.dumps(fixed_part(function, said), separators=(",", ":"))
        self._fixed[function.key] = function, text[:-1]

    def forget(self, key: str) -> None:
        self._fixed.pop(key, None)

    def _text(self, function: Function) -> str:
        found = self._fixed.get(function.key)
        if found is None or (function.is_from_conf and found[0] is not function):
            self.put(function, None)
            found = self._fixed[function.key]
        return found[1]

    def row_text(self, function: Function) -> str:
        """FunctionStatus as JSON."""
        wanted = ready = calls = 0
        keepers, scaler = self.controller.keepers, self.controller.scaler
        for version in function.versions:
            keeper = keepers.get(version.key)
            if keeper is not None:
                wanted += keeper.target
                ready += len(keeper.ready())
            calls += scaler.count(version.key)["requests"]
        return (
            f'{self._text(function)},"invocationCount":{calls},"replicas":{wanted},'
            f'"availableReplicas":{ready}}}'
        )

    def describe(self, function: Function, has_usage: bool) -> dict[str, Any]:
        """One function, with what it uses and with its versions."""
        row: dict[str, Any] = json.loads(self.row_text(function))
        row["versions"] = [self.version_row(it, has_usage) for it in function.versions]
        if function.sticky:
            row["sticky"] = str(function.sticky)
        row["isFromConf"] = function.is_from_conf
        if has_usage:
            usages = [it["usage"] for version in row["versions"] for it in version["instances"]]
            known = [it for it in usages if it]
            row["usage"] = {
                "cpu": round(sum(it["cpu"] for it in known), 3),
                "totalMemoryBytes": sum(it["totalMemoryBytes"] for it in known),
            }
        return row

    def version_row(self, version: Version, has_usage: bool = False) -> dict[str, Any]:
        """What is told of one arm."""
        controller, key = self.controller, version.key
        keeper = controller.keepers.get(key)
        now = controller.scaler.count(key)
        instances = []
        for it in keeper.replicas.values() if keeper else ():
            row = it.row()
            del row["id"], row["log"]
            usage = it.provider.usage(it.id) if has_usage else None
            row["usage"] = usage and {
                "cpu": round(usage.cpu_milli, 3), "totalMemoryBytes": usage.memory_bytes
            }  # fmt: skip
            instances.append(row)
        try:
            how = controller.provider(version.handler.kind).describe(version)
        except Refusal as error:
            how = str(error)
        return {
            "name": version.name,
            "kind": version.handler.kind,
            "words": list(version.handler.words),
            "weight": version.weight,
            "tag": version.tag,
            "mirror": version.mirror,
            "replicas": keeper.target if keeper else 0,
            "availableReplicas": len(keeper.ready()) if keeper else 0,
            "invocationCount": now["requests"],
            "copies": now["copies"],
            "inFlight": now["in_flight"],
            "parked": now["parked"],
            "load": controller.scaler.load(key),
            "minScale": version.scale.min_scale,
            "maxScale": version.scale.max_scale,
            "concurrency": version.concurrency,
            "error": keeper.error if keeper else "",
            "how": how,
            "instances": instances,
        }

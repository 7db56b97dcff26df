"""The functions of a conf: from `function` blocks to the model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from proxy.functions.annotations import read_scale, read_version_words
from proxy.functions.model import NAMESPACE, VERSION, Function, Handler, Scale, Version
from proxy.functions.queue.directives import annotations_of

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

SCALE = {
    "min_scale": "min_scale",
    "max_scale": "max_scale",
    "initial_scale": "initial_scale",
    "activation_scale": "activation_scale",
    "prewarm": "prewarm",
    "metric": "metric",
    "target": "target",
    "utilization": "utilization",
    "window": "window_ms",
    "panic_window": "panic_window",
    "panic_threshold": "panic_threshold",
    "scale_down_delay": "scale_down_delay_ms",
    "retention": "retention_ms",
    "max_up_rate": "max_up_rate",
    "max_down_rate": "max_down_rate",
    "aggregation": "aggregation",
}


def read_functions(model: Block) -> dict[str, Function]:
    """All functions of a conf, by key, in its order. Raises ConfError."""
    found = {}
    for http in model.find("http"):
        for block in http.find("function"):
            it = read_function(block)
            if it.key in found:
                raise block.error(f'duplicate function "{it.key}"')
            found[it.key] = it
    return found


def read_function(block: Block) -> Function:
    """One function block. Raises ConfError."""
    name, namespace = str(block.args[0]), str(block.own("namespace") or NAMESPACE)
    labels = dict(pair for row in block.own("labels") or () for pair in row)
    annotations = dict(block.own("annotation") or ()) | annotations_of(block)
    arms = block.find("version")
    function = f"{name}.{namespace}"
    versions = []
    if handler_of(block) is not None:
        weight = block.own("weight")
        if weight is None:
            weight = 100 - sum(weight_of(it) for it in arms)
            if weight < 0:
                raise block.error(f'the weights of function "{name}" are more than 100 together')
        versions.append(read_version(block, function, VERSION, weight, labels, annotations))
    for arm in arms:
        it = read_version(arm, function, str(arm.args[0]), weight_of(arm), labels, annotations)
        versions.append(it)
    if not any(it.weight for it in versions):
        raise block.error(f'no version of function "{name}" has a weight')
    return Function(
        name=name,
        namespace=namespace,
        versions=tuple(versions),
        labels=labels,
        annotations=annotations,
        sticky=block.own("sticky"),
        is_async=bool(block.own("async")),
        schedule=tuple(map(str, block.own("schedule") or ())),
        is_from_conf=True,
    )


def weight_of(arm: Block) -> int:
    """A version that only mirrors has none; one that says none gets nobody."""
    return int(arm.own("weight") or 0)


def handler_of(block: Block) -> Handler | None:
    """The handler of this very block."""
    for kind in ("python", "command", "fork", "openwhisk", "lambda", "static"):
        words = block.own(kind)
        if words is not None:
            return Handler(kind, tuple(map(str, words)))
    words = block.own("provider")
    return Handler(str(words[0]), tuple(map(str, words[1:]))) if words is not None else None


def read_version(
    block: Block, function: str, name: str, weight: int, labels: Any, annotations: Any
) -> Version:
    """One arm; `block` is the function's own or the version's. Raises ConfError."""
    handler = handler_of(block)
    if handler is None and block.parent is not None:
        handler = handler_of(block.parent)
    assert handler is not None  # directives.check_version
    try:
        scale = read_scale(labels, annotations)
        words = read_version_words(labels, annotations)
    except ValueError as error:
        raise block.error(str(error)) from None
    said = {field: block.get(word) for word, field in SCALE.items() if block.has(word)}
    scale = Scale(**{it: said.get(it, getattr(scale, it)) for it in SCALE.values()})
    if scale.max_scale and scale.min_scale > scale.max_scale:
        raise block.error(
            f'"min_scale" {scale.min_scale} is more than "max_scale" {scale.max_scale}'
        )
    for word in ("timeout", "concurrency", "ready"):
        if block.has(word) or word not in words:
            words[word] = block.get(word)
    cwd = os.path.abspath(block.path(block.get("working_directory") or "."))
    return Version(
        function=function,
        name=name,
        handler=handler,
        weight=weight,
        tag=str(block.own("tag") or ""),
        mirror=block.own("mirror") or 0 if block.name == "version" else 0,
        scale=scale,
        queue=block.get("queue"),
        concurrency=words["concurrency"],
        timeout_ms=words["timeout"],
        ready=words["ready"],
        env=tuple(block.get("env") or ()),
        cwd=cwd,
        interpreter=interpreter_of(block),
        user=str(block.get("user") or ""),
        limits=block.get("limits"),
        secrets=tuple(str(it) for row in block.get("secrets") or () for it in row),
        watch=block.get("watch"),
        start_timeout_ms=block.get("start_timeout"),
        drain_timeout_ms=block.get("drain_timeout"),
        count_streams=block.get("count_streams"),
        http_version=block.get("http_version"),
        balance=block.get("balance"),
    )


def interpreter_of(block: Block) -> str:
    """The Python of `interpreter PATH` or `venv DIR`; a bare name is looked up in $PATH."""
    venv, python = block.get("venv"), block.get("interpreter")
    if venv:
        return os.path.join(os.path.abspath(block.path(venv)), "bin", "python")
    if python and "/" in python:
        return block.path(python)
    return str(python or "")

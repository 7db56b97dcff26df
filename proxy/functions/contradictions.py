"""Times and bounds of functions that contradict each other, or this machine: `-t` warns of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.conf.inherit import Block


def contradictions(model: Block, holds_cpu: bool = True) -> list[str]:
    """A sentence, with its place, for each. holds_cpu: this machine can hold `limits cpu=`."""
    found: list[str] = []
    for http in model.find("http"):
        for function in http.find("function"):
            for block in (function, *function.find("version")):
                texts = [*of_version(block), *([] if holds_cpu else of_machine(block))]
                found += [f"{text} in {block.file}:{block.line}" for text in texts]
        for block in http.below():
            if block.own("function_pass") is not None:
                found += [f"{text} in {block.file}:{block.line}" for text in of_pass(block, http)]
    return found


def of_version(block: Block) -> Iterator[str]:
    """Of the words of one `function` or `version` block, those that it inherits included."""
    name = f"{block.name} {block.args[0]}"
    queue, timeout_ms = block.get("queue"), block.get("timeout")
    start_ms = block.get("start_timeout")
    if block.own("start_timeout") is not None and queue.size and queue.wait_ms < start_ms:
        yield (
            f'{name}: "queue" wait={queue.wait_ms}ms is less than "start_timeout" {start_ms}ms: '
            "who wakes a slow start is answered before it can be ready"
        )
    if not queue.size and not block.get("min_scale"):
        yield f'{name}: "queue" size=0 with "min_scale" 0: no request can wake it'
    ready = block.get("ready")
    if ready is not None and max(ready.interval_ms, ready.timeout_ms) > start_ms:
        yield f'{name}: "ready" may take longer than "start_timeout" {start_ms}ms'
    if block.own("drain_timeout") is not None and 0 < block.get("drain_timeout") < timeout_ms:
        yield (
            f'{name}: "drain_timeout" is less than "timeout" {timeout_ms}ms: a replica may be '
            "stopped with requests that were in time"
        )
    concurrency, target = block.get("concurrency"), block.own("target")
    if concurrency and target is not None and block.get("metric") == "concurrency" and (
        float(target) > concurrency
    ):
        yield f'{name}: "target" {target:g} is more than "concurrency" {concurrency} allows'


def of_machine(block: Block) -> Iterator[str]:
    """`limits cpu=` where nothing can hold it."""
    limits = block.own("limits")
    if limits is not None and limits.cpu_milli:
        yield (
            f'{block.name} {block.args[0]}: "limits" cpu={limits.cpu_milli / 1000:g} is not held: '
            "there is no writable cgroup v2 with the cpu controller"
        )


def of_pass(block: Block, http: Block) -> Iterator[str]:
    """Of a location with function_pass to a function of this conf."""
    name = str(block.own("function_pass"))
    for function in http.find("function"):
        key = f"{function.args[0]}.{function.own('namespace') or 'openfaas-fn'}"
        if name not in (function.args[0], key):
            continue
        timeout_ms = function.get("timeout")
        for word in ("proxy_read_timeout", "proxy_connect_timeout", "proxy_send_timeout"):
            if timeout_ms and block.has(word) and block.get(word) > timeout_ms:
                yield (
                    f'"{word}" is more than the "timeout" {timeout_ms}ms of function '
                    f"{function.args[0]}, which ends the request before"
                )

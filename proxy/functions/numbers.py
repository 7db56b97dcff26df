"""What the metrics tell of versions beside their requests: who is in flight, waits, was cold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.functions._function import Functions

    Labels = list[tuple[str, str]]

METRICS = (
    ("in_flight", "headrace_function_in_flight", "gauge", "Requests at replicas."),
    ("parked", "headrace_function_parked", "gauge", "Requests that wait for a replica."),
    ("cold_starts", "headrace_function_cold_starts_total", "counter",
     "Requests that found no replica ready."),
    ("ready", "headrace_function_replicas_ready", "gauge", "Replicas that may be asked."),
)  # fmt: skip


def function_numbers(functions: Functions) -> list[tuple[str, str, str, list[tuple[Labels, int]]]]:
    """(metric, type, help, [(labels, value)]), over all workers."""
    if functions.counts is None:
        return []
    found = []
    for function in functions:
        for version in function.versions:
            labels = [("function", function.key.decode()), ("version", version.name.decode())]
            now = functions.counts.look(version.key.decode())
            found.append((labels, {**now, "ready": len(version.replicas)}))
    return [
        (metric, kind, text, [(labels, now[word]) for labels, now in found])
        for word, metric, kind, text in METRICS
        if found
    ]

"""Labels and annotations of OpenFaaS and Knative that mean settings of ours: one table.

    OpenFaaS label com.openfaas.scale.…      Knative annotation autoscaling.knative.dev/…
    min, max                                 min-scale, max-scale
    zero: true   – min_scale 0, and `min`    initial-scale, activation-scale
      is how many it wakes with
    zero-duration                            scale-to-zero-pod-retention-period
    type: rps, capacity                      metric: rps, concurrency
    target, target-proportion                target, target-utilization-percentage
    down.window                              scale-down-delay
                                             window, panic-window-percentage,
                                             panic-threshold-percentage,
                                             metric-aggregation-algorithm

    OpenFaaS annotation com.openfaas.ready.http.path (periodSeconds, timeoutSeconds): `ready`

Knative's class and target-burst-capacity and OpenFaaS' factor are accepted: what they choose is
fixed here. A metric nobody measures here is refused, as is a value out of Knative's bounds.
Whatever stands in the conf as a directive wins. Where both systems speak, Knative's wins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from proxy.functions.model import Scale
from proxy.functions.values import Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OPENFAAS = "com.openfaas.scale."
KNATIVE = "autoscaling.knative.dev/"
READY = "com.openfaas.ready.http."
GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
GO_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
MOST_REPLICAS = 1000
HOUR_MS = 3_600_000


def read_go_ms(text: str) -> int:
    """Milliseconds of Go's `1h30m`, `1.5s`, `0`; a bare number is seconds. Raises ValueError."""
    if text.isdigit():
        return int(text) * 1000
    total, at = 0.0, 0
    while at < len(text):
        part = GO_PART.match(text, at)
        if part is None:
            break
        total += float(part[1]) * GO_MS[part[2]]
        at = part.end()
    if not text or at < len(text):
        raise ValueError(f'"{text}" is no duration')
    return round(total)


def _int(text: str, least: int = 0, most: int = MOST_REPLICAS) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(f'"{text}" is no number from {least} to {most}')
    return int(text)


def _float(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise ValueError(f'"{text}" is no number from {least:g} to {most:g}')
    return number


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f'"{text}" is neither true nor false')
    return text.lower() in ("true", "1")


def _time(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = read_go_ms(text)
        if not least <= number <= most:
            raise ValueError(f'"{text}" is not from {least / 1000:g}s to {most / 1000:g}s')
        return number

    return read


def _one_of(words: Mapping[str, str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is not supported, only {" and ".join(words)}')
        return words[text]

    return read


def _any(text: str) -> None:
    return None


# key → (field of Scale, reader); the field "" means nothing here
FROM_OPENFAAS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "min": ("min_scale", _int),
    "max": ("max_scale", _int),
    "factor": ("", _any),
    "zero": ("zero", _flag),
    "zero-duration": ("retention_ms", read_go_ms),
    "type": ("metric", _one_of({"rps": "rps", "capacity": "concurrency"})),
    "target": ("target", lambda it: _float(it, 0.01, 1e6)),
    "target-proportion": ("utilization", lambda it: _float(it, 0.01, 1)),
    "down.window": ("scale_down_delay_ms", read_go_ms),
}
FROM_KNATIVE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "class": ("", _one_of({"kpa.autoscaling.knative.dev": ""})),
    "metric": ("metric", _one_of({"concurrency": "concurrency", "rps": "rps"})),
    "target": ("target", lambda it: _float(it, 0.01, 1e6)),
    "target-utilization-percentage": ("utilization", lambda it: _float(it, 1, 100) / 100),
    "target-burst-capacity": ("", lambda it: _float(it, -1, 1e9)),
    "min-scale": ("min_scale", _int),
    "max-scale": ("max_scale", _int),
    "initial-scale": ("initial_scale", _int),
    "activation-scale": ("activation_scale", lambda it: _int(it, 1)),
    "scale-down-delay": ("scale_down_delay_ms", _time(0, HOUR_MS)),
    "window": ("window_ms", _time(6000, HOUR_MS)),
    "panic-window-percentage": ("panic_window", lambda it: _float(it, 1, 100) / 100),
    "panic-threshold-percentage": ("panic_threshold", lambda it: _float(it, 110, 1000) / 100),
    "scale-to-zero-pod-retention-period": ("retention_ms", _time(0, HOUR_MS)),
    "metric-aggregation-algorithm": (
        "aggregation",
        _one_of({"linear": "linear", "weighted-exponential": "weighted"}),
    ),
}


def read_scale(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Scale:
    """What they say of scaling, our defaults for the rest. Raises ValueError with a sentence."""
    said: dict[str, Any] = {}
    for prefix, table in ((OPENFAAS, FROM_OPENFAAS), (KNATIVE, FROM_KNATIVE)):
        for key, text in (*annotations.items(), *labels.items()):
            if not key.startswith(prefix):
                continue
            # the first Knative wrote minScale where it is min-scale now
            word = re.sub(r"[A-Z]", lambda it: "-" + it[0].lower(), key[len(prefix) :])
            if word not in table:
                raise ValueError(f'unknown setting "{key}"')
            field, read = table[word]
            try:
                value = read(str(text).strip())
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
            if field:
                said[field] = value
    if said.pop("zero", False):
        said["activation_scale"] = max(said.get("min_scale", 1), 1)
        said["min_scale"] = 0
    scale = Scale(**said)
    if scale.max_scale and scale.min_scale > scale.max_scale:
        raise ValueError(
            f"the least scale {scale.min_scale} is more than the most {scale.max_scale}"
        )
    return scale


def read_version_words(
    labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """What they say of `ready`. Raises ValueError with a sentence."""
    path = annotations.get(READY + "path")
    if path is None:
        return {}
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError(f'{READY}path: invalid path "{path}"')
    interval_s = _int(annotations.get(READY + "periodSeconds", "0"))
    timeout_s = _int(annotations.get(READY + "timeoutSeconds", "1"), 1)
    interval_ms = interval_s * 1000 or Ready(path).interval_ms
    return {"ready": Ready(path, interval_ms, timeout_s * 1000)}

"""How many replicas a version shall have: Knative's autoscaler (KPA) as a pure function.

`decide` is called every 2 s with one sample a second: what the version had to do on average in
that second, requests at once (waiting ones included) or requests a second. The gateway is always
in the path, which is Knative with a target burst capacity of -1: what remains of its rules are
the target, two windows, panic, the rates, the delay, the bounds, and how a version goes to zero.
Nothing here reads a clock or keeps anything: what is to be remembered is given back as Memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.functions.model import Scale

TICK_S = 2.0
SAMPLE_S = 1.0
CONCURRENCY_TARGET = 100.0
RPS_TARGET = 200.0
LEAST_TARGET = 0.01
LEAST_SHARE = 0.2  # of the newest second, when the newest weigh most
DIGITS = 6
PROGRESS_S = 630.0  # who never was ready so long is given up: Knative's 600 s and 30 s


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next. Times in s, on the caller's clock; -1: not so.

    panic_s: when the load last was over the threshold. most: the highest count of this panic.
    recent: (when, count) of scale_down_delay, counts falling. active_s: since when a replica is
    ready. idle_s: since when none is needed. woken_s: since when it is being started.
    is_reached: the initial scale was.
    """

    panic_s: float = -1
    most: int = 0
    recent: tuple[tuple[float, int], ...] = ()
    active_s: float = -1
    idle_s: float = -1
    woken_s: float = -1
    is_reached: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """desired: replicas from now on. stable, panic: the averages it was made from."""

    desired: int
    stable: float
    panic: float
    is_panic: bool


def woken(memory: Memory, now_s: float) -> Memory:
    """Somebody waits for it: it is being started, and past its initial scale."""
    woken_s = memory.woken_s if memory.woken_s >= 0 else now_s
    return replace(memory, woken_s=woken_s, idle_s=-1, is_reached=True)


def target_of(scale: Scale, concurrency: int) -> float:
    """What one replica is aimed to have: the target's `utilization`. `concurrency` is the hard
    bound of a replica, 0: none."""
    if scale.metric == "rps":
        total = scale.target or RPS_TARGET
    elif concurrency:
        total = min(scale.target or concurrency, concurrency)
    else:
        total = scale.target or CONCURRENCY_TARGET
    return max(LEAST_TARGET, total * scale.utilization)


def average(samples: Sequence[float], seconds: int, kind: str) -> float:
    """Of the newest `seconds` samples (the newest stands last), or of as many as there are."""
    newest = samples[-seconds:]
    if kind == "weighted":
        share = max(1 - (1 - 0.9999) ** (1 / seconds), LEAST_SHARE)
        total = sum(it * share * (1 - share) ** k for k, it in enumerate(reversed(newest)))
        return round(total, DIGITS)
    return round(sum(newest) / len(newest), DIGITS)


def after_restart(ready: int, now_s: float) -> Memory:
    """What a new controller begins with for a version that runs already: with more than one
    replica it keeps them until it knows better."""
    if ready > 1:
        return Memory(panic_s=now_s, most=ready, active_s=now_s, is_reached=True)
    return Memory(active_s=now_s if ready else -1, is_reached=True)


def decide(
    samples: Sequence[float],
    scale: Scale,
    concurrency: int,
    ready: int,
    memory: Memory,
    now_s: float,
    is_reachable: bool = True,
) -> tuple[Decision | None, Memory]:
    """None as decision: there is no sample yet, nothing changes.

    ready: replicas that are. is_reachable: some request can be sent to this version; who is not
    reachable is scaled down without delay.
    """
    if not samples:
        return None, memory
    window_s = scale.window_ms / 1000
    target = target_of(scale, concurrency)
    stable = average(samples, max(round(window_s), 1), scale.aggregation)
    panic = average(samples, max(round(window_s * scale.panic_window), 1), scale.aggregation)

    count = max(1, ready)
    most = math.ceil(scale.max_up_rate * count)
    least = math.floor(count / scale.max_down_rate) if is_reachable else 0
    by_stable, by_panic = math.ceil(stable / target), math.ceil(panic / target)
    desired = min(max(by_stable, least), most)
    in_panic = min(max(by_panic, least), most)
    if scale.activation_scale > 1:
        if by_stable > 0:
            desired = max(desired, scale.activation_scale)
        if by_panic > 0:
            in_panic = max(in_panic, scale.activation_scale)

    if by_panic / count >= scale.panic_threshold:
        memory = replace(memory, panic_s=now_s)
    elif memory.panic_s >= 0 and now_s - memory.panic_s > window_s:
        memory = replace(memory, panic_s=-1, most=0)
    is_panic = memory.panic_s >= 0
    if is_panic:
        desired = max(memory.most, desired, in_panic)
        memory = replace(memory, most=desired)

    if scale.scale_down_delay_ms and is_reachable:
        since_s = now_s - scale.scale_down_delay_ms / 1000
        recent = [it for it in memory.recent if it[0] > since_s and it[1] > desired]
        recent.append((now_s, desired))
        desired = recent[0][1]
        memory = replace(memory, recent=tuple(recent))

    memory, first = _initial(scale, ready, memory, now_s)
    desired = max(desired, scale.min_scale, first)
    if scale.max_scale:
        desired = min(desired, scale.max_scale)
    if desired:
        memory = _needed(ready, memory, now_s)
    else:
        desired, memory = _to_zero(scale, ready, memory, now_s)
    return Decision(desired, stable, panic, is_panic), memory


def _initial(scale: Scale, ready: int, memory: Memory, now_s: float) -> tuple[Memory, int]:
    """The initial scale holds until it was reached once, or given up."""
    if memory.is_reached:
        return memory, 0
    is_given_up = memory.woken_s >= 0 and now_s - memory.woken_s >= PROGRESS_S
    if ready >= scale.initial_scale or is_given_up:
        return replace(memory, is_reached=True), 0
    return memory, scale.initial_scale


def _needed(ready: int, memory: Memory, now_s: float) -> Memory:
    active_s = memory.active_s
    if ready and (active_s < 0 or memory.idle_s >= 0):
        active_s = now_s
    woken_s = now_s if memory.woken_s < 0 and not ready else memory.woken_s
    return replace(memory, active_s=active_s, idle_s=-1, woken_s=-1 if ready else woken_s)


def _to_zero(scale: Scale, ready: int, memory: Memory, now_s: float) -> tuple[int, Memory]:
    """None is needed: hold one until it was active for a window, then for the retention."""
    if not ready:
        if memory.woken_s < 0 or now_s - memory.woken_s >= PROGRESS_S:  # nobody misses it
            return 0, replace(memory, active_s=-1, idle_s=-1, woken_s=-1)
        return 1, memory
    memory = replace(memory, woken_s=-1)
    if memory.active_s < 0:
        memory = replace(memory, active_s=now_s)
    if memory.idle_s < 0:
        if now_s - memory.active_s < scale.window_ms / 1000:
            return 1, memory
        memory = replace(memory, idle_s=now_s)
    if now_s - memory.idle_s >= scale.retention_ms / 1000:
        return 0, replace(memory, active_s=-1, idle_s=-1)
    return 1, memory

"""The autoscaler against tables that were worked out by hand from Knative's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.functions.autoscaler import Memory, after_restart, average, decide, target_of, woken
from proxy.functions.model import Scale

STEADY = Memory(active_s=0, is_reached=True)
SETTLED = 1000.0  # long after it became active

TARGETS = [
    # scale, concurrency of a replica, what one replica is aimed at
    (Scale(), 0, 70),  # 100 * 70 %
    (Scale(), 10, 7),
    (Scale(target=4), 10, 2.8),
    (Scale(target=20), 10, 7),  # no more than the hard bound
    (Scale(target=20), 0, 14),
    (Scale(target=10, utilization=1), 0, 10),
    (Scale(metric="rps"), 10, 140),  # 200 * 70 %
    (Scale(metric="rps", target=50), 10, 35),
    (Scale(target=0.01, utilization=0.01), 0, 0.01),
]


@pytest.mark.parametrize(("scale", "concurrency", "target"), TARGETS)
def test_target(scale: Scale, concurrency: int, target: float) -> None:
    assert target_of(scale, concurrency) == pytest.approx(target)


AVERAGES = [
    ([7.0], 60, "linear", 7),
    ([1, 2, 3], 60, "linear", 2),  # a window that is not full yet
    ([9, 9, 1, 2, 3], 3, "linear", 2),
    ([1, 0, 0], 3, "linear", 0.333333),  # six digits
    # 60 s: c = max(1 - 0.0001^(1/60), 0.2) = 0.2
    ([10.0], 60, "weighted", 2),
    ([10.0, 10.0], 60, "weighted", 3.6),  # 10*0.2 + 10*0.2*0.8
    ([20.0, 10.0], 60, "weighted", 5.2),  # 10*0.2 + 20*0.2*0.8
    # 6 s: c = 1 - 0.0001^(1/6) = 0.784557
    ([10.0], 6, "weighted", 7.845565),
]


@pytest.mark.parametrize(("samples", "seconds", "kind", "expected"), AVERAGES)
def test_average(samples: list[float], seconds: int, kind: str, expected: float) -> None:
    assert average(samples, seconds, kind) == pytest.approx(expected, abs=1e-6)


LOADS = [
    # what, samples, scale, ready → desired, is it panic
    ("half of one target", [35] * 60, Scale(), 1, 1, False),
    ("just one target", [70] * 60, Scale(), 1, 1, False),
    ("a little more than one", [70.1] * 60, Scale(), 2, 2, False),
    ("twice the ready is sudden", [140] * 60, Scale(), 1, 2, True),
    ("not twice", [139] * 60, Scale(), 2, 2, False),
    ("six of sixty seconds", [0] * 54 + [700] * 6, Scale(), 1, 10, True),
    ("the same for ten replicas", [0] * 54 + [700] * 6, Scale(), 10, 5, False),  # stable 1, down 5
    ("one second of data", [210], Scale(), 1, 3, True),
    ("panic window of one second at least", [0] * 5 + [140], Scale(window_ms=6000), 1, 2, True),
    ("panic window of half", [0] * 30 + [70] * 30, Scale(panic_window=0.5), 1, 1, False),
    ("up rate", [7000] * 60, Scale(max_up_rate=2), 3, 6, True),
    ("up rate rounds up", [7000] * 60, Scale(max_up_rate=1.5), 3, 5, True),
    ("up rate from zero counts one", [7000] * 60, Scale(max_up_rate=2), 0, 2, True),
    ("down rate", [70] * 60, Scale(), 10, 5, False),
    ("down rate rounds down", [70] * 60, Scale(), 11, 5, False),
    ("down rate of four", [70] * 60, Scale(max_down_rate=4), 11, 2, False),
    ("activation", [1] * 60, Scale(activation_scale=3), 3, 3, False),
    ("activation is for who has load", [0] * 60, Scale(activation_scale=3), 3, 1, False),
    ("at most", [7000] * 60, Scale(max_scale=4), 1, 4, True),
    ("at least", [0] * 60, Scale(min_scale=3), 3, 3, False),
    ("initial until reached", [0] * 60, Scale(initial_scale=3), 0, 3, False),
    ("rps", [700] * 60, Scale(metric="rps"), 5, 5, False),
    ("a higher threshold", [140] * 60, Scale(panic_threshold=3), 1, 2, False),
]


@pytest.mark.parametrize(
    ("samples", "scale", "ready", "desired", "is_panic"),
    [row[1:] for row in LOADS],
    ids=[row[0] for row in LOADS],
)
def test_one_decision(
    samples: list[float], scale: Scale, ready: int, desired: int, is_panic: bool
) -> None:
    memory = replace(STEADY, is_reached=scale.initial_scale == 1)
    decision, _ = decide(samples, scale, 0, ready, memory, SETTLED)
    assert decision is not None
    assert (decision.desired, decision.is_panic) == (desired, is_panic)


def test_without_a_sample_nothing_changes() -> None:
    assert decide([], Scale(), 0, 3, STEADY, 5.0) == (None, STEADY)


def test_who_cannot_be_reached_goes_down_at_once() -> None:
    scale = Scale(scale_down_delay_ms=60_000, window_ms=6000, retention_ms=0)
    decision, _ = decide([0] * 6, scale, 0, 8, STEADY, SETTLED, is_reachable=False)
    assert decision and decision.desired == 0


def run(
    steps: list[tuple[float, list[float], int]], scale: Scale, memory: Memory = STEADY
) -> list[int]:
    """Decisions at (now, samples, ready), one after the other."""
    found = []
    for now_s, samples, ready in steps:
        decision, memory = decide(samples, scale, 0, ready, memory, now_s)
        assert decision is not None
        found.append(decision.desired)
    return found


def test_panic_never_goes_down_and_ends_a_window_after_the_load() -> None:
    scale = Scale(window_ms=10_000)  # panic window 1 s
    calm = [70.0] * 10
    steps = [
        (SETTLED, [70.0] * 9 + [350], 1),  # 5 of 1 ready: panic
        (SETTLED + 2, [70.0] * 9 + [210], 5),  # 3 of 5: no more over, but no way down
        (SETTLED + 4, [70.0] * 9 + [770], 5),  # 11 of 5: over again, up, and the time anew
        (SETTLED + 6, calm, 11),
        (SETTLED + 14, calm, 11),  # the window is over exactly: not yet
        (SETTLED + 16, calm, 11),  # half of them
        (SETTLED + 18, calm, 5),
        (SETTLED + 20, calm, 2),
    ]
    assert run(steps, scale) == [5, 5, 11, 11, 11, 5, 2, 1]


def test_less_load_counts_after_its_delay() -> None:
    scale = Scale(scale_down_delay_ms=10_000)
    five, one = [350.0] * 60, [70.0] * 60
    steps = [
        (SETTLED, five, 5),
        (SETTLED + 2, one, 5),
        (SETTLED + 8, one, 5),
        (SETTLED + 10, one, 5),  # the five are 10 s old: 2, the down rate of 5
        (SETTLED + 12, one, 2),
    ]
    assert run(steps, scale) == [5, 5, 5, 2, 2]


def test_zero_comes_after_a_window_and_the_retention() -> None:
    scale = Scale(window_ms=60_000, retention_ms=30_000)
    steps = [
        (0.0, [1.0], 0),  # woken, not ready
        (2.0, [1.0] * 3, 1),  # active from now
        (10.0, [0.0] * 60, 1),
        (60.0, [0.0] * 60, 1),  # active for 58 s
        (62.0, [0.0] * 60, 1),  # for 60 s: idle from now
        (90.0, [0.0] * 60, 1),
        (92.0, [0.0] * 60, 1),
        (94.0, [0.0] * 60, 0),
    ]
    expected = [1, 1, 1, 1, 1, 1, 0, 0]
    assert run(steps, scale, Memory(is_reached=True)) == expected


def test_load_in_between_begins_the_waiting_anew() -> None:
    scale = Scale(window_ms=10_000, retention_ms=4000)
    zero = [0.0] * 10
    steps = [
        (SETTLED, zero, 1),  # idle from now
        (SETTLED + 2, [0.0] * 9 + [1.0], 1),  # needed: active anew
        (SETTLED + 4, zero, 1),
        (SETTLED + 10, zero, 1),
        (SETTLED + 12, zero, 1),  # active for a window: idle from now
        (SETTLED + 14, zero, 1),
        (SETTLED + 16, zero, 1),
    ]
    assert run(steps, scale) == [1, 1, 1, 1, 1, 1, 0]


def test_no_retention() -> None:
    scale = Scale(window_ms=10_000, retention_ms=0)
    assert run([(SETTLED, [0.0] * 10, 1)], scale) == [0]


def test_who_never_gets_ready_is_given_up() -> None:
    steps = [(0.0, [0.0], 0), (629.0, [0.0], 0), (630.0, [0.0], 0)]
    assert run(steps, Scale(), woken(Memory(), 0.0)) == [1, 1, 0]
    assert run(steps[:1], Scale(), Memory(is_reached=True)) == [0]  # nobody woke it
    assert run([*steps, (632.0, [0.0], 0)], Scale(), Memory())[-1] == 0


def test_the_initial_scale_is_dropped_once_reached() -> None:
    scale = Scale(initial_scale=4)
    steps = [(0.0, [0.0], 0), (2.0, [0.0] * 3, 3), (4.0, [0.0] * 5, 4), (6.0, [0.0] * 7, 2)]
    assert run(steps, scale, Memory()) == [4, 4, 2, 1]


def test_a_new_controller_keeps_what_runs_until_it_knows_better() -> None:
    memory = after_restart(4, SETTLED)
    scale = Scale(window_ms=10_000)
    steps = [(SETTLED + 2, [0.0], 4), (SETTLED + 10, [0.0] * 9, 4), (SETTLED + 11, [0.0] * 10, 4)]
    assert run(steps, scale, memory) == [4, 4, 2]
    assert after_restart(1, 5.0).panic_s == -1
    assert after_restart(0, 5.0).active_s == -1

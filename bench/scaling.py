"""How would the autoscaler follow this load? Replays arrivals, plots replicas over time.

    bench/scaling.py sinus | burst | FILE [WORD=VALUE …]

FILE holds one arrival a line, in seconds from its beginning; or `SECOND,COUNT`. The words are those
of a function block (target=10 concurrency=10 window=30s max_scale=20 …), and of the replica:
service=100ms (how long a request takes), start=20ms (from the order until it is ready). Nothing
runs: the decisions are proxy/functions/autoscaler.py's, the rest is counted here in steps of
10 ms. The picture and its table go to bench/results/scaling-NAME.png and .csv.
"""

from __future__ import annotations

import csv
import heapq
import math
import random
import sys
from collections import deque
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy.conf.values import read_ms  # noqa: E402
from proxy.functions.autoscaler import (  # noqa: E402
    SAMPLE_S,
    TICK_S,
    Memory,
    decide,
    target_of,
    woken,
)
from proxy.functions.declared import SCALE  # noqa: E402
from proxy.functions.model import Scale  # noqa: E402
from proxy.functions.scaler import SURGE_S  # noqa: E402

STEP_S = 0.01
RESULTS = Path(__file__).resolve().parent / "results"
DRAWN_S = 0.5


@dataclass
class Settings:
    """One run."""

    scale: Scale = field(default_factory=Scale)
    concurrency: int = 0
    service_s: float = 0.1
    start_s: float = 0.02


@dataclass
class Moment:
    """What was at a time; waits: of the requests that began since the last, in s."""

    at_s: float
    rate: float = 0
    load: int = 0
    parked: int = 0
    ready: int = 0
    desired: int = 0
    is_panic: bool = False
    wait_s: float = 0


def arrivals(name: str) -> list[float]:
    """When requests come, in seconds, in order."""
    dice = random.Random(1)
    if name == "sinus":  # 5 min periods between 0 and 400 a second, asleep for two minutes at last
        rate = [200 - 200 * math.cos(2 * math.pi * it / 300) for it in range(900)] + [0.0] * 120
    elif name == "burst":  # a trickle, 500 at once, a plateau, nothing
        rate = [2.0] * 60 + [500.0] + [2.0] * 120 + [300.0] * 120 + [0.0] * 180
    else:
        return read_trace(Path(name))
    found = []
    for second, count in enumerate(rate):
        here = round(count + dice.random() - 0.5) if count else 0
        spread = 0.02 if name == "burst" and count == 500 else 1.0
        found += [second + dice.random() * spread for _ in range(here)]
    return sorted(found)


def read_trace(path: Path) -> list[float]:
    found = []
    for line in path.read_text().splitlines():
        first, _, count = line.partition(",")
        try:
            at_s, many = float(first), int(count or 1)
        except ValueError:
            continue  # a headline
        found += [at_s + number / many for number in range(many)] if count else [at_s]
    start = min(found, default=0.0)
    return sorted(it - start for it in found)


class Run:
    """One replay."""

    def __init__(self, times: list[float], settings: Settings) -> None:
        self.settings = settings
        self.times = deque(times)
        self.end_s = (times[-1] if times else 0) + 150
        self.parked: deque[float] = deque()
        self.running: list[float] = []  # when each ends
        self.starting: list[float] = []  # when each is ready
        self.ready = 0
        self.desired = 0
        self.memory = Memory(is_reached=True)
        self.samples: deque[float] = deque(maxlen=3600)
        self.moments: list[Moment] = []
        self.waits: list[float] = []
        self.is_panic = False

    def room(self) -> int:
        """How many more may begin."""
        each = self.settings.concurrency
        return self.ready * each - len(self.running) if each else (1 << 30) * bool(self.ready)

    def order(self, count: int, now_s: float) -> None:
        """There shall be so many; who is too many leaves at once, when it is idle."""
        more = count - self.ready - len(self.starting)
        for _ in range(more):
            heapq.heappush(self.starting, now_s + self.settings.start_s)
        while more < 0 and self.starting:
            self.starting.pop()
            more += 1
        self.ready += min(more, 0)
        self.desired = count

    def go(self) -> None:
        now_s, area, begun, count = 0.0, 0.0, 0, 0
        next_sample_s, next_tick_s, next_drawn_s = SAMPLE_S, TICK_S, DRAWN_S
        surges: list[float] = []
        scale, each = self.settings.scale, self.settings.concurrency
        is_awake = False
        while now_s < self.end_s:
            now_s += STEP_S
            while self.times and self.times[0] <= now_s:
                self.parked.append(self.times.popleft())
                count += 1
            while self.running and self.running[0] <= now_s:
                heapq.heappop(self.running)
            while self.starting and self.starting[0] <= now_s:
                heapq.heappop(self.starting)
                self.ready += 1
            if self.parked and not self.desired:
                is_awake = True
                self.memory = woken(self.memory, now_s)
                self.order(max(1, scale.activation_scale), now_s)
                surges = [now_s + it for it in SURGE_S]
            if surges and surges[0] <= now_s:
                surges.pop(0)
                need = math.ceil(len(self.running + list(self.parked)) / target_of(scale, each))
                need = min(need, scale.max_scale or need)
                if need > self.desired:
                    self.order(need, now_s)
            while self.parked and self.room() > 0:
                self.waits.append(now_s - self.parked.popleft())
                heapq.heappush(self.running, now_s + self.settings.service_s)
                begun += 1
            area += (len(self.running) + len(self.parked)) * STEP_S
            if now_s >= next_sample_s:
                if is_awake:
                    self.samples.append(begun if scale.metric == "rps" else area)
                area, begun, next_sample_s = 0.0, 0, next_sample_s + SAMPLE_S
            if now_s >= next_tick_s:
                next_tick_s += TICK_S
                self.tick(now_s)
                if not self.desired:
                    is_awake = False
                    self.samples.clear()
                    self.memory = Memory(is_reached=True)
            if now_s >= next_drawn_s:
                load = len(self.running) + len(self.parked)
                self.moments.append(
                    Moment(now_s, count / DRAWN_S, load, len(self.parked), self.ready,
                           self.desired, self.is_panic, max(self.waits[-1:], default=0))
                )  # fmt: skip
                count, next_drawn_s = 0, next_drawn_s + DRAWN_S

    def tick(self, now_s: float) -> None:
        settings = self.settings
        decision, self.memory = decide(
            list(self.samples), settings.scale, settings.concurrency, self.ready, self.memory, now_s
        )
        if decision is not None:
            self.is_panic = decision.is_panic
            if decision.desired != self.desired:
                self.order(decision.desired, now_s)


def draw(name: str, run: Run) -> Path:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    at = [it.at_s for it in run.moments]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(10, 6), sharex=True)
    above.plot(at, [it.load for it in run.moments], color="tab:gray", lw=1, label="load")
    above.fill_between(
        at, [it.parked for it in run.moments], color="tab:red", alpha=0.5, label="parked"
    )
    above.set_ylabel("requests at once")
    above.legend(loc="upper right")
    target = target_of(run.settings.scale, run.settings.concurrency)
    needed = [it.load / target for it in run.moments]
    below.plot(at, needed, color="tab:gray", lw=1, label=f"load / target ({target:g})")
    below.step(at, [it.ready for it in run.moments], where="post", label="ready replicas")
    is_panic = [it.is_panic for it in run.moments]
    top = max(max(needed, default=1), *(it.ready for it in run.moments)) * 1.05
    below.fill_between(at, 0, top, where=is_panic, color="tab:orange", alpha=0.15, label="panic")
    below.set_ylabel("replicas")
    below.set_xlabel("seconds")
    below.legend(loc="upper right")
    said = {it.name: getattr(run.settings.scale, it.name) for it in fields(Scale)}
    changed = [f"{key}={value}" for key, value in said.items() if value != getattr(Scale(), key)]
    if run.settings.concurrency:
        changed.append(f"concurrency={run.settings.concurrency}")
    above.set_title(f"{name}: {' '.join(changed) or 'defaults'}", fontsize=10)
    figure.tight_layout()
    path = RESULTS / f"scaling-{name}.png"
    figure.savefig(path, dpi=80)
    return path


def write_table(name: str, run: Run) -> None:
    with open(RESULTS / f"scaling-{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["second", "arrivals_per_s", "load", "parked", "ready", "desired", "panic"])
        for it in run.moments[1::2]:
            writer.writerow([f"{it.at_s:.0f}", f"{it.rate:g}", it.load, it.parked, it.ready,
                             it.desired, int(it.is_panic)])  # fmt: skip


def read_words(words: list[str]) -> Settings:
    """`WORD=VALUE …` as in a function block. Raises SystemExit."""
    settings = Settings()
    kinds = {it.name: type(getattr(settings.scale, it.name)) for it in fields(Scale)}
    for word in words:
        key, _, text = word.partition("=")
        ms = read_ms(text)
        if key in ("service", "start") and ms is not None:
            setattr(settings, f"{key}_s", ms / 1000)
        elif key == "concurrency" and text.isdigit():
            settings.concurrency = int(text)
        elif key in SCALE:
            name = SCALE[key]
            value: object = text
            if name.endswith("_ms"):
                value = ms
            elif kinds[name] in (int, float) or name == "target":
                value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
                value = int(value) if kinds[name] is int and name != "target" else value
            settings.scale = replace(settings.scale, **{name: value})
        else:
            sys.exit(f"unknown word {word}")
    return settings


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    source = sys.argv[1]
    run = Run(arrivals(source), read_words(sys.argv[2:]))
    run.go()
    name = Path(source).stem
    RESULTS.mkdir(exist_ok=True)
    write_table(name, run)
    path = draw(name, run)
    waits = sorted(run.waits)
    seconds = sum(it.ready for it in run.moments) * DRAWN_S
    print(f"{len(waits)} requests, most replicas {max(it.ready for it in run.moments)}, ", end="")
    print(f"replica seconds {seconds:.0f}, ", end="")
    for share in (0.5, 0.99, 1):
        at = waits[max(math.ceil(len(waits) * share) - 1, 0)] if waits else 0
        print(f"wait p{share * 100:g} {at * 1000:.0f} ms", end=", " if share < 1 else "\n")
    print(path)


if __name__ == "__main__":
    main()

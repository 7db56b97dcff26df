"""One run, one machine: what does a request cost Headrace, and what nginx, HAProxy, Envoy?

    bench/run.py [--quick] [--only KEY,KEY] [--peers NAME,NAME] [--rounds N] [--write]

Every proxy is pinned to one core with one worker; load and upstream share another. The number is
the CPU time of the proxy's whole process tree divided by requests (meter.py). Rounds are
interleaved – each proxy in turn, then all again – and the median of the rounds counts.
A whole run writes bench/results/.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import load
import report
import standing
from meter import cpu_ns, machine
from peers import PEERS, SIZES, Process, StartError, Upstream, make_certificate
from questions import ALL, LOADED, ROUTED, STANDING, Question

RESULTS = Path(__file__).parent / "results"
Samples = dict[str, dict[str, list[float]]]


def cost(peer: Process, question: Question, seconds: float) -> float:
    """One loaded round of one proxy, in the unit of the question."""
    url = peer.url(question.server, question.path)
    before = cpu_ns(peer.pid)
    if question.server == "h2":
        sums = load.h2load(url, question.connections, seconds)
    else:
        sums = load.wrk(url, question.connections, seconds, question.routes)
    spent_ns = cpu_ns(peer.pid) - before
    size = SIZES.get(question.path[1:], 0)
    if sums["bytes"] < sums["requests"] * size:
        raise load.LoadError(f"{url}: answers are shorter than {size} bytes: {sums}")
    if question.unit == "s/GB":
        return spent_ns / max(1, sums["bytes"])  # ns per byte is s per GB
    return spent_ns / 1000 / max(1, sums["requests"])


class Run:
    """One whole run: who is measured, what, and what came of it."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.seconds = 1 if arguments.quick else arguments.seconds
        self.rounds = 1 if arguments.quick else arguments.rounds
        self.idle = 1000 if arguments.quick else 4000
        only = set(arguments.only.split(",")) if arguments.only else {q.key for q in ALL}
        self.asked = [question for question in ALL if question.key in only]
        wanted = arguments.peers.split(",") if arguments.peers else [c.name for c in PEERS]
        self.peers: list[Process] = []
        for kind in PEERS:
            if kind.name in wanted:
                peer = kind(folder / kind.name)
                make_certificate(peer.folder)
                self.peers.append(peer)
        self.samples: Samples = {}
        self.absent: dict[str, str] = {}

    def note(self, question: Question, peer: Process, value: float) -> None:
        """Keep a sample."""
        self.samples.setdefault(question.key, {}).setdefault(peer.name, []).append(value)
        print(f"  {question.key:8} {peer.name:9} {report.shown(value)} {question.unit}", flush=True)

    def drop(self, peer: Process, why: object) -> None:
        """A proxy that cannot be measured is named, and the rest go on."""
        print(f"  without {peer.name}: {why}", flush=True)
        self.absent.setdefault(peer.name, str(why)[:300])

    def loaded(self, kind: str, questions: tuple[Question, ...], upstream: int) -> None:
        """All questions that one conf answers, rounds interleaved."""
        asked = [question for question in questions if question in self.asked]
        if not asked:
            return
        running = []
        try:
            for peer in self.peers:
                try:
                    peer.start(kind, upstream)
                    running.append(peer)
                except StartError as error:
                    self.drop(peer, error)
            for question in asked:
                failed: set[str] = set()
                for number in range(self.rounds + 1):
                    for peer in running:
                        if peer.name in failed:
                            continue
                        try:
                            # the first round warms caches and connection pools, and is not kept
                            value = cost(peer, question, self.seconds if number else 1)
                            if number:
                                self.note(question, peer, value)
                        except load.LoadError as error:
                            failed.add(peer.name)
                            self.drop(peer, peer.death() or error)
        finally:
            for peer in running:
                peer.stop()

    def standing(self, upstream: int) -> None:
        """Memory and start time."""
        keys = {question.key: question for question in STANDING if question in self.asked}
        for peer in self.peers:
            try:
                if "rss" in keys or "start" in keys:
                    for _ in range(1 if self.rounds == 1 else 5):
                        took_ms, mib = standing.start_ms(peer, upstream)
                        for key, value in (("start", took_ms), ("rss", mib)):
                            if key in keys:
                                self.note(keys[key], peer, value)
                if "idle" in keys:
                    value = standing.idle_kib(peer, upstream, self.idle)
                    self.note(keys["idle"], peer, value)
            except (StartError, OSError) as error:
                self.drop(peer, error)

    def result(self) -> dict[str, object]:
        """Everything for the JSON."""
        medians = {
            key: {name: round(statistics.median(values), 4) for name, values in by.items()}
            for key, by in self.samples.items()
        }
        return {
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": machine(),
            "versions": {p.name: p.version() for p in self.peers if p.name not in self.absent},
            "absent": self.absent,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "units": {question.key: question.unit for question in self.asked},
            "medians": medians,
            "samples": self.samples,
        }


def main() -> None:
    """Parse arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", default="", help=f"of {','.join(q.key for q in ALL)}")
    parser.add_argument("--peers", default="", help=f"of {','.join(c.name for c in PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--write", action="store_true", help="write even what is not whole")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        run = Run(Path(name), arguments)
        upstream = Upstream(Path(name) / "upstream")
        upstream.start()
        try:
            port = upstream.ports["plain"]
            run.loaded("main", LOADED, port)
            run.loaded("routes", ROUTED, port)
            run.standing(port)
        finally:
            upstream.stop()
        result = run.result()
    print()
    print(report.text(result["medians"]))  # type: ignore[arg-type]
    print(f"\n{result['machine']}\n{result['versions']}")
    for missing, why in run.absent.items():
        print(f"not complete: {missing}: {why}")
    is_whole = not (arguments.quick or arguments.only or arguments.peers)
    if is_whole or arguments.write:
        for path in report.write(RESULTS, result):
            print(f"wrote {path.relative_to(RESULTS.parent.parent)}")
        report.into_readme(RESULTS.parent.parent / "README.md", result)


if __name__ == "__main__":
    main()

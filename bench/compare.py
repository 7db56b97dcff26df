"""Does this tree cost more per request than another commit? Both are built and run interleaved.

    bench/compare.py REV [--rounds N] [--seconds S] [--only KEY,…] [--tree DIR] [--at-most PERCENT]

REV is checked out into a worktree and built there: a temporary one, or DIR, which stays and is
taken as it is when it stands; the working tree is measured as it is built now. Prints each round,
both medians, and the loss (or gain) in percent. Exit status 1 when a loss is more than --at-most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import ROOT, Headrace, Upstream, make_certificate
from questions import LOADED, Question
from run import cost


def build(revision: str, tree: Path) -> None:
    """Check out a revision into `tree` and compile it there."""
    git = ["git", "-C", str(ROOT), "worktree", "add", "--detach", "--quiet", str(tree), revision]
    subprocess.run(git, check=True)
    environment = {key: value for key, value in os.environ.items() if key != "HEADRACE_ONLY"}
    jobs = str(os.cpu_count() or 1)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", jobs],
        cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> int:
    """Build, measure, print; 1 when the loss is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", default="tiny", help="the questions to ask, with commas")
    parser.add_argument("--tree", type=Path, help="a folder to build in that stays")
    parser.add_argument("--at-most", type=float, default=100.0, help="per cent of loss allowed")
    arguments = parser.parse_args()
    questions = [q for q in LOADED if q.key in arguments.only.split(",")]

    with tempfile.TemporaryDirectory(prefix="headrace-compare-") as name:
        folder = Path(name)
        tree = arguments.tree.absolute() if arguments.tree else folder / "tree"
        upstream = Upstream(folder / "upstream")
        here = Headrace(folder / "here", ROOT, "here")
        there = Headrace(folder / "there", tree, "there")
        worst = 0.0
        try:
            if not tree.exists():
                build(arguments.revision, tree)
            upstream.start()
            for peer in (here, there):
                make_certificate(peer.folder)
                peer.start("main", upstream.ports["plain"])
            for question in questions:
                worst = max(worst, compare(question, here, there, arguments))
        finally:
            for peer in (here, there, upstream):
                peer.stop()
            if not arguments.tree:
                remove = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)]
                subprocess.run(remove, check=False, stderr=subprocess.DEVNULL)
    return 1 if worst > arguments.at_most else 0


def compare(
    question: Question, here: Headrace, there: Headrace, arguments: argparse.Namespace
) -> float:
    """Measure both in turns; the loss of `here` in percent."""
    samples: dict[str, list[float]] = {"here": [], "there": []}
    for number in range(arguments.rounds + 1):
        # each goes first in every other round; round 0 only warms up
        for peer in (here, there) if number % 2 else (there, here):
            value = cost(peer, question, arguments.seconds if number else 1)
            if number:
                samples[peer.name].append(value)
        if number:
            print(f"  {number}: here {samples['here'][-1]:.2f}, "
                  f"{arguments.revision} {samples['there'][-1]:.2f} {question.unit}",
                  flush=True)  # fmt: skip
    ours, theirs = statistics.median(samples["here"]), statistics.median(samples["there"])
    loss = (ours / theirs - 1) * 100
    print(f"{question.title}: here {ours:.2f}, {arguments.revision} {theirs:.2f} "
          f"{question.unit}: {loss:+.1f} %")  # fmt: skip
    return loss


if __name__ == "__main__":
    sys.exit(main())

"""Reads what processes cost: CPU time and memory of a whole process tree, from /proc."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += map(int, children.split())
    return found


def cpu_ns(pid: int) -> int:
    """CPU time so far of a tree, ns: all threads of all its processes, kernel time included.

    The first field of schedstat is time on a core, to the nanosecond; it holds still on a noisy
    machine, where requests per second do not. A thread that ended takes its time along: peers are
    started with threads and processes that stay.
    """
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{process}/task"):
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{process}/task/{task}/schedstat").read_text()
                    total += int(text.split()[0])
    return total


def rss_bytes(pid: int) -> int:
    """Resident memory of a tree, bytes; a page that two share counts twice, as in `ps`."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
    return total


def machine() -> dict[str, object]:
    """What the numbers were measured on; no name of the machine or its user."""
    model = "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def revision(root: Path) -> str:
    """The commit of a tree, with a + when its files differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    dirty = "+" if git("status", "--porcelain", "--", "proxy", "setup.py") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + dirty

"""Runs the linters as tests, and looks at the shape of each source file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# "near" 400 and 800 lines (Python, compiled); past that, a room wants to be born
PYTHON_LINES = 440
COMPILED_LINES = 880
CHECKS = {
    "ruff": ["-m", "ruff", "check", "proxy", "tests", "bench", "conf", "setup.py"],
    "mypy": ["-m", "mypy"],
    "cython-lint": ["-m", "cython_lint.cython_lint", "proxy"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_linter_is_content(name: str) -> None:
    # cython-lint starts pycodestyle by its bare name
    beside = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, *CHECKS[name]],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{beside}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def sources(folder: str, *endings: str) -> list[Path]:
    """Files below a folder with these endings."""
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in endings)


def test_each_file_begins_with_its_sign() -> None:
    unsigned = []
    for folder in ("proxy", "bench", "tests"):
        for path in sources(folder, ".py", ".pyx", ".pxd", ".pxi"):
            lines = path.read_text().lstrip().splitlines()
            if path.name.startswith("__init__") and not lines:
                continue
            is_signed = lines and lines[0].startswith(('"""', 'r"""', "# "))
            if not is_signed or len(lines[0]) < 12:
                unsigned.append(str(path.relative_to(ROOT)))
    assert not unsigned, "\n".join(unsigned)


def test_no_file_is_over_its_length() -> None:
    long = []
    for path in sources("proxy", ".py", ".pyx", ".pxd", ".pxi"):
        limit = PYTHON_LINES if path.suffix == ".py" else COMPILED_LINES
        if path.name == "runtime.py":  # must be one file: it runs alone in a function's Python
            limit = 850
        count = len(path.read_text().splitlines())
        if count > limit:
            long.append(f"{path.relative_to(ROOT)}: {count} lines, at most {limit}")
    assert not long, "\n".join(long)


def test_nothing_names_this_machine() -> None:
    """No path of a home or a workplace in what is handed out."""
    marks = ("/home/", "/root/", "/" + "work" + "/")
    found = []
    for folder in ("proxy", "bench", "conf", "tests"):
        for path in sources(folder, ".py", ".pyx", ".pxd", ".pxi", ".conf", ".md", ".json"):
            if path == Path(__file__):
                continue
            lines = enumerate(path.read_text(errors="replace").splitlines(), 1)
            found += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
                for number, line in lines
                if any(mark in line for mark in marks)
            ]
    assert not found, "\n".join(found)

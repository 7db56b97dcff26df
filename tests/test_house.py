"""Holds the house together: who may import whom, what stands at the top, what is not a name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROXY = ROOT / "proxy"

EVERYTHING = "everything"
ROOM = frozenset({"base", "wire", "variables", "conf", "faults"})
# What a room may import besides itself. A new room needs a new row here.
MAY_IMPORT: dict[str, frozenset[str] | str] = {
    "base": frozenset(),
    "wire": frozenset({"base"}),
    "conf": frozenset({"base", "faults", "order"}),
    "faults": frozenset({"base"}),
    "variables": ROOM,
    "routing": ROOM,
    "limits": ROOM,
    "filters": ROOM,
    "content": ROOM,
    "bodies": ROOM,
    "upstream": ROOM,
    # a ready replica is an upstream peer; messages are read and told as their room has it
    "functions": ROOM | {"upstream", "mqtt"},
    "stream": ROOM | {"upstream"},  # where a session goes
    "mqtt": ROOM | {"upstream"},  # which broker
    "observe": ROOM,
    "engine": ROOM - {"wire"},  # nobody here speaks HTTP
    "quic": ROOM - {"wire"},  # the fast path hands heads to the codecs
    # these see all rooms
    "process": EVERYTHING,
    "order": EVERYTHING,
    "plan": EVERYTHING,
    "guests": EVERYTHING,
    "serve": EVERYTHING,
    "_fastpath": EVERYTHING,
    "_session": EVERYTHING,
    "_mqtt": EVERYTHING,
    "__main__": EVERYTHING,
    "__init__": frozenset(),
}
TOP = {
    "pyproject.toml", "setup.py", "proxy", "conf", "bench", "tests", ".ci", ".gitignore",
    "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile",
}  # fmt: skip
NOT_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
LINE = re.compile(
    r"^\s*(?:from\s+(?P<origin>proxy[\w.]*|\.+[\w.]*)\s+c?import\s+(?P<names>\([^)]*\)|[^#\n]*)"
    r"|c?import\s+(?P<plain>proxy[\w.]*))",
    re.MULTILINE,
)


def room_of(path: Path) -> str:
    """The first name below proxy/: a folder, or a module without its ending."""
    first = path.relative_to(PROXY).parts[0]
    return first.partition(".")[0]


def rooms_named(origin: str, names: list[str], path: Path) -> set[str]:
    """The rooms that one import statement reaches; `from proxy import a, b` reaches a and b."""
    if origin.startswith("."):
        level = len(origin) - len(origin.lstrip("."))
        package = ["proxy", *path.relative_to(PROXY).parts[:-1]]
        kept = package[: len(package) - level + 1]
        origin = ".".join([*kept, *filter(None, [origin.lstrip(".")])])
    parts = origin.split(".")
    if parts[0] != "proxy":
        return set()
    return {parts[1]} if len(parts) > 1 else {name for name in names if name.islower()}


def python_imports(path: Path) -> set[str]:
    """What a Python file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= rooms_named(alias.name, [], path)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            found |= rooms_named(origin, [alias.name for alias in node.names], path)
    return found


def compiled_imports(path: Path) -> set[str]:
    """What a Cython file imports and cimports."""
    found: set[str] = set()
    for match in LINE.finditer(path.read_text()):
        names = re.findall(r"(\w+)(?:\s+as\s+\w+)?", match["names"] or "")
        found |= rooms_named(match["origin"] or match["plain"], names, path)
    return found


def sources(*endings: str) -> list[Path]:
    """Files of proxy/ with these endings."""
    return sorted(path for path in PROXY.rglob("*") if path.suffix in endings)


def test_rooms_import_only_what_their_row_allows() -> None:
    wrong = []
    for path in sources(".py", ".pyx", ".pxd", ".pxi"):
        room = room_of(path)
        allowed = MAY_IMPORT.get(room)
        assert allowed is not None, f"{room}: a new room needs a row in MAY_IMPORT"
        if isinstance(allowed, str):
            continue
        read = python_imports if path.suffix == ".py" else compiled_imports
        others = sorted(read(path) - allowed - {room})
        wrong += [f"{path.relative_to(ROOT)} imports {other}" for other in others]
    assert not wrong, "\n".join(wrong)


def test_the_import_readers_see_what_is_there(tmp_path: Path) -> None:
    here = PROXY / "limits" / "_x.pyx"
    assert rooms_named("..wire._h1", ["a"], here) == {"wire"}
    assert rooms_named(".._fastpath", ["a"], here) == {"_fastpath"}
    assert rooms_named("proxy", ["faults", "conf"], here) == {"faults", "conf"}
    assert rooms_named(".", ["directives"], here) == {"limits"}
    text = "from proxy.base.span cimport Str\n    cimport proxy.engine._link as x\nimport os\n"
    found = {m["origin"] or m["plain"] for m in LINE.finditer(text)}
    assert found == {"proxy.base.span", "proxy.engine._link"}


def tracked() -> list[str]:
    """The files that belong to the project, by git; skips outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_top_level_is_closed() -> None:
    assert {name.split("/")[0] for name in tracked()} <= TOP


def test_nothing_is_called_utils() -> None:
    assert not [name for name in tracked() if NOT_NAMES & set(re.split(r"[/._]", name))]


def test_no_two_test_files_share_a_name() -> None:
    # pytest imports them by base name: two alike and one is not run
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_the_master_starts_without_a_loop() -> None:
    """What the command imports before it forks: no asyncio, no uvloop, no ssl."""
    code = (
        "import sys, proxy.__main__\n"
        "print(*sorted({'asyncio', 'uvloop', 'ssl', 'h2', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []

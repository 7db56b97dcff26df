"""A directive that is accepted is read by somebody, and what a plan keeps of it is used.

Held against the sources: a conf that says something and is not obeyed looks like one that is.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from proxy import order
from proxy.conf.directive import DIRECTIVES

PROXY = Path(order.__file__).parent
# Where a name stands and nothing is done with it.
ONLY_NAMED = {PROXY / "conf" / "known.py", PROXY / "conf" / "reference.py"}
# Read under a name that is put together: the directive, and the text that it is made by.
COMPOSED = {
    "add_header_inherit": 'f"{name}_inherit"',
    "add_trailer_inherit": 'f"{name}_inherit"',
}
# Declared or kept before their reader is there; whoever brings it takes the name out.
COMING = {
    "openfaas_api", "openfaas_auth", "secrets_path", "store", "zone_size",
}  # fmt: skip
FIELDS_COMING = {"is_gone", "queue_ms"}
# Read by the conf itself while it is parsed.
BY_PARSER = {"include"}

WORD = re.compile(r"""(?<![\w$])b?(["'])([a-z_0-9]+)\1""")
DECLARED = re.compile(r"""\b(?:directive|ignored|refuse)\(\s*$""")
FIELD = re.compile(r"^ +cdef (?:public|readonly) [\w ]*?(\w+) *(?:#.*)?$", re.MULTILINE)


def sources(*endings: str) -> dict[Path, str]:
    return {path: path.read_text() for path in PROXY.rglob("*") if path.suffix in endings}


def words_used(path: Path, text: str) -> set[str]:
    """The string constants of a file, but for the names that it declares."""
    if path.suffix == ".py":
        tree = ast.parse(text)
        declared = {
            id(call.args[0])
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and call.args
            and isinstance(call.func, ast.Name)
            and call.func.id in ("directive", "ignored", "refuse")
        }  # fmt: skip
        return {
            str(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and id(node) not in declared
        }
    return {found[2] for found in WORD.finditer(text) if not DECLARED.search(text[: found.start()])}


def test_every_directive_has_a_reader() -> None:
    order.declare_all()
    used: set[str] = set()
    everything = ""
    for path, text in sources(".py", ".pyx", ".pxi").items():
        if path not in ONLY_NAMED:
            used |= words_used(path, text)
            everything += text
    unread = []
    for name, declared in DIRECTIVES.items():
        if name in BY_PARSER or all(
            it.ignored or it.doc == "Not supported yet." for it in declared
        ):
            continue
        if name in COMPOSED:
            assert COMPOSED[name] in everything
        elif name not in used:
            unread.append(name)
    assert set(unread) <= COMING, f"declared, and read by nobody: {set(unread) - COMING}"


def test_what_is_frozen_is_used() -> None:
    """A field that a plan sets for the fast path is read by it."""
    compiled = "".join(sources(".pyx", ".pxi").values())
    python = "".join(sources(".py").values())
    unread = []
    for path, text in sources(".pxd").items():
        for name in FIELD.findall(text):
            is_read = re.compile(rf"\.{name}\b(?! *=[^=])")
            if name not in FIELDS_COMING and not is_read.search(compiled + python):
                unread.append(f"{path.relative_to(PROXY)}: {name}")
    assert not unread, f"kept, and read by nobody: {unread}"


def test_the_tests_above_see_what_they_look_for() -> None:
    text = 'directive("a_b", HTTP, doc="c")\nx = get("d_e")\n'
    assert words_used(Path("x.py"), text) == {"c", "d_e"}
    assert words_used(Path("x.pyx"), text) == {"c", "d_e"}
    assert FIELD.findall("    cdef public bint a  # b\n    cdef readonly object c\n") == ["a", "c"]

"""A gateway that gives up root: its controller and its files belong to the user it becomes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, controllers, wait_for

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_CHILDREN = ("master", "generation", "options", "upgrade", "alone", "__main__", "command")


@pytest.fixture
def given_up(upstream) -> Iterator[Gateway]:
    http = (f"function f {{ static {upstream.address}; }}"
            "functions { store var/functions.db; }"
            "server { listen 127.0.0.1:%%PORT%%; openfaas_api on;"
            "  location / { function_pass f; } }")  # fmt: skip
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # pytest's own folders are closed to others
        gateway = Gateway(Path(folder), http, "user nobody nogroup;")
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.stop()
        assert not [it for it in os.listdir(gateway.prefix / "logs") if "controller" in it]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_gateway_that_gave_up_root_acts(given_up) -> None:
    """Folders of the conf are root's, and the interpreter may lie where the user cannot read."""
    gateway = given_up
    for _ in range(2):
        wait_for(lambda: gateway.get("/").text == "ok", 10)
        wait_for(lambda: gateway.ask("POST", "/async-function/f").status == 202, 10)
        (pid,) = controllers(gateway.process.pid)
        assert os.stat(f"/proc/{pid}").st_uid != 0
        gateway.reload()
    var = gateway.prefix / "var"
    for name in ("functions.db", "queue.db", "openfaas-auth"):
        assert (var / name).stat().st_uid == os.stat(f"/proc/{pid}").st_uid, name
    assert gateway.get("/system/functions").status == 401


CHILD = """
import sys
from importlib import import_module
from proxy import order
from proxy.process import late
order.declare_all()
import_module("proxy.process.master"), import_module("proxy.serve")
import_module("proxy.functions.control")
lists = (late.PYTHON, late.OURS, late.NAMES, late.HEALTH, late.QUIC, late.MQTT, late.FUNCTIONS,
         late.CONTROLLER, late.JETSTREAM)
for names in lists:
    for name in names:
        import_module(name)
print(*sys.modules)
"""


def test_what_is_imported_late_is_listed() -> None:
    """A module that a child imports inside a function stands in process/late.py."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    missing = []
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        if path.stem in NOT_IN_CHILDREN or "runtime" in path.stem:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for it in ast.walk(function):
                names = [it.module] if isinstance(it, ast.ImportFrom) else []
                names = [a.name for a in it.names] if isinstance(it, ast.Import) else names
                missing += [f"{path.stem}: {name}" for name in names if name not in loaded]
    assert not missing

"""faas-cli, unmodified, against the gateway: the binary that FAAS_CLI names, else its requests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from apihouse import House
from gateway import wait_for
from scripted_cli import ScriptedCli

Run = Callable[..., tuple[int, str]]


class RealCli:
    """The binary, with a home of its own."""

    def __init__(self, program: str, gateway: str, home: Path) -> None:
        self.program = program
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "OPENFAAS_URL": gateway}

    def run(self, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        if words[0] == "version":
            words = (*words, "--warn-update=false")
        done = subprocess.run(
            [self.program, *words], input=stdin, env=self.env, capture_output=True, timeout=60
        )
        return done.returncode, (done.stdout + done.stderr).decode()


@pytest.fixture(params=["scripted", "faas-cli"])
def cli(request: pytest.FixtureRequest, house, tmp_path: Path) -> tuple[House, Run]:
    program = os.environ.get("FAAS_CLI", "")
    if request.param == "faas-cli" and not program:
        pytest.skip("FAAS_CLI does not name a faas-cli")
    it: House = house()
    url = f"http://127.0.0.1:{it.gateway.port}"
    if request.param == "scripted":
        return it, ScriptedCli(url).run
    return it, RealCli(program, url, tmp_path).run


def test_a_day_with_faas_cli(cli: tuple[House, Run]) -> None:
    it, run = cli

    def good(*words: str, stdin: bytes = b"") -> str:
        code, text = run(*words, stdin=stdin)
        assert code == 0, f"{words}: {text}"
        return text

    def bad(*words: str, stdin: bytes = b"") -> str:
        code, text = run(*words, stdin=stdin)
        assert code != 0, f"{words}: {text}"
        return text

    password = it.password.partition(":")[2]
    wait_for(lambda: it.ask("GET", "/system/info").status == 200, 10)
    bad("login", "--password-stdin", stdin=b"wrong")
    assert "credentials saved" in good("login", "--password-stdin", stdin=password.encode())
    assert "202" in good("deploy", "--image", "one.py", "--name", "f")
    assert "ready" in good("ready", "f")
    assert good("invoke", "f", stdin=b"hi").strip() == "one hi"
    assert "202" in good("deploy", "--image", "two.py", "--name", "f")
    wait_for(lambda: run("invoke", "f", stdin=b"hi")[1].strip() == "two hi", 20)
    assert "f" in good("list")
    assert "Ready" in (text := good("describe", "f"))
    assert "two.py" in text
    assert "cannot be run" in bad("deploy", "--image", "ghcr.io/a/b:c", "--name", "bad")
    assert "202" in good("deploy", "--image", "x", "--name", "up", "--fprocess", "tr a-z A-Z")
    good("ready", "up")
    assert good("invoke", "up", stdin=b"hi").strip() == "HI"
    assert "submitted asynchronously" in good("invoke", "up", "--async", stdin=b"hi")
    it.call("f", "/print?what=this")
    wait_for(lambda: "printed this" in run("logs", "f", "--tail=false")[1])
    good("namespace", "create", "shop")
    assert "shop" in good("namespaces")
    assert "shop" in good("namespace", "get", "shop")
    assert "202" in good("deploy", "--image", "one.py", "--name", "f", "--namespace", "shop")
    good("ready", "f", "--namespace", "shop")
    assert good("invoke", "f", "--namespace", "shop", stdin=b"hi").strip() == "one hi"
    good("secret", "create", "key", "--from-literal", "value")
    assert "exists" in run("secret", "create", "key", "--from-literal", "value")[1]
    assert "key" in good("secret", "list")
    good("secret", "update", "key", "--from-literal", "other")
    good("secret", "remove", "key")
    assert "headrace" in good("version")
    good("ready")
    good("remove", "f")
    bad("remove", "none")
    assert run("invoke", "f")[0] != 0

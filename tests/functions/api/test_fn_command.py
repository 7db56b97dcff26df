"""`headrace fn …` against a running gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from apihouse import House
from gateway import ROOT, wait_for

from proxy.functions.columns import fit, print_table

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fn(house) -> tuple[House, Run]:
    it: House = house()
    assert it.password

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "proxy", "fn", *words],
            cwd=it.gateway.prefix,
            env={
                "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
                "OPENFAAS_URL": f"http://127.0.0.1:{it.gateway.port}",
            },
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    wait_for(lambda: run("list").returncode == 0, 20)
    return it, run


def test_a_function_from_its_first_to_its_last_day(fn) -> None:
    it, run = fn

    def good(*words: str, stdin: str = "") -> str:
        done = run(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        is_table = "--json" not in words  # JSON says whole what a table cuts
        assert not is_table or all(len(it) <= 80 for it in done.stdout.splitlines()), done.stdout
        return done.stdout

    said = good("deploy", "f", "--image", "one.py", "--env", "A=1", "--set", "concurrency=3")
    assert "f.openfaas-fn/v1 is ready" in said
    assert good("invoke", "f", "-d", "x") == "one x"
    assert good("invoke", "f", stdin="piped") == "one piped"
    assert good("invoke", "f", "--path", "/env?name=A").strip() == "1"
    assert "200 OK" in good("invoke", "f", "-i", "-d", "x")
    assert good("list").splitlines()[0].split() == ["NAME", "NAMESPACE", "READY", "CALLS", "IMAGE"]
    (row,) = [row for row in json.loads(good("list", "--json")) if row["name"] == "f"]
    assert row["availableReplicas"] == 1
    good("deploy", "f", "--version", "v2", "--image", "two.py", "--weight", "10", "--tag", "next")
    text = good("describe", "f")
    assert "headrace.io/concurrency: 3" in text
    assert "next" in text
    assert "forked from" in text
    rows = json.loads(good("describe", "f", "--json"))["versions"]
    assert [(it["name"], it["weight"], it["concurrency"]) for it in rows] == [
        ("v1", 90, 3), ("v2", 10, 3)
    ]  # fmt: skip
    assert "10%" in good("split", "f")
    good("split", "f", "v1=0", "v2=1")
    wait_for(lambda: good("invoke", "f", "-d", "x") == "two x")
    assert "90%" in good("split", "f", "--rollback")
    good("scale", "f", "2", "--version", "v1")
    it.wait_ready("f", 3)
    it.call("f", "/print?what=this", b"")
    wait_for(lambda: "printed this" in good("logs", "f"))
    good("remove", "f", "--version", "v2")
    good("remove", "f")
    assert "f " not in good("list")


def test_what_is_wrong_is_said_in_a_sentence(fn) -> None:
    _, run = fn
    wrong = [
        (("describe", "none"), "there is no function none.openfaas-fn"),
        (("deploy", "f", "--image", "../outside.py"), "lies outside the folder"),
        (("deploy", "a/b", "--image", "one.py"), "invalid function name"),
        (("deploy", "f", "--image", "one.py", "--env", "x"), "is not KEY=VALUE"),
        (("deploy", "f", "--image", "one.py", "--set", "nonsense=1"), "unknown setting"),
        (("split", "declared", "v1=x"), '"x" is no weight'),
        (("scale", "declared", "5000"), "between 0 and 1000"),
        (("remove", "declared"), "stands in the conf"),
        (("list", "--auth", "none"), "cannot be read"),
        (("list", "--gateway", "127.0.0.1:1"), "does not answer"),
        (("list", "--gateway", "ftp://x"), "is no address of a gateway"),
        (("invoke", "none", "-d", "x"), "answered 404"),
        (("logs", "none"), "there is no function"),
    ]
    for words, text in wrong:
        done = run(*words)
        assert done.returncode == 1, (words, done)
        assert text in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_deployment_that_does_not_start_says_so(fn) -> None:
    it, run = fn
    done = run("deploy", "bad", "--image", "broken.py")
    assert done.returncode == 1
    assert "nothing_there" in done.stderr
    it.gateway.stop()
    log = it.gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("Traceback", "its trace"))


def test_tables_fit(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHAT"), [("a" * 70, "b" * 70), ("c", "d")])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].count("…") >= 1
    assert fit("abc", 3) == "abc"
    assert fit("abcd", 3) == "ab…"


@pytest.mark.parametrize("words", [["list"], ["describe", "f"], ["deploy", "f", "--image", "a.py"]])
def test_a_server_without_the_api_is_told_apart(upstream, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "fn", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
             "OPENFAAS_URL": f"http://127.0.0.1:{upstream.port}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "answers no JSON: has it a server with openfaas_api on?" in done.stderr
    assert "Traceback" not in done.stderr

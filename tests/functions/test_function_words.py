"""The words of functions: what is refused, and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy import order
from proxy.conf import load
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.functions.model import read_functions

order.declare_all()


def read(folder: Path, inside: str) -> Block:
    if not (folder / "app.py").exists():
        (folder / "app.py").touch()
    conf = folder / "headrace.conf"
    conf.write_text(f"events {{ }}\nhttp {{\n{inside}\n}}\n")
    return load(str(conf), f"{folder}/", "")


REFUSED = [
    ("function a/b { command true; }", 'invalid function name "a/b"'),
    ("function a { }", 'function "a" has no "command" and no "python"'),
    ("function a { command x; python app.py:f; }", 'both "command" and "python"'),
    ("function a { command x; }\nfunction a { command y; }", 'duplicate function "a"'),
    ("function a { python app.py; }", "invalid handler"),
    ("function a { python app.py:f-g; }", "invalid handler"),
    ("function a { python none.py:f; }", "failed (2: No such file or directory)"),
    ("function a { command x; interpreter python3; }", '"interpreter" is for "python" only'),
    ("function a { command x; env A=B 1; }", "invalid name of an environment variable"),
    ("function a { command x; env PORT 1; }", '"PORT" is set by Headrace'),
    ("function a { command x; ready here; }", 'invalid path "here"'),
    ("function a { command x; ready / soon=1s; }", 'invalid parameter "soon=1s"'),
    ("function a { command x; min_scale 0; }", "value must be between 1 and 1000"),
    ("function a { command x; max_scale 3; }", '"max_scale" is not supported yet'),
    ("function a { command x; queue size=1; }", '"queue" is not supported yet'),
    ("function a { command x; version v2 { command y; } }", '"version" is not supported yet'),
    ("functions { root x; }", '"functions" is not supported yet'),
    ("function a { command x; max_scal 3; }", 'unknown directive "max_scal"'),
    ("server { location / { function_pass $x; } }", "not supported yet"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text for text, _ in REFUSED])
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "headrace.conf:" in str(caught.value)


def test_a_function_nobody_declared_is_refused(tmp_path: Path) -> None:
    from proxy import plan

    model = read(tmp_path, "server { location / { function_pass none; } }")
    with pytest.raises(ConfError, match='function "none" is not declared'):
        plan.check(model)


def test_values(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        "function a { command ./serve --at $PORT/${SOCKET}/$PORTS; env A 1; env B 'x y';"
        "ready /up interval=5ms timeout=2s; min_scale 3; drain_timeout 5s; }"
        "function b { python app.py:App.run; interpreter py/bin/python; working_directory sub; }",
    )
    found = read_functions(model)
    assert list(found) == ["a", "b"]
    a, b = found["a"], found["b"]
    assert a.ready == ("/up", 5, 2000)
    assert (a.min_scale, a.start_timeout_ms, a.drain_timeout_ms) == (3, 60_000, 5000)
    order = a.order(77, "/s")
    assert order["argv"] == [f"{tmp_path}/./serve", "--at", "77//s/$PORTS"]
    assert {"A": "1", "B": "x y", "PORT": "77", "SOCKET": "/s"}.items() <= order["env"].items()
    assert b.argv[0] == f"{tmp_path}/py/bin/python"
    assert b.argv[-2:] == (f"{tmp_path}/app.py", "App.run")
    assert b.cwd == f"{tmp_path}/sub"


def test_a_replica_gets_nothing_of_the_gateways_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    function = read_functions(read(tmp_path, "function a { command x; }"))["a"]
    assert "secret" not in repr(function.order(1, "/s"))


def test_what_makes_it_another_function(tmp_path: Path) -> None:
    def stamp(inside: str) -> str:
        text = f"function a {{ python app.py:f; {inside} }}"
        return read_functions(read(tmp_path, text))["a"].fingerprint

    first = stamp("")
    for inside in ("env A 1;", "ready /;", "interpreter x;", "working_directory sub;"):
        assert stamp(inside) != first, inside
    for inside in ("min_scale 7;", "drain_timeout 1s;", "start_timeout 1s;"):
        assert stamp(inside) == first, inside
    os.utime(tmp_path / "app.py", ns=(1, 1))
    assert stamp("") != first

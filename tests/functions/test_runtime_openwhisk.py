"""`openwhisk`: actions in Python and executables, as web actions and by their own contract."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import RUNTIME, Running

ACTION = """
import os, time

def main(params):
    if "sleep" in params:
        time.sleep(float(params["sleep"]))
    if "fail" in params:
        raise ValueError("on purpose")
    if "result" in params:
        return params["result"]
    return {"params": params, "id": bool(os.environ["__OW_ACTIVATION_ID"])}
"""
LOOP = """#!%s
import json, os, sys
out = os.fdopen(3, "w")
for line in sys.stdin:
    asked = json.loads(line)
    print("a line of the log")
    if asked["value"].get("garbage"):
        out.write("garbage\\n")
    elif asked["value"].get("leave"):
        sys.exit(3)
    else:
        out.write(json.dumps({"body": {"pid": os.getpid(), "asked": sorted(asked)}}) + "\\n")
    out.flush()
""" % sys.executable  # noqa: UP031


@pytest.fixture
def whisk(tmp_path: Path) -> Iterator:
    made: list[Running] = []

    def make(name: str = "action.py", **env: str) -> Running:
        (tmp_path / "action.py").write_text(ACTION)
        (tmp_path / "loop").write_text(LOOP)
        (tmp_path / "loop").chmod(0o755)
        made.append(Running(sys.executable, "openwhisk", str(tmp_path / name), **env))
        return made[-1]

    yield make
    for it in made:
        it.close()


def ask_json(it: Running, value: object, **fields: str) -> tuple:
    return it.ask("/a", json.dumps(value).encode(), Content_Type="application/json", **fields)


def test_parameters_of_a_web_action(whisk) -> None:
    it = whisk()
    status, fields, body = it.ask("/a%20b?x=1", json.dumps({"y": [2]}).encode(),
                                  Content_Type="application/json", X_Call_Id="77")  # fmt: skip
    found = json.loads(body)
    assert (status, fields["content-type"]) == (200, "application/json")
    assert fields["x-openwhisk-activation-id"] == "77"
    params = found["params"]
    assert found["id"]
    assert params.pop("__ow_headers")["content-type"] == "application/json"
    assert params == {"x": "1", "y": [2], "__ow_method": "post", "__ow_path": "/a b"}
    form = it.ask("/", b"a=1&b=%20", Content_Type="application/x-www-form-urlencoded")[2]
    assert json.loads(form)["params"]["b"] == " "
    text = json.loads(it.ask("/", b"text", Content_Type="text/plain")[2])["params"]
    assert text["__ow_body"] == "text"
    raw = json.loads(it.ask("/", b"\0\1", Content_Type="image/png")[2])["params"]
    assert base64.b64decode(raw["__ow_body"]) == b"\0\1"
    assert it.ask("/?__ow_path=x")[0] == 400
    assert it.ask("/", b"{", Content_Type="application/json")[0] == 400


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ({"body": "<b>"}, 200, "text/html; charset=utf-8", b"<b>"),
        ({"body": {"a": 1}, "statusCode": 201}, 201, "application/json", b'{"a": 1}'),
        ({"body": "aGk=", "headers": {"Content-Type": "image/png"}}, 200, "image/png", b"hi"),
        ({"body": "?", "headers": {"Content-Type": "image/png"}}, 400, "application/json", None),
        ({"statusCode": 204}, 204, None, b""),
        ({"headers": {"Location": "/x"}, "statusCode": 302}, 302, None, b""),
        ({"error": "no"}, 400, "application/json", b'{"error": "no"}'),
        ({"error": {"statusCode": 418, "body": "tea"}}, 418, "text/html; charset=utf-8", b"tea"),
        ([1, 2], 200, "application/json", b"[1, 2]"),
        ("text", 502, "application/json", None),
    ],
)
def test_results_of_a_web_action(whisk, result, status, kind, body) -> None:
    found, fields, answer = ask_json(whisk(), {"result": result})
    assert (found, fields.get("content-type")) == (status, kind)
    assert body is None or answer == body


def test_repeated_fields_and_an_action_that_raises(whisk) -> None:
    it = whisk()
    body = b'{"result": {"headers": {"Set-Cookie": ["a=1", "b=2"]}, "body": "x"}}'
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n"
    answer = it.raw(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
    assert b"Set-Cookie: a=1" in answer
    assert b"Set-Cookie: b=2" in answer
    status, _, body = ask_json(it, {"fail": 1})
    assert (status, json.loads(body)) == (502, {"error": "An error has occurred: on purpose"})


def test_the_contract_of_action_containers(whisk) -> None:
    it = whisk()
    assert it.ask("/init", b"{}")[0] == 403
    asked = {"value": {"result": {"a": 1}}, "deadline": str(int(time.time() * 1000) + 9000)}
    status, _, body = it.ask("/run", json.dumps(asked).encode())
    assert (status, json.loads(body)) == (200, {"a": 1})
    for wrong in (b"", b"[]", b'{"value": 1}', b'{"value": {}, "deadline": "x"}'):
        assert it.ask("/run", wrong or b"{")[0] == 400


def test_one_call_at_a_time_and_a_deadline_that_ends_the_replica(whisk) -> None:
    it = whisk(FUNCTION_TIMEOUT_MS="300")
    status, _, body = ask_json(it, {"sleep": 60})
    assert status == 504
    assert b"time limits" in body
    assert it.process.wait(10) == 1


def test_an_executable_speaks_actionloop(whisk) -> None:
    it = whisk("loop")
    first = json.loads(ask_json(it, {"a": 1})[2])
    second = json.loads(ask_json(it, {"a": 2})[2])
    assert first["pid"] == second["pid"]
    assert {"value", "activation_id", "deadline", "action_name"} <= set(first["asked"])
    status, _, body = ask_json(it, {"garbage": 1})
    assert status == 502
    assert b"did not return" in body
    with pytest.raises((ValueError, IndexError)):  # it ends with its executable: no answer
        ask_json(it, {"leave": 1})
    assert it.process.wait(10) == 1


def test_what_is_no_action(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    done = subprocess.run(
        [sys.executable, str(RUNTIME), "openwhisk", str(tmp_path / "data")],
        env={"SOCKET": str(tmp_path / "s")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is no .py file and cannot be executed" in done.stderr

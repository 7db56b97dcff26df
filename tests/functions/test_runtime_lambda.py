"""`lambda`: AWS' own client, awslambdaric, at our Runtime API."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import RUNTIME, Running

HANDLER = """
import os, time

def handler(event, context):
    body = event.get("body", "")
    if body == "sleep":
        time.sleep(60)
    if body == "fail":
        raise ValueError("on purpose")
    if body == "exit":
        os._exit(3)
    if body == "bare":
        return {"hello": event["rawPath"]}
    if body == "malformed":
        return {"statusCode": "x"}
    if body == "binary":
        return {"statusCode": 200, "isBase64Encoded": True, "body": "AAE=",
                "headers": {"Content-Type": "image/png"}}
    return {"statusCode": 201, "cookies": ["a=1", "b=2"], "headers": {"X-A": "1"}, "body": str({
        "event": event, "left": context.get_remaining_time_in_millis(),
        "name": context.function_name, "memory": context.memory_limit_in_mb,
        "id": context.aws_request_id})}
"""


@pytest.fixture
def aws(tmp_path: Path) -> Iterator:
    made: list[Running] = []

    def make(text: str = HANDLER, **env: str) -> Running:
        (tmp_path / "app.py").write_text(text)
        file = str(tmp_path / "app.py")
        env = {"FUNCTION_NAME": "f", **env}
        made.append(Running(sys.executable, "lambda", sys.executable, file, "handler", **env))
        return made[-1]

    yield make
    for it in made:
        it.close()


def test_an_event_and_its_result(aws) -> None:
    it = aws(FUNCTION_MEMORY_BYTES=str(256 << 20))
    status, fields, body = it.ask("/a%20b?x=1&x=2", b"text", Cookie="c=1; d=2", X_One="1")
    found = eval(body)
    event = found["event"]
    assert (status, fields["x-a"]) == (201, "1")
    assert (event["version"], event["rawPath"], event["rawQueryString"]) == (
        "2.0", "/a b", "x=1&x=2")  # fmt: skip
    assert (event["cookies"], event["queryStringParameters"]) == (["c=1", "d=2"], {"x": "1,2"})
    assert (event["body"], event["isBase64Encoded"]) == ("text", False)
    assert event["headers"]["x-one"] == "1"
    assert event["requestContext"]["http"]["method"] == "POST"
    assert 0 < found["left"] <= 60_000
    assert (found["name"], found["memory"]) == ("f", "256")


def test_other_results(aws) -> None:
    it = aws()
    assert it.ask("/p", b"bare")[::2] == (200, b'{"hello": "/p"}')
    status, fields, body = it.ask("/", b"binary")
    assert (status, fields["content-type"], body) == (200, "image/png", b"\0\1")
    assert it.ask("/", b"malformed")[0] == 502
    status, fields, _ = it.ask("/", b"fail")
    assert (status, fields["x-amz-function-error"]) == (502, "Unhandled")
    event = eval(it.ask("/", b"\0\1", Content_Type="image/png")[2])["event"]
    assert event["isBase64Encoded"]
    assert base64.b64decode(event["body"]) == b"\0\1"
    assert b"Set-Cookie: b=2" in it.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")


def test_a_client_that_dies_is_started_again(aws) -> None:
    it = aws(FUNCTION_TIMEOUT_MS="15000")
    assert it.ask("/", b"exit")[0] == 502
    assert it.ask("/", b"bare")[0] == 200


def test_a_handler_that_takes_too_long(aws) -> None:
    it = aws(FUNCTION_TIMEOUT_MS="3000")
    status, _, body = it.ask("/", b"sleep")
    assert (status, json.loads(body)) == (504, {"message": "Endpoint request timed out"})


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import no_such_thing")
    words = [sys.executable, str(tmp_path / "app.py"), "handler"]
    done = subprocess.run(
        [sys.executable, str(RUNTIME), "lambda", *words], env={"SOCKET": str(tmp_path / "s")},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no_such_thing" in done.stderr

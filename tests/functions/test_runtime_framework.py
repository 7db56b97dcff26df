"""Targets of Google's functions-framework: http and CloudEvents, sync and async."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import Running

TEXT = """
import flask, functions_framework
import functions_framework.aio

@functions_framework.http
def hello(request):
    body = request.get_data(as_text=True)
    return flask.jsonify(path=request.path, x=request.args.get("x"), body=body), 201

@functions_framework.cloud_event
def event(cloud_event):
    print("got", cloud_event["type"], cloud_event.data, flush=True)

@functions_framework.aio.http
async def later(request):
    return {"path": request.url.path}

def bare(request):
    return "bare " + request.method
"""


@pytest.fixture
def framework(tmp_path: Path) -> Iterator:
    made: list[Running] = []

    def make(name: str) -> Running:
        (tmp_path / "app.py").write_text(TEXT)
        made.append(Running(sys.executable, str(tmp_path / "app.py"), name))
        return made[-1]

    yield make
    for it in made:
        it.close()


def test_http(framework) -> None:
    status, fields, body = framework("hello").ask("/a?x=1", b"text", Content_Type="text/plain")
    assert (status, fields["content-type"]) == (201, "application/json")
    assert json.loads(body) == {"path": "/a", "x": "1", "body": "text"}
    assert framework("bare").ask("/", method="PUT")[2] == b"bare PUT"


def test_a_cloud_event(framework) -> None:
    event = {"Ce_Id": "1", "Ce_Source": "/s", "Ce_Type": "t", "Ce_Specversion": "1.0"}
    status, _, body = framework("event").ask("/", b'{"a": 1}', Content_Type="application/json",
                                             **event)  # fmt: skip
    assert (status, body) == (200, b"OK")


def test_async(framework) -> None:
    assert json.loads(framework("later").ask("/b")[2]) == {"path": "/b"}

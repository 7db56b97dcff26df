"""A function may be a gRPC server: it is woken by a call, and gets calls of all kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import pytest
from gateway import Gateway
from services import Calls, code_of

SERVICES = Path(__file__).with_name("services.py")
CONF = f"""
    function greeter {{
        command {sys.executable} {SERVICES} $PORT greeter;
        http_version 2; min_scale 0; initial_scale 0; timeout 20s;
    }}
    client_max_body_size 0;
    server {{ listen %%PORT%%; http2 on; location / {{ function_pass greeter; grpc_web on; }} }}
"""


@pytest.fixture
def gateway(headrace) -> Gateway:
    return headrace(CONF)


def test_a_call_wakes_it_and_all_kinds_pass(gateway: Gateway) -> None:
    with Calls(gateway.port) as calls:
        assert calls.name(b"", timeout=60, wait_for_ready=True) == b"greeter"
        assert calls.echo(b"hello", metadata=[("x-a", "b")], timeout=20) == b"hello"
        assert len(list(calls.count(b"50 1000", timeout=20))) == 50
        assert calls.sum(iter([bytes(1000)] * 50), timeout=20) == b"50 50000"
        assert list(calls.chat(iter([b"a", b"bye"]), timeout=20)) == [
            b"you said a", b"you said bye"]  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            calls.fail(b"", timeout=20)
        assert code_of(caught.value) == "FAILED_PRECONDITION"


def test_what_cannot_start_is_unavailable(headrace) -> None:
    text = CONF.replace(str(SERVICES), "/nowhere.py").replace("timeout 20s", "start_timeout 2s")
    with Calls(headrace(text).port) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.name(b"", timeout=30)
    assert code_of(caught.value) == "UNAVAILABLE"


def test_a_deadline_holds_while_it_wakes(headrace) -> None:
    text = CONF.replace(str(SERVICES), "-c").replace("$PORT", "'import time; time.sleep(60)'")
    gateway = headrace(text)
    with Calls(gateway.port) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.name(b"", timeout=1)
    assert code_of(caught.value) == "DEADLINE_EXCEEDED"

"""A function may be a gRPC server: it is woken by a call, and gets calls of all kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import pytest
from gateway import Gateway, wait_for
from h2client import H2Client
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


def test_a_stream_wakes_it_and_loses_nothing(gateway: Gateway) -> None:
    with Calls(gateway.port) as calls:
        messages = [b"%d" % n * 1000 for n in range(20)]
        found = list(calls.chat(iter([*messages, b"bye"]), timeout=60))
    assert found == [b"you said " + it for it in [*messages, b"bye"]]


def test_the_gateway_ends_a_call_whose_deadline_is_shorter_than_the_cold_start(headrace) -> None:
    """A client that does not look at its own clock is told; nobody waits for the replica."""
    text = CONF.replace(str(SERVICES), "-c").replace("$PORT", "'import time; time.sleep(60)'")
    gateway = headrace("log_format it '$status $request_time'; access_log logs/a.log it;" + text)
    with H2Client(gateway.port, timeout_s=20) as client:
        found = client.get("/test.Test/Name", method="POST", body=bytes(5), fields=[
            ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "400m"),
        ])  # fmt: skip
    assert (found.status, found.get("grpc-status")) == (200, "4")
    wait_for(lambda: gateway.log("a.log"))
    status, took_s = gateway.log("a.log")[0].split()
    assert status == "504"
    assert float(took_s) >= 0.4


# a word that is none is no deadline: it fails to start as for anybody else
@pytest.mark.parametrize(("given", "status"), [("1n", "4"), ("0m", "4"), ("1x", "14"), ("m", "14")])
def test_a_deadline_that_is_over_is_told_so(headrace, given: str, status: str) -> None:
    text = CONF.replace(str(SERVICES), "/nowhere.py").replace("timeout 20s", "start_timeout 2s")
    with H2Client(headrace(text).port, timeout_s=20) as client:
        found = client.get("/test.Test/Name", method="POST", body=bytes(5), fields=[
            ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", given),
        ])  # fmt: skip
    assert (found.status, found.get("grpc-status")) == (200, status)

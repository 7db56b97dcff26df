"""WebSockets through a whole gateway: a tunnel to a replica, counted, drained, never cut by it."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from gateway import Gateway, wait_for
from h2client import H2Client
from websocket import AcceptConnection, BytesMessage, CloseConnection, WebSocketClient
from wsproto.connection import Connection, ConnectionType

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "pid":
                await send({"type": "websocket.send", "text": str(os.getpid())})
            else:
                await send({**message, "type": "websocket.send"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
HTTP = """
    access_log off;
    function f { python app.py:app; min_scale 1; max_scale 1; %(inside)s }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        http2 on;
        location / { function_pass f; }
        location = /metrics { metrics; }
        location /proxied/ {
            proxy_pass http://127.0.0.1:%%%%PORT%%%%/;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
"""


@pytest.fixture
def gateway_of(headrace) -> Iterator:
    def make(inside: str = "") -> Gateway:
        it = headrace(HTTP % {"inside": inside}, start=False)
        (it.prefix / "app.py").write_text(APP)
        it.start()
        wait_for(lambda: it.get("/").status == 200, 20)
        return it

    yield make


def opened(gateway: Gateway, target: str = "/") -> WebSocketClient:
    client = WebSocketClient(socket.create_connection(("127.0.0.1", gateway.port)), target)
    assert isinstance(client.first, AcceptConnection)
    return client


def in_flight(gateway: Gateway) -> int:
    told = gateway.get("/metrics").text
    found = re.search(r'headrace_function_in_flight\{function="f\.[^}]*\} (\d+)', told)
    assert found
    return int(found[1])


def test_a_tunnel_carries_what_it_is_given(gateway_of) -> None:
    gateway = gateway_of("timeout 1s;")  # the total time limit is none of a tunnel's
    with opened(gateway) as client:
        for size in (1, 70_000, 3_000_000):
            data = bytes(i % 253 for i in range(1000)) * (size // 1000) or b"x"
            client.say(BytesMessage(data))
            assert client.message() == data
        for _ in range(8):
            time.sleep(0.2)
            client.text("still")
            assert client.message() == "still"
        assert in_flight(gateway) == 1
        client.say(CloseConnection(1000))
        assert client.code() == 1000
    wait_for(lambda: in_flight(gateway) == 0)


def test_a_tunnel_through_proxy_pass(gateway_of) -> None:
    with opened(gateway_of(), "/proxied/") as client:
        client.text("x")
        assert client.message() == "x"


def test_a_tunnel_over_http_2(gateway_of) -> None:
    gateway = gateway_of("timeout 1s;")
    with H2Client(gateway.port) as client:
        client.open_websocket("/")
        ws = Connection(ConnectionType.CLIENT)
        client.send(1, ws.send(BytesMessage(b"m" * 100_000)))
        assert client.read_message(1, ws) == b"m" * 100_000
        assert in_flight(gateway) == 1
        assert client.get("/").status == 200                 # on the same connection
        client.send(1, ws.send(CloseConnection(1000)), end=True)
        assert client.read(1).is_whole
    wait_for(lambda: in_flight(gateway) == 0)


@pytest.mark.parametrize("counts, status", [("on", 504), ("off", 200)])
def test_whether_it_takes_a_slot_is_the_conf_s(gateway_of, counts: str, status: int) -> None:
    gateway = gateway_of(f"concurrency 1; queue wait=300ms; count_streams {counts};")
    with opened(gateway) as client:
        assert gateway.get("/").status == status
        client.text("x")
        assert client.message() == "x"
    wait_for(lambda: gateway.get("/").status == 200)


def renew(gateway: Gateway, inside: str, old: str) -> float:
    """The function gets another state: when its new replica answers."""
    gateway.write_conf(HTTP % {"inside": f"{inside} env NEW 1;"})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: gateway.get("/").text != old, 20)
    return time.monotonic()


def test_a_replica_with_a_tunnel_is_drained_not_killed(gateway_of) -> None:
    """The old replica goes on with what it has, up to the limit; then it says goodbye."""
    inside = "drain_timeout 8s;"
    gateway = gateway_of(inside)
    with opened(gateway) as client:
        client.text("pid")
        old = client.message()
        assert gateway.get("/").text == old
        began = renew(gateway, inside, old)
        while time.monotonic() - began < 1:
            client.text("pid")
            assert client.message() == old
            time.sleep(0.05)
        assert client.code() == 1001


def test_a_replica_goes_when_its_tunnel_does(gateway_of) -> None:
    inside = "drain_timeout 60s;"
    gateway = gateway_of(inside)
    with opened(gateway) as client:
        client.text("pid")
        old = client.message()
        renew(gateway, inside, old)
        client.text("pid")
        assert client.message() == old
    wait_for(lambda: not os.path.exists(f"/proc/{old}"), 20)

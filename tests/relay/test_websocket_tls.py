"""WebSockets with TLS on both legs, tunnelled and inspected, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2client import H2Client
from websocket_echo import serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection

HTTP = """
    ssl_certificate DIR/c.pem; ssl_certificate_key DIR/k.pem;
    server {
        listen 127.0.0.1:%%PORT%% ssl; http2 on;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        location / { proxy_pass https://127.0.0.1:UPSTREAM; }
        location /inspected { proxy_pass https://127.0.0.1:UPSTREAM; websocket_inspect on; }
        location /small {
            proxy_pass https://127.0.0.1:UPSTREAM;
            websocket_inspect on;
            websocket_max_message 1k;
        }
    }
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a.test", "-days",
         "2", "-keyout", str(folder / "k.pem"), "-out", str(folder / "c.pem")],
        check=True, capture_output=True)  # fmt: skip
    return folder


@pytest.fixture
def echo_port(keys: Path) -> Iterator[int]:
    """An echo over TLS that agrees to permessage-deflate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "c.pem", keys / "k.pem")
    with serving(context) as port:
        yield port


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture
def port(headrace, keys: Path, echo_port: int) -> int:
    return headrace(HTTP.replace("DIR", str(keys)).replace("UPSTREAM", str(echo_port))).port


@pytest.mark.parametrize("deflate", ["deflate", None])
@pytest.mark.parametrize("path", ["/", "/inspected"])
def test_messages_come_back_over_tls(port: int, path: str, deflate: str | None) -> None:
    with connect(f"wss://127.0.0.1:{port}{path}", ssl=trusting("http/1.1"), compression=deflate,
                 max_size=None) as client:  # fmt: skip
        assert bool(client.protocol.extensions) == bool(deflate)     # RFC 7692 goes through
        for message in ("", "é" * 1000, b"x" * 3_000_000, b""):
            client.send(message)
            assert client.recv(10) == message
        client.send(part for part in ("a", "b", "c"))
        assert client.recv(10) == "abc"
        client.close(1000)
    assert client.close_code == 1000


def test_a_message_that_is_too_large_ends_it_over_tls(port: int) -> None:
    with connect(f"wss://127.0.0.1:{port}/small", ssl=trusting("http/1.1"),
                 compression=None) as client:  # fmt: skip
        client.send(b"x" * 1024)
        assert len(client.recv(10)) == 1024
        client.send(b"x" * 1025)
        with pytest.raises(ConnectionClosed):
            client.recv(10)
    assert client.close_code == 1009


@pytest.mark.parametrize("path", ["/", "/inspected"])
def test_messages_come_back_over_http_2_and_tls(port: int, path: str) -> None:
    with H2Client(port, tls=trusting("h2")) as client:
        response = client.open_websocket(path)
        ws = Connection(ConnectionType.CLIENT)
        client.send(1, ws.send(BytesMessage(b"m" * 300_000)))
        assert client.read_message(1, ws) == b"m" * 300_000
        client.send(1, ws.send(CloseConnection(1000)))
        assert client.read(1).is_whole                               # the server ends first
        ws.receive_data(response.body)
        assert [event.code for event in ws.events()] == [1000]


@pytest.mark.parametrize("path", ["/", "/inspected"])
def test_a_close_that_ends_its_stream_is_answered(port: int, path: str) -> None:
    """So browsers do it. What a TLS peer makes of close_notify is not the client's concern."""
    for _ in range(5):
        with H2Client(port, tls=trusting("h2")) as client:
            response = client.open_websocket(path)
            ws = Connection(ConnectionType.CLIENT)
            client.send(1, ws.send(BytesMessage(b"m")))
            assert client.read_message(1, ws) == b"m"
            client.send(1, ws.send(CloseConnection(1000)), end=True)
            assert client.read(1).is_whole
            ws.receive_data(response.body)
            assert [event.code for event in ws.events()] == [1000]


def test_an_end_without_a_close_reaches_a_tls_server(port: int) -> None:
    with H2Client(port, tls=trusting("h2")) as client:
        client.open_websocket("/")
        client.send(1, b"", end=True)
        assert client.read(1).is_whole  # the echo ended, too

"""Whom a trusted proxy speaks for: fields, chains, the PROXY header; from outside."""

import contextlib
import socket
import struct

import pytest
from gateway import run

CONF = """
    set_real_ip_from 127.0.0.1;
    set_real_ip_from 10.0.0.0/8;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Seen "$remote_addr!$realip_remote_addr";
        location /real      { return 204; }
        location /named     { real_ip_header X-Client; root %%DIR%%; }
        location /last      { real_ip_header X-Forwarded-For; root %%DIR%%; }
        location /chain     { real_ip_header X-Forwarded-For; real_ip_recursive on;
                              root %%DIR%%; }
        location /stranger  { set_real_ip_from 192.0.2.0/24; root %%DIR%%; }
        location /refused   { real_ip_header X-Client; deny 192.0.2.9; root %%DIR%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%% proxy_protocol;
        real_ip_header proxy_protocol;
        add_header X-Seen "$remote_addr!$remote_port!$proxy_protocol_addr!$proxy_protocol_port";
        add_header X-Ours "$proxy_protocol_server_addr!$proxy_protocol_server_port";
        location / { return 204; }
    }
"""
US = "127.0.0.1!127.0.0.1"
ONE = "192.0.2.1!127.0.0.1"
SEEN = [
    ("/real", {"X-Real-IP": "192.0.2.1"}, ONE),
    ("/real", {"X-Real-IP": "192.0.2.1:80"}, ONE),
    ("/real", {"X-Real-IP": "2001:db8::1"}, "2001:db8::1!127.0.0.1"),
    ("/real", {"X-Real-IP": "nobody"}, US),
    ("/real", {"X-Real-IP": "unix:"}, US),
    ("/real", {"X-Real-IP": " , ,"}, US),
    ("/real", {}, US),
    ("/named", {"X-CLIENT": "192.0.2.1"}, ONE),
    ("/named", {"X-Real-IP": "192.0.2.2", "X-Client": "192.0.2.1"}, "192.0.2.2!127.0.0.1"),
    ("/last", {"X-Forwarded-For": "192.0.2.2, 192.0.2.1"}, ONE),
    ("/last", {"X-Forwarded-For": "192.0.2.1,10.1.1.1"}, "10.1.1.1!127.0.0.1"),
    ("/chain", {"X-Forwarded-For": "192.0.2.2, 192.0.2.1, 10.1.1.1"}, ONE),
    ("/chain", {"X-Forwarded-For": "10.1.1.1, 10.1.1.2"}, "10.1.1.1!127.0.0.1"),
    ("/chain", {"X-Forwarded-For": "bad, 10.1.1.2"}, "10.1.1.2!127.0.0.1"),
    ("/stranger", {}, US),
]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def gateway(headrace):
    made = headrace(CONF, start=False)
    for name in ("named", "last", "chain", "stranger", "refused"):
        (made.prefix / name).write_text("in")
    return made.start()


def test_fields(gateway):
    for path, headers, seen in SEEN:
        answered = gateway.get(path, **headers)
        assert (path, headers, answered.get("X-Seen")) == (path, headers, seen)


def test_chain_over_several_fields(gateway):
    with gateway.client() as client:
        client.send("GET /chain HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n"
                    "X-Forwarded-For: 10.1.1.1, 127.0.0.1\r\n\r\n")
        assert client.read().get("X-Seen") == ONE


def test_it_holds_for_one_request(gateway):
    with gateway.client() as client:
        assert client.get("/real", **{"X-Real-IP": "192.0.2.1"}).get("X-Seen") == ONE
        assert client.get("/real").get("X-Seen") == US


def test_who_may_come_in_is_asked_after(gateway):
    assert gateway.get("/refused", **{"X-Client": "192.0.2.9"}).status == 403
    assert gateway.get("/refused", **{"X-Client": "192.0.2.1"}).status == 200


V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((192, 0, 2, 1, 192, 0, 2, 2)) + struct.pack(
    ">HH", 1234, 80)


@pytest.mark.parametrize("head", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n", V2])
def test_proxy_header(gateway, head):
    data = head + GET
    for at in range(1, len(data), 5):
        with gateway.client(gateway.ports[1]) as client:
            answered = client.send_split(data, at).read()
            assert answered.get("X-Seen") == "192.0.2.1!1234!192.0.2.1!1234"
            assert answered.get("X-Ours") == "192.0.2.2!80"
            assert client.get("/").status == 204


def test_without_addresses(gateway):
    with gateway.client(gateway.ports[1]) as client:
        seen = client.send(b"PROXY UNKNOWN\r\n" + GET).read().get("X-Seen")
        assert seen.startswith("127.0.0.1!")
        assert seen.endswith("!!")


@pytest.mark.parametrize("data", [GET, b"PROXY TCP9 x\r\n", b"PROXY " + b"x" * 5000, b"\r\n\r\nx"])
def test_wrong_header_closes(gateway, data):
    with socket.create_connection(("127.0.0.1", gateway.ports[1]), 5) as sock:
        sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert "broken header" in gateway.error_log


@pytest.mark.parametrize(
    ("line", "said"),
    [("set_real_ip_from 10.0.0.0/33", 'invalid parameter "10.0.0.0/33"'),
     ("set_real_ip_from 127.0.0.1 x", "invalid number of arguments"),
     ("set_real_ip_from [::1]", 'invalid parameter "[::1]"'),
     ("real_ip_recursive yes", "real_ip_recursive")],
)  # fmt: skip
def test_wrong_conf(headrace, line, said):
    made = headrace(f"server {{ listen 127.0.0.1:%%PORT%%; {line}; }}", start=False)
    done = run("-t", "-p", str(made.prefix), "-c", str(made.conf))
    assert done.returncode == 1
    assert said in done.stderr

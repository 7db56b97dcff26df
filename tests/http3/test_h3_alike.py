"""Directives that speak of requests do the same over HTTP/3 as over HTTP/1.1."""

from __future__ import annotations

import http.client
import re
import ssl
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from h3client import H3Client
from recorder import Recorder

TABLE = """
location /static/ { root %%DIR%%/; }
location /auth { auth_basic realm; auth_basic_user_file %%DIR%%/users; proxy_pass http://UPSTREAM; }
location /deny { deny all; proxy_pass http://UPSTREAM; }
location /limited { limit_req zone=one; proxy_pass http://UPSTREAM; }
location /conns/ { limit_conn two 1; limit_rate 1000; alias %%DIR%%/static/; }
location /rewritten { rewrite ^ /seen?a=$arg_b last; }
location /seen { return 200 $uri-$args; }
location /moved { return 302 /there; }
location /header { add_header X-Mine $scheme-$https; return 204; }
location /lines { add_header X-Mine $arg_a; return 204; }
location /page { error_page 404 /shown.html; return 404; }
location /shown.html { return 200 shown; }
location /large { client_max_body_size 10; proxy_pass http://UPSTREAM; }
location /up { proxy_pass http://UPSTREAM; proxy_set_header X-Proto $server_protocol; }
location /vars { return 200 $server_protocol,$http3,$http2,$scheme,$request_method,$remote_addr; }
location /tls { return 200 $ssl_protocol,$ssl_server_name,$ssl_cipher,$ssl_client_verify; }
location /silent { return 444; }
"""


@pytest.fixture
def site(quic, upstream: Recorder) -> Gateway:
    gateway = quic(
        TABLE.replace("UPSTREAM", upstream.address),
        "add_header Alt-Svc 'h3=\":%%PORT%%\"; ma=86400';",
        """limit_req_zone $server_port zone=one:1m rate=1r/m;
           limit_conn_zone $server_port zone=two:1m;
           log_format short '$request|$status|$server_protocol|$http3|$request_length';
           access_log logs/access.log short;""",
    )
    (gateway.prefix / "static").mkdir()
    (gateway.prefix / "static" / "a.txt").write_text("0123456789")
    (gateway.prefix / "static" / "big").write_bytes(bytes(i % 241 for i in range(700_000)))
    (gateway.prefix / "static" / "paced").write_bytes(bytes(2500))
    (gateway.prefix / "users").write_text("me:{PLAIN}secret\n")
    return gateway


@pytest.fixture
def client(site: Gateway):
    with H3Client(site.port) as made:
        yield made


def test_files_and_ranges(site: Gateway, client: H3Client) -> None:
    response = client.get("/static/a.txt")
    assert (response.status, response.text) == (200, "0123456789")
    assert response.get("etag")
    part = client.get("/static/a.txt", fields=[("range", "bytes=2-4")])
    assert (part.status, part.text) == (206, "234")
    again = client.get("/static/a.txt", fields=[("if-none-match", response.get("etag"))])
    assert (again.status, again.body) == (304, b"")
    assert client.get("/static/big").body == (site.prefix / "static" / "big").read_bytes()
    assert client.get("/static/none").status == 404
    head = client.get("/static/a.txt", method="HEAD")
    assert (head.status, head.get("content-length"), head.body) == (200, "10", b"")


def test_who_may_come_in(client: H3Client) -> None:
    assert client.get("/deny").status == 403
    refused = client.get("/auth")
    assert (refused.status, refused.get("www-authenticate")) == (401, 'Basic realm="realm"')
    good = client.get("/auth", fields=[("authorization", "Basic bWU6c2VjcmV0")])
    assert (good.status, good.text) == (200, "ok")


def test_limits(client: H3Client) -> None:
    assert client.get("/limited").status == 200
    assert client.get("/limited").status == 503
    first = client.ask("/conns/paced")                         # 2500 bytes at 1000 a second
    assert client.get("/conns/paced").status == 503
    assert len(client.read(first).body) == 2500


def test_routing_and_answers(client: H3Client) -> None:
    assert client.get("/rewritten?b=7").text == "/seen-a=7&b=7"
    moved = client.get("/moved")
    assert (moved.status, moved.get("location")) == (302, f"https://a.test:{client.to[1]}/there")
    assert client.get("/header").get("x-mine") == "https-on"
    assert client.get("/page").text == "shown"
    assert client.get("/vars").text == "HTTP/3.0,h3,,https,GET,127.0.0.1"
    assert client.get("/tls").text.startswith("TLSv1.3,a.test,TLS_")
    assert client.get("/lines?a=b%0d%0ax:y").get("x") is None
    assert client.read(client.ask("/silent")).code is not None


def test_a_body_that_is_too_large(client: H3Client, upstream: Recorder) -> None:
    said = [("content-length", "100")]
    assert client.get("/large", method="POST", body=bytes(100), fields=said).status == 413
    assert client.get("/large", method="POST", body=bytes(100)).status == 413
    assert client.get("/large", method="POST", body=bytes(9)).status == 200


def test_100_continue_is_said_when_the_body_is_wanted(client: H3Client, upstream) -> None:
    number = client.ask("/up", method="POST", fields=[("expect", "100-continue")], end=False)
    client.run(lambda: client.responses[number].interim)
    client.send(number, b"body", end=True)
    assert client.read(number).status == 200
    assert upstream.last.body == b"body"


def test_what_the_upstream_and_the_log_are_told(
    site: Gateway, client: H3Client, upstream: Recorder
) -> None:
    assert client.get("/up").status == 200
    assert upstream.last.get("x-proto") == "HTTP/3.0"
    wait_for(lambda: site.log())
    assert re.fullmatch(r"GET /up HTTP/3\.0\|200\|HTTP/3\.0\|h3\|\d+", site.log()[-1])


def test_a_client_that_takes_its_request_back(site: Gateway, client: H3Client, upstream) -> None:
    number = client.ask("/up", method="POST", body=b"abc", end=False)
    client.step(0.1)
    client.quic.reset_stream(number, 0x10C)
    client.quic.stop_stream(number, 0x10C)
    client.flush()
    assert client.get("/vars").status == 200
    wait_for(lambda: any("POST /up HTTP/3.0|499" in line for line in site.log()))


def test_over_tls_the_way_to_http3_is_told(site: Gateway) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", site.port, context=context, timeout=10)
    connection.request("GET", "/vars")
    response = connection.getresponse()
    assert response.read() == b"HTTP/1.1,,,https,GET,127.0.0.1"
    assert response.getheader("Alt-Svc") == f'h3=":{site.port}"; ma=86400'
    connection.close()


def test_the_certificate_is_chosen_by_name(headrace, certificates: Path) -> None:
    def pair(name: str) -> str:
        at = certificates / name
        return f"ssl_certificate {at}.crt; ssl_certificate_key {at}.key;"

    gateway = headrace(f"""
        server {{ listen 127.0.0.1:%%PORT%% quic; server_name a.test; {pair("a")} return 200 a; }}
        server {{ listen 127.0.0.1:%%PORT%% quic; server_name b.test; {pair("b")} return 200 b; }}
        server {{ listen 127.0.0.1:%%PORT%% quic; server_name c.test; ssl_reject_handshake on; }}
        server {{ listen 127.0.0.1:%%PORT%% quic; server_name d.test; http3 off; {pair("a")} }}""")
    for name in ("a", "b"):
        with H3Client(gateway.port, name=f"{name}.test") as client:
            subject = client.quic.tls._peer_certificate.subject.rfc4514_string()
            assert subject == f"CN={name}.test"
            assert client.get(host=f"{name}.test").text == name
            assert client.get(host="d.test").status == 421   # it does not speak HTTP/3
    for name in ("c", "d"):
        with H3Client(gateway.port, name=f"{name}.test") as client:
            assert not client.is_ready
            assert client.ended.error_code // 256 == 1       # a TLS alert


def test_a_function_answers(headrace, certificates: Path) -> None:
    (code := certificates / "handler.py").write_text(
        "def handle(event, context):\n    return {'statusCode': 200, 'body': 'woken'}\n"
    )
    gateway = headrace(f"""
        ssl_certificate {certificates}/a.crt; ssl_certificate_key {certificates}/a.key;
        function hello {{ python {code}:handle; }}
        server {{ listen 127.0.0.1:%%PORT%% quic; location / {{ function_pass hello; }} }}""")
    with H3Client(gateway.port, timeout_s=20) as client:
        response = client.get("/", method="POST", body=b"{}")
        assert response.status == 200, response

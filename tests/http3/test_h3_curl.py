"""curl over HTTP/3: another QUIC and TLS (ngtcp2, BoringSSL) than the browser's and aioquic's.

As Chrome's its ClientHello has post-quantum keys and does not fit into one datagram."""

from __future__ import annotations

import pytest
from curl_cffi import CurlHttpVersion, CurlOpt, requests

SITE = """location / { return 200 "$server_protocol $ssl_server_name $ssl_session_reused"; }
          location /up { client_max_body_size 2m; proxy_pass http://%s; }"""
BODY = bytes(i % 239 for i in range(1_500_000))


def session(port: int, options: dict | None = None, **more) -> requests.Session:
    """curl, to whom a.test is here; --http3-only."""
    more.setdefault("http_version", CurlHttpVersion.V3ONLY)
    known = {CurlOpt.RESOLVE: [f"a.test:{port}:127.0.0.1"], **(options or {})}
    return requests.Session(verify=False, timeout=60, curl_options=known, **more)


@pytest.mark.parametrize("server", ["", "quic_retry on;", "quic_gso on;"])
@pytest.mark.parametrize("as_browser", [None, "chrome"])
def test_curl_asks_and_sends(quic, upstream, server: str, as_browser: str | None) -> None:
    gateway = quic(SITE % upstream.address, server)
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    origin = f"https://a.test:{gateway.port}"
    with session(gateway.port, impersonate=as_browser) as curl:
        got = curl.get(f"{origin}/")
        assert (got.http_version, got.status_code) == (CurlHttpVersion.V3, 200)
        assert got.text == "HTTP/3.0 a.test ."
        for _ in range(2):
            got = curl.post(f"{origin}/up", data=BODY)
            assert got.content == BODY
            assert upstream.last.body == BODY
            assert got.http_version == CurlHttpVersion.V3


def test_curl_finds_it_by_alt_svc(quic, tmp_path) -> None:
    gateway = quic("add_header Alt-Svc 'h3=\":$server_port\"; ma=60'; "
                   "location / { return 200 $server_protocol; }")  # fmt: skip
    known = {CurlOpt.ALTSVC: str(tmp_path / "altsvc")}
    for said in ("HTTP/1.1", "HTTP/3.0"):
        with session(gateway.port, known, http_version=CurlHttpVersion.NONE) as curl:
            assert curl.get(f"https://a.test:{gateway.port}/").text == said

"""A real browser over HTTP/2: a page, its WebSocket on the same connection, what it tells back."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browsing
from gateway import wait_for
from websocket_echo import serving

PAGE = """<!doctype html><meta charset="utf-8"><title>t</title><script>
const socket = new WebSocket(`wss://${location.host}/echo`, ["chat"]);
socket.onopen = () => socket.send("é".repeat(40000));
socket.onmessage = async (event) => {
    const way = performance.getEntriesByType("navigation")[0].nextHopProtocol;
    await fetch(`/told/${event.data.length}/${socket.protocol}/${way}`);
    socket.close(1000);
};
socket.onclose = (event) => fetch(`/closed/${event.code}/${event.wasClean}`);
socket.onerror = () => fetch("/failed");
</script>"""


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """The upstream's; c.pem and k.pem lie in tmp_path."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout",
         str(tmp_path / "k.pem"), "-out", str(tmp_path / "c.pem")],
        check=True, capture_output=True)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    return context


@pytest.fixture
def echo_port(tls: ssl.SSLContext) -> Iterator[int]:
    """An echo over TLS that agrees to permessage-deflate and to `chat`."""
    with serving(tls) as port:
        yield port


@pytest.mark.parametrize("more", ["", "websocket_inspect on;"], ids=["tunnel", "inspected"])
def test_a_browser_opens_its_websocket_on_the_page_s_connection(
    headrace, tmp_path: Path, echo_port: int, more: str
) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    gateway = headrace(f"""
        ssl_certificate {tmp_path}/c.pem; ssl_certificate_key {tmp_path}/k.pem;
        log_format told '$connection "$request" $status';
        access_log logs/access.log told;
        server {{
            listen 127.0.0.1:%%PORT%% ssl; http2 on; root {tmp_path};
            location /echo {{
                proxy_pass https://127.0.0.1:{echo_port};
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $http_connection;
                {more}
            }}
            location /told/ {{ return 204; }}
            location /closed/ {{ return 204; }}
        }}""")
    with browsing(tmp_path, f"https://127.0.0.1:{gateway.port}/", "--ignore-certificate-errors"):
        wait_for(lambda: any("/closed/" in line for line in gateway.log()), 40)
    lines = [line.split(" ", 1) for line in gateway.log()]
    told = [line for _, line in lines]
    assert '"GET /told/40000/chat/h2 HTTP/2.0" 204' in told
    assert '"GET /closed/1000/true HTTP/2.0" 204' in told
    assert '"GET /echo HTTP/2.0" 200' in told
    of_page = {connection for connection, line in lines if '"GET / ' in line}
    assert {connection for connection, line in lines if '"GET /echo' in line} == of_page

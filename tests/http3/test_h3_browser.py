"""A real browser over HTTP/3: a page, what it fetches and sends, and what the browser calls it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from browser import browsing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gateway import wait_for
from recorder import answer

PAGE = """<!doctype html><meta charset="utf-8"><title>t</title><script>
(async () => {
    const big = await (await fetch("/big")).arrayBuffer();
    const sent = await fetch("/sent", {method: "POST", body: big});
    const ways = new Set(performance.getEntries().map((it) => it.nextHopProtocol));
    const way = [...ways].filter(Boolean).join("+");
    await fetch(`/told/${big.byteLength}/${sent.status}/${way}`);
})().catch((error) => fetch(`/failed/${error}`));
</script>"""


def test_a_browser_speaks_it(quic, upstreams, certificates: Path, tmp_path: Path) -> None:
    upstream = upstreams(answer(b"taken"))
    gateway = quic(f"""access_log logs/access.log; root {tmp_path};
                   location = /sent {{ client_max_body_size 2m;
                                       proxy_pass http://{upstream.address}; }}
                   location /told/ {{ return 204; }} location /failed/ {{ return 204; }}""")
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "big").write_bytes(bytes(i % 233 for i in range(1_500_000)))
    key = x509.load_pem_x509_certificate((certificates / "a.crt").read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    known = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    flags = ("--enable-quic", f"--origin-to-force-quic-on=127.0.0.1:{gateway.port}",
             f"--ignore-certificate-errors-spki-list={known}")  # fmt: skip
    with browsing(tmp_path, f"https://127.0.0.1:{gateway.port}/", *flags):
        wait_for(lambda: any("/told/" in it or "/failed/" in it for it in gateway.log()), 60)
    told = [line.split('"')[1] for line in gateway.log()]
    assert "GET /told/1500000/200/h3 HTTP/3.0" in told
    assert "GET / HTTP/3.0" in told
    assert upstream.last.body == (tmp_path / "big").read_bytes()

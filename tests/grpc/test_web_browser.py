"""A real browser calls a gRPC server: gRPC-Web from a page of another origin, as conf/grpc.conf."""

from __future__ import annotations

from pathlib import Path

from browser import browsing
from gateway import wait_for
from services import Server

PAGE = """<!doctype html><meta charset="utf-8"><title>t</title><script>
const at = "http://127.0.0.1:API/test.Test/";
const framed = (words) => {
    const text = new TextEncoder().encode(words);
    return new Uint8Array([0, 0, 0, 0, text.length, ...text]);
};
const read = (bytes) => {
    const found = [];
    for (let i = 0; i < bytes.length;) {
        const n = new DataView(bytes.buffer, bytes.byteOffset + i + 1).getUint32(0);
        found.push([bytes[i], new TextDecoder().decode(bytes.slice(i + 5, i + 5 + n))]);
        i += 5 + n;
    }
    return found;
};
const of_text = (text) => {
    const groups = text.match(/.{4}/g).map(atob).join("");
    return Uint8Array.from(groups, (it) => it.charCodeAt(0));
};
const call = async (method, kind, body) => fetch(at + method, {
    method: "POST", headers: {"content-type": kind, "x-grpc-web": "1", "grpc-timeout": "30S"}, body,
});
const tell = (...words) => fetch("/told/" + words.map(encodeURIComponent).join("/"));
const status_of = (frames) => frames.at(-1)[1].match(/grpc-status: (\\d+)/)[1];
(async () => {
    const binary = await call("Echo", "application/grpc-web+proto", framed("hello"));
    let frames = read(new Uint8Array(await binary.arrayBuffer()));
    await tell("binary", frames[0][1], status_of(frames));
    const text = await call("Echo", "application/grpc-web-text",
                            btoa(String.fromCharCode(...framed("hello"))));
    frames = read(of_text(await text.text()));
    await tell("text", frames[0][1], status_of(frames));
    const stream = await call("Count", "application/grpc-web", framed("20 10"));
    frames = read(new Uint8Array(await stream.arrayBuffer()));
    await tell("stream", frames.length - 1, status_of(frames));
    const failed = await call("Fail", "application/grpc-web", framed(""));
    await tell("failed", failed.headers.get("grpc-status"));
    await tell("over");
})().catch((error) => tell("error", error));
</script>"""


def test_a_page_of_another_origin_calls(headrace, tmp_path: Path) -> None:
    with Server() as server:
        gateway = headrace(f"""
            log_format told '$request_method $uri'; access_log logs/access.log told;
            server {{ listen 127.0.0.1:%%PORT%%; root {tmp_path};
                      location /told/ {{ return 204; }} }}
            server {{ listen 127.0.0.1:%%PORT_1%%; client_max_body_size 0;
                location / {{
                    grpc_pass grpc://{server.address}; grpc_web on;
                    add_header Access-Control-Allow-Origin "http://127.0.0.1:%%PORT%%" always;
                    add_header Access-Control-Expose-Headers "grpc-status, grpc-message" always;
                    add_header Access-Control-Allow-Headers
                               "content-type, x-grpc-web, x-user-agent, grpc-timeout" always;
                    if ($request_method = OPTIONS) {{ return 204; }}
                }} }}""")
        (tmp_path / "index.html").write_text(PAGE.replace("API", str(gateway.ports[1])))
        with browsing(tmp_path, f"http://127.0.0.1:{gateway.port}/"):
            wait_for(lambda: any("/told/over" in it or "/told/error" in it
                                 for it in gateway.log()), 60)  # fmt: skip
    told = [line.removeprefix("GET /told/") for line in gateway.log() if "/told/" in line]
    assert told == ["binary/hello/0", "text/hello/0", "stream/20/0", "failed/9", "over"]
    assert "OPTIONS /test.Test/Echo" in gateway.log()         # the browser asked first

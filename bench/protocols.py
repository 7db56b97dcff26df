"""What protocols beside HTTP/1.1 cost: gRPC, WebSocket, MQTT, and connections that only wait.

    bench/protocols.py [--rounds N] [--seconds S] [--write] [QUESTION …]

QUESTION: grpc calls websocket inspect mqtt idle; all when left out. CPU time of the proxy's process
tree, rounds interleaved, medians, as bench/run.py has it; HTTP/2's requests stand there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import load
import report
from echo import BrokerSink, Echo, idle_h2, idle_websockets, publish, talk
from meter import cpu_ns, rss_bytes
from peers import (
    LOAD_CORE,
    Envoy,
    Headrace,
    Nginx,
    Process,
    address,
    free_port,
    typed,
    user_line,
)

SETTLE_S = 0.5
MESSAGE = b"\0\0\0\0\x0a" + b"\x0a\x08everyone"  # a gRPC frame of 10 bytes
WEBSOCKETS = 64


class GrpcServer(Process):
    """nginx, which answers each call with one small message and its trailer."""

    name = "grpc upstream"
    core = LOAD_CORE

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = {"h2": free_port()}
        (self.folder / "answer").write_bytes(MESSAGE)
        (self.folder / "nginx.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid nginx.pid;
            error_log stderr crit; events {{ worker_connections 4096; }}
            http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
                http2_max_concurrent_streams 1024;
                client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
                uwsgi_temp_path u; scgi_temp_path s;
                server {{ listen 127.0.0.1:{self.ports["h2"]} http2 backlog=4096;
                    root {self.folder}; default_type application/grpc;
                    add_trailer grpc-status 0;
                    error_page 405 =200 /answer;  # a file takes no POST
                    location / {{ try_files /answer =404; }} }} }}"""
        )

    def command(self) -> list[str]:
        return ["nginx", "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf", "-e", "stderr"]


SERVERS = {"grpc": ("grpc",), "main": ("h2", "plain"), "mqtt": ("mqtt", "stream")}


def make_ports(kind: str) -> dict[str, int]:
    """The ports of a kind of conf, by server."""
    return {name: free_port() for name in SERVERS[kind]}


def http(ports: dict[str, int], upstream: int, has_http2: bool) -> str:
    """What nginx and headrace both understand: gRPC, tunnels, connections that wait."""
    inspect = "location /inspect { proxy_pass http://app; websocket_inspect on; }"
    inside = {
        "grpc": "location / { grpc_pass grpc://app; }",
        "h2": "location / { return 200; }",
        "plain": f"location / {{ proxy_pass http://app; }} {inspect if has_http2 else ''}",
    }
    servers = ""
    for name, port in ports.items():
        is_h2 = name != "plain"
        word = "http2" if is_h2 and not has_http2 else ""
        on = "http2 on;" if is_h2 and has_http2 else ""
        servers += f"server {{ listen 127.0.0.1:{port} {word}; {on} {inside[name]} }}\n"
    return f"""access_log off; proxy_http_version 1.1;
    proxy_set_header Connection "Upgrade"; proxy_set_header Upgrade $http_upgrade;
    keepalive_requests 100000000; proxy_read_timeout 1h; keepalive_timeout 1h;
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
    {servers}"""


class NginxHere(Nginx):
    """nginx with the conf of these questions."""

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        temps = "".join(
            f"{name}_temp_path {name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid nginx.pid;
            error_log stderr crit; events {{ worker_connections 32768; }}
            http {{ {temps} {http(self.ports, upstream, False)} }}"""
        )


class HeadraceHere(Headrace):
    """Ours; `kind` mqtt: as a relay before a broker, and as a plain tunnel."""

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        if kind == "mqtt":
            text = f"""stream {{ server {{ listen 127.0.0.1:{self.ports["stream"]};
                proxy_pass 127.0.0.1:{upstream}; }} }}
            mqtt {{ server {{ listen 127.0.0.1:{self.ports["mqtt"]};
                mqtt_pass 127.0.0.1:{upstream}; }} }}"""
        else:
            text = f"""http {{ client_body_temp_path client_body; proxy_temp_path proxy;
            {http(self.ports, upstream, True)} }}"""
        (self.folder / "headrace.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid headrace.pid;
            error_log stderr crit; worker_rlimit_nofile 40000;
            events {{ worker_connections 32768; }}
            {text}"""
        )


class EnvoyHere(Envoy):
    """Envoy, HTTP/2 on both sides."""

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        options = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]
        manager = typed(
            "envoy.filters.network.http_connection_manager",
            "network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="grpc",
            codec_type="HTTP2",
            http_filters=[typed("envoy.filters.http.router", "http.router.v3.Router")],
            route_config={
                "name": "grpc",
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            },
        )
        ends = [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]
        listener = {
            "name": "grpc",
            "address": address(self.ports["grpc"]),
            "filter_chains": [{"filters": [manager]}],
        }
        cluster = {
            "name": "app",
            "type": "STATIC",
            "typed_extension_protocol_options": options,
            "load_assignment": {"cluster_name": "app", "endpoints": ends},
        }
        static = {"listeners": [listener], "clusters": [cluster]}
        (self.folder / "envoy.json").write_text(json.dumps({"static_resources": static}))


Row = dict[str, object]


def rounds(
    options: argparse.Namespace, works: dict[str, tuple[Process, object]]
) -> dict[str, float]:
    """µs of CPU for one of what each work counts: the median of the rounds, each work in turn.

    works: name → (whose CPU, callable(seconds) → how many). The first round is not kept.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(options.rounds + 1):
        for name, (peer, work) in works.items():
            before = cpu_ns(peer.pid)
            count = work(options.seconds)  # type: ignore[operator]
            if number:
                found[name].append((cpu_ns(peer.pid) - before) / 1000 / max(1, count))
    return {name: statistics.median(values) for name, values in found.items()}


def beside(found: dict[str, float], at_most: dict[str, float]) -> tuple[str, str]:
    """(figure, what it must be)."""
    ours = found["headrace"]
    told = [f"{ours:.1f} µs"]
    told += [f"{found[it]:.1f} {it}: {ours / found[it]:.2f} x" for it in at_most if it in found]
    return ", ".join(told), ", ".join(f"{most:.2f} x {it}" for it, most in at_most.items())


def started(stack: list[Process], peer: Process, kind: str, upstream: int) -> Process:
    peer.start(kind, upstream)
    stack.append(peer)
    return peer


def grpc(
    folder: Path,
    options: argparse.Namespace,
    streams: int = 8,
    at_most: tuple[tuple[type[Process], float], ...] = ((NginxHere, 0.7), (EnvoyHere, 0.4)),
) -> Row:
    """Unary calls, HTTP/2 on both sides, 16 connections with so many streams each."""
    stack: list[Process] = []
    (folder / "message").write_bytes(MESSAGE)
    try:
        port = started(stack, GrpcServer(folder / "grpc"), "main", 0).ports["h2"]
        works = {}
        kinds: list[type[Process]] = [HeadraceHere, *(kind for kind, _ in at_most)]
        for kind in kinds:
            peer = started(stack, kind(folder / kind.name), "grpc", port)

            def work(seconds: float, url: str = peer.url("grpc", "/a.B/C")) -> int:
                sums = load.h2load(url, 16, seconds, streams, grpc=folder / "message")
                # an error is a 200, too; of the calls that the end cut some lack their message
                if sums["data"] < 0.9 * sums["requests"] * len(MESSAGE):
                    raise load.LoadError(f"{url}: calls without an answer: {sums}")
                return sums["requests"]

            works[peer.name] = (peer, work)
        limits = {kind.name: limit for kind, limit in at_most}
        figure, must = beside(rounds(options, works), limits)
        return {
            "what": f"gRPC unary, HTTP/2 on both sides, 16×{streams} calls",
            "figure": figure,
            "must": must,
        }
    finally:
        for it in reversed(stack):
            it.stop()


def calls(folder: Path, options: argparse.Namespace) -> Row:
    """As many at once as the question of HTTP/2 has; there nginx 1.22 answers one in a hundred
    with 502."""
    return grpc(folder, options, 32, ((EnvoyHere, 0.4),))


def websocket(folder: Path, options: argparse.Namespace, path: str = "/") -> Row:
    """Messages of 100 bytes there and back, by 64 tunnels at once."""
    stack: list[Process] = []
    try:
        port = started(stack, Echo(folder / "echo"), "main", 0).ports["plain"]
        works = {}
        for kind in (HeadraceHere, NginxHere):
            peer = started(stack, kind(folder / kind.name), "main", port)
            at = path if kind is HeadraceHere else "/"

            def work(seconds: float, port: int = peer.ports["plain"], at: str = at) -> int:
                return talk(port, at, WEBSOCKETS, seconds)

            works[peer.name] = (peer, work)
        figure, must = beside(rounds(options, works), {"nginx": 1.0})
        what = "WebSocket echo of 100 B, tunnel"
        if path != "/":
            what, must = "WebSocket echo of 100 B, inspected", "–"
        return {"what": what, "figure": figure, "must": must}
    finally:
        for it in reversed(stack):
            it.stop()


def inspect(folder: Path, options: argparse.Namespace) -> Row:
    """The same with websocket_inspect; nginx only tunnels."""
    return websocket(folder, options, "/inspect")


def mqtt(folder: Path, options: argparse.Namespace) -> Row:
    """PUBLISH of QoS 0 with 64 bytes to a broker, one write a message, beside a plain tunnel."""
    stack: list[Process] = []
    try:
        port = started(stack, BrokerSink(folder / "sink"), "main", 0).ports["plain"]
        peer = started(stack, HeadraceHere(folder / "headrace"), "mqtt", port)

        def work(name: str) -> object:
            return lambda seconds: publish(peer.ports[name], WEBSOCKETS, seconds)

        found = rounds(options, {it: (peer, work(it)) for it in ("mqtt", "stream")})
        ratio = found["mqtt"] / found["stream"]
        figure = f"{found['mqtt']:.1f} µs, stream {found['stream']:.1f}: {ratio:.2f} x"
        return {"what": "MQTT QoS 0 relay, a message", "figure": figure, "must": "1.20 x stream"}
    finally:
        for it in reversed(stack):
            it.stop()


def idle(folder: Path, options: argparse.Namespace) -> Row:
    """What connections that wait keep of the proxy's memory."""
    kinds = ((idle_h2, "h2", "/"), (idle_websockets, "plain", "/"),
             (idle_websockets, "plain", "/inspect"))  # fmt: skip
    found = []
    for make, where, path in kinds:
        stack: list[Process] = []
        try:
            port = started(stack, Echo(folder / "echo"), "main", 0).ports["plain"]
            peer = started(stack, HeadraceHere(folder / "headrace"), "main", port)
            warm = make(peer.ports[where], path, 200)
            time.sleep(SETTLE_S)
            before = rss_bytes(peer.pid)
            kept = make(peer.ports[where], path, options.idle)
            time.sleep(SETTLE_S)
            found.append((rss_bytes(peer.pid) - before) / options.idle / 1024)
            for sock in warm + kept:
                sock.close()
        finally:
            for it in reversed(stack):
                it.stop()
    h2, tunnel, inspected = found
    return {"what": f"RSS of each of {options.idle} idle: HTTP/2 connection; tunnel; inspected",
            "figure": f"{h2:.1f}; {tunnel:.1f}; {inspected:.1f} KiB",
            "must": "8; 4; – KiB"}  # fmt: skip


QUESTIONS = {it.__name__: it for it in (grpc, calls, websocket, inspect, mqtt, idle)}


def main() -> None:
    """Ask, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"of {' '.join(QUESTIONS)}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--idle", type=int, default=9500, help="connections that wait")
    parser.add_argument("--write", action="store_true", help="into bench/results and the README")
    options = parser.parse_args()
    asked = options.questions or list(QUESTIONS)
    if unknown := [it for it in asked if it not in QUESTIONS]:
        parser.error(f"no such question: {' '.join(unknown)}")
    rows: dict[str, Row] = {}
    for name in asked:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            rows[name] = QUESTIONS[name](Path(folder), options)
        print(f"  {rows[name]['what']:<44}\n      {rows[name]['figure']}   ({rows[name]['must']})",
              flush=True)  # fmt: skip
    if options.write:
        report.write_rows("protocols", rows, list(QUESTIONS))


if __name__ == "__main__":
    main()

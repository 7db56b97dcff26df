"""Whole confs with the rooms' real declarations: Debian's nginx and Headrace agree on each.

`!` marks what both refuse, `?` what is refused when the plan is made from the model. All that is
used here is supported: a refusal by name fails a test too.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from proxy import order
from proxy.conf import ConfError, load
from proxy.process import generation

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

HTTP = """
log_format main '$remote_addr - $remote_user [$time_local] "$request" $status';
access_log logs/a.log main buffer=32k flush=5s;
error_log logs/e.log info;
---
access_log off;
---
!access_log logs/a.log nonesuch;
---
!log_format main;
---
!error_log logs/e.log loud;
---
upstream u { server 127.0.0.1:8080 weight=2 max_fails=3 fail_timeout=10s;
  server 127.0.0.1:8081 backup; server 127.0.0.1:8082 down; keepalive 16; }
server { location / { proxy_pass http://u; } }
---
upstream u { least_conn; zone u 64k; server 127.0.0.1:1 max_conns=5; server unix:/tmp/x.sock; }
---
upstream u { ip_hash; server 127.0.0.1:1; server 127.0.0.1:2; }
---
upstream u { hash $request_uri consistent; server 127.0.0.1:1; }
---
upstream u { random two least_conn; server 127.0.0.1:1; server 127.0.0.1:2; }
---
upstream u { keepalive 4; keepalive_requests 10; keepalive_timeout 5s; keepalive_time 1h;
  server 127.0.0.1:1; }
---
!upstream u { }
---
!upstream u { server 127.0.0.1:1 weight=0; }
---
!upstream u { server 127.0.0.1:1 weight=x; }
---
!upstream u { server 127.0.0.1:1 colour=red; }
---
!upstream u { server 127.0.0.1:99999; }
---
!upstream u { ip_hash; server 127.0.0.1:1; server 127.0.0.1:2 backup; }
---
!upstream u { server 127.0.0.1:1; } upstream u { server 127.0.0.1:2; }
---
!upstream u { hash $uri sticky; server 127.0.0.1:1; }
---
limit_req_zone $binary_remote_addr zone=one:10m rate=10r/s;
limit_conn_zone $binary_remote_addr zone=two:1m;
server { location / { limit_req zone=one burst=5 nodelay; limit_conn two 3;
  limit_req_status 429; limit_conn_status 429; limit_req_dry_run on; limit_req_log_level warn; } }
---
limit_req_zone $binary_remote_addr zone=one:10m rate=10r/m;
server { location / { limit_req zone=one burst=5 delay=3; } }
---
!limit_req_zone $binary_remote_addr zone=one:10m;
---
!limit_req_zone $binary_remote_addr zone=one:1k rate=1r/s;
---
!limit_req_zone $binary_remote_addr zone=one:10m rate=1r/d;
---
!limit_req_zone $binary_remote_addr rate=1r/s burst=5;
---
?server { location / { limit_req zone=none; } }
---
?server { location / { limit_conn none 3; } }
---
!limit_conn_zone $binary_remote_addr zone=two:1m;
server { location / { limit_conn two 0; } }
---
!limit_req_zone $a zone=one:1m rate=1r/s; limit_req_zone $a zone=one:1m rate=1r/s;
server { location / { set $a 1; } }
---
server { listen 127.0.0.1:8080 default_server; server_name a.example *.b.example c.* ~^d(.+)$ ""; }
server { listen 127.0.0.1:8080; server_name .e.example; }
---
server { listen 127.0.0.1:8080 backlog=64 rcvbuf=64k sndbuf=64k deferred reuseport; }
---
server { listen [::1]:8080 ipv6only=on; listen unix:/tmp/x.sock; listen 8081; listen *:8082; }
---
!server { listen 127.0.0.1:8080 default_server; }
server { listen 127.0.0.1:8080 default_server; }
---
!server { listen 127.0.0.1:8080; listen 127.0.0.1:8080; }
---
!server { listen 127.0.0.1:0; }
---
!server { listen 127.0.0.1:8080 sideways; }
---
!server { listen 127.0.0.1:8080 backlog=-5; }
---
?server { server_name ~^(a; }
---
?server { location ~ ^(a { } }
---
server { merge_slashes off; location / { internal; } location ~* "^/(?<x>a{2})$" { } }
---
server { location / { proxy_pass http://127.0.0.1:8080/x/; proxy_redirect off;
  proxy_set_header Host $host; proxy_hide_header X-A; proxy_pass_header Server; proxy_method POST;
  proxy_next_upstream error timeout http_503 non_idempotent; proxy_next_upstream_tries 2;
  proxy_next_upstream_timeout 5s; proxy_connect_timeout 5s; proxy_send_timeout 5s;
  proxy_buffer_size 4k; proxy_buffers 8 4k; proxy_buffering off; proxy_http_version 1.1; } }
---
server { location / { proxy_pass http://unix:/tmp/x.sock:/y; } }
---
server { resolver 127.0.0.1 valid=10s; resolver_timeout 3s;
  location / { proxy_pass http://$host$request_uri; } }
---
server { location / { proxy_redirect http://a/ /b/; proxy_redirect ~^http://(.*) $1;
  proxy_cookie_domain a b; proxy_cookie_path ~^/x /; proxy_pass http://127.0.0.1; } }
---
server { location ~ ^/a { proxy_pass http://127.0.0.1; }
  location @n { proxy_pass http://127.0.0.1; } }
---
!server { location ~ ^/a { proxy_pass http://127.0.0.1/x; } }
---
!server { location @n { proxy_pass http://127.0.0.1/x; } }
---
!server { location / { proxy_pass 127.0.0.1; } }
---
!server { location / { proxy_pass ftp://127.0.0.1; } }
---
!server { location / { proxy_pass http://127.0.0.1; proxy_pass http://127.0.0.1; } }
---
!server { location / { proxy_redirect default; } }
---
!server { location / { proxy_next_upstream always; } }
---
?server { location / { proxy_buffers 1 4k; proxy_pass http://127.0.0.1; } }
---
?server { location / { proxy_buffer_size 64k; proxy_pass http://127.0.0.1; } }
---
!server { location / { proxy_http_version 3; } }
---
map $host $x { hostnames; default 0; *.example.com 1; ~^a 2; }
split_clients $remote_addr $y { 50% a; * b; }
geo $z { default 0; 127.0.0.0/8 1; }
---
!map $host x { }
---
!split_clients $remote_addr $y { 80% a; 30% b; }
---
!geo $z { 300.0.0.0/8 1; }
---
server { if ($host = a) { return 403; } if (!-f /x) { rewrite ^/(.*) /y/$1 last; } set $v 1;
  location / { if ($v ~* "^(1|2)$") { add_header X-A $1; } return 301 https://$host$request_uri; } }
---
!server { if ($host = ) { return 403; } }
---
!server { if $host { return 403; } }
---
!server { return abc def; }
---
!server { return 1000; }
---
?server { rewrite ^(a /b; }
---
!server { rewrite ^/a /b sometimes; }
---
!server { set x 1; }
---
?server { location / { root /$nonesuch; } }
---
server { error_page 404 /404.html; error_page 500 502 =200 /x;
  location / { try_files $uri $uri/ =404; index a b; root /srv; }
  location /al/ { alias /srv/x/; } location @f { return 404; } }
---
!server { error_page 200 /x; }
---
!server { location / { try_files $uri; } }
---
!server { location / { root /x; alias /y; } }
---
server { location / { allow 127.0.0.1; allow 10.0.0.0/8; deny all; satisfy any;
  limit_except GET { deny all; } types { text/x x; } default_type text/plain; charset utf-8; } }
---
!server { location / { allow 300.0.0.1; } }
---
server { client_max_body_size 8m; client_body_buffer_size 16k; client_header_buffer_size 2k;
  large_client_header_buffers 4 8k; client_header_timeout 10s; client_body_timeout 10s;
  send_timeout 10s; keepalive_timeout 75s 60s; keepalive_requests 100; lingering_close always;
  server_tokens off; ignore_invalid_headers off; underscores_in_headers on; }
---
!server { large_client_header_buffers 4 100; connection_pool_size 1k; client_max_body_size -1; }
---
!server { keepalive_timeout never; }
"""
MAIN = """
user root; worker_processes 2; worker_rlimit_nofile 1024; worker_shutdown_timeout 10s;
daemon off; master_process on; worker_priority 0; env A=b; events { worker_connections 64; }
---
worker_processes auto; events { }
---
!worker_processes many; events { }
---
!user nonesuch_user_here; events { }
---
!events { worker_connections none; }
---
!daemon maybe; events { }
---
!http { }
"""
CASES = [("events { }\nhttp {\n%s\n}\n", case) for case in HTTP.split("---\n")]
CASES += [("%s", case) for case in MAIN.split("---\n")]


def verdict(text: str, directory: Path) -> tuple[bool, str]:
    """Whether nginx accepts the conf, and what it said."""
    (directory / "logs").mkdir()
    conf = directory / "a.conf"
    conf.write_text(text)
    command = [str(NGINX), "-t", "-p", str(directory), "-c", str(conf), "-e", "stderr"]
    said = subprocess.run(
        [*command, "-g", f"pid {directory}/pid;"], capture_output=True, text=True, timeout=20
    ).stderr
    # -t also binds the sockets, and that may fail for reasons of the machine.
    refusals = [line for line in said.splitlines() if "[emerg]" in line and "bind()" not in line]
    return not [line for line in refusals if "still could not bind" not in line], said


@pytest.mark.parametrize(("frame", "case"), CASES, ids=[case.strip()[:50] for _, case in CASES])
def test_nginx_agrees(frame: str, case: str, tmp_path: Path) -> None:
    case = case.strip()
    is_right = case[0] not in "!?"
    accepted, said = verdict(frame % case.lstrip("!?"), tmp_path)
    assert accepted is is_right, said
    order.declare_all()
    try:
        model = load(str(tmp_path / "a.conf"), prefix=str(tmp_path))
        generation.check(model)
    except ConfError as error:
        assert not is_right, error
        return
    assert is_right, f"nginx says: {said}"

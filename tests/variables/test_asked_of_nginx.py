"""Asks a real nginx what it makes of the same rewrites, maps, splits and networks."""

import http.client
import shutil
import socket
import subprocess
import time

import pytest
from ports import free_port

from proxy.base._request import Location
from proxy.conf import load_text
from proxy.routing._rewrite import run_on
from proxy.routing._uri import normalise
from proxy.routing.rewrite import compile_rewrite
from proxy.variables import directives  # noqa: F401
from proxy.variables.door import Probe
from proxy.variables.freeze import begin, finish

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

HTTP = r"""
map $arg_a $m { hostnames; default "d:$host"; x 1; *.x.test 2; .y.test 3; z.* 4;
    ~^(?<who>\w)-(.) "$who/$2"; ~*^CASE 5; "" empty; }
map $uri $v { volatile; /t/a A; default $m; }
split_clients $arg_a $s { 51.2% one; 10% two; 0.05% rare; * three; }
geo $arg_a $g { default d; 10.0.0.0/8 a; 10.1.0.0/16 b; 10.1.2.3 c; 2001:db8::/32 six; }
geo $arg_a $r { ranges; default d; 10.0.0.0-10.0.0.255 a; 10.0.0.7-10.0.0.9 b; }
"""
CONFS = [
    'return 200 "$m $v $s $g $r $1";',
    "set $x $arg_a; set $y $x$x; return 200 $y-$arg_b;",
    "rewrite ^/t/(.*) /n/$1; rewrite ^/n/(.) /m/$1?k=$1 last;",
    "rewrite ^/t/(.*)$ /n?u=$1&a=$arg_a? last;",
    "rewrite ^(.*)$ $1?c=$1; return 200 $uri|$args;",
    "rewrite ^/t(.*) http://e$1 redirect;",
    "rewrite ^/t(.*) http://e$1?z=$1? permanent;",
    "rewrite ^ http://e/?p=$arg_a redirect;",
    "rewrite ^ $arg_a? redirect;",
    "rewrite ^/t/(?<tail>.*) /n/$tail break; return 200 no;",
    "if ($arg_a ~ ^(.)(.)?) { set $x [$1][$2]; } return 200 $x;",
    "if ($uri ~ ^/t/(.*)) { set $x $1; } return 200 $x;",
    "if ($uri ~ ^/t/(.*)) { return 200 $1; }",
    "set $x 1; if ($arg_a) { set $x 2; break; } return 200 $x;",
    "if ($arg_a = x) { return 201 is; } if ($arg_a != x) { return 202 not; }",
    "if ($arg_a !~* ^X) { return 403; } return 204;",
    "set $args q=$arg_a; rewrite ^ /n;",
    "return 302 /to$uri$is_args$args;",
    "return 307 $scheme://$host$request_uri;",
    "return 404 '';",
    "rewrite ^/t/x /n/a; rewrite ^/n/b /n/c; rewrite ^/n/a /n/b; ",
]
TARGETS = [
    "/t/", "/t/x", "/t/a?a=x", "/t/x?a=b.x.test", "/t/x?a=Y.test&b=%20", "/t/?a=z.w", "/t/?a=q-w",
    "/t/?a=caseless", "/t/a%20b?a=10.1.2.3", "/t/%25%2B+;&?a=10.1.9.9", "/t/%3Fq?a=10.0.0.8",
    "/t/?a=2001:db8::5", "/t/?a=http%3A%2F%2Fe%2F%3Ffrom%3D1", "/t/x?A=x", "/t/?a=0", "/t/?a=&a=2",
    "/t/?xa=1&a=2", "/t/%C3%A9?a=%C3%A9", "/t/x//y/../z?b", "/t/?", "/t/?a=1&b=2&a=3",
]  # fmt: skip
TAIL = 'location / { return 200 "uri:$uri args:$args"; }'


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """ask(conf number, target) → (status, Location, body) of nginx."""
    home = tmp_path_factory.mktemp("nginx")
    port = free_port()
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port}; server_name c{n}; absolute_redirect off;\n"
        f"location /t/ {{ root {home}; {conf} }} {TAIL} }}"
        for n, conf in enumerate(CONFS)
    )
    (home / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\n"
        "events {} http { access_log off;\n"
        + "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in
                  ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + HTTP + servers + "}"
    )  # fmt: skip
    process = subprocess.Popen([NGINX, "-p", home, "-c", home / "nginx.conf"])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)

    def get(number, target):
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        link.putrequest("GET", target, skip_host=True)
        link.putheader("Host", f"c{number}")
        link.endheaders()
        answer = link.getresponse()
        body = answer.read()
        link.close()
        return answer.status, answer.getheader("Location"), body

    yield get
    process.terminate()
    process.wait(10)


def ours(number, target):
    main = load_text(
        "events {} http {" + HTTP + "server { location /t/ {" + CONFS[number] + "} } }", "t.conf"
    )
    begin(main)
    block = main.find("http")[0].find("server")[0].find("location")[0]
    program = compile_rewrite(block, lambda inner: Location(b"if"))
    finish()
    path, args, _ = normalise(target.encode())[:3]
    probe = Probe(f"GET {target} HTTP/1.1\r\nHost: c{number}\r\n\r\n".encode(), uri=path)
    said = run_on(program, probe.request)
    if said == "again":
        return 200, None, b"uri:%b args:%b" % (probe.uri, probe.args)
    if said == "go":
        return 404, None, None
    location = dict(probe.fields).get(b"Location")
    return (
        probe.status,
        None if location is None else location.decode("latin-1"),
        (probe.text if said == "done" else None),
    )


@pytest.mark.parametrize("number", range(len(CONFS)), ids=CONFS)
def test_alike(ask, number):
    for target in TARGETS:
        status, location, body = ask(number, target)
        mine = ours(number, target)
        assert mine[:2] == (status, location), target
        if mine[2] is not None:
            assert mine[2] == body, target

"""Asks a real nginx and our search the same questions: 60 locations, targets, hosts."""

import http.client
import random
import shutil
import socket
import subprocess
import time

import pytest
from ports import free_port

from proxy.conf import load_text
from proxy.routing import directives  # noqa: F401
from proxy.routing._names import host_of
from proxy.routing._uri import normalise
from proxy.routing.location import build_tree
from proxy.routing.server_name import build_names

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

# (location arguments, locations inside). What stands in SLASHES hands on by proxy_pass.
LOCATIONS = [
    ("= /", []),
    ("/", []),
    ("/a", [("/a/b", [("/a/b/c", []), (r"~ \.x$", [])]), ("= /a/bb", []), (r"~ \.y$", [])]),
    ("/a/", [("/a/deep/", [("~ deep/(.*)z$", []), ("= /a/deep/eq", [])])]),
    ("= /a", []),
    ("/ab", []),
    ("/abc", [(r"~* \.(X|Y)$", [])]),
    ("/abcd", []),
    ("= /abcd", []),
    ("^~ /img/", [(r"~ \.gif$", []), ("/img/in/", [])]),
    ("^~ /img/raw", []),
    ("/img/raw/more", []),
    (r"~* \.(gif|jpe?g)$", []),
    (r"~ ^/user/(?<id>\d+)(/.*)?$", [(r"~ /edit$", [])]),
    (r"~ \.php(/|$)", []),
    (r"~* ^/CaSe", []),
    (r"~ ^/Case", []),
    ("/pass/", []),
    ("/pass-a", []),
    ("/pass-b", []),
    ("/p/", [("/p/q/", []), ("/p/r", [])]),
    ("/both/", []),
    ("= /both", []),
    ("/plain", []),
    ("/plain/", []),
    ("= /eq/", []),
    ("^~ /quiet/", []),
    ("/UPPER", []),
    ("/upper", []),
    ("/very/long/name/that/does/not/fit/into/one/node/of/the/tree/at/all/", []),
    ("/very/long/name/that/does/not/fit/into/one/node/of/the/other/tree", []),
    *((f"/n{n}", []) for n in (1, 10, 100, 11, 2, 21)),
    *((f"= /n{n}", []) for n in (1, 101, 3)),
    *((f"/dir{n}/", []) for n in range(1, 13)),
]
SLASHES = {"/pass/", "/p/", "/p/q/", "/both/", "/plain/", "= /eq/", "^~ /quiet/", "/dir3/"}
PIECES = [
    "", "/", "x", "a", "b", "c", "/b", "/c", "/b/c", "b/", ".x", ".y", ".X", ".gif", ".JPG", ".php",
    ".php/x", "/user/7", "/user/7/edit", "/user/x", "deep/", "deep", "eq", "z", "in/", "/edit", "q",
    "q/", "r", "1", "0", "d", "/case", "/Case", "more", "-a", "-c",
]  # fmt: skip


def written(locations, body, line=1):
    """Conf text with one location a line, so that its line is its number; and the last line."""
    text = ""
    for args, inner in locations:
        line += 1
        inside, end = written(inner, body, line)
        text += f"\nlocation {args} {{ {body(args, line)} {inside} }}"
        line = end
    return text, line


def uris():
    rng = random.Random(7)
    names = [args.split()[-1] for args, _ in LOCATIONS if "~" not in args or "^~" in args]
    names += ["/a/b", "/a/bb", "/a/deep", "/img/in", "/p/q", "/p/r", "/user/12", "/x", ""]
    asked = {name for name in names if name}
    asked |= {name.rstrip("/") or "/" for name in names} | {name + "/" for name in names if name}
    while len(asked) < 420:
        uri = rng.choice(names) + rng.choice(PIECES) + rng.choice(PIECES)
        if uri.startswith("/") and "//" not in uri:
            asked.add(uri)
    return sorted(asked)


TARGET_PIECES = [
    "/", "/", "/", "a", "b.c", ".", "..", "%2e", "%2E%2e", "%2f", "%41", "%", "%4", "%zz",
    "%25", "%23", "%3f", "?", "#", "?x=%20", "+", "%2b", "...", ".a", "a.", "%00", "%7f",
    "&", "=", "//", "/./", "/../",
]  # fmt: skip


def targets():
    rng = random.Random(11)
    return sorted(
        {"/" + "".join(rng.choices(TARGET_PIECES, k=rng.randrange(1, 8))) for _ in range(500)}
    )


SERVERS = [
    "first.test", "exact.test *.exact.test", "*.wild.test", "*.deep.wild.test", ".dot.test",
    "tail.*", "tail.more.*", r"~^re(\d+)\.test$", "~UPPER", '""', "*.a.tail.more.x",
]  # fmt: skip
HOSTS = [
    "first.test", "FIRST.test", "first.test.", "first.test:81", "exact.test", "a.exact.test",
    "b.a.exact.test", "wild.test", "x.wild.test", "deep.wild.test", "x.deep.wild.test",
    "y.x.deep.wild.test", "dot.test", "x.dot.test", "xdot.test", "tail.a", "tail.a.b", "tail",
    "tail.more", "tail.more.x", "a.tail.more.x", "b.a.tail.more.x", "re12.test", "re.test",
    "RE7.TEST", "isupper", "none", "[::1]", "[::1]:80", "a..b", ".", "a/b", "x_y.wild.test",
    ".wild.test", "1.2.3.4:9",
]  # fmt: skip


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """Ports of a running nginx: locations, targets with and without merging, hosts."""
    prefix = tmp_path_factory.mktemp("nginx")
    ports = [free_port() for _ in range(4)]

    def body(args, line):
        mark = f'add_header X-Line {line} always; add_header X-One "[$1]" always;'
        return mark + (" proxy_pass http://127.0.0.1:1;" if args in SLASHES else " return 200;")

    echo = 'location / { add_header X-Uri "[$uri]"; add_header X-Args "[$args]"; return 204; }'
    hosts = "".join(
        f"server {{ listen 127.0.0.1:{ports[3]}; server_name {names}; return 200 {n}; }}\n"
        for n, names in enumerate(SERVERS)
    )
    temp = "".join(
        f"{kind}_temp_path {prefix}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (prefix / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {prefix}/pid; error_log {prefix}/log crit;"
        f"events {{}} http {{ access_log off; {temp} proxy_connect_timeout 1s;"
        f"server {{ listen 127.0.0.1:{ports[0]}; root {prefix}/none;"
        f" add_header X-Line 1 always; {written(LOCATIONS, body)[0]} }}"
        f"server {{ listen 127.0.0.1:{ports[1]}; {echo} }}"
        f"server {{ listen 127.0.0.1:{ports[2]}; merge_slashes off; {echo} }} {hosts} }}"
    )
    process = subprocess.Popen(
        [NGINX, "-p", str(prefix), "-e", str(prefix / "log"), "-c", str(prefix / "nginx.conf")],
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(200):
            assert process.poll() is None, process.stderr.read().decode()
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", ports[3])) == 0:
                    break
            time.sleep(0.05)
        yield ports
    finally:
        process.terminate()
        process.wait(10)


def ask(connection, target, host="x"):
    connection.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)
    # putrequest refuses odd targets, which are the point here
    connection._buffer[0] = b"GET " + target.encode("latin-1") + b" HTTP/1.1"
    connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response, response.read()


def test_locations(nginx):
    text = f"events {{}} http {{ server {{{written(LOCATIONS, lambda args, line: '')[0]}\n}} }}"
    (server,) = load_text(text, "conf").find("http")[0].find("server")
    tree = build_tree(
        server,
        lambda block: block.line,
        lambda block: " ".join(block.args) in SLASHES,
    )
    connection = http.client.HTTPConnection("127.0.0.1", nginx[0], timeout=10)
    asked = uris()
    assert len(asked) >= 300
    for uri in asked:
        response, _ = ask(connection, uri)
        line, is_redirect, groups = tree.find(normalise(uri.encode())[0])
        one = groups[1].decode() if groups and len(groups) > 1 else ""
        ours = (line, is_redirect, one)
        theirs = (
            int(response.headers["X-Line"]),
            response.status == 301,
            (response.headers["X-One"] or "[]")[1:-1],
        )
        assert ours == theirs, uri


@pytest.mark.parametrize("is_merging", [True, False])
def test_targets(nginx, is_merging):
    connection = http.client.HTTPConnection(
        "127.0.0.1", nginx[1] if is_merging else nginx[2], timeout=10
    )
    for target in targets():
        response, _ = ask(connection, target)
        if response.status == 400:
            with pytest.raises(ValueError, match="invalid request target"):
                normalise(target.encode(), is_merging)
            continue
        path, args, _, _ = normalise(target.encode(), is_merging)
        theirs = (response.headers["X-Uri"], response.headers["X-Args"])
        assert (f"[{path.decode('latin-1')}]", f"[{args.decode()}]") == theirs, target


def test_hosts(nginx):
    text = "".join(f"server {{ server_name {names}; }}\n" for names in SERVERS)
    blocks = load_text("events {} http {" + text + "}", "conf").find("http")[0].find("server")
    names, _ = build_names("*:80", [(block, n) for n, block in enumerate(blocks)], 0)
    for host in HOSTS:
        connection = http.client.HTTPConnection("127.0.0.1", nginx[3], timeout=10)
        response, answer = ask(connection, "/", host)
        connection.close()
        if response.status == 400:
            with pytest.raises(ValueError, match="invalid host"):
                host_of(host.encode())
            continue
        assert names.find(host_of(host.encode())[0])[0] == int(answer), host

"""Upstream blocks: what they mean, what is refused and where, and the Upstream they become."""

from __future__ import annotations

import socket

import pytest

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.conf.values import Endpoint
from proxy.order import declare_all
from proxy.upstream._balance import Attempts
from proxy.upstream.proxy_pass import read_url
from proxy.upstream.servers import (
    UpstreamSettings,
    Zone,
    make_implicit,
    make_upstream,
    read_upstream,
)

declare_all()
HOSTS = {"one.test": ["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.1"], "two.test": ["10.0.0.9"]}


def find_addresses(host: str) -> list[str]:
    if host not in HOSTS:
        raise OSError(host)
    return HOSTS[host]


def settings(text: str, http: str = "") -> UpstreamSettings:
    conf = load_text(f"events {{ }} http {{ {http}\nupstream Ups {{\n{text}\n}} }}")
    return read_upstream(conf.find("http")[0].find("upstream")[0])


def test_a_server_line_says_everything() -> None:
    line = settings(
        "server one.test:81 weight=5 max_fails=2 fail_timeout=1m max_conns=7 down; server a backup;"
    ).servers[0]
    assert (line.endpoint, line.text) == (Endpoint("one.test", 81), "one.test:81")
    assert (line.weight, line.max_fails, line.fail_timeout_ms, line.max_conns) == (5, 2, 60_000, 7)
    assert line.is_down
    assert not line.is_backup


def test_defaults_are_those_of_nginx_1_31() -> None:
    it = settings("server a;")
    line = it.servers[0]
    assert (line.weight, line.max_fails, line.fail_timeout_ms, line.max_conns) == (1, 1, 10_000, 0)
    assert line.endpoint.port == 80
    assert (it.method, it.key, it.keepalive, it.is_local) == ("round_robin", None, 32, True)
    assert (it.keepalive_requests, it.keepalive_time_ms) == (1000, 3_600_000)
    assert it.keepalive_timeout_ms == 60_000
    assert it.zone is None


@pytest.mark.parametrize(
    ("line", "kept"), [("keepalive 8;", (8, False)), ("keepalive 8 local;", (8, True)),
                       ("keepalive 0;", (0, False))],
)  # fmt: skip
def test_keepalive(line: str, kept: tuple[int, bool]) -> None:
    it = settings(f"server a; {line} keepalive_requests 5; keepalive_time 2s; keepalive_timeout 3;")
    assert (it.keepalive, it.is_local) == kept
    assert (it.keepalive_requests, it.keepalive_time_ms, it.keepalive_timeout_ms) == (5, 2000, 3000)


@pytest.mark.parametrize(
    ("line", "method", "key"),
    [
        ("least_conn;", "least_conn", None),
        ("ip_hash;", "ip_hash", None),
        ("hash $uri$args;", "hash", "$uri$args"),
        ("hash $uri consistent;", "consistent", "$uri"),
        ("random;", "random", None),
        ("random two;", "random_two", None),
        ("random two least_conn;", "random_two", None),
        ("least_conn; hash x;", "hash", "x"),
    ],
)
def test_methods(line: str, method: str, key: str | None) -> None:
    it = settings(f"{line} server a;")
    assert (it.method, it.key) == (method, key)


def test_a_second_method_is_warned_of() -> None:
    conf = load_text("events {} http { upstream u { server a;\nleast_conn;\nip_hash; } }")
    assert conf.notes == [("warn", "load balancing method redefined in conf:3")]


def test_zone_and_resolver() -> None:
    it = settings("zone z 64k; server one.test resolve;", http="resolver 127.0.0.1 valid=5s;")
    assert it.zone == Zone("z", 65536)
    assert it.servers[0].is_resolved
    assert it.resolver.servers == (Endpoint("127.0.0.1", 53),)
    assert it.resolver.valid_s == 5
    assert settings("zone z; server a;").zone == Zone("z", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'no servers in upstream "Ups" in conf:2'),
        ("server a backup;", 'no servers in upstream "Ups" in conf:2'),
        ("server a weight=0;", 'invalid parameter "weight=0" in conf:3'),
        ("server a weight=x;", 'invalid parameter "weight=x" in conf:3'),
        ("server a weight;", 'invalid parameter "weight" in conf:3'),
        ("server a max_fails=-1;", 'invalid parameter "max_fails=-1" in conf:3'),
        ("server a fail_timeout=1x;", 'invalid parameter "fail_timeout=1x" in conf:3'),
        ("server a up;", 'invalid parameter "up" in conf:3'),
        ("server a drain;", 'parameter "drain" is known to nginx, not supported by Headrace'),
        ("server a service=x;", "not supported by Headrace in conf:3"),
        ("server a route=;", 'invalid parameter "route=" in conf:3'),
        ("server a:0;", 'invalid port in upstream "a:0" in conf:3'),
        ("server a:70000;", 'invalid port in upstream "a:70000" in conf:3'),
        ("server unix:;", "no path in the unix domain socket"),
        ("server [::1;", 'invalid IPv6 address in upstream "[::1" in conf:3'),
        ("server a\nresolve;", "requires upstream \"Ups\" to be in shared memory in conf:2"),
        ("hash k;\nserver a; server b backup;", 'does not support parameter "backup" in conf:4'),
        ("random;\nserver a backup;", 'does not support parameter "backup" in conf:4'),
        ("ip_hash;\nserver a backup;", 'does not support parameter "backup" in conf:4'),
        ("server a; hash;", 'invalid number of arguments in "hash" directive in conf:3'),
        ("server a; hash k ketama;", 'invalid parameter "ketama" in conf:3'),
        ("server a; random three;", 'invalid parameter "three" in conf:3'),
        ("server a; random two least_time=header;", "not supported by Headrace in conf:3"),
        ("server a; least_conn x;", 'invalid number of arguments in "least_conn" directive'),
        ("server a; keepalive x;", 'invalid value "x" in "keepalive" directive in conf:3'),
        ("server a; keepalive 1 global;", 'invalid parameter "global" in conf:3'),
        ("server a; keepalive 1; keepalive 2;", '"keepalive" directive is duplicate in conf:3'),
        ("server a; zone z 4k;", 'zone "z" is too small in conf:3'),
        ("server a; zone z x;", 'invalid zone size "x" in conf:3'),
        ("server a; proxy_pass http://b;", '"proxy_pass" directive is not allowed here'),
        ("server a; } upstream ups { server b;", 'duplicate upstream "ups" in conf:3'),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        settings(text)
    assert message in str(error.value)


def test_an_upstream_has_all_addresses_of_a_name() -> None:
    upstream = make_upstream(
        settings("server one.test:81 weight=2; server unix:/tmp/s; server [fd00::2]:82;"),
        find_addresses,
    )
    assert [peer.name for peer in upstream.peers] == [
        b"10.0.0.1:81", b"10.0.0.2:81", b"[fd00::1]:81", b"unix:/tmp/s", b"[fd00::2]:82",
    ]  # fmt: skip
    assert [peer.weight for peer in upstream.peers] == [2, 2, 2, 1, 1]
    assert {peer.server for peer in upstream.peers[:3]} == {b"one.test:81"}
    assert upstream.name == b"Ups"
    assert upstream.settings["keepalive"] == 32


def test_a_name_without_addresses() -> None:
    with pytest.raises(ValueError, match='host not found in upstream "no.test:9"'):
        make_upstream(settings("server no.test:9;"), find_addresses)


def test_names_to_follow_begin_empty() -> None:
    it = settings("zone z 64k; server no.test resolve; server 10.0.0.5 resolve;",
                  http="resolver 127.0.0.1;")  # fmt: skip
    upstream = make_upstream(it, find_addresses)
    assert [peer.name for peer in upstream.peers] == [b"10.0.0.5:80"]


def test_an_implicit_upstream_keeps_no_connections() -> None:
    target = read_url("http://one.test:8080/x")
    upstream = make_implicit(target, HOSTS["one.test"][:3])
    assert upstream.settings["keepalive"] == 0
    assert upstream.name == b"one.test:8080"
    assert [peer.name for peer in upstream.peers][0] == b"10.0.0.1:8080"


def test_peers_can_be_connected_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        upstream = make_upstream(settings(f"server 127.0.0.1:{port};"), find_addresses)
        peer = Attempts(upstream).pick(1)
        assert peer is not None
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        with socket.socket(peer.family) as link:
            assert libc.connect(link.fileno(), peer.sockaddr, len(peer.sockaddr)) == 0

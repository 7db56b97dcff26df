"""Where proxy_pass goes, and the other proxy_ directives: values, defaults, refusals."""

from __future__ import annotations

import pytest

from proxy.conf import load_text
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.conf.values import Endpoint
from proxy.order import declare_all
from proxy.upstream.directives import Bind, Buffers, ResolverSettings, read_buffers
from proxy.upstream.proxy_pass import Target, VariableTarget, find_upstream, read_url

declare_all()


def location(text: str, name: str = "/l/", http: str = "") -> Block:
    conf = load_text(
        f"events {{ }}\nhttp {{ {http}\nserver {{\nlocation {name} {{\n{text}\n}} }} }}"
    )
    return conf.find("http")[0].find("server")[0].find("location")[0]


@pytest.mark.parametrize(
    ("url", "endpoint", "uri", "proxy_host", "proxy_port", "name"),
    [
        ("http://u", Endpoint("u", 80), "", "u", "80", "u"),
        ("http://U/", Endpoint("U", 80), "/", "U", "80", "u"),
        ("https://u/a?b", Endpoint("u", 443), "/a?b", "u", "443", "u"),
        ("HTTP://u?b", Endpoint("u", 80), "?b", "u", "80", "u"),
        ("http://u:80", Endpoint("u", 80), "", "u", "80", ""),
        ("http://u:81/x:9", Endpoint("u", 81), "/x:9", "u:81", "81", ""),
        ("https://u:80", Endpoint("u", 80), "", "u:80", "80", ""),
        ("http://[::1]/x", Endpoint("::1", 80), "/x", "[::1]", "80", "::1"),
        ("http://[::1]:81", Endpoint("::1", 81), "", "[::1]:81", "81", ""),
        ("http://unix:/a/s", Endpoint("", 0, "/a/s"), "", "localhost", "", ""),
        ("http://unix:/a/s:/x", Endpoint("", 0, "/a/s"), "/x", "localhost", "", ""),
        ("https://unix:/a/s:", Endpoint("", 0, "/a/s"), "", "localhost", "", ""),
    ],
)
def test_urls(
    url: str, endpoint: Endpoint, uri: str, proxy_host: str, proxy_port: str, name: str
) -> None:
    target = read_url(url)
    assert (target.endpoint, target.uri) == (endpoint, uri)
    assert (target.proxy_host, target.proxy_port) == (proxy_host, proxy_port)
    assert target.name == name
    assert target.is_tls == url.lower().startswith("https")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("u", "invalid URL prefix in conf:5"),
        ("ftp://u", "invalid URL prefix in conf:5"),
        ("http://", 'no host in upstream "" in conf:5'),
        ("http:///x", 'no host in upstream "/x" in conf:5'),
        ("http://u:", 'invalid port in upstream "u:" in conf:5'),
        ("http://u:x/", 'invalid port in upstream "u:x/" in conf:5'),
        ("http://u:99999", "invalid port"),
        ("http://[::1", "invalid IPv6 address"),
        ("http://unix:", "no path in the unix domain socket"),
        ("http://unix:/" + "x" * 120, "too long path in the unix domain socket"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        location(f"proxy_pass {url};")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["/l/", "= /l/", "^~ /l/"])
def test_a_uri_replaces_the_prefix(name: str) -> None:
    target = location("proxy_pass http://u/x/;", name).get("proxy_pass")
    assert isinstance(target, Target)
    assert (target.uri, target.location) == ("/x/", "/l/")


@pytest.mark.parametrize("name", ["~ ^/l", "~* l", "@name"])
def test_no_uri_where_there_is_no_prefix(name: str) -> None:
    assert location("proxy_pass http://u;", name).get("proxy_pass").location == ""
    with pytest.raises(ConfError, match='"proxy_pass" cannot have URI part in location'):
        location("proxy_pass http://u/;", name)


def test_variables_wait_for_the_request() -> None:
    target = location("proxy_pass http://$host:$p/x$y;").get("proxy_pass")
    assert target == VariableTarget("http://$host:$p/x$y", "/l/")
    assert location("proxy_pass $u;", "~ x").get("proxy_pass") == VariableTarget("$u")


def test_it_stands_once_and_is_not_inherited() -> None:
    with pytest.raises(ConfError, match='"proxy_pass" directive is duplicate'):
        location("proxy_pass http://u; proxy_pass http://v;")
    outer = location("proxy_pass http://u; location /l/m { }")
    assert outer.find("location")[0].get("proxy_pass") is None


def test_upstream_blocks_are_found_by_name() -> None:
    names = {"u": True}
    assert find_upstream(read_url("http://U/x"), names) == "u"
    assert find_upstream(read_url("http://v"), names) == ""
    assert find_upstream(read_url("http://unix:/u"), names) == ""
    with pytest.raises(ValueError, match='upstream "u" may not have port 80'):
        find_upstream(read_url("http://u:80"), names)


DEFAULTS = {
    "proxy_http_version": 11,
    "proxy_connect_timeout": 60_000,
    "proxy_send_timeout": 60_000,
    "proxy_read_timeout": 60_000,
    "proxy_next_upstream": 3,
    "proxy_next_upstream_tries": 0,
    "proxy_next_upstream_timeout": 0,
    "proxy_bind": None,
    "proxy_socket_keepalive": False,
    "proxy_socket_rcvbuf": 0,
    "proxy_socket_sndbuf": 0,
    "resolver": None,
    "resolver_timeout": 30_000,
    "proxy_buffering": True,
    "proxy_request_buffering": True,
    "proxy_buffer_size": 4096,
    "proxy_buffers": (8, 4096),
    "proxy_max_temp_file_size": 1 << 30,
    "proxy_temp_path": "proxy_temp",
    "proxy_limit_rate": 0,
    "proxy_ignore_client_abort": False,
    "proxy_set_header": [],
    "proxy_set_body": None,
    "proxy_method": None,
    "proxy_pass_request_headers": True,
    "proxy_pass_request_body": True,
    "proxy_hide_header": [],
    "proxy_pass_header": [],
    "proxy_ignore_headers": frozenset(),
    "proxy_redirect": [],
    "proxy_cookie_domain": [],
    "proxy_cookie_path": [],
    "proxy_cookie_flags": [],
    "proxy_intercept_errors": False,
    "proxy_pass_trailers": False,
    "proxy_ssl_certificate": None,
    "proxy_ssl_verify": False,
    "proxy_ssl_verify_depth": 1,
    "proxy_ssl_name": "$proxy_host",
    "proxy_ssl_server_name": False,
    "proxy_ssl_protocols": ["TLSv1.2", "TLSv1.3"],
    "proxy_ssl_ciphers": "DEFAULT",
    "proxy_ssl_session_reuse": True,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_nginx_1_31(name: str) -> None:
    assert location("").get(name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("proxy_http_version 1.0", 10),
        ("proxy_read_timeout 1500ms", 1500),
        ("proxy_bind 127.0.0.2", Bind("127.0.0.2", Endpoint("127.0.0.2", 0))),
        ("proxy_bind [::1]:9", Bind("[::1]:9", Endpoint("::1", 9))),
        ("proxy_bind $remote_addr", Bind("$remote_addr", None)),
        ("proxy_bind off", None),
        ("proxy_buffers 4 8k", (4, 8192)),
        ("proxy_temp_path /t 1 2", "/t"),
        ("proxy_limit_rate 10k", 10240),
        ("proxy_limit_rate $rate", "$rate"),
        ("proxy_set_header A a$b; proxy_set_header C ''", [("A", "a$b"), ("C", "")]),
        ("proxy_hide_header A; proxy_hide_header B", ["A", "B"]),
        ("proxy_ignore_headers Vary x-accel-redirect", {"vary", "x-accel-redirect"}),
        (
            "resolver 127.0.0.1 [::1]:5353 valid=1m ipv6=off",
            ResolverSettings((Endpoint("127.0.0.1", 53), Endpoint("::1", 5353)), 60, True, False),
        ),
        ("proxy_ssl_protocols tlsv1.3", ["TLSv1.3"]),
    ],
)
def test_values(line: str, value: object) -> None:
    assert location(f"{line};").get(line.split()[0]) == value
    # and the same from outside
    assert location("", http=f"{line};").get(line.split()[0]) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("proxy_http_version 3", 'invalid value "3" in conf:5'),
        ("proxy_bind x:y", 'invalid address "x:y" in conf:5'),
        ("proxy_bind 127.0.0.1 transparent", "not supported by Headrace in conf:5"),
        ("proxy_bind 127.0.0.1 opaque", 'invalid parameter "opaque" in conf:5'),
        ("proxy_temp_path /t 4", 'invalid value "4" in conf:5'),
        ("proxy_ignore_headers Date", 'invalid value "Date" in conf:5'),
        ("proxy_limit_rate x", '"proxy_limit_rate" directive invalid value in conf:5'),
        ("proxy_set_header A", 'invalid number of arguments in "proxy_set_header" directive'),
        ("proxy_buffering maybe", 'it must be "on" or "off" in conf:5'),
        ("resolver valid=5s", "no name servers defined in conf:5"),
        ("resolver 127.0.0.1 valid=x", "invalid parameter: valid=x in conf:5"),
        ("resolver 127.0.0.1 ipv6=x", "invalid parameter: ipv6=x in conf:5"),
        ("resolver 127.0.0.1 ipv4=off ipv6=off", 'cannot both be "off" in conf:5'),
        ("resolver 127.0.0.1:x", 'invalid port in resolver "127.0.0.1:x" in conf:5'),
        ("proxy_ssl_protocols TLSv9", 'invalid value "TLSv9" in conf:5'),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        location(f"{line};")
    assert message in str(error.value)


def test_buffers_follow_each_other() -> None:
    assert read_buffers(location("")) == Buffers(4096, 8, 4096, 8192, 8192, 1 << 30)
    block = location("proxy_buffer_size 16k; proxy_buffers 4 32k; proxy_max_temp_file_size 0;")
    assert read_buffers(block) == Buffers(16384, 4, 32768, 65536, 65536, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxy_buffers 1 4k;", 'there must be at least 2 "proxy_buffers" in conf:4'),
        ("proxy_busy_buffers_size 1k;", '"proxy_busy_buffers_size" must be equal to or greater'),
        ("proxy_busy_buffers_size 32k;", '"proxy_busy_buffers_size" must be less than'),
        ("proxy_temp_file_write_size 1k;", '"proxy_temp_file_write_size" must be equal to'),
        ("proxy_max_temp_file_size 1k;", '"proxy_max_temp_file_size" must be equal to zero'),
    ],
)
def test_buffers_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(ConfError) as error:
        read_buffers(location(text))
    assert message in str(error.value)

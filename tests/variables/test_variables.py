"""What $variables say of a request, and how strings with them are compiled."""

import re

import pytest

from proxy.conf import ConfError
from proxy.conf.lexer import Token
from proxy.variables import directives  # noqa: F401  (declares the names)
from proxy.variables._variables import (
    Regex,
    begin_plan,
    check_names,
    compile,
    define_stored,
    number_of,
)
from proxy.variables.door import Probe

HEAD = (
    b"POST /a%20b/c?x=1&Name=Two&y=&x=3 HTTP/1.1\r\n"
    b"Host: Example.COM:8080\r\n"
    b"X-Tag: one\r\n"
    b"X-Tag: two\r\n"
    b"Cookie: a=b; Session=s1\r\n"
    b"Cookie: last = l2\r\n"
    b"User-Agent: t\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 5\r\n"
    b"Authorization: Basic dXNlcjpwYXNz\r\n"
    b"\r\n"
)

OF_REQUEST = {
    "$host": b"example.com",
    "$http_host": b"Example.COM:8080",
    "$request": b"POST /a%20b/c?x=1&Name=Two&y=&x=3 HTTP/1.1",
    "$request_method": b"POST",
    "$request_uri": b"/a%20b/c?x=1&Name=Two&y=&x=3",
    "$uri": b"/a b/c",
    "$document_uri": b"/a b/c",
    "$args": b"x=1&Name=Two&y=&x=3",
    "$query_string": b"x=1&Name=Two&y=&x=3",
    "$is_args": b"?",
    "$arg_x": b"1",
    "$arg_name": b"Two",
    "$arg_y": b"",
    "$arg_none": b"",
    "$arg_$cookie_$http_": b"",
    "$server_protocol": b"HTTP/1.1",
    "$server_name": b"localhost",
    "$scheme": b"http",
    "$https": b"",
    "$http_x_tag": b"one, two",
    "$http_none": b"",
    "$http_cookie": b"a=b; Session=s1; last = l2",
    "$cookie_a": b"b",
    "$cookie_session": b"s1",
    "$cookie_last": b"l2",
    "$cookie_none": b"",
    "$content_type": b"text/plain",
    "$content_length": b"5",
    "$remote_user": b"user",
    "$remote_addr": b"127.0.0.1",
    "$remote_port": b"4711",
    "$binary_remote_addr": bytes([127, 0, 0, 1]),
    "$request_port": b"8080",
    "$is_request_port$request_port": b":8080",
    "$connection": b"7",
    "$connection_requests": b"1",
    "$pipe": b".",
    "$status": b"000",
    "$bytes_sent": b"0",
    "$body_bytes_sent": b"0",
    "$request_completion": b"",
    "$limit_rate": b"0",
    "$proxy_protocol_addr": b"",
    "$upstream_addr": b"",
    "${host}x": b"example.comx",
    "a$host-$scheme.": b"aexample.com-http.",
    "$HOST": b"example.com",
    "plain": b"plain",
    "": b"",
}


@pytest.fixture(autouse=True)
def plan():
    begin_plan()


def ask(text, probe=None):
    template = compile(text)
    check_names()
    return (probe or Probe(HEAD, uri=b"/a b/c")).evaluate(template)


@pytest.mark.parametrize("text", OF_REQUEST)
def test_what_a_request_says(text):
    assert ask(text) == OF_REQUEST[text]


@pytest.mark.parametrize("text", OF_REQUEST)
def test_the_same_after_the_head_moved(text):
    # the value may be asked before and after its bytes move: it must not be the old bytes
    template = compile(text)
    probe = Probe(bytes(bytearray(HEAD)), uri=b"/a b/c")
    assert probe.evaluate(template) == OF_REQUEST[text]
    probe.keep_head()
    assert probe.evaluate(template) == OF_REQUEST[text]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("$msec", rb"\d{10}\.\d{3}"),
        ("$request_time", rb"\d\.\d{3}"),
        ("$connection_time", rb"\d+\.\d{3}"),
        ("$time_local", rb"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"),
        ("$time_iso8601", rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"),
        ("$request_id", rb"[0-9a-f]{32}"),
        ("$pid", rb"\d+"),
        ("$hostname", rb".+"),
        ("$nginx_version", rb"\d+\.\d+\.\d+"),
    ],
)
def test_shapes(text, shape):
    assert re.fullmatch(shape, ask(text))


def test_request_id_is_one_per_request():
    probe = Probe()
    assert probe.value("request_id") == probe.value("request_id")
    assert probe.value("request_id") != Probe().value("request_id")


def test_without_host_it_is_the_servers_name():
    probe = Probe(b"GET / HTTP/1.0\r\n\r\n", server="first.test")
    assert ask("$host|$server_protocol", probe) == b"first.test|HTTP/1.0"


def test_not_found_is_not_empty():
    probe = Probe(HEAD)
    assert probe.value("arg_none") is None
    assert probe.value("arg_y") == b""
    assert probe.value("http_none") is None


def test_names_that_come_with_the_request():
    probe = Probe(HEAD)
    assert probe.named("Host") == b"example.com"
    assert probe.named("arg_name") == b"Two"
    assert probe.named("nobody") is None
    assert probe.named("http_none") is None


def test_addresses():
    assert ask("$remote_addr $remote_port", Probe(client="[2001:db8::1]:99")) == b"2001:db8::1 99"
    assert len(ask("$binary_remote_addr", Probe(client="::1"))) == 16
    assert ask("$remote_addr$remote_port", Probe(client="unix:")) == b"unix:"


def test_upstreams_that_were_tried():
    probe = Probe()
    probe.add_attempt(b"10.0.0.1:80", 502, 1, -1, 2)
    probe.add_attempt(b"10.0.0.2:80", 200, 3, 1004, 61005, 17)
    probe.add_attempt(b"unix:/x", 0, is_redirect=True)
    assert probe.value("upstream_addr") == b"10.0.0.1:80, 10.0.0.2:80 : unix:/x"
    assert probe.value("upstream_status") == b"502, 200 : -"
    assert probe.value("upstream_connect_time") == b"0.001, 0.003 : -"
    assert probe.value("upstream_header_time") == b"-, 1.004 : -"
    assert probe.value("upstream_response_time") == b"0.002, 61.005 : -"
    assert probe.value("upstream_response_length") == b"0, 17 : 0"


def test_what_the_upstream_said_and_what_we_send():
    probe = Probe()
    probe.put_answer(
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\nSet-Cookie: a=b; path=/\r\n"
        b"Set-Cookie: Sid=z9; a=no\r\nContent-Length: 0\r\n\r\n"
    )
    probe.add_field(b"X-a", b"2")
    assert probe.value("upstream_http_x_a") == b"1"
    assert probe.value("upstream_http_connection") == b"close"
    assert probe.value("upstream_cookie_a") == b"b"
    assert probe.value("upstream_cookie_sid") == b"z9"
    assert probe.value("sent_http_x_a") == b"1, 2"
    assert probe.value("sent_http_connection") == b"close"
    assert probe.value("status") == b"200"


WRONG = {
    "$": "invalid variable name",
    "a$": "invalid variable name",
    "$-": "invalid variable name",
    "${}": "invalid variable name",
    "${host": 'the closing bracket in "host" variable is missing',
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_names_are_refused(text):
    with pytest.raises(ConfError, match=re.escape(WRONG[text]) + " in f:7"):
        compile(Token(text, "f", 7))


def test_unknown_names_are_refused_when_all_is_read():
    compile(Token("$later", "f", 1))
    compile(Token("$never", "f", 9))
    define_stored("later")
    with pytest.raises(ConfError, match='unknown "never" variable in f:9'):
        check_names()


def test_a_rooms_name_cannot_be_defined():
    with pytest.raises(ConfError, match='the duplicate "host" variable'):
        define_stored("host")
    define_stored("args")


def test_constants_are_not_evaluated():
    assert compile("abc").is_constant
    assert not compile("$host").is_constant


def test_captures_and_named_groups():
    regex = Regex(r"^/(?<first>\w+)/(\w+)(x)?")
    probe = Probe()
    assert probe.match(regex, b"/one/two")
    assert probe.evaluate(compile("$2-$1-$3-$first")) == b"two-one--one"
    assert not probe.match(regex, b"/")
    assert probe.evaluate(compile("$first")) == b"one"


def test_many_segments():
    assert ask("$scheme," * 100) == b"http," * 100


def test_values_of_a_sub_request_are_the_main_ones():
    number_of("remote_addr")
    main = Probe(client="10.0.0.1")
    assert main.value("remote_addr") == b"10.0.0.1"
    sub = Probe(client="10.0.0.2", main=main)
    assert sub.value("remote_addr") == b"10.0.0.1"

"""Location, Refresh and Set-Cookie seen from outside, with the rules that nginx's tests use."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.order import declare_all
from proxy.upstream.proxy_pass import Target, default_redirect
from proxy.upstream.rewrite_reply import (
    Compiled,
    Rule,
    compile_rules,
    rewrite_cookie,
    rewrite_location,
    rewrite_refresh,
)

declare_all()

Request = dict[str, bytes]


def compile_text(text: str) -> Callable[[Request], bytes]:
    """$name and $1 from a request that is a dict."""

    def value(request: Request) -> bytes:
        return re.sub(rb"\$(\w+)", lambda m: request[m[1].decode()], text.encode())

    return value


def compile_regex(pattern: str, is_caseless: bool) -> Callable[[Request, bytes], bool]:
    regex = re.compile(pattern.encode(), re.IGNORECASE if is_caseless else 0)

    def matches(request: Request, value: bytes) -> bool:
        match = regex.search(value)
        if match is None:
            return False
        for number, group in enumerate(match.groups(), 1):
            request[str(number)] = group
        return True

    return matches


def rules(name: str, lines: list[str], proxy_pass: str = "") -> tuple[Compiled, ...]:
    """The rules of a location /l/ that holds the lines."""
    said = " ".join(f"{name} {line};" for line in lines)
    text = f"events {{ }} http {{ server {{ location /l/ {{ {proxy_pass} {said} }} }} }}"
    block = load_text(text).find("http")[0].find("server")[0].find("location")[0]
    target = block.get("proxy_pass")
    default = default_redirect(target) if isinstance(target, Target) else None
    return compile_rules(
        block.get(name) or [Rule("default")] if name == "proxy_redirect" else block.get(name),
        compile_text,
        compile_regex,
        default,
    )


def request() -> Request:
    return {"some_var": b"var_here", "server_name": b"localhost", "empty": b"", "flag": b"secure"}


REDIRECTS = [
    "http://up:1/var_in_second/ /$some_var/",
    "http://up:1/$some_var/ /replaced/",
    "~^(.+)/regex_w_([^/]+) $1/$2/test.html",
    "~*re+gexp? /replaced/test.html",
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://up:1/var_in_second/t.html", b"/var_here/t.html"),
        (b"http://up:1/var_here/t.html", b"/replaced/t.html"),
        (b"http://up:1/ReeegEX/t.html", b"/replaced/test.html"),
        (b"http://up:1/regex_w_captures/t.html", b"http://up:1/captures/test.html"),
        (b"http://up:1/var_here/", b"/replaced/"),
        (b"http://up:1/VAR_here/", None),
        (b"", None),
    ],
)
def test_redirects(value: bytes, expected: bytes | None) -> None:
    ready = rules("proxy_redirect", REDIRECTS)
    assert rewrite_location(value, ready, request()) == expected
    refreshed = None if expected is None else b"7; url=" + expected
    assert rewrite_refresh(b"7; url=" + value, ready, request()) == refreshed


def test_refresh_without_url_stays() -> None:
    ready = rules("proxy_redirect", ["/ /x/"])
    assert rewrite_refresh(b"7", ready, request()) is None
    assert rewrite_refresh(b"7; URL=/a", ready, request()) == b"7; URL=/x/a"


@pytest.mark.parametrize("lines", [[], ["default"], ["wrong wrong", "default"]])
@pytest.mark.parametrize(
    ("url", "value", "expected"),
    [
        ("http://up:1/there/", b"http://up:1/there/t", b"/l/t"),
        ("http://up:1/there/", b"http://up:1/other", None),
        ("http://up:1", b"http://up:1/t", b"/t"),
        ("http://up:1", b"http://up:12/t", None),
        ("http://unix:/s:/there/", b"http://unix:/s:/there/t", b"/l/t"),
    ],
)
def test_default_redirect(lines: list[str], url: str, value: bytes, expected: bytes | None) -> None:
    ready = rules("proxy_redirect", lines, f"proxy_pass {url};")
    assert rewrite_location(value, ready, request()) == expected


def test_off_and_a_url_with_variables_change_nothing() -> None:
    assert rules("proxy_redirect", ["off"], "proxy_pass http://up:1;") == ()
    assert rules("proxy_redirect", [], "proxy_pass http://$host;") == ()


DOMAINS = [
    "www.example.org .example.com",
    ".$server_name.com en.$server_name.org",
    r'"~^(.+)\.com$" $1.org',
]
PATHS = [
    "/path/ /new/",
    "/$server_name/ /new/$server_name/",
    '"~^/regex/(.+)$" /$1',
    '"~*^/caseless/(.+)$" /$1',
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Domain=www.Example.org", "Domain=example.com"),
        ("Domain=.LocalHost.com", "Domain=.en.localhost.org"),
        ("Domain=www.example.COM", "Domain=www.example.org"),
        ("Path=/path/test.html", "Path=/new/test.html"),
        ("Path=/localhost/test.html", "Path=/new/localhost/test.html"),
        ("Path=/regex/test.html", "Path=/test.html"),
        ("Path=/CASEless/test.html", "Path=/test.html"),
        ("Domain=www.example.org; Path=/path/t", "Domain=example.com; Path=/new/t"),
        ("  domain = www.example.org ;PATH=/path/", "domain=example.com; PATH=/new/"),
        ("Domain=other.example", None),
        ("Domain; Path", None),
        ("Max-Age=3", None),
    ],
)
def test_cookie_domain_and_path(value: str, expected: str | None) -> None:
    cookie = b"v=path=domain=; " + value.encode()
    ready = rules("proxy_cookie_domain", DOMAINS), rules("proxy_cookie_path", PATHS)
    after = rewrite_cookie(cookie, *ready, (), request())
    assert after == (None if expected is None else b"v=path=domain=; " + expected.encode())


@pytest.mark.parametrize("value", [b"", b"novalue", b"novalue; Domain=www.example.org", b";"])
def test_what_is_no_cookie_stays(value: bytes) -> None:
    ready = rules("proxy_cookie_domain", DOMAINS), rules("proxy_cookie_path", PATHS)
    flags = rules("proxy_cookie_flags", ["~. secure"])
    assert rewrite_cookie(value, *ready, flags, request()) is None


@pytest.mark.parametrize(
    ("lines", "cookie", "expected"),
    [
        (["a secure"], "a=1", "a=1; Secure"),
        (["A secure httponly"], "a=1; Path=/", "a=1; Path=/; Secure; HttpOnly"),
        (["a secure"], "a=1; SECURE", "a=1; SECURE"),
        (["a nosecure nohttponly"], "a=1; Secure; HttpOnly; Path=/", "a=1; Path=/"),
        (["a samesite=strict"], "a=1", "a=1; SameSite=Strict"),
        (["a samesite=lax"], "a=1; samesite=none", "a=1; SameSite=Lax"),
        (["a samesite=lax"], "a=1; samesite=LAX", "a=1; samesite=LAX"),
        (["a samesite=none"], "a=1; SameSite", "a=1; SameSite=None"),
        (["a nosamesite"], "a=1; SameSite=Lax; b", "a=1; b"),
        (["a samesite=none samesite=strict"], "a=1", "a=1; SameSite=Strict"),
        (["a $flag"], "a=1", "a=1; Secure"),
        (["a $empty"], "a=1", None),
        (["a nonsense"], "a=1", None),
        (["~^(a|b) httponly"], "bc=1", "bc=1; HttpOnly"),
        (["~^B httponly"], "bc=1", "bc=1; HttpOnly"),
        (["$flag httponly"], "secure=1", "secure=1; HttpOnly"),
        (["b secure", "a httponly", "~. nosecure"], "a=1", "a=1; HttpOnly"),
        (["b secure"], "a=1; Secure", None),
        (["off"], "a=1", None),
    ],
)
def test_cookie_flags(lines: list[str], cookie: str, expected: str | None) -> None:
    after = rewrite_cookie(cookie.encode(), (), (), rules("proxy_cookie_flags", lines), request())
    assert after == (None if expected is None else expected.encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("proxy_redirect on;", 'invalid parameter "on"'),
        ("proxy_redirect default;", "should be placed after the"),
        ("proxy_pass http://$h; proxy_redirect default;", "cannot be used with"),
        ("proxy_redirect off; proxy_redirect a b;", '"proxy_redirect" directive is duplicate'),
        ("proxy_redirect a b; proxy_redirect off;", '"proxy_redirect" directive is duplicate'),
        ("proxy_redirect a b c;", "invalid number of arguments"),
        ("proxy_cookie_domain x;", 'invalid parameter "x"'),
        ("proxy_cookie_path off; proxy_cookie_path off;", "duplicate"),
        ("proxy_cookie_flags a;", 'invalid parameter "a"'),
        ("proxy_cookie_flags a b c d e;", "invalid number of arguments"),
    ],
)
def test_lines_that_are_refused(line: str, message: str) -> None:
    with pytest.raises(ConfError, match=message):
        load_text(f"events {{ }} http {{ server {{ location / {{ {line} }} }} }}")

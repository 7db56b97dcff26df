"""The rules bound to real templates, patterns and requests."""

from __future__ import annotations

import pytest

from proxy.base._request import Request
from proxy.conf import load_text
from proxy.conf.inherit import Block
from proxy.conf.report import ConfError
from proxy.order import declare_all
from proxy.upstream._rewrite import freeze_cookies, freeze_redirects

declare_all()


def location(text: str) -> Block:
    conf = load_text(f"events {{ }} http {{ server {{ location /l/ {{ {text} }} }} }}")
    return conf.find("http")[0].find("server")[0].find("location")[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"http://up:1/x/y", b"/l/y"),
        (b"http://h/re_abc", b"http://h/abc/t"),
        (b"CASe7", b"z7"),
        (b"none", None),
        (b"", None),
    ],
)
def test_redirects_with_patterns(value: bytes, expected: bytes | None) -> None:
    block = location(
        'proxy_pass http://up:1/x/; proxy_redirect "~^(.+)/re_([^/]+)" $1/$2/t;'
        ' proxy_redirect default; proxy_redirect "~*^case(?<n>.)" z$n;'
    )
    rewrite = freeze_redirects(block, block.get("proxy_pass"))
    assert rewrite(Request(), value) == expected
    refresh = None if expected is None or value == b"CASe7" else b"5; url=" + expected
    if value != b"CASe7":
        assert rewrite(Request(), b"5; url=" + value, True) == refresh


def test_nothing_to_rewrite_costs_nothing() -> None:
    block = location("proxy_pass http://up:1; proxy_redirect off; proxy_cookie_path off;")
    assert freeze_redirects(block, block.get("proxy_pass")) is None
    assert freeze_cookies(block) is None
    block = location("proxy_pass http://$host;")
    assert freeze_redirects(block, block.get("proxy_pass")) is None


def test_cookies() -> None:
    rewrite = freeze_cookies(
        location(
            "proxy_cookie_domain a.test b.test; proxy_cookie_path '~^/(.)' /q/$1;"
            " proxy_cookie_flags ~^s secure;"
        )
    )
    assert rewrite(Request(), b"s=1; domain=A.test; path=/x") == (
        b"s=1; domain=b.test; path=/q/x; Secure"
    )
    assert rewrite(Request(), b"t=1") is None


def test_a_wrong_pattern_is_refused_with_its_place() -> None:
    block = location("proxy_pass http://u; proxy_redirect '~(' x;")
    with pytest.raises(ConfError, match="conf:1"):
        freeze_redirects(block, block.get("proxy_pass"))

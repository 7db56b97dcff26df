"""proxy_ssl_…: which context a location gets, and the name that is meant."""

from __future__ import annotations

import pytest

from proxy.conf import load_text
from proxy.conf.inherit import Block
from proxy.order import declare_all
from proxy.upstream.tls import TlsContexts, bare_name, sent_name

declare_all()


def location(text: str) -> Block:
    conf = load_text(f"events {{ }}\nhttp {{ server {{ location / {{\n{text}\n}} }} }}")
    return conf.find("http")[0].find("server")[0].find("location")[0]


def test_locations_that_say_the_same_share_a_context() -> None:
    made: list[Block] = []
    contexts = TlsContexts(lambda block: made.append(block) or len(made))
    one, two = (contexts.find(location(f"proxy_ssl_name {name};")) for name in "ab")
    assert one.context == two.context
    assert (one.name, two.name) == ("a", "b")
    other = contexts.find(location("proxy_ssl_verify on; proxy_ssl_trusted_certificate ca;"))
    assert other.context != one.context
    assert other.verifies


@pytest.mark.parametrize(
    ("name", "bare"), [("a", "a"), ("a:1", "a"), ("[::1]:2", "::1"), ("[::1]", "::1"), ("", "")]
)
def test_the_name_is_meant_without_its_port(name: str, bare: str) -> None:
    assert bare_name(name) == bare


@pytest.mark.parametrize(
    ("name", "sent"),
    [("a.test:8443", "a.test"), ("127.0.0.1:8443", None), ("[::1]:8443", None), ("", None)],
)
def test_an_address_is_never_sent_as_a_name(name: str, sent: str | None) -> None:
    settings = TlsContexts(lambda _block: None).find(location("proxy_ssl_server_name on;"))
    assert sent_name(settings, name) == sent


def test_no_name_is_sent_unless_asked_for() -> None:
    settings = TlsContexts(lambda _block: None).find(location(""))
    assert sent_name(settings, "a.test") is None

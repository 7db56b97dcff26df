"""Sizes, times, rates, percents, addresses: what each text means."""

from __future__ import annotations

import pytest

from proxy.conf.values import (
    AddressError,
    Endpoint,
    read_address,
    read_flag,
    read_int,
    read_ms,
    read_percent,
    read_rate,
    read_seconds,
    read_size,
)

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (read_int, "0", 0),
        (read_int, "0017", 17),
        (read_int, str(2**63 - 1), 2**63 - 1),
        (read_int, str(2**63), None),
        (read_int, "", None),
        (read_int, "+1", None),
        (read_int, " 1", None),
        (read_int, "1_000", None),
        (read_int, "٣", None),
        (read_size, "1k", 1024),
        (read_size, "3M", 3 << 20),
        (read_size, "2g", 2 << 30),
        (read_size, "k", None),
        (read_size, "1kb", None),
        (read_size, "8589934592g", None),
        (read_size, "8589934591g", 8589934591 << 30),
        (read_ms, "1", 1000),
        (read_ms, "1ms", 1),
        (read_ms, "1s 1ms", 1001),
        (read_ms, "1h 30m", HOUR * 3 // 2),
        (read_ms, "1h30", HOUR + 30_000),
        (read_ms, "1d", 24 * HOUR),
        (read_ms, "1w1d", 8 * 24 * HOUR),
        (read_ms, "1M", None),
        (read_ms, "1y", None),
        (read_ms, "1m1h", None),
        (read_ms, "1s1s", None),
        (read_ms, "ms", None),
        (read_ms, "", None),
        (read_ms, " ", None),
        (read_ms, "99999999999999999999", None),
        (read_ms, "9" * 5000, None),
        (read_ms, "9223372036854775807s", None),
        (read_seconds, "1y", 31_536_000),
        (read_seconds, "1M", 2_592_000),
        (read_seconds, "2m30s", 150),
        (read_seconds, "90", 90),
        (read_seconds, "5ms", None),
        (read_flag, "on", True),
        (read_flag, "Off", False),
        (read_flag, "true", None),
        (read_rate, "1r/s", 1000),
        (read_rate, "1r/m", 16),
        (read_rate, "90r/m", 1500),
        (read_rate, "5", 5000),
        (read_rate, "0r/s", None),
        (read_rate, "r/s", None),
        (read_rate, "1r/h", None),
        (read_percent, "100%", 10_000),
        (read_percent, "0.5%", 50),
        (read_percent, "12.34%", 1234),
        (read_percent, "12.345%", None),
        (read_percent, "100.01%", None),
        (read_percent, "5", None),
        (read_percent, "%", None),
    ],
)
def test_text_means(read: object, text: str, value: object) -> None:
    assert read(text) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "is_listen", "endpoint"),
    [
        ("example.com", False, Endpoint("example.com", 80)),
        ("example.com:8080", False, Endpoint("example.com", 8080)),
        ("127.0.0.1:1", False, Endpoint("127.0.0.1", 1)),
        ("[::1]", False, Endpoint("::1", 80)),
        ("[::1]:443", False, Endpoint("::1", 443)),
        ("[::]:443", True, Endpoint("::", 443)),
        ("unix:/run/x", False, Endpoint("", 0, "/run/x")),
        ("UNIX:/run/x", True, Endpoint("", 0, "/run/x")),
        ("8080", True, Endpoint("*", 8080)),
        ("*:8080", True, Endpoint("*", 8080)),
        ("8080", False, Endpoint("8080", 80)),
        ("localhost", True, Endpoint("localhost", 80)),
    ],
)
def test_address(text: str, is_listen: bool, endpoint: Endpoint) -> None:
    assert read_address(text, is_listen=is_listen) == endpoint


@pytest.mark.parametrize(
    ("text", "is_listen", "words"),
    [
        ("0", True, "invalid port"),
        ("65536", True, "invalid port"),
        ("a:", False, "invalid port"),
        ("a:0", False, "invalid port"),
        ("a:65536", False, "invalid port"),
        ("a:b:c", False, "invalid port"),
        ("", False, "no host"),
        (":80", False, "no host"),
        ("*", False, "invalid host"),
        ("[::1", False, "invalid IPv6 address"),
        ("[1.2.3.4]", False, "invalid IPv6 address"),
        ("[::1\0]", False, "invalid IPv6 address"),
        ("[::1]x", False, "invalid host"),
        ("unix:", False, "no path in the unix domain socket"),
        ("unix:" + "x" * 108, False, "too long path in the unix domain socket"),
    ],
)
def test_no_address(text: str, is_listen: bool, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        read_address(text, is_listen=is_listen)
    assert str(caught.value) == words


def test_an_endpoint_writes_itself_as_it_was_read() -> None:
    for text in ("a:80", "[::1]:443", "unix:/run/x"):
        assert str(read_address(text)) == text

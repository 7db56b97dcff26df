"""Writers: numbers, dates and status lines as the RFCs and nginx spell them."""

import datetime
import email.utils
import random

import pytest

from proxy.wire import _fields
from proxy.wire.h1_door import write_date, write_decimal, write_status_line


@pytest.mark.parametrize("second", [
    0, 1, 86399, 86400, 68169599, 68169600, 951782399, 951782400, 951868800, 951955200,
    784111777, 4107542399, 4107542400, 2147483648, 13574563199, 253402300799,
])  # fmt: skip
def test_date(second):
    assert write_date(second).decode() == email.utils.formatdate(second, usegmt=True)


def test_any_date():
    random.seed(1)
    for _ in range(2000):
        second = random.randrange(datetime.date(2100, 1, 1).toordinal() * 86400 - 62135683200)
        assert write_date(second).decode() == email.utils.formatdate(second, usegmt=True)


def test_a_date_twice_and_another():
    assert write_date(5) == write_date(5) != write_date(6)


def test_status_lines():
    assert write_status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert write_status_line(302) == b"HTTP/1.1 302 Moved Temporarily\r\n"
    assert write_status_line(414) == b"HTTP/1.1 414 Request-URI Too Large\r\n"
    assert write_status_line(503) == b"HTTP/1.1 503 Service Temporarily Unavailable\r\n"
    assert write_status_line(299) == b"HTTP/1.1 299 \r\n"
    assert write_status_line(999) == b"HTTP/1.1 999 \r\n"


@pytest.mark.parametrize("value", [0, 7, 10, 99, 100, 12345, 2**32, 2**63, 2**64 - 1])
def test_decimal(value):
    assert write_decimal(value) == str(value).encode()


def test_no_two_names_share_a_slot():
    _fields.check_names()


@pytest.mark.parametrize("name, number", [
    (b"Host", 1), (b"hOST", 1), (b"te", 8), (b"ETag", 19), (b"Content-Length", 3),
    (b"CONTENT-LENGTH", 3), (b"Content-Lengths", 0), (b"Content-Lengtg", 0), (b"Hosu", 0),
    (b"X-Forwarded-For", 40), (b"HTTP2-Settings", 56), (b"", 0), (b"a", 0), (b"x" * 300, 0),
    (b"Content_Length", 0), (b"Transfer-Encodinh", 0), (b"Transfes-Encoding", 0),
])  # fmt: skip
def test_field_ids(name, number):
    assert _fields.field_id(name) == number

"""Dates, entity tags and ranges as clients write them."""

from __future__ import annotations

import pytest

from proxy.content._conditions import is_tag_listed, ranges_of
from proxy.wire._date import date_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),  # the three forms of RFC 9110 §5.6.7
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"Tue, 29 Feb 2000 12:00:00 GMT", 951825600),
        (b"Wed, 01 Mar 2000 00:00:00 GMT", 951868800),
        (b"Fri, 31 Dec 2100 23:59:59 GMT", 4133980799),
        (b"Thu, 01-Jan-70 00:00:00 GMT", 0),
        (b"Sat, 29 Feb 2100 00:00:00 GMT", -1),
        (b"Thu, 31 Apr 2020 00:00:00 GMT", -1),
        (b"Thu, 00 Apr 2020 00:00:00 GMT", -1),
        (b"Thu, 01 Foo 2020 00:00:00 GMT", -1),
        (b"Thu, 01 Apr 2020 24:00:00 GMT", -1),
        (b"Thu, 01 Apr 2020 00:60:00 GMT", -1),
        (b"Thu, 01 Apr 1969 00:00:00 GMT", -1),
        (b"Sun Nov 6 08:49:37", -1),
        (b"", -1),
        (b",", -1),
        (b" ", -1),
        (b"0", -1),
    ],
)
def test_dates(text: bytes, seconds: int) -> None:
    assert date_of(text) == seconds


def test_a_date_cut_short_is_none() -> None:
    for text in (b"Sun, 06 Nov 1994 08:49:37", b"Sunday, 06-Nov-94 08:49:37"):
        for size in range(len(text)):
            assert date_of(text[:size]) == -1, text[:size]


@pytest.mark.parametrize(
    ("value", "size", "found"),
    [
        (b"0-9", 1000, [(0, 10)]),
        (b"0-0", 1000, [(0, 1)]),
        (b"990-", 1000, [(990, 1000)]),
        (b"-10", 1000, [(990, 1000)]),
        (b"-5000", 1000, [(0, 1000)]),
        (b"5-5000", 1000, [(5, 1000)]),
        (b"1000-", 1000, 416),
        (b"1000-1001", 1000, 416),
        (b"9-5", 1000, 416),
        (b"-0", 1000, 416),
        (b"0-0,-1", 1000, [(0, 1), (999, 1000)]),
        (b" 0 - 0 , 5 - 6 ", 1000, [(0, 1), (5, 7)]),
        (b"0-9,2000-", 1000, [(0, 10)]),
        (b"0-599,0-599", 1000, None),  # together more than the whole
        (b"", 1000, 416),
        (b"a", 1000, 416),
        (b"1", 1000, 416),
        (b"1-a", 1000, 416),
        (b"-", 1000, 416),
        (b"0-0,", 1000, 416),
        (b"0-0;1-1", 1000, 416),
        (b"99999999999999999999-", 1000, 416),
        (b"0-99999999999999999999", 1000, 416),
        (b"-99999999999999999999", 1000, 416),
        (b"0-", 0, None),
        (b"-5", 0, None),
        (b"5-", 0, 416),
    ],
)
def test_ranges(value: bytes, size: int, found: object) -> None:
    assert ranges_of(value, size) == found


def test_more_ranges_than_allowed_are_the_whole() -> None:
    assert ranges_of(b"0-0,1-1", 1000, 2) == [(0, 1), (1, 2)]
    assert ranges_of(b"0-0,1-1,2-2", 1000, 2) is None


def test_many_small_ranges_are_the_whole() -> None:
    many = b",".join(b"%d-%d" % (n, n) for n in range(100))
    assert ranges_of(many, 1000) is None
    assert ranges_of(many, 1000, 100) is not None  # max_ranges says how many are welcome


def test_a_range_cut_short_is_harmless() -> None:
    value = b"0-9, 20 - 29 ,-5"
    for size in range(len(value)):
        assert ranges_of(value[:size], 1000) is not False


@pytest.mark.parametrize(
    ("etag", "tags", "is_weak", "is_listed"),
    [
        (b'"a"', b'"a"', False, True),
        (b'"a"', b'"b"', False, False),
        (b'"a"', b'"b", "a"', False, True),
        (b'"a"', b'"b","a" ,"c"', False, True),
        (b'"a"', b"*", False, True),
        (b"", b"*", False, True),
        (b"", b'"a"', False, False),
        (b'"a"', b'W/"a"', False, False),
        (b'"a"', b'W/"a"', True, True),
        (b'W/"a"', b'"a"', True, True),
        (b'"a"', b'"ab"', False, False),
        (b'"a"', b'"a"b', False, False),
        (b'"a"', b'"a', False, False),
        (b'"a"', b",", False, False),
    ],
)
def test_entity_tags(etag: bytes, tags: bytes, is_weak: bool, is_listed: bool) -> None:
    assert is_tag_listed(etag, tags, is_weak) is is_listed

"""Regular expressions: groups, names, errors in nginx's words, and matches that must end."""

import pytest

from proxy.base._pcre import Pattern, PatternError, set_limits


@pytest.mark.parametrize(
    ("pattern", "subject", "groups"),
    [
        ("a", "cab", [b"a"]),
        ("a", "b", None),
        ("", "", [b""]),
        ("^/(.*)/(.*)$", "/a/b/c", [b"/a/b/c", b"a/b", b"c"]),
        ("(a)?(b)", "b", [b"b", b"", b"b"]),
        ("(a)|b", "b", [b"b"]),
        ("(?<x>a)(?<y>b)", "ab", [b"ab", b"a", b"b"]),
        (r"\Qa.b\E", "axb", None),
        ("ä", "ä", ["ä".encode()]),
        ("^.$", "ä", None),  # bytes, not characters, as in nginx
        ("(*UTF)^.$", "ä", ["ä".encode()]),
        ("a\udcff", b"a\xff", [b"a\xff"]),  # a conf word that is no UTF-8
        (b"a\0b", b"a\0b", [b"a\0b"]),
    ],
)
def test_match(pattern, subject, groups):
    assert Pattern(pattern).match(subject) == groups


def test_case_matters_unless_told():
    assert Pattern("abc").match("ABC") is None
    assert Pattern("abc", caseless=True).match("xABC") == [b"ABC"]


def test_named_groups_are_told_by_number():
    pattern = Pattern("(?<b>x)(y)(?P<a>z)")
    assert pattern.names == (("b", 1), ("a", 3))
    assert pattern.n_groups == 3


def test_groups_beyond_the_nineteenth_match_but_are_not_told():
    assert Pattern("(.)" * 30).match("x" * 30) == [b"x" * 30] + [b"x"] * 19


def test_a_named_group_that_could_not_be_told_is_refused():
    with pytest.raises(PatternError, match="at most 19"):
        Pattern("(.)" * 19 + "(?<late>.)")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", 'pcre2_compile() failed: missing closing parenthesis in "a("'),
        (
            "a[b-a]c",
            'pcre2_compile() failed: range out of order in character class in "a[b-a]c" at "a]c"',
        ),
        ("*a", 'pcre2_compile() failed: quantifier does not follow a repeatable item in "*a" at '),
    ],
)
def test_errors_are_worded_as_nginx_words_them(pattern, message):
    with pytest.raises(PatternError) as error:
        Pattern(pattern)
    assert str(error.value).startswith(message)


def test_bytes_that_are_no_utf8_do_not_match_a_utf_pattern():
    assert Pattern("(*UTF)a").match(b"a\xff") is None


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "^(a*)*[^ax!]"])
def test_a_pattern_that_would_not_end_is_a_fault(pattern):
    with pytest.raises(OverflowError):
        Pattern(pattern).match("a" * 64 + "x" * 64 + "!")


def test_the_limit_is_a_setting():
    honest = Pattern("^(?:.*?,){9}x$")
    subject = "a," * 9 + "x"
    assert honest.match(subject)
    set_limits(3, 3)
    try:
        with pytest.raises(OverflowError):
            honest.match(subject)
    finally:
        set_limits(1_000_000, 10_000)


def test_a_long_subject_within_the_limits():
    assert Pattern("^/(?:[a-z]+/)*end$").match("/" + "abc/" * 8000 + "end")

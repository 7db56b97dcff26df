"""Request targets: what nginx makes of them, and what it refuses."""

import pytest

from proxy.routing._uri import exten, normalise, normalise_inner

PLAIN, QUOTED, PLUS, EMPTY_PATH, HAS_ARGS = 1, 2, 4, 8, 16


@pytest.mark.parametrize(
    ("target", "path", "args"),
    [
        (b"/", b"/", b""),
        (b"/a/b.c?x=1&y=2", b"/a/b.c", b"x=1&y=2"),
        (b"/foo/bar/.?args", b"/foo/bar/", b"args"),
        (b"/foo/bar/.#frag", b"/foo/bar/", b""),
        (b"/foo/bar/..?args", b"/foo/", b"args"),
        (b"/foo/bar/..#frag", b"/foo/", b""),
        (b"/foo/bar/.", b"/foo/bar/", b""),
        (b"/foo/bar/..", b"/foo/", b""),
        (b"", b"/", b""),
        (b"?args", b"/", b"args"),
        (b"?args#frag", b"/", b"args"),
        (b"/%02", b"/\x02", b""),
        (b"//a///b", b"/a/b", b""),
        (b"/a/./b/../c", b"/a/c", b""),
        (b"/a/%2e%2e/b", b"/b", b""),
        (b"/a%2fb", b"/a/b", b""),
        (b"/a%2F%2e%2E%2fb", b"/b", b""),
        (b"/a%3fb?c", b"/a?b", b"c"),
        (b"/a%23b#c", b"/a#b", b""),
        (b"/%25%32%35", b"/%25", b""),
        (b"/a?b?c#d?e", b"/a", b"b?c"),
        (b"/a?b/../c//d", b"/a", b"b/../c//d"),
        (b"/...", b"/...", b""),
        (b"/..a", b"/..a", b""),
        (b"/a./b", b"/a./b", b""),
        (b"/a..", b"/a..", b""),
        (b"/.a/..b/", b"/.a/..b/", b""),
        (b'/\xc3\xa4|"<>^`{}\\', b'/\xc3\xa4|"<>^`{}\\', b""),
    ],
)
def test_normalised(target, path, args):
    assert normalise(target)[:2] == (path, args)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/foo//../bar", b"/foo/bar"),
        (b"/foo///../bar", b"/foo//bar"),
        (b"//", b"//"),
        (b"//..", b"/"),
        (b"/a/.//b", b"/a//b"),
        (b"/a//", b"/a//"),
    ],
)
def test_slashes_stay_when_not_merged(target, path):
    assert normalise(target, False)[0] == path


@pytest.mark.parametrize(
    "target",
    [
        b"/foo/bar%", b"/foo/bar%1", b"/%zz", b"/%1g", b"/%00", b"/a%00b", b"/..", b"/../",
        b"/a/../..", b"/..?a", b"/..#a", b"/%2e%2e/", b"/.//../x", b"a", b"*", b"#", b"./",
        b"/ /", b"/\x02", b"/\x7f", b"/a/./\x01",
    ],
)  # fmt: skip
def test_refused(target):
    with pytest.raises(ValueError, match="invalid request target"):
        normalise(target)


@pytest.mark.parametrize(
    ("target", "ext"),
    [
        (b"/a.b", b"b"), (b"/a.b.c", b"c"), (b"/a.b/c", b""), (b"/.b", b""), (b"/..b", b""),
        (b"/.a.b", b"b"), (b"/a.", b""), (b"/a%2eb", b"b"), (b"/a.b?c.d", b"b"), (b"/a.b/..", b""),
        (b"/x/../a.gif#f.g", b"gif"), (b"/a.b/.", b""),
    ],
)  # fmt: skip
def test_extension(target, ext):
    assert normalise(target)[2] == ext


@pytest.mark.parametrize(
    ("path", "ext"),
    [(b"/a.b", b"b"), (b"/a.b/c", b""), (b"/.b", b""), (b"/..b", b"b"), (b"/", b""), (b"", b"")],
)
def test_extension_of_a_changed_path(path, ext):
    assert exten(path) == ext


@pytest.mark.parametrize(
    ("target", "flags"),
    [
        (b"/a/b", PLAIN),
        (b"/a?", PLAIN | HAS_ARGS),
        (b"/a+b", PLAIN | PLUS),
        (b"/a?b+c", PLAIN | HAS_ARGS),
        (b"/a%2bb", QUOTED | PLUS),
        (b"/a//b", 0),
        (b"?a", EMPTY_PATH | HAS_ARGS),
        (b"", EMPTY_PATH),
    ],
)
def test_flags(target, flags):
    assert normalise(target)[3] == flags


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/a?b", (b"/a", b"b")),
        (b"/a%20b", (b"/a b", b"")),
        (b"a/b", (b"a/b", b"")),
        (b"/a..b", (b"/a..b", b"")),
        (b"/a%3fb", (b"/a?b", b"")),
    ],
)
def test_inner_uri(target, found):
    assert normalise_inner(target) == found


@pytest.mark.parametrize(
    "target", [b"", b"?a", b"/../a", b"/a/..", b"..", b"/%2e%2e/a", b"/a\0", b"/a%00", b"/a/.%2e?x"]
)
def test_inner_uri_refused(target):
    with pytest.raises(ValueError, match="unsafe"):
        normalise_inner(target)


def test_the_result_never_outgrows_its_room():
    # every target of up to 5 of these bytes, with nothing but room for len + 1
    from itertools import product

    for n in range(1, 6):
        for rest in product(b"/.%2fa?", repeat=n):
            target = b"/" + bytes(rest)
            try:
                path, args, _, _ = normalise(target, False)
            except ValueError:
                continue
            assert len(path) + len(args) <= len(target)
            assert path.startswith(b"/")
            assert b"/../" not in path + b"/" or b"%" in target or b"?" in path

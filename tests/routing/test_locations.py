"""The location search, from conf text to what is found."""

import pytest

from proxy.conf import ConfError, load_text
from proxy.routing import directives  # noqa: F401
from proxy.routing.location import build_tree, patterns_of


def shown(block):
    return " ".join(block.args) if block.name == "location" else "server"


def tree_of(text, slashes=()):
    text = "events {} http { server {" + text + "} }"
    (server,) = load_text(text, "conf").find("http")[0].find("server")
    return build_tree(server, shown, lambda block: shown(block) in slashes)


def found(tree, uri):
    settings, is_redirect, _ = tree.find(uri)
    return ("301 " if is_redirect else "") + settings


BASIC = r"""
    location = / {}
    location / {}
    location ^~ /images/ {}
    location ~* \.(gif|jpg|jpeg)$ {}
    location ~ casefull {}
    location = /foo {}
    location /foo {}
    location = /foo/ {}
    location /foo/ {}
    location /lowercase {}
    location /UPPERCASE {}
"""


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        (b"/", "= /"),
        (b"/x", "/"),
        (b"/images/t.gif", "^~ /images/"),
        (b"/t.gif", r"~* \.(gif|jpg|jpeg)$"),
        (b"/t.GIF", r"~* \.(gif|jpg|jpeg)$"),
        (b"/casefull/t.gif", r"~* \.(gif|jpg|jpeg)$"),
        (b"/casefull/", "~ casefull"),
        (b"/foo", "= /foo"),
        (b"/foobar", "/foo"),
        (b"/foo/", "= /foo/"),
        (b"/foo/bar", "/foo/"),
        (b"/CASEFULL/", "/"),
        (b"/lowercase", "/lowercase"),
        (b"/UPPERCASE", "/UPPERCASE"),
        (b"/uppercase", "/"),
    ],
)
def test_basic(uri, location):
    assert found(tree_of(BASIC), uri) == location


NESTED = r"""
    location /a {
        location /a/b { location ~ \.x$ {} location = /a/b/exact {} }
        location ^~ /a/c { location ~ \.x$ {} }
        location ~ \.y$ { location ~ ^/a/deep {} }
    }
    location ~ \.(x|y)$ {}
    location ~ ^/(q)(r)?$ {}
"""


@pytest.mark.parametrize(
    ("uri", "location", "groups"),
    [
        (b"/none", "server", None),
        (b"/a", "/a", None),
        (b"/a/b", "/a/b", None),
        (b"/a/b/exact", "= /a/b/exact", None),
        (b"/a/b/1.x", r"~ \.x$", [b".x"]),
        (b"/a/1.y", r"~ \.y$", [b".y"]),
        (b"/a/b/1.y", r"~ \.y$", [b".y"]),
        (b"/a/1.x", r"~ \.(x|y)$", [b".x", b"x"]),
        (b"/a/c/1.x", r"~ \.x$", [b".x"]),
        (b"/a/c/1.y", r"~ \.(x|y)$", [b".y", b"y"]),  # ^~ stops its own level only
        (b"/a/deep.y", "~ ^/a/deep", [b"/a/deep"]),
        (b"/z.y", r"~ \.(x|y)$", [b".y", b"y"]),
        (b"/q", "~ ^/(q)(r)?$", [b"/q", b"q"]),
    ],
)
def test_nested(uri, location, groups):
    settings, is_redirect, captured = tree_of(NESTED).find(uri)
    assert (settings, is_redirect, captured) == (location, False, groups)


SLASHES = """
    location /a/ {}
    location /a-a {}
    location /a-b {}
    location /both/ {}
    location = /both {}
    location /plain {}
    location /plain/ {}
    location = /eq/ {}
    location ~ ^/a {}
    location /out { location /out/in/ {} }
"""


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        (b"/a", "301 /a/"),
        (b"/a/", "~ ^/a"),
        (b"/both", "= /both"),
        (b"/plain", "/plain"),
        (b"/eq", "301 = /eq/"),
        (b"/eq/", "= /eq/"),
        (b"/out/in", "301 /out/in/"),
        (b"/out/in/", "/out/in/"),
        (b"/", "server"),
    ],
)
def test_redirect_to_the_slash(uri, location):
    tree = tree_of(SLASHES, {"/a/", "/both/", "/plain/", "= /eq/", "/out/in/"})
    assert found(tree, uri) == location


def test_named():
    tree = tree_of("location @a {} location / {}")
    assert tree.get_named("@a") == "@a"
    assert tree.get_named("@b") is None
    assert found(tree, b"@a") == "server"


def test_names_without_a_blank_and_bytes_that_are_no_ascii():
    tree = tree_of('location =/a {} location ~*\\.b$ {} location "/ä b" {}')
    assert found(tree, b"/a") == "=/a"
    assert found(tree, b"/x.B") == "~*\\.b$"
    assert found(tree, "/ä b/c".encode()) == "/ä b"


def test_all_patterns_are_told():
    assert {it.source for it in patterns_of(tree_of(NESTED))} == {
        rb"\.x$", rb"\.y$", rb"^/a/deep", rb"\.(x|y)$", rb"^/(q)(r)?$"
    }  # fmt: skip


def test_a_regex_that_does_not_compile_has_its_place():
    with pytest.raises(ConfError) as error:
        tree_of("location ~ a( {}")
    assert str(error.value) == (
        'pcre2_compile() failed: missing closing parenthesis in "a(" in conf:1'
    )


def test_a_regex_that_would_not_end_is_a_fault():
    with pytest.raises(OverflowError):
        tree_of("location ~ ^/(a+)+$ {}").find(b"/" + b"a" * 60 + b"!")


def test_ten_thousand_locations():
    text = "".join(f"location /f{n}/ {{}}\n" for n in range(10_000))
    tree = tree_of(text)
    assert all(found(tree, b"/f%d/x" % n) == f"/f{n}/" for n in range(0, 10_000, 7))

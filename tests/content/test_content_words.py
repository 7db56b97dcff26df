"""What a conf about content is refused for."""

from __future__ import annotations

import pytest

from proxy.conf import ConfError, load_text
from proxy.content import directives  # noqa: F401
from proxy.content.freeze import find_root, find_types, freeze_errors
from proxy.routing import directives as routing_directives  # noqa: F401


def location_of(text: str, outer: str = ""):
    main = load_text(
        f"events {{}} http {{ {outer} server {{ location /x/ {{ {text} }} }} }}", "t.conf"
    )
    return main.find("http")[0].find("server")[0].find("location")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root /a; root /b;", '"root" directive was specified earlier'),
        ("root /a; alias /b;", '"root" directive was specified earlier'),
        ("alias /a; root /b;", '"alias" directive was specified earlier'),
        ("root $document_root/a;", "the $document_root variable cannot be used"),
        ("root ${realpath_root};", "the $realpath_root variable cannot be used"),
        ("try_files a;", 'invalid number of arguments in "try_files" directive'),
        ("try_files a =x;", 'invalid code "=x"'),
        ("try_files a =1000;", 'invalid code "=1000"'),
        ("error_page 404;", 'invalid number of arguments in "error_page" directive'),
        ("error_page 200 /x;", 'value "200" must be between 300 and 599'),
        ("error_page 499 /x;", 'invalid value "499"'),
        ("error_page x /x;", 'invalid value "x"'),
        ("error_page =200 /x;", 'invalid value "=200"'),
        ("error_page 404 =x /x;", 'invalid value "=x"'),
        ("open_file_cache inactive=1s;", '"open_file_cache" must have the "max" parameter'),
        ("open_file_cache max=x;", 'invalid "open_file_cache" parameter "max=x"'),
        ("if_modified_since maybe;", 'invalid value "maybe"'),
        ("disable_symlinks on;", "not supported by Headrace"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfError) as caught:
        location_of(text)
    assert message in str(caught.value)
    assert "t.conf:1" in str(caught.value)


def test_alias_in_a_named_location() -> None:
    with pytest.raises(ConfError, match="inside the named location"):
        load_text("events {} http { server { location @x { alias /a; } } }", "t.conf")


def test_root_and_alias_are_inherited_together() -> None:
    template, rooted, size = find_root(location_of("", outer="root /a/;"))
    assert (template.source, rooted, size) == (b"/a", 0, 0)
    template, rooted, size = find_root(location_of("alias /b/;", outer="root /a/;"))
    assert (template.source, rooted, size) == (b"/b/", 1, 3)
    inner = location_of("alias /b/; location ~ y { }").find("location")[0]
    assert find_root(inner)[1:] == (1, 3)
    inner = location_of("alias /b/; location ~ y { root /c; }").find("location")[0]
    assert find_root(inner)[0].source == b"/c"


def test_types_replace_the_outer_ones() -> None:
    outer = "types { text/html html; text/css CSS; }"
    assert find_types(location_of("", outer)) == {b"html": b"text/html", b"css": b"text/css"}
    assert find_types(location_of("types { a/b c d; }", outer)) == {b"c": b"a/b", b"d": b"a/b"}
    assert find_types(location_of(""))[b"html"] == b"text/html"


def test_error_pages_are_inherited_whole() -> None:
    assert freeze_errors(location_of("error_page 404 /x;", "error_page 500 /y;"), {}) is not None
    assert freeze_errors(location_of(""), {}) is None

"""Annotations that make routes: how they are read, which one a request finds, who wins."""

from __future__ import annotations

import pytest

from proxy.functions.routes import Route, read_route, read_routes
from proxy.routing._function_routes import FunctionRoutes
from proxy.variables.door import Probe


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("/thumbs", Route((), "", "/thumbs")),
        ("/", Route((), "", "/")),
        ("/*", Route((), "", "/")),
        ("GET,POST api.example.com/thumbs/*",
         Route(("GET", "POST", "HEAD"), "api.example.com", "/thumbs/")),
        ("HEAD,GET /a", Route(("HEAD", "GET"), "", "/a")),
        ("PURGE *.Example.com/a", Route(("PURGE",), "*.example.com", "/a")),
        ("api.*/a/**", Route((), "api.*", "/a/")),
        ("/users/*/orders", Route((), "", "/users/*/orders")),
        ("/users/*/orders/*", Route((), "", "/users/*/orders/**")),
        ("/a exact", Route((), "", "=/a")),
        ("/a rewrite=/b priority=-3", Route((), "", "/a", (), "/b", -3)),
        ("/a query.v=2 header.X-Tier=gold* header.x-debug",
         Route((), "", "/a", (("header", "x-debug", None), ("header", "x-tier", "gold*"),
                              ("query", "v", "2")))),
    ],
)  # fmt: skip
def test_an_annotation_is_read(text, route):
    assert read_route(text) == route


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("GET", "no path"),
        ("get /a", "neither methods nor a path"),
        ("GET POST /a", "no path"),
        ("http://a/b", "invalid host"),
        ("a..b/c", "invalid host"),
        ("a:80/c", "invalid host"),
        ("*x/c", "invalid host"),
        ("/a/../b", "plain form"),
        ("/a//b", "plain form"),
        ("/a?x=1", "invalid path"),
        ("/a/**/b", "last segment"),
        ("/a**", "last segment"),
        ("/a/* exact", "cannot be exact"),
        ("/a prio=1", 'unknown word "prio=1"'),
        ("/a priority=1001", "within"),
        ("/a priority=high", "unknown word"),
        ("/a rewrite=b", "unknown word"),
        ("/a rewrite=/b?c", "unknown word"),
        ("/a header.=x", "invalid name"),
        ("/a " + "header.a " * 9, "more than 8 conditions"),
        ("/" + "a" * 2048, "too long"),
    ],
)
def test_what_no_route_can_be_is_refused_in_words(text, why):
    with pytest.raises(ValueError, match=why):
        read_route(text)


def test_the_annotation_that_is_wrong_is_named():
    with pytest.raises(ValueError, match=r'annotation "headrace.io/route.2": it has no path'):
        read_routes({"headrace.io/route": "/a", "headrace.io/route.2": "GET", "other": "?"})
    with pytest.raises(ValueError, match="at most 64"):
        read_routes({f"headrace.io/route.{n}": "/a" for n in range(65)})
    assert [it.path for it in read_routes({"headrace.io/route.b": "/b", "headrace.io/route": "/a",
                                           "headrace.io/routes": "?"})] == ["/a", "/b"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("/a", "/a"), ("/a/*", "/a/"), ("/a exact", "/a"), ("/u/*/o", "/u/"), ("/*", "/")],
)
def test_what_a_rewrite_replaces(text, prefix):
    assert read_route(text).prefix == prefix


# -- which one answers ---------------------------------------------------------------------------
def table(**functions: str) -> FunctionRoutes:
    """Functions, the oldest first, each with its route."""
    routes = FunctionRoutes()
    for age, (name, text) in enumerate(functions.items()):
        put(routes, name, text, age)
    return routes


def rows(route: Route, *value: str) -> list[tuple]:
    return [(*row, *value, route.conditions, route.priority) for row in route.rows]


def put(routes: FunctionRoutes, name: str, text: str, age: int) -> None:
    routes.change(rows(read_route(text), name), owner=name, rank=(age, name))


def take(routes: FunctionRoutes, name: str, text: str) -> None:
    routes.change((), rows(read_route(text)), owner=name)


def find(routes: FunctionRoutes, path: str, method: str = "GET", host: str = "x", **fields: str):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"
    probe = Probe(head.encode())
    return routes.find(host, path.partition("?")[0], method, probe.request)


def test_conditions_choose_among_functions_on_one_path():
    routes = table(
        plain="/a",
        gold="/a header.X-Tier=gold",
        two="/a query.v=2",
        both="/a header.X-Tier=gold query.v=2",
        star="/a header.X-Tier=plat*",
        debug="/a query.debug",
    )
    assert find(routes, "/a") == "plain"
    assert find(routes, "/a/b", X_Tier="gold") == "gold"
    assert find(routes, "/a", X_Tier="Gold") == "plain"
    assert find(routes, "/a", x_tier="platinum") == "star"
    assert find(routes, "/a?v=2") == "two"
    assert find(routes, "/a?v=22") == "plain"
    assert find(routes, "/a?v=2", X_Tier="gold") == "both"
    assert find(routes, "/a?debug=") == "debug"


def test_a_longer_path_wins_over_conditions_and_priority_over_both():
    routes = table(short="/a header.X-A", long="/a/b", first="/ header.X-First priority=5")
    assert find(routes, "/a/b", X_A="1") == "long"
    assert find(routes, "/a/c", X_A="1") == "short"
    assert find(routes, "/a/b", X_First="1") == "first"
    assert find(routes, "/a/c") is None


def test_the_last_resort_is_a_negative_priority():
    routes = table(all="x/* priority=-1", any="/b")
    assert find(routes, "/b") == "any"
    assert find(routes, "/c") == "all"


def test_exact_has_nothing_below():
    routes = table(root="/ exact", a="/a exact", below="/a/*")
    assert find(routes, "/") == "root"
    assert find(routes, "/z") is None
    assert find(routes, "/a") == "a"
    assert find(routes, "/a/") == "below"


def test_get_has_head():
    routes = table(get="GET /a", post="POST /a")
    assert [find(routes, "/a", it) for it in ("GET", "HEAD", "POST", "PUT")] == [
        "get", "get", "post", None,
    ]  # fmt: skip


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_of_two_alike_the_older_wins_whoever_came_first_here(order):
    routes = FunctionRoutes()
    ages = {"old": 1, "new": 2}
    for name in order:
        put(routes, name, "GET /a header.X-B=1 header.X-A", ages[name])
    row = ("", "/a", "GET", read_route("GET /a header.X-B=1 header.X-A").conditions)
    assert routes.owners(*row) == ["old", "new"]
    assert find(routes, "/a", X_A="1", X_B="1") == "old"
    take(routes, "old", "GET /a header.X-B=1 header.X-A")
    assert find(routes, "/a", X_A="1", X_B="1") == "new"
    take(routes, "new", "GET /a header.X-B=1 header.X-A")
    assert len(routes) == 0


def test_priorities_are_bounded():
    routes = FunctionRoutes()
    with pytest.raises(ValueError, match="different priorities"):
        for n in range(33):
            put(routes, f"f{n}", f"/a priority={n}", n)
    assert len(routes) == 32
    take(routes, "f0", "/a priority=0")
    put(routes, "f32", "/a priority=32", 32)
    assert find(routes, "/a") == "f32"


def test_a_value_with_many_stars_ends():
    routes = table(one="/a header.X-A=" + "*a" * 100 + "b")
    assert find(routes, "/a", X_A="a" * 4000) is None
    assert find(routes, "/a", X_A="a" * 4000 + "b") == "one"

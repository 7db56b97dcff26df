"""Function routes: which one wins, and how they come and go while requests hold them."""

import pytest

from proxy.routing._function_routes import FunctionRoutes

ROUTES = [
    ("", "/", "", "any"),
    ("", "/function/hello", "", "hello"),
    ("", "/function/hello/deep", "", "deep"),
    ("", "/function/hello", "POST", "hello-post"),
    ("", "/slash/", "", "slash"),
    ("a.example.com", "/", "", "a"),
    ("*.example.com", "/", "", "example"),
    ("*.b.example.com", "/only", "", "b"),
    ("api.*", "/", "", "api"),
    ("", "/users/*/orders", "GET", "orders"),
    ("", "/users/*/orders/**", "", "orders-below"),
    ("", "/users", "", "users"),
    ("", "/*.png", "", "png"),
]


@pytest.fixture
def routes():
    routes = FunctionRoutes()
    assert routes.change(ROUTES) == (len(ROUTES), 0)
    return routes


@pytest.mark.parametrize(
    ("host", "path", "method", "value"),
    [
        ("x", "/", "GET", "any"),
        ("x", "/function/hello", "GET", "hello"),
        ("x", "/function/hello", "POST", "hello-post"),
        ("x", "/function/hello/a", "GET", "hello"),
        ("x", "/function/hello/deep/er", "POST", "deep"),
        ("x", "/function/helloo", "GET", "any"),
        ("x", "/Function/hello", "GET", "any"),
        ("x", "/slash", "GET", "any"),
        ("x", "/slash/a", "GET", "slash"),
        ("a.example.com", "/function/hello", "GET", "a"),
        ("c.example.com", "/", "GET", "example"),
        ("x.b.example.com", "/only/a", "GET", "b"),
        ("x.b.example.com", "/", "GET", "example"),
        ("example.com", "/", "GET", "any"),
        ("api.test", "/", "GET", "api"),
        ("x", "/users/7/orders", "GET", "orders"),
        ("x", "/users/7/orders", "POST", "users"),
        ("x", "/users/7/orders/1", "POST", "orders-below"),
        ("x", "/users/7/8/orders", "GET", "users"),
        ("x", "/a.png", "GET", "png"),
        ("x", "/a/b.png", "GET", "any"),
    ],
)
def test_the_best_route(routes, host, path, method, value):
    assert routes.find(host, path, method) == value


def test_what_is_taken_out_is_gone_and_the_next_best_answers(routes):
    assert routes.change((), [("", "/function/hello", "POST")]) == (0, 1)
    assert routes.find("x", "/function/hello", "POST") == "hello"
    assert routes.change((), [("", "/function/hello", ""), ("", "/nothing", "")]) == (0, 1)
    assert routes.find("x", "/function/hello", "POST") == "any"
    assert routes.change((), [("a.example.com", "/", "")]) == (0, 1)
    assert routes.find("a.example.com", "/") == "example"
    removes = [(host, path, method) for host, path, method, _ in ROUTES]
    assert routes.change((), removes) == (0, len(ROUTES) - 3)
    assert len(routes) == 0
    assert routes.find("x", "/") is None


def test_a_route_that_is_there_gets_its_new_value(routes):
    assert routes.change([("", "/", "", "other")]) == (0, 0)
    assert routes.find("x", "/") == "other"


def test_who_found_a_value_keeps_it():
    class Function:
        pass

    routes = FunctionRoutes()
    routes.change([("", "/", "", Function())])
    held = routes.find("x", "/")
    routes.change((), [("", "/", "")])
    assert isinstance(held, Function)


@pytest.mark.parametrize(
    "route",
    [
        ("a*b", "/", ""), ("*.a.*", "/", ""), ("a..b", "/", ""), ("", "x", ""), ("", "", ""),
        ("", "/**/a", ""), ("", "/a**", ""),
    ],
)  # fmt: skip
def test_a_change_is_made_whole_or_not_at_all(routes, route):
    with pytest.raises(ValueError, match="function route|last segment"):
        routes.change([("", "/new", "", 1), (*route, 2)], [("", "/", "")])
    assert routes.find("x", "/new") == "any"


def test_routes_of_one_beginning_are_bounded():
    routes = FunctionRoutes()
    with pytest.raises(ValueError, match="routes begin with"):
        routes.change([("", f"/*/{n}", "", n) for n in range(1025)])
    assert len(routes) == 0
    routes.change([("", f"/*/{n}", "", n) for n in range(1024)])
    assert routes.find("x", "/a/77") == 77


def test_a_glob_with_many_stars_ends():
    routes = FunctionRoutes()
    routes.change([("", "/" + "*a" * 200 + "b", "", 1)])
    assert routes.find("x", "/" + "a" * 4000) is None

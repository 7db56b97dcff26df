"""Times of the searches, for `pytest --benchmark-only` to print; nothing here fails on a time."""

import pytest

from proxy.routing._function_routes import FunctionRoutes
from proxy.routing._radix import Radix
from proxy.routing._uri import normalise

pytestmark = pytest.mark.benchmark(max_time=0.2, min_rounds=3)

NAMES = [f"/function/team{n % 97}/fn-{n}" for n in range(100_000)]
ROUTES = [("", name, "", n) for n, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def routes():
    routes = FunctionRoutes()
    routes.change(ROUTES)
    return routes


def test_load_100_000_routes(benchmark):
    benchmark.pedantic(lambda: FunctionRoutes().change(ROUTES), rounds=2)


def test_find_one_of_100_000_routes(benchmark, routes):
    assert benchmark(routes.find, "x", "/function/team5/fn-5/a", "GET") == 5


def test_change_one_of_100_000_routes(benchmark, routes):
    def change():
        routes.change([("", "/function/new", "", 1)])
        routes.change((), [("", "/function/new", "")])

    benchmark(change)


def test_find_in_the_tree(benchmark):
    tree = Radix()
    for name in NAMES:
        tree.add(name.encode(), name)
    assert benchmark(tree.longest, b"/function/team5/fn-5/a")[0] == NAMES[5]


@pytest.mark.parametrize("target", [b"/a/plain/path.html?x=1", b"/a/../b//c/%41%42.html?x=1"])
def test_normalise(benchmark, target):
    benchmark(normalise, target)

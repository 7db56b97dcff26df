"""A worker's directory: routes, shares and labels follow the table, at each of its lines."""

from __future__ import annotations

import gc
import weakref

import pytest

from proxy.functions._function import Functions
from proxy.functions.directory import Directory, read_labels
from proxy.functions.peers import peer_of
from proxy.routing._function_routes import FunctionRoutes


class World:
    """Functions with a Directory over them; `said` is what the operator is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.functions = Functions(peer_of)
        self.table = FunctionRoutes()
        self.directory = Directory(self.functions, self.table, self.said.append)

    def put(self, key: str, *routes: str, at: str = "2026", versions=(), **more):
        names = ["headrace.io/route", *(f"headrace.io/route.{n}" for n in range(2, 9))]
        rows = [dict(zip(("name", "weight", "tag", "mirror"), it, strict=False)) for it in versions]
        return self.functions.change({
            "function": key, "created_at": at, "versions": rows or [{"name": "v1"}],
            "annotations": dict(zip(names, routes, strict=False)), **more,
        })  # fmt: skip

    def find(self, path: str, method: str = "GET", host: str = "x") -> str | None:
        found = self.table.find(host, path, method)
        return found.function.key.decode() if found is not None else None


@pytest.fixture
def world() -> World:
    return World()


def test_routes_come_change_and_go_with_their_function(world):
    world.put("a.x", "/a", "GET api.test/b")
    assert (world.find("/a/1"), world.find("/b", host="api.test")) == ("a.x", "a.x")
    world.put("a.x", "/c", "GET api.test/b")
    assert (world.find("/a/1"), world.find("/c"), world.find("/b", host="api.test")) == (
        None, "a.x", "a.x",
    )  # fmt: skip
    world.functions.forget("a.x")
    assert len(world.table) == 0
    assert world.said == []


def test_what_says_nothing_new_changes_no_route(world):
    world.put("a.x", "/a")
    before = world.table.version
    world.put("a.x", "/a", labels={"team": "pay"})
    assert world.table.version == before


def test_a_function_that_comes_back_is_the_one_that_is_found(world):
    world.put("a.x", "/a")
    world.functions.forget("a.x")
    again = world.put("a.x", "/a")
    assert world.table.find("x", "/a", "GET").function is again


def test_the_older_of_two_answers_and_both_are_named_once(world):
    world.put("young.x", "GET,POST /a", at="2026-02-01T00:00:00Z")
    world.put("old.x", "GET /a", at="2026-01-01T00:00:00Z")
    world.put("old.x", "GET /a", at="2026-01-01T00:00:00Z", labels={"a": "b"})
    assert (world.find("/a"), world.find("/a", "POST")) == ("old.x", "young.x")
    told = 'of "old.x" and "young.x": "old.x" is older and answers'
    assert world.said == [
        f'conflicting function route "GET /a" {told}',
        f'conflicting function route "HEAD /a" {told}',
    ]
    world.functions.forget("old.x")
    assert world.find("/a") == "young.x"


def test_a_wrong_annotation_is_named_and_harms_nobody(world):
    world.put("a.x", "/a", "GET")
    assert world.said == ['function "a.x": annotation "headrace.io/route.2": it has no path']
    assert world.find("/a") is None
    world.put("a.x", "/a")
    assert world.find("/a") == "a.x"


def test_a_route_too_many_leaves_the_function_with_those_it_has(world):
    for n in range(1024):
        world.put(f"f{n}.x", f"/*/{n}")
    world.put("late.x", "/ok")
    world.put("late.x", "/*/late")
    assert world.find("/ok") == "late.x"
    assert "routes begin with" in world.said[-1]


def test_shares_follow_the_weights(world):
    assert world.put("b.x").arms is None  # nothing to choose
    a = world.put("a.x", versions=[("v1", 90), ("v2", 10)])
    assert a.arms.shares() == [9000, 1000]
    before = a.arms
    world.put("a.x", versions=[("v1", 90), ("v2", 10)], labels={"x": "y"})
    assert a.arms is before  # whoever is in its turn stays so
    world.put("a.x", versions=[("v2", 50), ("v1", 50)], sticky="cookie=hr tag_header=X-V")
    assert a.arms.shares() == [5000, 5000]
    world.put("a.x", versions=[("v1", 0)], sticky="what")
    assert a.arms.shares() == [0]
    assert "sticky" in world.said[-1]


def test_a_function_of_the_api_is_sticky_by_an_annotation(world):
    row = {"headrace.io/sticky": "header=X-User"}
    a = world.put("a.x", versions=[("v1", 50), ("v2", 50)], annotations=row)
    assert a.arms.affinity is not None


def test_labels_select_the_oldest_that_has_all(world):
    world.put("b.x", at="2026-02", labels={"team": "pay", "tier": "gold"})
    both = world.directory.select(read_labels("team=pay,tier=gold"))
    team = world.directory.select(read_labels("team=pay"))
    assert (both.chosen.key, team.chosen.key) == (b"b.x", b"b.x")
    world.put("a.x", at="2026-01", labels={"team": "pay"})
    assert (both.chosen.key, team.chosen.key) == (b"b.x", b"a.x")
    assert world.said == ['functions with the labels "team=pay": "a.x", "b.x": the first is asked']
    world.put("b.x", at="2026-02", labels={"team": "pay"})
    assert both.chosen is None
    world.functions.forget("a.x")
    assert team.chosen.key == b"b.x"
    world.functions.forget("b.x")
    assert team.chosen is None
    assert world.directory.select(read_labels("tier=gold, team=pay")) is both


@pytest.mark.parametrize("text", ["", "team", "=pay", "a=b,,c=d"])
def test_labels_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="invalid label"):
        read_labels(text)


def test_ten_thousand_functions_come_and_go_and_leave_nothing(world):
    for n in range(10_000):
        world.put(f"f{n}.x", f"api.test/f{n}/*", labels={"n": str(n % 7)})
    assert world.find("/f77/a", host="api.test") == "f77.x"
    one = weakref.ref(world.directory)
    for n in range(10_000):
        world.functions.forget(f"f{n}.x")
    assert len(world.table) == 0
    assert not world.directory._routes
    assert not world.directory._arms
    world.directory = world.functions = None
    gc.collect()
    assert one() is None

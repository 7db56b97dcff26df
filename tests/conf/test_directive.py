"""Declarations: what may be said of a directive, and what the reference makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import vocabulary

from proxy.conf import load_text
from proxy.conf.directive import (
    DIRECTIVES,
    HTTP,
    LOCATION,
    MAIN,
    SERVER,
    UPSTREAM,
    directive,
    find,
    ignored,
)
from proxy.conf.reference import entry, reference
from proxy.conf.values import Duration, Enum, Flag, Int, Rest, Size, Text, Word


@pytest.fixture
def words() -> Iterator[None]:
    with vocabulary.alone():
        yield


@pytest.mark.usefixtures("words")
class TestDeclaring:
    def test_one_name_may_mean_two_things_in_two_places(self) -> None:
        outer = directive("try_it", HTTP, Flag())
        inner = directive("try_it", UPSTREAM, Size())
        assert find("try_it", HTTP) is outer
        assert find("try_it", UPSTREAM) is inner
        assert find("try_it", SERVER) is None

    def test_a_place_is_declared_by_one_room_only(self) -> None:
        directive("try_it", HTTP | SERVER, Flag())
        with pytest.raises(ValueError, match="declared by"):
            directive("try_it", SERVER | LOCATION, Flag())

    def test_a_room_that_obeys_takes_the_place_of_no_effect(self) -> None:
        ignored("try_it", HTTP, "why")
        obeyed = directive("try_it", HTTP, Flag())
        ignored("try_it", HTTP, "why")
        assert find("try_it", HTTP) is obeyed
        assert DIRECTIVES["try_it"] == [obeyed]

    @pytest.mark.parametrize(
        ("args", "default", "value"),
        [
            ((Duration(),), "60s", 60_000),
            ((Flag(),), "off", False),
            ((Text(),), "a b $c", "a b $c"),
            ((Text(),), "", ""),
            ((Int(), Size()), "4 8k", (4, 8192)),
            ((Rest(Enum("a", "b")),), "a B", ["a", "b"]),
            ((Word(), Text(optional=True)), "x", ("x", None)),
            ((Size(words={"off": 0}),), "off", 0),
            ((Int(),), None, None),
            ((Int(),), 5, 5),
        ],
    )
    def test_a_default_is_read_as_if_it_were_written(
        self, args: tuple, default: object, value: object
    ) -> None:
        assert directive("try_it", HTTP, *args, default=default).default_value == value

    def test_many_defaults_to_a_list(self) -> None:
        assert directive("try_it", HTTP, Word(), many=True).default_value == []
        assert directive("try_2", HTTP, Word(), many=True, default="a").default_value == ["a"]

    def test_a_check_runs_when_its_block_is_closed(self) -> None:
        seen = []
        directive("try_it", MAIN, block=HTTP, many=True,
                  check=lambda block: seen.append(block.own("keepalive_requests")))  # fmt: skip
        load_text("events { } try_it { keepalive_requests 5; } try_it { }")
        assert seen == [5, None]

    def test_the_reference_says_all_of_it(self) -> None:
        it = directive("try_it", HTTP | SERVER, Flag(), Int(optional=True), default="on",
                       doc="Tries it.", many=True, inherit=False)  # fmt: skip
        assert entry(it) == (
            "### try_it\n\nTries it.\n\n"
            "- syntax: `try_it (on | off) [number];`\n"
            "- default: `try_it on;`\n"
            "- in: http, server\n"
            "- may stand more than once in a block\n"
            "- not inherited by inner blocks\n"
        )
        assert "### try_it" in reference()
        assert "| `sendfile` |" in reference()


def test_all_rooms_declare_without_treading_on_each_other() -> None:
    from proxy import order

    order.declare_all()
    order.declare_all()
    for declared in DIRECTIVES.values():
        for it in declared:
            it.default_value  # noqa: B018  (a default that its own types refuse raises here)
            assert it.doc, f'"{it.name}" of {it.room} has no doc'
            assert it.where


def test_every_name_without_effect_is_one_of_nginx() -> None:
    from proxy.conf.known import KNOWN

    names = [name for name, declared in DIRECTIVES.items() for it in declared if it.ignored]
    assert set(names) <= KNOWN

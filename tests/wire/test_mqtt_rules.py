"""Each rule of the table holds, however its packet is cut; the fuzz target's promises hold too."""

from __future__ import annotations

import random
from itertools import product

import pytest
from fuzz_mqtt import FUZZ, beginnings, check, said_by_oracle
from mqtt_rules import BAD, GOOD

from proxy.mqtt._topics import is_held
from proxy.mqtt.topics import captures, expand, is_filter, is_pattern
from proxy.wire.mqtt_door import Follower, is_good_filter, is_good_topic, read_packet


@pytest.mark.parametrize("clause, version, data, kind, said", GOOD)
def test_what_is_good(clause, version, data, kind, said) -> None:
    size, found, what = read_packet(data, version)
    assert (size, found) == (len(data), kind)
    assert {name: what[name] for name in said} == said
    assert read_packet(data + b"\xff" * 9, version) == (size, found, what)
    for at in range(len(data)):
        assert read_packet(data[:at], version) is None
    check(bytes([version & 1]) + data)


@pytest.mark.parametrize("clause, version, data, reason", BAD)
def test_what_is_bad(clause, version, data, reason) -> None:
    assert read_packet(data, version) == -reason
    assert read_packet(data + b"\xff" * 9, version) == -reason
    for at in range(len(data)):
        assert read_packet(data[:at], version) in (None, -reason)


def test_the_witness_knows_what_is_good() -> None:
    """Where it does not take what the table says is good, it would be no witness."""
    asked = [(data, said) for _, version, data, _, said in GOOD if version == 5]
    heard = [said_by_oracle(data) for data, _ in asked]
    assert sum(it is not None for it in heard) >= len(asked) - 2


def test_it_is_known_where_packets_end() -> None:
    stream = b"".join(data for _, _, data, *_ in GOOD)
    ends = {sum(len(it[2]) for it in GOOD[:n]) for n in range(1, len(GOOD) + 1)}
    follower = Follower()
    for at in range(len(stream)):
        assert follower.follow(stream[at : at + 1]) == (at + 1 in ends)
    for at in range(len(stream)):
        follower = Follower()
        assert follower.follow(stream[:at]) == (at in ends or at == 0)
        assert follower.follow(stream[at:]) is True
    assert Follower().follow(b"\x30\xff\xff\xff\xff") is None


# (pattern, topic or filter, held?) for the client "c" of the user "u"
HELD = [
    (b"a/b", b"a/b", True), (b"a/b", b"a", False), (b"a", b"a/b", False), (b"a/b", b"a/bc", False),
    (b"a/+", b"a/b", True), (b"a/+", b"a/+", True), (b"a/+", b"a/#", False), (b"a/+", b"a", False),
    (b"a/+", b"a/", True), (b"+", b"a/b", False), (b"+/b", b"a/b", True), (b"+", b"$SYS", False),
    (b"a/#", b"a", True), (b"a/#", b"a/b/c", True), (b"a/#", b"a/#", True), (b"a/#", b"ab", False),
    (b"a/#", b"a/+/c", True), (b"#", b"a", True), (b"#", b"$SYS/x", False), (b"#", b"#", True),
    (b"$SYS/#", b"$SYS/x", True), (b"a/+/c", b"a/b/c", True), (b"a/+/c", b"a/#", False),
    (b"t/%c/#", b"t/c/x", True), (b"t/%c/#", b"t/d/x", False), (b"t/%c/#", b"t/+/x", False),
    (b"t/%c/#", b"t/#", False), (b"t/%u", b"t/u", True), (b"t/%u", b"t/u/x", False),
    (b"t/x-%c-%u", b"t/x-c-u", True), (b"%%c", b"%c", True), (b"%c", b"c", True),
    (b"t/%c", b"t/cc", False), (b"a/b", b"+/b", False), (b"/a", b"/a", True), (b"/a", b"a", False),
]  # fmt: skip


@pytest.mark.parametrize("pattern, topic, is_so", HELD)
def test_patterns_hold_topics_and_filters(pattern, topic, is_so) -> None:
    assert is_pattern(pattern.decode())
    assert is_held(pattern, topic, b"c", b"u") == is_so


def test_a_pattern_holds_a_filter_only_if_it_holds_all_its_topics() -> None:
    """Held against every topic of three levels, by the rule of captures()."""
    chance = random.Random(3)
    words = ["a", "b", "+"]
    topics = ["/".join(it) for n in (1, 2, 3)
              for it in product(["a", "b", "c"], repeat=n)]  # fmt: skip
    held = 0
    for _ in range(3000):
        pattern, asked = (
            "/".join(chance.choice(words) for _ in range(chance.randrange(1, 4)))
            + chance.choice(["", "", "/#"])
            for _ in range(2)
        )
        if is_held(pattern.encode(), asked.encode()):
            held += 1
            for topic in topics:
                if captures(asked, topic) is not None:
                    assert captures(pattern, topic) is not None, (pattern, asked, topic)
    assert held > 100


def test_captures_and_names() -> None:
    assert captures("a/+/c/#", "a/b/c/d/e") == ["b", "d/e"]
    assert captures("a/#", "a") == [""]
    assert captures("#", "$SYS/x") is None
    assert captures("+/+", "a/") == ["a", ""]
    assert expand("t/%c/%u/%%", "c", "u") == "t/c/u/%"
    for bad in ("", "a/b", "+", "#", "$x"):
        assert expand("t/%c", bad, "u") == ""
    for text in ("a/#", "+", "#", "/", "a/+/b"):
        assert is_filter(text) and is_good_filter(text.encode())
    for text in ("", "a#", "#/a", "a+/b", "a\0"):
        assert not is_filter(text) and not is_good_filter(text.encode())
    assert is_good_topic(b"a") and not is_good_topic(b"a/+")


@pytest.mark.parametrize("data", FUZZ.saved())
def test_saved_input(data) -> None:
    check(data)


def test_a_thousand_mutations() -> None:
    chance = random.Random(7)
    pool = beginnings() + FUZZ.saved()
    for _ in range(1000):
        check(FUZZ.mutated(chance.choice(pool), pool, chance))

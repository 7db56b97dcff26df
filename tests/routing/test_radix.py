"""The radix tree: held against a dictionary while keys come and go."""

import random
import sys

import pytest

from proxy.routing._radix import Radix


def longest(keys, s):
    fitting = [key for key in keys if s.startswith(key)]
    return max(fitting, key=len) if fitting else None


@pytest.mark.parametrize("alphabet", [b"ab", b"abcdefgh/", bytes(range(256))])
@pytest.mark.parametrize("most", [3, 12, 150])
def test_like_a_dictionary(alphabet, most):
    rng = random.Random(most * len(alphabet))
    tree, known = Radix(), {}

    def word():
        return bytes(rng.choices(alphabet, k=rng.randrange(most + 1)))

    for _ in range(4000):
        key = rng.choice(list(known)) + word()[:4] if known and rng.random() < 0.5 else word()
        if rng.random() < 0.6:
            value = object()
            assert tree.add(key, value) == (key not in known)
            known[key] = value
        else:
            assert tree.remove(key) == (known.pop(key, None) is not None)
        assert len(tree) == len(known)
        probe = rng.choice(list(known)) + word()[:3] if known and rng.random() < 0.8 else word()
        assert tree.get(probe) is known.get(probe)
        best = longest(known, probe)
        found = tree.longest(probe)
        assert found == ((known[best], len(best)) if best is not None else None)
    probe = max(known, key=len)
    fitting = sorted((key for key in known if probe.startswith(key)), key=len)
    assert tree.prefixes(probe) == [known[key] for key in fitting][-64:]
    for key in list(known):
        assert tree.get(key) is known.pop(key)
        assert tree.remove(key)
    assert len(tree) == 0


def test_many_children_of_one_node():
    tree = Radix()
    for code in range(256):
        tree.add(bytes([code]) * 3, code)
    assert all(tree.get(bytes([code]) * 3) == code for code in range(256))
    for code in range(0, 256, 2):
        tree.remove(bytes([code]) * 3)
    assert [tree.get(bytes([code]) * 3) for code in range(4)] == [None, 1, None, 3]


def test_room_is_used_again():
    tree = Radix()
    keys = [b"/function/team%d/%d" % (i % 7, i) + b"x" * (i % 90) for i in range(5000)]
    for key in keys:
        tree.add(key, key)
    room = tree.n_nodes
    for _ in range(3):
        for key in keys:
            assert tree.remove(key)
        for key in keys:
            tree.add(key, key)
    # the order of changes moves the splits about a little, never without bound
    assert tree.n_nodes <= room * 1.1
    assert sorted(tree.values()) == sorted(keys)


def test_values_are_held_and_let_go():
    value = object()
    before = sys.getrefcount(value)
    tree = Radix()
    tree.add(b"a", value)
    tree.add(b"ab", value)
    assert sys.getrefcount(value) == before + 2
    tree.add(b"a", None)
    assert sys.getrefcount(value) == before + 1
    tree.remove(b"ab")
    assert sys.getrefcount(value) == before
    tree.add(b"c", value)
    del tree
    assert sys.getrefcount(value) == before


def test_of_more_prefixes_than_fit_the_longest_are_told():
    tree = Radix()
    for n in range(100):
        tree.add(b"a" * n, n)
    assert tree.prefixes(b"a" * 200) == list(range(36, 100))

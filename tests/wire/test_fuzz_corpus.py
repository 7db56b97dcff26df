"""Replays the saved corpus of the fuzz target of HTTP/1.1, and mutates it a little."""

import random

import pytest
from fuzz_h1 import FUZZES

SAVED = [(it, data) for it in FUZZES.values() for data in it.saved()]


@pytest.mark.parametrize("at", range(len(SAVED)))
def test_saved_input(at):
    it, data = SAVED[at]
    it.check(data, random.Random(at))


def test_the_corpus_is_there():
    assert all(it.saved() for it in FUZZES.values())


def test_a_thousand_mutations():
    chance = random.Random(7)
    for _ in range(1000):
        it, data = chance.choice(SAVED)
        it.check(it.mutated(data, it.saved(), chance), chance)

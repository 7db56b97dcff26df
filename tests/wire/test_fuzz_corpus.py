"""Replays the saved corpus of the fuzz target, and mutates it a little."""

import random

import fuzz_h1
import pytest

SAVED = fuzz_h1.saved()


@pytest.mark.parametrize("at", range(len(SAVED)))
def test_saved_input(at):
    fuzz_h1.check(*SAVED[at], random.Random(at))


def test_the_corpus_is_there():
    assert {kind for kind, _ in SAVED} == {"request", "response", "chunked"}


def test_a_thousand_mutations():
    chance = random.Random(7)
    for _ in range(1000):
        kind, data = chance.choice(SAVED)
        others = [other for other_kind, other in SAVED if other_kind == kind]
        fuzz_h1.check(kind, fuzz_h1.mutated(data, others, chance), chance)

"""Which replica is asked, and which words of functions contradict each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gateway import run

from proxy import order
from proxy.conf import load
from proxy.conf.report import ConfError
from proxy.functions._function import Functions
from proxy.functions.contradictions import contradictions
from proxy.functions.declared import read_functions
from proxy.functions.model import Balance
from proxy.functions.peers import peer_of
from proxy.process.groups import has_controller
from proxy.upstream._balance import FAILED, OK, Attempts

order.declare_all()


def read(folder: Path, inside: str, more: str = ""):
    conf = folder / "headrace.conf"
    conf.write_text(f"events {{ }}\nhttp {{\nfunction a {{ command x; {inside} }}\n{more} }}\n")
    return load(str(conf), f"{folder}/", "")


BALANCES = [
    ("", Balance()),
    ("balance round_robin;", Balance("round_robin")),
    ("balance hash $arg_user;", Balance("hash", "$arg_user")),
    ("balance least_in_flight max_fails=3 fail_timeout=5s slow_start=10s;",
     Balance(max_fails=3, fail_timeout_ms=5000, slow_start_ms=10000)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "balance"), BALANCES, ids=[words for words, _ in BALANCES])
def test_balance_is_read(tmp_path: Path, words: str, balance: Balance) -> None:
    (found,) = read_functions(read(tmp_path, words)).values()
    assert found.versions[0].balance == balance


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("balance fastest;", 'invalid balancing method "fastest"'),
        ("balance hash;", '"balance hash" has no key'),
        ("balance round_robin max_fails=x;", 'invalid parameter "max_fails=x"'),
        ("balance round_robin weight=1;", 'invalid parameter "weight=1"'),
    ],
)
def test_balance_is_refused(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(ConfError, match=message):
        read_functions(read(tmp_path, words))


def upstream_of(*balance):
    functions = Functions(peer_of)
    rows = [[f"f/{n}", f"127.0.0.1:{n}"] for n in range(1, 5)]
    version = {"name": "v1", "replicas": rows, "balance": balance}
    return functions.change({"function": "f.ns", "versions": [version]}).versions[0].upstream


def test_round_robin_asks_each_in_turn() -> None:
    upstream = upstream_of("round_robin", "", 1, 1000, 0)
    names = [Attempts(upstream).pick(1000).name for _ in range(8)]
    assert len(set(names[:4])) == 4
    assert names[:4] == names[4:]


def test_the_same_key_asks_the_same_replica() -> None:
    upstream = upstream_of("hash", "key", 1, 1000, 0)
    names = {Attempts(upstream, b"k%d" % n).pick(1000).name for n in range(50)}
    assert len(names) == 4
    assert len({Attempts(upstream, b"same").pick(1000).name for _ in range(20)}) == 1


def test_who_failed_is_left_out_for_a_while() -> None:
    upstream = upstream_of("round_robin", "", 1, 1000, 0)
    attempt = Attempts(upstream)
    peer = attempt.pick(10_000)
    attempt.give(peer, FAILED, 10_000)
    asked = []
    for _ in range(9):
        attempt = Attempts(upstream)
        asked.append(attempt.pick(10_500))
        attempt.give(asked[-1], OK, 10_500)
    assert peer not in asked
    assert peer in [Attempts(upstream).pick(12_000) for _ in range(8)]


CONTRADICTIONS = [
    ("queue wait=1s; start_timeout 5s;", "", '"queue" wait=1000ms is less than "start_timeout"'),
    ("queue size=0;", "", '"queue" size=0 with "min_scale" 0'),
    ("start_timeout 1s; queue wait=2s; ready / timeout=2s;", "", '"ready" may take longer'),
    ("timeout 60s; drain_timeout 5s;", "", '"drain_timeout" is less than "timeout" 60000ms'),
    ("concurrency 2; target 5;", "", '"target" 5 is more than "concurrency" 2'),
    ("timeout 5s;", "server { location / { function_pass a; proxy_read_timeout 9s; } }",
     '"proxy_read_timeout" is more than the "timeout" 5000ms of function a'),
]  # fmt: skip


@pytest.mark.parametrize(("words", "more", "message"), CONTRADICTIONS)
def test_contradictions_are_told(tmp_path: Path, words: str, more: str, message: str) -> None:
    (told,) = contradictions(read(tmp_path, words, more))
    assert message in told
    assert "headrace.conf:" in told


def test_the_defaults_do_not_contradict_each_other(tmp_path: Path) -> None:
    assert contradictions(read(tmp_path, "")) == []


@pytest.mark.parametrize("holds", [True, False])
def test_a_cpu_limit_that_this_machine_cannot_hold_is_told(tmp_path: Path, holds: bool) -> None:
    words = "limits cpu=0.5 memory=1g; version b { limits nofile=9; } version c { limits cpu=2; }"
    told = contradictions(read(tmp_path, words), holds)
    if holds:
        assert told == []
    else:
        assert [text.partition(" is not held: ")[0] for text in told] == [
            'function a: "limits" cpu=0.5', 'version c: "limits" cpu=2'
        ]  # fmt: skip
        assert all(re.search(r"/\S+:\d+$", text) for text in told)


def test_the_command_tells_it_where_it_is_so(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    conf = tmp_path / "x.conf"
    conf.write_text("events {}\nhttp {\nfunction f { command x; limits cpu=0.5; }\n}\n")
    said = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert said.returncode == 0
    assert ('"limits" cpu=0.5 is not held' in said.stderr) == (not has_controller("cpu"))
    assert (f"{conf}:3" in said.stderr) == (not has_controller("cpu"))


def test_a_key_of_nothing_that_is_known_is_refused_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    conf = tmp_path / "x.conf"
    conf.write_text("events {}\nhttp {\nfunction f { command x;\nbalance hash $nothing; }\n}\n")
    said = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert said.returncode == 1
    assert f'unknown "nothing" variable in {conf}:' in said.stderr

"""Who is picked: nginx's sequences, failures, backups, rings, and tables that change."""

from __future__ import annotations

import os
import random
import zlib
from collections import Counter

import pytest

from proxy.base._shm import Zone
from proxy.upstream._balance import FAILED, METHODS, NEXT, OK, Attempts, Peer, Upstream, spin
from proxy.upstream._shared import forget_process, lay_out
from proxy.upstream.servers import pack_ip, pack_unix


def peer(number: int, **settings: object) -> Peer:
    return Peer(*pack_ip(f"127.0.0.{number}", 80), **settings)


def named(name: str, **settings: object) -> Peer:
    return Peer(name.encode(), 2, b"", **settings)


def group(*peers: Peer, method: str = "round_robin") -> Upstream:
    return Upstream(b"u", peers, method=method)


def ask(upstream: Upstream, key: bytes = b"", outcome: int = OK, now: int = 100_000) -> str | None:
    """One request: who was picked; it gives the peer back at once."""
    attempt = Attempts(upstream, key)
    picked = attempt.pick(now)
    if picked is None:
        return None
    attempt.give(picked, outcome, now)
    return picked.name.decode()


def tour(upstream: Upstream, key: bytes = b"", now: int = 100_000) -> list[str]:
    """One request that fails everywhere: whom it asked, in order."""
    attempt = Attempts(upstream, key)
    asked = []
    while attempt.tries and (picked := attempt.pick(now)) is not None:
        asked.append(picked.name.decode())
        attempt.give(picked, NEXT, now)
    return asked


@pytest.mark.parametrize(
    ("weights", "sequence"),
    [
        ((5, 1, 1), "aabacaa"),
        ((1, 1, 1), "abcabc"),
        ((2, 1), "abaaba"),
        ((3, 2), "ababa"),
        ((1,), "aaa"),
        ((1, 4), "bbabb"),
    ],
)
def test_round_robin_is_smooth(weights: tuple[int, ...], sequence: str) -> None:
    upstream = group(*(named(n, weight=w) for n, w in zip("abc", weights, strict=False)))
    for _ in range(3):
        assert "".join(str(ask(upstream)) for _ in sequence) == sequence


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_request_asks_each_peer_once_and_then_nobody(method: str) -> None:
    upstream = group(*(named(n, weight=w) for n, w in zip("abcd", (1, 2, 3, 1), strict=True)),
                     method=method)  # fmt: skip
    for number in range(50):
        asked = tour(upstream, b"%4d" % number)
        assert sorted(asked) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_down_peers_and_full_peers_are_not_picked(method: str) -> None:
    full = named("f", max_conns=1)
    upstream = group(named("d", is_down=True), full, named("a"), method=method)
    held = []
    while full.conns == 0:
        attempt = Attempts(upstream, os.urandom(4))
        held.append((attempt, attempt.pick(1000)))
    assert {ask(upstream, os.urandom(4)) for _ in range(50)} == {"a"}
    for attempt, picked in held:
        attempt.give(picked, OK, 1000)
    assert full.conns == 0
    assert "f" in {ask(upstream, os.urandom(4)) for _ in range(200)}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_nobody_lives(method: str) -> None:
    assert ask(Upstream(b"u", [], method=method), b"k") is None
    assert ask(group(named("a", is_down=True), method=method), b"k") is None
    assert ask(group(named("a", is_down=True), named("b", is_down=True), method=method)) is None


def test_max_fails_takes_a_peer_out_for_fail_timeout() -> None:
    a, b = named("a", max_fails=2, fail_timeout_ms=10_000), named("b")
    upstream = group(a, b)
    now = 100_000
    while a.fails < 2:
        ask(upstream, outcome=FAILED if a.picks == b.picks else OK, now=now)
    assert {ask(upstream, now=now + 10_000) for _ in range(4)} == {"b"}
    assert a.disabled == 1
    # after it one request tries; the rest wait for the outcome
    attempt = Attempts(upstream)
    now += 10_001
    while (picked := attempt.pick(now)) is not a:
        attempt.give(picked, OK, now)
        attempt = Attempts(upstream)
    assert {ask(upstream, now=now) for _ in range(4)} == {"b"}
    attempt.give(a, OK, now)
    assert a.fails == 0
    assert {ask(upstream, now=now) for _ in range(4)} == {"a", "b"}


def test_max_fails_0_is_never_out() -> None:
    upstream = group(named("a", max_fails=0), named("b", max_fails=0))
    assert {ask(upstream, outcome=FAILED) for _ in range(20)} == {"a", "b"}


def test_a_failure_makes_a_heavy_peer_lighter_for_a_while() -> None:
    upstream = group(named("a", weight=10, max_fails=5), named("b", weight=10, max_fails=5))
    ask(upstream, outcome=FAILED)
    assert Counter(ask(upstream) for _ in range(4))["b"] >= 2


def test_a_single_server_is_never_out() -> None:
    a = named("a")
    upstream = group(a)
    assert [ask(upstream, outcome=FAILED) for _ in range(5)] == ["a"] * 5
    assert a.fails == 0
    assert a.failures == 5
    attempt = Attempts(upstream)
    attempt.give(attempt.pick(1), FAILED, 1)
    assert attempt.tries == 0


def test_a_single_server_with_a_backup_can_be_out() -> None:
    upstream = group(named("a"), named("b", is_backup=True))
    assert ask(upstream, outcome=FAILED) == "a"
    assert [ask(upstream) for _ in range(3)] == ["b"] * 3


@pytest.mark.parametrize("method", ["round_robin", "least_conn"])
def test_backups_come_last(method: str) -> None:
    upstream = group(named("a"), named("x", is_backup=True), named("b"),
                     named("y", is_backup=True), method=method)  # fmt: skip
    assert {ask(upstream) for _ in range(20)} == {"a", "b"}
    asked = tour(upstream)
    assert sorted(asked[:2]) == ["a", "b"]
    assert sorted(asked[2:]) == ["x", "y"]


def test_tries_are_peers_not_down_or_the_limit() -> None:
    upstream = group(named("a"), named("b"), named("d", is_down=True), named("x", is_backup=True))
    assert Attempts(upstream).tries == 3
    assert Attempts(upstream, limit=2).tries == 2
    assert Attempts(upstream, limit=9).tries == 3


def test_least_conn_weighs() -> None:
    a, b = named("a", weight=3), named("b", weight=1)
    upstream = group(a, b, method="least_conn")
    for _ in range(40):
        Attempts(upstream).pick(1)
    assert (a.conns, b.conns) == (30, 10)


def test_least_conn_turns_among_equals() -> None:
    upstream = group(named("a"), named("b"), named("c"), method="least_conn")
    assert [ask(upstream) for _ in range(6)] == ["a", "b", "c"] * 2


def test_hash_is_that_of_memcached_clients() -> None:
    # Cache::Memcached: (crc32(key) >> 16) & 0x7fff, by weight
    weights = {"a": 3, "b": 1, "c": 2}
    upstream = group(*(named(n, weight=w) for n, w in weights.items()), method="hash")
    row = "".join(n * w for n, w in weights.items())
    for number in range(300):
        key = b"key%d" % number
        first = (zlib.crc32(key) >> 16) & 0x7FFF
        assert ask(upstream, key) == row[first % 6]
        # the next ones: the sum of the hashes with a number before the key
        places = [first]
        for again in range(1, 40):
            places.append(places[-1] + ((zlib.crc32(b"%d" % again + key) >> 16) & 0x7FFF))
        order = list(dict.fromkeys(row[place % 6] for place in places[:21]))
        assert tour(upstream, key)[: len(order)] == order


def test_ip_hash_is_the_network_of_ipv4_and_the_whole_of_ipv6() -> None:
    upstream = group(*(named(n) for n in "abc"), method="ip_hash")

    def expected(octets: bytes) -> str:
        value = 89
        for octet in octets:
            value = (value * 113 + octet) % 6271
        return "abc"[value % 3]

    for _ in range(200):
        v4, v6 = os.urandom(4), os.urandom(16)
        assert ask(upstream, v4) == expected(v4[:3])
        assert ask(upstream, v4[:3] + b"\xfe") == ask(upstream, v4)
        assert ask(upstream, v6) == expected(v6)
    assert ask(upstream, b"") == expected(b"\0\0\0")


RING = {"10.0.0.1:8080": 1, "10.0.0.2:8080": 2, "c.example": 1, "unix:/tmp/x": 1, "[::1]:9": 1}


def ring_points(servers: dict[str, int]) -> list[tuple[int, str]]:
    """Cache::Memcached::Fast's ketama: 160 points a weight, each the hash of the one before."""
    points = {}
    for server, weight in servers.items():
        if server.startswith("unix:"):
            host, port = server[5:], ""
        else:
            host, _, port = server.rpartition(":")
            if not host or not port.isdigit():
                host, port = server, ""
        before = 0
        for _ in range(160 * weight):
            data = f"{host}\0{port}".encode() + before.to_bytes(4, "little")
            before = zlib.crc32(data)
            points.setdefault(before, server)
    return sorted(points.items())


def test_the_ring_is_that_of_memcached_clients() -> None:
    upstream = group(*(named(n, weight=w) for n, w in RING.items()), method="consistent")
    points = ring_points(RING)
    for number in range(2000):
        key = b"/path/%d" % number
        hashed = zlib.crc32(key)
        at = next((server for point, server in points if point >= hashed), points[0][1])
        assert ask(upstream, key) == at


def test_the_ring_moves_few_keys() -> None:
    keys = [b"%d" % number for number in range(3000)]
    peers = [named(f"10.0.0.{number}:80") for number in range(10)]
    upstream = group(*peers, method="consistent")
    before = {key: ask(upstream, key) for key in keys}
    upstream.change(peers[:9])
    moved = [key for key in keys if ask(upstream, key) != before[key]]
    assert {before[key] for key in moved} == {"10.0.0.9:80"}
    upstream.change(peers)
    assert {key: ask(upstream, key) for key in keys} == before
    share = Counter(before.values())
    assert min(share.values()) > 3000 / 10 / 3


def test_addresses_of_one_name_share_its_points() -> None:
    one = [peer(n, server=b"one.example:80") for n in (1, 2)]
    upstream = group(*one, peer(3, server=b"two.example:80"), method="consistent")
    for number in range(50):
        key = b"%d" % number
        asked = {ask(upstream, key) for _ in range(4)}
        assert asked in ({"127.0.0.1:80", "127.0.0.2:80"}, {"127.0.0.3:80"})


@pytest.mark.parametrize("method", ["random", "random_two"])
def test_random_follows_weights(method: str) -> None:
    upstream = group(named("a", weight=8), named("b", weight=1), named("c", weight=1),
                     method=method)  # fmt: skip
    asked = Counter(ask(upstream) for _ in range(3000))
    assert set(asked) == {"a", "b", "c"}
    if method == "random":
        assert 2200 < asked["a"] < 2600


def test_random_two_prefers_the_idle() -> None:
    a, b = named("a"), named("b")
    upstream = group(a, b, method="random_two")
    for _ in range(100):
        Attempts(upstream).pick(1)
    assert abs(a.conns - b.conns) <= 2


def test_the_same_address_twice_is_two_peers() -> None:
    upstream = group(named("a"), named("a"), named("b"))
    assert Counter(ask(upstream) for _ in range(9)) == {"a": 6, "b": 3}
    upstream.change([named("a"), named("a"), named("b")])
    assert Counter(ask(upstream) for _ in range(9)) == {"a": 6, "b": 3}
    assert len(tour(upstream)) == 3


# --- tables that change ---


def test_change_keeps_who_stays_with_its_state() -> None:
    a, b = named("a"), named("b")
    upstream = group(a, b)
    attempt = Attempts(upstream)
    held = attempt.pick(1)
    assert held is a
    upstream.change([named("c"), named("a", weight=3, max_conns=7)])
    assert [p.name for p in upstream.peers] == [b"c", b"a"]
    assert upstream.peers[1] is a
    assert (a.conns, a.weight, a.max_conns) == (1, 3, 7)
    assert b.is_removed
    assert not a.is_removed
    assert Counter(ask(upstream) for _ in range(8)) == {"a": 6, "c": 2}
    attempt.give(held, OK, 1)
    assert a.conns == 0


def test_a_removed_peer_is_good_to_its_holders() -> None:
    upstream = group(named("a"), named("b"))
    attempt = Attempts(upstream)
    held = attempt.pick(1)
    upstream.change([])
    assert held is not None
    assert held.is_removed
    attempt.give(held, FAILED, 1)
    assert held.conns == 0
    assert attempt.pick(1) is None


def test_change_is_all_or_nothing() -> None:
    upstream = group(named("a"), method="consistent")
    with pytest.raises(ValueError, match="too large"):
        upstream.change([named("b", weight=1_000_000)])
    assert ask(upstream, b"k") == "a"
    twice = named("c")
    with pytest.raises(ValueError, match="twice"):
        upstream.change([twice, twice])
    assert ask(upstream, b"k") == "a"


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("has_zone", [False, True])
def test_churn_loses_no_connection(method: str, has_zone: bool) -> None:
    chance = random.Random(f"{method} {has_zone}")
    upstream = group(named("p0"), method=method)
    if has_zone:
        zone = Zone.create("u", 1 << 17, "upstream")
        lay_out(zone)
        assert upstream.share(zone)
    seen: dict[int, Peer] = {}
    held: list[tuple[Attempts, Peer]] = []
    now = 100_000
    for _ in range(3000):
        now += chance.randrange(2000)
        what = chance.random()
        if what < 0.05:
            numbers = chance.sample(range(300), chance.randrange(12))
            upstream.change(
                [
                    named(
                        f"p{n}",
                        weight=chance.randrange(1, 5),
                        max_conns=chance.choice([0, 3]),
                        is_backup=method == "least_conn" and n % 3 == 0,
                    )
                    for n in numbers
                ]  # fmt: skip
            )
            assert {p.name for p in upstream.peers} == {b"p%d" % n for n in numbers}
        elif what < 0.6 or not held:
            attempt = Attempts(upstream, b"%d" % chance.randrange(1000))
            picked = attempt.pick(now)
            if picked is not None:
                assert picked in upstream.peers
                assert not picked.is_removed
                assert picked.max_conns == 0 or picked.conns <= picked.max_conns
                held.append((attempt, picked))
                seen[id(picked)] = picked
        else:
            attempt, picked = held.pop(chance.randrange(len(held)))
            attempt.give(picked, chance.choice([OK, OK, FAILED, NEXT]), now)
            if chance.random() < 0.5 and attempt.tries:
                again = attempt.pick(now)
                if again is not None:
                    held.append((attempt, again))
                    seen[id(again)] = again
        counts = Counter(id(picked) for _, picked in held)
        for number, one in seen.items():
            assert one.conns == counts[number]


def test_more_peers_than_marks() -> None:
    upstream = group(*(named(f"p{n}") for n in range(600)))
    assert len({ask(upstream) for _ in range(600)}) == 600
    asked = tour(upstream)
    assert len(asked) == len(set(asked)) == 256


# --- zones ---


def test_a_zone_is_one_state_for_all_processes() -> None:
    zone = Zone.create("u", 1 << 16, "upstream")
    assert lay_out(zone) > 100
    upstream = group(named("a"), named("b"), named("c"))
    upstream.share(zone)
    assert ask(upstream) == "a"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = group(named("a"), named("b"), named("c"))
            mine.share(Zone.attach(zone.fd))
            first = ask(mine) == "b"
            attempt = Attempts(mine)
            attempt.give(attempt.pick(100_000), FAILED, 100_000)  # c
            Attempts(mine).pick(100_000)  # a, and dies with it
            code = 0 if first else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    a, b, c = upstream.peers
    assert (a.conns, c.fails) == (1, 1)
    assert {ask(upstream) for _ in range(6)} == {"a", "b"}
    forget_process(zone, child)
    assert a.conns == 0
    assert c.fails == 1


def test_rows_of_the_dead_are_found() -> None:
    zone = Zone.create("u", 1 << 17, "upstream")
    lay_out(zone)
    for _ in range(70):
        child = os.fork()
        if child == 0:
            mine = group(named("a"), named("b"))
            is_shared = mine.share(zone)
            Attempts(mine).pick(1)
            os._exit(0 if is_shared else 1)
        assert os.waitpid(child, 0)[1] == 0
    upstream = group(named("a"), named("b"))
    assert upstream.share(zone)
    attempts = [Attempts(upstream) for _ in range(3)]
    assert all(attempt.pick(1) for attempt in attempts)


def test_a_full_zone_leaves_the_rest_private() -> None:
    zone = Zone.create("u", 8 * 4096, "upstream")
    room = lay_out(zone)
    upstream = group(*(named(f"p{n}") for n in range(room + 20)))
    assert upstream.share(zone)
    assert len({ask(upstream) for _ in range(room + 20)}) == room + 20
    del upstream
    other = Upstream(b"v", [named("a"), named("b")])
    assert other.share(zone)
    assert [ask(other) for _ in range(2)] == ["a", "b"]


# --- what a Peer is ---


@pytest.mark.parametrize(
    ("address", "name"),
    [("127.0.0.1", b"127.0.0.1:80"), ("::1", b"[::1]:80"), ("FE80::0:1", b"[fe80::1]:80")],
)
def test_peer_names_are_those_of_upstream_addr(address: str, name: bytes) -> None:
    assert Peer(*pack_ip(address, 80)).name == name


def test_unix_peer() -> None:
    it = Peer(*pack_unix("/tmp/s"))
    assert it.name == b"unix:/tmp/s"
    assert it.sockaddr.endswith(b"/tmp/s\0")


@pytest.mark.parametrize("weight", [0, -1, 1_000_001])
def test_weights_are_bounded(weight: int) -> None:
    with pytest.raises(ValueError, match="weight"):
        named("a", weight=weight)


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="fastest"):
        group(method="fastest")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_pick_speed(method: str, benchmark: object) -> None:
    upstream = group(named("a"), named("b"), named("c"), method=method)
    assert benchmark(spin, upstream, 1000, b"key0") == 1000  # type: ignore[operator]

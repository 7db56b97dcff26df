"""The shared session cache: what was kept is found whole, or not at all."""

from __future__ import annotations

import os

from proxy.base._shm import Zone
from proxy.engine._sessions import SessionCache


def test_what_is_kept_is_found_until_it_expires() -> None:
    cache = SessionCache(Zone.create("a", 64 * 1024))
    assert cache.look_up(b"id", 1) is None
    cache.keep(b"id", b"session", 10)
    assert cache.look_up(b"id", 10) == b"session"
    assert cache.look_up(b"id", 11) is None
    cache.keep(b"id", b"again", 20)
    assert cache.look_up(b"id", 11) == b"again"
    cache.forget(b"id")
    assert cache.look_up(b"id", 11) is None
    cache.forget(b"id")


def test_another_process_sees_the_same() -> None:
    zone = Zone.create("a", 64 * 1024)
    SessionCache(zone).keep(b"id", b"session", 10)
    assert SessionCache(Zone.attach(zone.fd)).look_up(b"id", 1) == b"session"


def test_the_oldest_go_first_and_none_is_ever_torn() -> None:
    cache = SessionCache(Zone.create("a", 64 * 1024))
    kept = []
    for number in range(3000):
        name = os.urandom(32)
        session = bytes([number % 256]) * (number * 37 % 4096 + 1)
        cache.keep(name, session, 10)
        kept.append((name, session))
        assert cache.look_up(name, 1) == session
    found = [cache.look_up(name, 1) for name, _ in kept]
    assert all(got in (None, session) for got, (_, session) in zip(found, kept, strict=True))
    assert not any(found[:2000])
    assert sum(got is not None for got in found) >= 10


def test_what_is_too_large_is_not_kept() -> None:
    cache = SessionCache(Zone.create("a", 64 * 1024))
    cache.keep(b"id", bytes(4097), 10)
    cache.keep(bytes(33), b"x", 10)
    assert cache.look_up(b"id", 1) is None
    assert cache.look_up(bytes(33), 1) is None


def test_a_lock_whose_owner_died_leaves_an_empty_cache() -> None:
    zone = Zone.create("a", 64 * 1024)
    cache = SessionCache(zone)
    cache.keep(b"id", b"session", 10)
    child = os.fork()
    if child == 0:
        zone.hold(0)
        os._exit(0)
    os.waitpid(child, 0)
    assert cache.look_up(b"id", 1) is None
    cache.keep(b"id", b"session", 10)
    assert cache.look_up(b"id", 1) == b"session"

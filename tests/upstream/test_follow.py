"""Servers with `resolve` follow their name at a real name server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from nameserver import NameServer

from proxy.engine.resolver import Resolver
from proxy.upstream import follow as room
from proxy.upstream._balance import OK, Attempts, Upstream
from proxy.upstream.follow import follow
from proxy.upstream.servers import ServerLine, UpstreamSettings, make_upstream, read_address


@pytest.fixture
def names() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.close()


def line(text: str, **settings: bool) -> ServerLine:
    return ServerLine(text, read_address(text), **settings)  # type: ignore[arg-type]


def shown(upstream: Upstream) -> list[str]:
    return [peer.name.decode() for peer in upstream.peers]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


def test_peers_follow_their_name(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_S", 0.01)
    monkeypatch.setattr(room, "RETRY_S", 0.01)
    names.negative_ttl = 0
    names.add("a.test", "A", "10.0.0.1", "10.0.0.2", ttl=0)
    settings = UpstreamSettings(
        "u",
        (
            line("127.0.0.1:80"),
            line("a.test:81", is_resolved=True),
            line("127.0.0.1:80"),
            line("b.test", is_resolved=True, is_backup=True),
        ),
    )

    async def main() -> None:
        upstream = make_upstream(settings, lambda _name: [])
        assert shown(upstream) == ["127.0.0.1:80", "127.0.0.1:80"]
        first = upstream.peers[0]
        resolver = Resolver([names.address], has_ipv6=False)
        task = asyncio.create_task(follow(upstream, settings, resolver))
        fixed = "127.0.0.1:80"
        await until(lambda: len(upstream.peers) == 4)
        assert shown(upstream) == [fixed, "10.0.0.1:81", "10.0.0.2:81", fixed]
        kept = upstream.peers[2]
        attempt = Attempts(upstream)
        gone = attempt.pick(1)
        while gone is not upstream.peers[1]:
            gone = attempt.pick(1)
        names.add("a.test", "A", "10.0.0.2", "10.0.0.3", ttl=0)
        names.add("b.test", "A", "10.0.0.9", ttl=0)
        await until(lambda: len(upstream.peers) == 5 and "10.0.0.3:81" in shown(upstream))
        assert shown(upstream) == [fixed, "10.0.0.2:81", "10.0.0.3:81", fixed, "10.0.0.9:80"]
        assert upstream.peers[0] is first
        assert upstream.peers[1] is kept
        assert gone is not None
        assert gone.is_removed
        attempt.give(gone, OK, 1)
        assert upstream.peers[4].is_backup
        del names.records[("a.test", "A")]
        await until(lambda: len(upstream.peers) == 3)
        assert shown(upstream) == [fixed, fixed, "10.0.0.9:80"]
        task.cancel()

    asyncio.run(main())


def test_a_silent_server_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RETRY_S", 0.01)
    settings = UpstreamSettings("u", (line("a.test", is_resolved=True),), resolver_timeout_ms=20)
    silent = NameServer(lambda _query, _is_tcp: None)

    async def main() -> None:
        upstream = make_upstream(settings, lambda _name: [])
        resolver = Resolver([silent.address])
        task = asyncio.create_task(follow(upstream, settings, resolver))
        await asyncio.sleep(0.1)
        assert not task.done()
        assert upstream.generation == 1
        task.cancel()
        resolver.close()

    asyncio.run(main())
    silent.close()


def test_nothing_to_follow() -> None:
    settings = UpstreamSettings("u", (line("127.0.0.1:80", is_resolved=True),))
    upstream = make_upstream(settings, lambda _name: [])
    asyncio.run(follow(upstream, settings, Resolver([("127.0.0.1", 9)])))
    assert shown(upstream) == ["127.0.0.1:80"]

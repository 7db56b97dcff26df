"""proxy_pass with variables: URLs of the moment, with a real resolver and name server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from nameserver import NameServer

from proxy.engine.resolver import Resolver
from proxy.upstream import dynamic
from proxy.upstream._balance import FAILED, Attempts, Upstream
from proxy.upstream.dynamic import DynamicTargets, TargetError
from proxy.upstream.proxy_pass import read_url
from proxy.upstream.servers import make_implicit

NAMED = {"u": Upstream(b"U", [])}
IMPLICIT = {"h.test:81": make_implicit(read_url("http://h.test:81"), ["10.9.9.9"])}


@pytest.fixture
def names() -> Iterator[NameServer]:
    made = NameServer()
    made.add("a.test", "A", "10.0.0.1", "10.0.0.2", ttl=0)
    yield made
    made.close()


def targets(resolver: Resolver | None = None) -> DynamicTargets:
    return DynamicTargets(NAMED, IMPLICIT, resolver, 2000)


def peers(upstream: Upstream) -> list[bytes]:
    return [peer.name for peer in upstream.peers]


def test_upstreams_of_the_conf_come_first() -> None:
    found = targets().find(b"http://u/x?y")
    assert found is not None
    assert found.upstream is NAMED["u"]
    assert (found.uri, found.proxy_host, found.proxy_port) == (b"/x?y", b"u", b"80")
    again = targets().find(b"https://h.test:81")
    assert again is not None
    assert again.upstream is IMPLICIT["h.test:81"]
    assert (again.is_tls, again.uri) == (True, b"")


@pytest.mark.parametrize(
    ("url", "peer", "uri"),
    [
        (b"http://127.0.0.1:81", b"127.0.0.1:81", b""),
        (b"https://127.0.0.1?a", b"127.0.0.1:443", b"/?a"),
        (b"http://[::1]/", b"[::1]:80", b"/"),
        (b"http://unix:/tmp/s:/x", b"unix:/tmp/s", b"/x"),
    ],
)
def test_addresses_need_no_resolver(url: bytes, peer: bytes, uri: bytes) -> None:
    here = targets()
    found = here.find(url)
    assert found is not None
    assert peers(found.upstream) == [peer]
    assert found.uri == uri
    again = here.find(url)
    assert again is not None
    assert again.upstream is found.upstream


@pytest.mark.parametrize(
    ("url", "message", "is_ours"),
    [
        (b"", 'invalid URL prefix in ""', True),
        (b"u", 'invalid URL prefix in "u"', True),
        (b"http://", 'no host in upstream ""', True),
        (b"http://u:x", 'invalid port in upstream "u:x"', True),
        (b"http://x\xff\0", "no resolver defined to resolve", False),
        (b"http://a.test", "no resolver defined to resolve a.test", False),
        (b"http://u:80", "no resolver defined to resolve u", False),
    ],
)
def test_what_leads_nowhere(url: bytes, message: str, is_ours: bool) -> None:
    with pytest.raises(TargetError) as error:
        targets().find(url)
    assert str(error.value).startswith(message)
    assert error.value.is_ours == is_ours


def test_names_are_looked_up(names: NameServer) -> None:
    async def main() -> None:
        here = targets(Resolver([names.address], has_ipv6=False))
        assert here.find(b"http://a.test:8080/x") is None
        found = await here.look_up(b"http://a.test:8080/x")
        assert peers(found.upstream) == [b"10.0.0.1:8080", b"10.0.0.2:8080"]
        assert found.proxy_host == b"a.test:8080"
        # failures are of one request only
        for _ in range(6):
            attempt = Attempts(found.upstream)
            attempt.give(attempt.pick(1), FAILED, 1)
        assert Attempts(found.upstream).pick(1) is not None
        names.add("a.test", "A", "10.0.0.2", "10.0.0.3", ttl=60)
        again = await here.look_up(b"http://a.test:8080/other")
        assert again.upstream is found.upstream
        assert peers(found.upstream) == [b"10.0.0.2:8080", b"10.0.0.3:8080"]
        # known now: no waiting
        assert here.find(b"http://a.test:8080/x") is not None
        with pytest.raises(TargetError, match=r"none.test could not be resolved \(3: Host not"):
            await here.look_up(b"http://none.test")

    asyncio.run(main())


def test_what_is_remembered_is_bounded(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "MOST_URLS", 10)
    monkeypatch.setattr(dynamic, "MOST_UPSTREAMS", 10)

    async def main() -> None:
        here = targets(Resolver([names.address], has_ipv6=False))
        for number in range(50):
            await here.look_up(b"http://a.test:%d/" % (1000 + number))
        assert len(here._targets) == len(here._looked_up) == 10

    asyncio.run(main())

"""Names are looked up at a real name server: kept, shared, retried, refused, forged at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import dns.message
import dns.rrset
import pytest
import uvloop
from nameserver import Handler, NameServer
from ports import free_port

from proxy.engine.resolver import ResolveError, Resolver


@pytest.fixture
def server() -> Iterator[Callable[..., NameServer]]:
    made: list[NameServer] = []

    def make(handler: Handler | None = None) -> NameServer:
        made.append(NameServer(handler))
        return made[-1]

    yield make
    for one in made:
        one.close()


def resolver_of(*servers: NameServer, **settings: object) -> Resolver:
    return Resolver([one.address for one in servers], **settings)  # type: ignore[arg-type]


def test_addresses_of_both_families(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1", "10.0.0.2")
    names.add("a.test", "AAAA", "fd00::1")

    async def main() -> None:
        resolver = resolver_of(names)
        assert sorted(await resolver.resolve("a.test")) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
        assert {kind for _, kind, *_ in names.asked} == {"A", "AAAA"}
        # kept: in any case, with or without the last dot, and nobody is asked again
        assert len(await resolver.resolve("A.Test.")) == 3
        assert len(names.asked) == 2
        assert resolver.find("a.test") is not None
        starts = {(await resolver.resolve("a.test"))[0] for _ in range(100)}
        assert len(starts) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "kind", "address"),
    [({"has_ipv6": False}, "A", "10.0.0.1"), ({"has_ipv4": False}, "AAAA", "fd00::1")],
)
def test_one_family_only(
    server: Callable[..., NameServer], settings: dict[str, bool], kind: str, address: str
) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1")
    names.add("a.test", "AAAA", "fd00::1")
    assert asyncio.run(resolver_of(names, **settings).resolve("a.test")) == [address]
    assert [asked[1] for asked in names.asked] == [kind]


def test_a_name_of_one_family_needs_no_other(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1")
    assert asyncio.run(resolver_of(names).resolve("a.test")) == ["10.0.0.1"]


def test_ids_and_ports_differ(server: Callable[..., NameServer]) -> None:
    names = server()
    for number in range(20):
        names.add(f"n{number}.test", "A", "10.0.0.1")

    async def main() -> None:
        resolver = resolver_of(names, has_ipv6=False)
        await asyncio.gather(*(resolver.resolve(f"n{number}.test") for number in range(20)))

    asyncio.run(main())
    assert len({asked[3] for asked in names.asked}) == 20
    assert len({asked[4] for asked in names.asked}) > 15


def test_one_question_for_all_who_wait(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1")

    async def main() -> None:
        resolver = resolver_of(names, has_ipv6=False)
        found = await asyncio.gather(*(resolver.resolve("a.test") for _ in range(50)))
        assert found == [["10.0.0.1"]] * 50

    asyncio.run(main())
    assert len(names.asked) == 1


@pytest.mark.parametrize(("ttl", "valid_s", "asked"), [(0, None, 2), (60, None, 1), (0, 60, 1)])
def test_answers_are_kept_for_their_ttl(
    server: Callable[..., NameServer], ttl: int, valid_s: int | None, asked: int
) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1", ttl=ttl)

    async def main() -> None:
        resolver = resolver_of(names, has_ipv6=False, valid_s=valid_s)
        await resolver.resolve("a.test")
        await resolver.resolve("a.test")

    asyncio.run(main())
    assert len(names.asked) == asked


def test_no_such_name_is_said_and_kept(server: Callable[..., NameServer]) -> None:
    names = server()

    async def main() -> None:
        resolver = resolver_of(names)
        for _ in range(3):
            with pytest.raises(ResolveError) as error:
                await resolver.resolve("none.test")
            assert str(error.value) == "none.test could not be resolved (3: Host not found)"
        assert len(names.asked) == 2
        with pytest.raises(ResolveError):
            resolver.find("none.test")

    asyncio.run(main())


@pytest.mark.parametrize("chain_in_one", [False, True])
def test_aliases_are_followed(server: Callable[..., NameServer], chain_in_one: bool) -> None:
    names = server()
    if chain_in_one:
        names.records[("a.test", "A")] = [
            "a.test. 60 IN CNAME b.test.",
            "b.test. 60 IN CNAME c.test.",
            "c.test. 60 IN A 10.0.0.3",
        ]
    else:
        names.add("a.test", "CNAME", "b.test.")
        names.add("b.test", "CNAME", "c.test.")
        names.add("c.test", "A", "10.0.0.3")
    assert asyncio.run(resolver_of(names, has_ipv6=False).resolve("a.test")) == ["10.0.0.3"]


def test_aliases_in_a_circle_end(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("a.test", "CNAME", "b.test.")
    names.add("b.test", "CNAME", "a.test.")
    with pytest.raises(ResolveError):
        asyncio.run(resolver_of(names, has_ipv6=False).resolve("a.test"))
    assert len(names.asked) <= 16


def test_a_cut_answer_is_asked_for_by_tcp(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("big.test", "A", *(f"10.0.1.{n}" for n in range(100)))
    found = asyncio.run(resolver_of(names, has_ipv6=False).resolve("big.test"))
    assert len(found) == 100
    assert [asked[2] for asked in names.asked] == [False, True]


@pytest.mark.parametrize("code", [1, 2, 4, 5])
def test_another_server_is_asked_when_one_fails(
    server: Callable[..., NameServer], code: int
) -> None:
    def fail(query: dns.message.Message, _is_tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(code)
        return reply.to_wire()

    good, bad = server(), server(fail)
    good.add("a.test", "A", "10.0.0.1")

    async def main() -> None:
        for _ in range(4):
            resolver = resolver_of(bad, good, has_ipv6=False)
            assert await resolver.resolve("a.test") == ["10.0.0.1"]
        with pytest.raises(ResolveError) as error:
            await resolver_of(bad, has_ipv6=False).resolve("a.test")
        assert error.value.code == code

    asyncio.run(main())


def test_servers_take_turns(server: Callable[..., NameServer]) -> None:
    one, two = server(), server()
    for number in range(10):
        for names in (one, two):
            names.add(f"n{number}.test", "A", "10.0.0.1")

    async def main() -> None:
        resolver = resolver_of(one, two, has_ipv6=False)
        for number in range(10):
            await resolver.resolve(f"n{number}.test")

    asyncio.run(main())
    assert len(one.asked) == len(two.asked) == 5


def test_a_server_that_is_not_there(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("a.test", "A", "10.0.0.1")
    nobody = ("127.0.0.1", free_port())

    async def main() -> None:
        for _ in range(3):
            resolver = Resolver([nobody, names.address], has_ipv6=False)
            assert await resolver.resolve("a.test") == ["10.0.0.1"]
        with pytest.raises(ResolveError) as error:
            await Resolver([nobody], timeout_ms=100).resolve("a.test")
        assert error.value.code == 110

    asyncio.run(main())


def test_silence_ends_by_the_timeout(server: Callable[..., NameServer]) -> None:
    silent = server(lambda _query, _is_tcp: None)

    async def main() -> None:
        resolver = resolver_of(silent, timeout_ms=60_000)
        with pytest.raises(ResolveError) as error:
            await resolver.resolve("a.test", timeout_ms=50)
        assert str(error.value) == "a.test could not be resolved (110: Operation timed out)"
        resolver.close()

    asyncio.run(main())


def test_forged_and_broken_replies_are_not_believed(server: Callable[..., NameServer]) -> None:
    def forge(query: dns.message.Message, is_tcp: bool) -> list[bytes]:
        right = names.reply(query, is_tcp)
        wrong_id = bytes([right[0] ^ 1]) + right[1:]
        other = dns.message.make_query("other.test", "A", id=query.id)
        other_name = dns.message.make_response(other)
        other_name.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "6.6.6.6"))
        no_reply = bytes([right[0], right[1], right[2] & 0x7F]) + right[3:]
        return [b"", b"\0", b"x" * 600, wrong_id.replace(b"\n\0\0\1", b"\6\6\6\6"),
                other_name.to_wire(), no_reply, right[:20], right]  # fmt: skip

    names = server(forge)
    names.add("a.test", "A", "10.0.0.1")
    assert asyncio.run(resolver_of(names, has_ipv6=False).resolve("a.test")) == ["10.0.0.1"]


def test_a_reply_cut_at_any_byte_harms_nothing(server: Callable[..., NameServer]) -> None:
    def cut(query: dns.message.Message, is_tcp: bool) -> list[bytes]:
        right = names.reply(query, is_tcp)
        return [right[:at] for at in range(len(right))] + [right]

    names = server(cut)
    names.add("a.test", "A", "10.0.0.1", "10.0.0.2")
    found = asyncio.run(resolver_of(names, has_ipv6=False).resolve("a.test"))
    assert sorted(found) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_is_its_own_answer(address: str) -> None:
    resolver = Resolver([("127.0.0.1", 9)])
    assert asyncio.run(resolver.resolve(address)) == [address]


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "x" * 64 + ".test", "a." * 130, "\xff.test", "\udcff\0"]
)
def test_names_that_are_none(server: Callable[..., NameServer], name: str) -> None:
    names = server()
    with pytest.raises(ResolveError):
        asyncio.run(resolver_of(names, timeout_ms=2000).resolve(name))


def test_a_resolver_needs_a_server_and_a_family() -> None:
    with pytest.raises(ValueError, match="needs"):
        Resolver([])
    with pytest.raises(ValueError, match="needs"):
        Resolver([("127.0.0.1", 53)], has_ipv4=False, has_ipv6=False)


def test_it_runs_on_uvloop(server: Callable[..., NameServer]) -> None:
    names = server()
    names.add("big.test", "A", *(f"10.0.1.{n}" for n in range(100)))
    loop = uvloop.new_event_loop()
    try:
        resolver = resolver_of(names)
        assert len(loop.run_until_complete(resolver.resolve("big.test"))) == 100
    finally:
        loop.close()


def test_an_address_that_comes_twice_is_there_twice(server: Callable[..., NameServer]) -> None:
    """As for nginx: whoever repeats an address gives it more of the load, and more tries."""
    names = server()
    names.add("a.test", "A", "10.0.0.1", "10.0.0.2", "10.0.0.1")

    async def main() -> None:
        found = await resolver_of(names, has_ipv6=False).resolve("a.test")
        assert sorted(found) == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]

    asyncio.run(main())

"""Keeps the peers of `server NAME resolve` what the name servers say they are.

Runs beside the traffic, one task an upstream; it is handed the resolver (engine/resolver.py has
one) and changes the live table, so that requests in flight keep the peer that they have.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from proxy.base._told import tell
from proxy.upstream.servers import ServerLine, is_literal, make_peers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.upstream._balance import Peer, Upstream
    from proxy.upstream.servers import UpstreamSettings

LEAST_S = 1.0  # between two looks at one name, however short its TTL
RETRY_S = 5.0  # after a look that failed; the peers stay
NOT_FOUND = 3  # RCODE: the name is gone, and its peers with it


class Answer(Protocol):
    """What a name is known as: addresses, until when (time.monotonic()), and why if there are
    none (an RCODE; 110: timed out)."""

    @property
    def addresses(self) -> tuple[str, ...]: ...
    @property
    def until(self) -> float: ...
    @property
    def code(self) -> int: ...


class Resolver(Protocol):
    async def answer(self, name: str, timeout_ms: int | None = None) -> Answer: ...


async def follow(upstream: Upstream, settings: UpstreamSettings, resolver: Resolver) -> None:
    """Follow all `resolve` names of an upstream until cancelled; returns at once if it has none.

    A name that is gone (NXDOMAIN) loses its peers; any other failure leaves them.
    """
    peers = _by_line(upstream, settings.servers)
    names = [
        line for line in settings.servers if line.is_resolved and not is_literal(line.endpoint)
    ]
    async with asyncio.TaskGroup() as tasks:
        for line in names:
            tasks.create_task(_follow_name(upstream, settings, line, peers, resolver))


async def _follow_name(
    upstream: Upstream,
    settings: UpstreamSettings,
    line: ServerLine,
    peers: dict[int, list[Peer]],
    resolver: Resolver,
) -> None:
    while True:
        wait_s = RETRY_S
        code = -1
        try:
            answer = await resolver.answer(line.endpoint.host, settings.resolver_timeout_ms)
        except Exception as error:  # the resolver's own kinds: nothing new is known
            tell(f'resolving "{line.endpoint.host}" of an upstream', error, is_ours=False)
            answer = None
        if answer is not None:
            code = answer.code
            wait_s = max(LEAST_S, answer.until - time.monotonic())
            if code and code != NOT_FOUND:
                wait_s = RETRY_S
        if answer is not None and (answer.addresses or code == NOT_FOUND):
            after = make_peers(line, sorted(answer.addresses))
            if [peer.name for peer in after] != [peer.name for peer in peers[id(line)]]:
                peers[id(line)] = after
                _change(upstream, settings.servers, peers)
        await asyncio.sleep(wait_s)


def _change(upstream: Upstream, lines: Sequence[ServerLine], peers: dict[int, list[Peer]]) -> None:
    upstream.change([peer for line in lines for peer in peers[id(line)]])
    # who was there already stays as the Peer it is: remember that one
    rest = upstream.peers
    for line in lines:
        count = len(peers[id(line)])
        peers[id(line)], rest = rest[:count], rest[count:]


def _by_line(upstream: Upstream, lines: Sequence[ServerLine]) -> dict[int, list[Peer]]:
    """The peers that make_upstream made of each line; lines that say the same share evenly."""
    left: dict[tuple[bytes, bool], list[Peer]] = {}
    for peer in upstream.peers:
        left.setdefault((peer.server, peer.is_backup), []).append(peer)
    twins = Counter((line.text.encode(), line.is_backup) for line in lines)
    found = {}
    for line in lines:
        who = (line.text.encode(), line.is_backup)
        mine = left.get(who, [])
        count = len(mine) // twins[who]
        twins[who] -= 1
        found[id(line)], left[who] = mine[:count], mine[count:]
    return found

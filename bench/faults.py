"""What do clients notice when the gateway is reloaded, or a worker is killed, under load?

    bench/faults.py [--seconds 30] [--peers headrace,nginx]

Reload: HUP every 200 ms. Kill: SIGKILL of the worker, five times. Half of the clients keep their
connection, half make a new one for each request. A request counts as failed when it was refused,
cut, answered wrongly, or not answered within 10 s. A kept connection that the proxy closed between
two requests is no failure: the request is sent again on a new one (RFC 9110 §9.2.2) and counted
as `again`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from meter import tree
from peers import PEERS, Process, StartError, Upstream, make_certificate

CLIENTS = 32
ANSWER_LIMIT_S = 10
KILLS = 5


@dataclass
class Counts:
    """What the clients saw."""

    answered: int = 0
    failed: int = 0
    resets: int = 0
    again: int = 0
    slowest_ms: float = 0.0
    last_failure: str = ""

    def fail(self, error: BaseException | str) -> None:
        """One failed request."""
        self.failed += 1
        self.last_failure = repr(error)
        if isinstance(error, ConnectionResetError):
            self.resets += 1

    def line(self) -> str:
        """One line of results."""
        why = f", last: {self.last_failure}" if self.failed else ""
        return (f"{self.answered} answered, {self.failed} failed, {self.resets} resets, "
                f"{self.again} sent again, slowest {self.slowest_ms:.0f} ms{why}")  # fmt: skip


async def answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer; True when the connection stays open. EOFError with nothing said."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionError("cut within a head") from None
        raise EOFError from None
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(head[:60])
    lower, length = head.lower(), 0
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line[15:])
    await reader.readexactly(length)
    return b"connection: close" not in lower


async def client(port: int, counts: Counts, until: float, is_kept: bool) -> None:
    """One client: asks, waits, asks again."""
    ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if not is_kept:
        ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while time.monotonic() < until:
        is_reused, begin = writer is not None, time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(ask)
                stays = await answered(reader)
            counts.answered += 1
            counts.slowest_ms = max(counts.slowest_ms, (time.monotonic() - begin) * 1000)
            if stays and is_kept:
                continue
        except EOFError as error:
            if is_reused:
                counts.again += 1
            else:
                counts.fail(error)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            counts.fail(error)
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        reader = writer = None


def workers(pid: int) -> list[int]:
    """The worker processes below a master."""
    found = []
    for child in tree(pid):
        with contextlib.suppress(OSError):
            if b"worker process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


async def reloads(peer: Process, until: float) -> int:
    """HUP every 200 ms; how many."""
    count = 0
    while time.monotonic() < until - 0.5:
        os.kill(peer.pid, signal.SIGHUP)
        count += 1
        await asyncio.sleep(0.2)
    return count


async def kills(peer: Process, port: int, until: float) -> list[float]:
    """SIGKILL the worker, spread over the time; ms from each to the next answer to a newcomer."""
    gaps = []
    for number in range(KILLS):
        await asyncio.sleep(max(0.5, (until - time.monotonic()) / (KILLS - number + 1)))
        for pid in workers(peer.pid)[:1]:
            begin = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            while time.monotonic() < begin + ANSWER_LIMIT_S:
                with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
                    async with asyncio.timeout(2):
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        await answered(reader)
                        writer.close()
                        break
                await asyncio.sleep(0.002)
            gaps.append((time.monotonic() - begin) * 1000)
    return gaps


async def measure(peer: Process, what: str, seconds: float) -> str:
    """One trial under load, as a line."""
    port, counts = peer.ports["plain"], Counts()
    until = time.monotonic() + seconds
    clients = [client(port, counts, until, number % 2 == 0) for number in range(CLIENTS)]
    if what == "reload":
        count, *_ = await asyncio.gather(reloads(peer, until), *clients)
        return f"{count} reloads: {counts.line()}"
    gaps, *_ = await asyncio.gather(kills(peer, port, until), *clients)
    shown = "/".join(f"{gap:.0f}" for gap in gaps)
    return (f"{len(gaps)} kills ({CLIENTS} clients each): {counts.line()}; "
            f"next answer after {shown} ms")  # fmt: skip


def main() -> None:
    """Start each proxy, do both, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--peers", default="headrace,nginx")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {1} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as name:
        upstream = Upstream(Path(name) / "upstream")
        upstream.start()
        try:
            for kind in PEERS:
                if kind.name not in arguments.peers.split(","):
                    continue
                for what in ("reload", "kill"):
                    peer = kind(Path(name) / kind.name)
                    make_certificate(peer.folder)
                    try:
                        peer.start("main", upstream.ports["plain"])
                        seconds = arguments.seconds if what == "reload" else min(
                            10.0, arguments.seconds
                        )
                        line = asyncio.run(measure(peer, what, seconds))
                        print(f"{peer.name:9} {what:7} {line}", flush=True)
                    except StartError as error:
                        print(f"{kind.name:9} {what:7} {error}", flush=True)
                    finally:
                        peer.stop()
        finally:
            upstream.stop()


if __name__ == "__main__":
    main()

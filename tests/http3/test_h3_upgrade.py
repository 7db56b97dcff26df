"""HTTP/3 over a new executable (USR2): two masters, one address, nobody's connection is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from gateway import Gateway, descendants, internal_sockets, title, wait_for
from h3client import H3Client, Parts
from recorder import Recorded

WHO = "location /who { return 200 $pid; }"


def slowly(_: Recorded) -> Iterator[bytes]:
    """Two megabytes, in pieces over some seconds."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"
    for _ in range(80):
        time.sleep(0.1)
        yield bytes(25_000)


started: list[int] = []  # new masters, which are nobody's children when the old one is gone


@pytest.fixture(autouse=True)
def leave_nobody() -> Iterator[None]:
    """A test that fails leaves a master behind."""
    started.clear()
    yield
    for pid in started:
        if "headrace" in title(pid):
            os.kill(pid, signal.SIGTERM)


def master_of(gateway: Gateway) -> int:
    """The pid in the pid file; 0 while there is none."""
    try:
        return int((gateway.prefix / "logs" / "headrace.pid").read_text())
    except (OSError, ValueError):
        return 0


def workers_of(master: int) -> set[int]:
    """The workers of one master, not of the one that it started."""
    by_others = {
        it for pid in descendants(master) if "master process" in title(pid)
        for it in descendants(pid)
    }  # fmt: skip
    return {
        it for it in descendants(master) if "worker process" in title(it) and it not in by_others
    }


def upgrade(gateway: Gateway) -> tuple[int, int]:
    """USR2: (the old master, the new one), whose workers are ready."""
    old = master_of(gateway)
    os.kill(old, signal.SIGUSR2)
    wait_for(lambda: master_of(gateway) not in (0, old))
    new = master_of(gateway)
    started.append(new)
    wait_for(lambda: len(workers_of(new)) == len(workers_of(old)))
    return old, new


def end(gateway: Gateway, *masters: int) -> None:
    """All masters leave; the last is not our child."""
    for pid in masters:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}") or is_zombie(pid))
    gateway.process.wait(10)


def finish(clients: list[H3Client], numbers: list[int]) -> None:
    """Read all answers to their ends, together."""
    limit = time.monotonic() + 40
    left = list(zip(clients, numbers, strict=True))
    while left:
        assert time.monotonic() < limit, [len(c.responses[n].body) for c, n in left]
        left = [(c, n) for c, n in left if not c.responses[n].is_whole]
        for client, _ in left:
            assert client.step(0.01), client.ended
    for client, number in zip(clients, numbers, strict=True):
        assert len(client.responses[number].body) == 2_000_000


def is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_download_goes_on_over_an_upgrade(quic, upstreams, workers: int) -> None:
    upstream = upstreams(slowly)
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {WHO}",
                   main=f"worker_processes {workers};")  # fmt: skip
    wait_for(lambda: len(gateway.workers()) == workers)
    clients = [H3Client(gateway.port) for _ in range(3)]
    numbers = [client.ask() for client in clients]
    for client, number in zip(clients, numbers, strict=True):
        client.run(lambda: client.responses[number].body)  # noqa: B023
    old, new = upgrade(gateway)
    seen = set()
    for _ in range(8):                                       # of old and new, all are served
        with H3Client(gateway.port) as other:
            seen.add(int(other.get("/who").text))
            other.migrate()
            assert int(other.get("/who").text) in seen
    assert seen <= workers_of(old) | workers_of(new)
    os.kill(old, signal.SIGQUIT)
    for client in clients:
        client.run(lambda: client.parted is not None)  # noqa: B023
    for _ in range(3):
        with H3Client(gateway.port) as other:
            assert int(other.get("/who").text) in workers_of(new)
    for client in clients:
        client.migrate()                                     # a datagram finds its way anew
        client.quic.send_ping(1)
        client.flush()
    finish(clients, numbers)
    for client in clients:
        assert client.wait_closed().error_code == 0x100
    wait_for(lambda: is_zombie(old) or not workers_of(old))
    with H3Client(gateway.port) as other:
        assert int(other.get("/who").text) in workers_of(new)
        os.kill(new, signal.SIGHUP)                          # and the numbers go on to be unlike
        other.run(lambda: other.ended is not None)
    with H3Client(gateway.port) as other:
        assert other.get("/who").status == 200
    end(gateway, new)


def test_an_upgrade_that_is_taken_back_loses_nobody(quic, upstreams) -> None:
    upstream = upstreams(slowly)
    gateway = quic(f"location / {{ proxy_pass http://{upstream.address}; }} {WHO}")
    old, new = upgrade(gateway)
    clients: list[H3Client] = []
    owners: set[int] = set()
    while len(owners) < 2:                                   # one of each executable
        clients.append(H3Client(gateway.port))
        owners.add(int(clients[-1].get("/who").text))
        assert len(clients) < 64
    numbers = [client.ask() for client in clients]
    for client, number in zip(clients, numbers, strict=True):
        client.run(lambda: client.responses[number].body)  # noqa: B023
    os.kill(new, signal.SIGQUIT)
    wait_for(lambda: any(client.step(0.01) and client.parted is not None for client in clients))
    for _ in range(3):
        with H3Client(gateway.port) as other:
            assert int(other.get("/who").text) in workers_of(old)
    finish(clients, numbers)
    wait_for(lambda: master_of(gateway) == old)
    for client in clients:
        client.__exit__()


def test_the_sockets_of_an_upgraded_gateway_leave_no_files(headrace) -> None:
    gateway = headrace("""server { listen unix:%%DIR%%/own.sock; return 200 ok; }
        function echo { command cat; }
        server { listen %%PORT%%; location / { function_pass echo; } }""")
    assert internal_sockets(gateway, gateway.process.pid)
    old, new = upgrade(gateway)
    os.kill(old, signal.SIGQUIT)
    gateway.process.wait(10)
    assert internal_sockets(gateway, old, new)
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(f"/proc/{new}") or is_zombie(new))
    assert not internal_sockets(gateway, old, new)
    assert not list((gateway.prefix / "logs").glob("*.sock*"))
    assert not (gateway.prefix / "own.sock").exists()


@pytest.mark.parametrize("is_new_first", [False, True])
def test_one_handshake_whose_parts_are_read_by_old_and_new(quic, is_new_first: bool) -> None:
    gateway = quic(WHO)
    old, new = upgrade(gateway)
    pids = [*workers_of(old), *workers_of(new)]
    first, second = pids[::-1] if is_new_first else pids
    try:
        with Parts(gateway.port) as client:
            os.kill(second, signal.SIGSTOP)
            client.sock.sendto(client.parts[0], client.to)
            client.sock.settimeout(10)
            heard = client.sock.recv(65536)                  # `first` has it
            os.kill(first, signal.SIGSTOP)
            os.kill(second, signal.SIGCONT)
            client.sock.sendto(client.parts[1], client.to)
            with H3Client(gateway.port) as other:            # behind that, on the same socket
                assert int(other.get("/who").text) == second
            os.kill(first, signal.SIGCONT)
            client.quic.receive_datagram(heard, client.to, now=time.monotonic())
            client.hear()
            assert int(client.get_when_ready("/who").text) == first
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    end(gateway, old, new)

"""Clients over HTTP/2 that do not read, or do too much: they end, and others do not notice."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from h2client import H2Client
from recorder import Recorder, answer

CALM = 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, number) + payload


def request(number: int, flags: int = 5, block: bytes = b"") -> bytes:
    return frame(1, flags, number, b"\x82\x86\x04\x03/up\x01\x06a.test" + block)


def rss_kib(gateway: Gateway) -> int:
    """Resident memory of the one worker."""
    wait_for(gateway.workers)
    status = Path(f"/proc/{gateway.workers()[0]}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


@pytest.fixture
def gateway(headrace, upstream: Recorder) -> Gateway:
    return headrace(
        "keepalive_requests 100000; server { listen %%PORT%%; http2 on; "
        "location / { return 200 here; } "
        f"location /up {{ proxy_pass http://{upstream.address}; }} }}"
    )


def proxied(upstream: Recorder, more: str = "") -> str:
    """A server that passes everything on but what `more` says."""
    return (f"server {{ listen %%PORT%%; http2 on; {more} "
            f"location / {{ proxy_pass http://{upstream.address}; }} }}")  # fmt: skip


FLOODS = {
    "PING": lambda i: frame(6, 0, 0, bytes(8)),
    "SETTINGS": lambda i: frame(4),
    "SETTINGS with a window": lambda i: frame(4, 0, 0, struct.pack(">HI", 4, 1000 + i % 2)),
    "PRIORITY": lambda i: frame(2, 0, 1, bytes(5)),
    "unknown frames": lambda i: frame(0x77),
    "empty DATA": lambda i: (request(1, 4) if i == 0 else frame(0, 0, 1)),
    "empty DATA of a request that was refused": lambda i: (
        request(1, 4, b"\x0f\x0d\x07999999x") if i == 0 else frame(0, 0, 1)),
    "WINDOW_UPDATE": lambda i: frame(8, 0, 0, struct.pack(">I", 1)),
    "CONTINUATION": lambda i: (request(1, 0) if i == 0 else frame(9, 0, 1, b"")),
    "long CONTINUATION": lambda i: (request(1, 0) if i == 0 else frame(9, 0, 1, bytes(10000))),
    "rapid reset": lambda i: request(2 * i + 1) + frame(3, 0, 2 * i + 1, struct.pack(">I", 8)),
    "resets that we are made to send": lambda i: (
        request(2 * i + 1, 4) + frame(8, 0, 2 * i + 1, bytes(4))),
    "malformed requests": lambda i: request(2 * i + 1, 5, b"\x00\x01A\x00"),
    "refused streams": lambda i: request(2 * i + 1, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_connection_alone(gateway: Gateway, name: str) -> None:
    make: Callable[[int], bytes] = FLOODS[name]
    with H2Client(gateway.port) as healthy, H2Client(gateway.port) as bad:
        assert healthy.get().status == 200
        bad.step()
        try:
            for i in range(0, 4000, 50):
                bad.raw(b"".join(make(j) for j in range(i, i + 50)))
                if i % 500 == 0:
                    assert healthy.get().status == 200
        except OSError:
            pass                                             # it was thrown out meanwhile
        goaway = find_goaway(bad)
        assert goaway == CALM
        assert healthy.get().status == 200
    assert rss_kib(gateway) < 120_000


def find_goaway(client: H2Client) -> int | None:
    """The code of the GOAWAY among what comes; the library would refuse some of the rest."""
    data, client.sock = b"", client.sock
    client.sock.settimeout(5)
    try:
        while piece := client.sock.recv(65536):
            data += piece
    except OSError:
        pass
    while len(data) >= 9:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == 7:
            return struct.unpack(">I", data[13:17])[0]
        data = data[9 + size :]
    return None


def test_resets_reach_the_upstream_no_more_often_than_allowed(headrace, upstreams) -> None:
    upstream = upstreams(lambda it: hold())
    gateway = headrace(
        "server { listen %%PORT%%; http2 on; http2_max_resets 20; "
        f"location / {{ proxy_pass http://{upstream.address}; }} }}"
    )
    with H2Client(gateway.port) as bad:
        bad.step()
        data = b"".join(request(2 * i + 1) + frame(3, 0, 2 * i + 1, bytes(4)) for i in range(500))
        bad.raw(data)
        assert find_goaway(bad) == CALM
    time.sleep(0.2)
    assert len(upstream.requests) <= 21


def hold() -> bytes:
    time.sleep(1)
    return answer()


def test_a_head_that_grows_for_ever_by_indexes(gateway: Gateway) -> None:
    """The HPACK bomb: a large entry, named thousands of times in a small block."""
    with H2Client(gateway.port) as healthy, H2Client(gateway.port) as bad:
        bad.step()
        bad.raw(request(1, 5, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000))
        for i in range(1, 60):
            bad.raw(request(2 * i + 1, 5, b"\xbe" * 16000))
        assert healthy.get().status == 200
    assert rss_kib(gateway) < 120_000


def test_answers_that_are_not_read_hold_little_and_end(headrace, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(4_000_000))
    gateway = headrace(
        "keepalive_requests 100000; server { listen %%PORT%%; http2 on; send_timeout 1s; "
        f"root {tmp_path}; location /here {{ return 200 here; }} }}"
    )
    assert gateway.get("/here").status == 200
    before = rss_kib(gateway)
    with H2Client(gateway.port, window=0, takes=False) as bad, H2Client(gateway.port) as healthy:
        numbers = [bad.ask("/f") for _ in range(100)]
        assert healthy.get("/here").text == "here"
        assert rss_kib(gateway) - before < 30_000
        for number in numbers:                               # send_timeout: each stream is cut
            assert bad.read(number).code == 8
        assert healthy.get("/f").body == bytes(4_000_000)


def test_a_stream_that_is_not_read_holds_no_other_back(headrace, upstreams) -> None:
    big = bytes(3_000_000)
    upstream = upstreams(lambda it: answer(big if it.target == "/big" else b"small"))
    gateway = headrace(
        proxied(upstream)
    )
    with H2Client(gateway.port, takes=False) as client:
        client.h2.increment_flow_control_window(10_000_000)  # the connection's, not the streams'
        client.flush()
        big_one = client.ask("/big")
        for _ in range(20):
            assert client.get("/small").body == b"small"
        response = client.responses[big_one]
        assert len(response.body) == 65535
        while not response.is_whole:
            client.h2.increment_flow_control_window(50_000, big_one)
            client.flush()
            before = len(response.body)
            while len(response.body) == before and not response.is_whole:
                assert client.step()
        assert response.body == big


def test_a_body_that_nobody_takes_stays_with_its_client(headrace, upstreams) -> None:
    """The upstream reads nothing: the stream's window is not given back; another stream goes on."""
    upstream = upstreams(lambda it: answer())
    gateway = headrace(
        "server { listen %%PORT%%; http2 on; client_max_body_size 0; "
        f"location / {{ proxy_pass http://{upstream.address}; }} "
        "location /slow { proxy_pass http://127.0.0.1:%%PORT_1%%; proxy_request_buffering off; } }"
    )
    with (
        socket.create_server(("127.0.0.1", gateway.ports[1])),
        H2Client(gateway.port, timeout_s=3) as client,
    ):
        number = client.ask("/slow", method="POST", end=False)
        sent = 0
        while sent < 50_000_000:
            room = min(client.h2.local_flow_control_window(number), 16384)
            if room == 0:
                try:
                    client.step(0.5)
                except TimeoutError:
                    break
                continue
            client.h2.send_data(number, bytes(room))
            client.flush()
            sent += room
        assert sent < 40_000_000                         # sockets' buffers, and no more
        assert client.get("/").status == 200
    assert rss_kib(gateway) < 120_000


def test_a_cancelled_stream_cancels_its_call(headrace, upstreams) -> None:
    upstream = upstreams([slowly(), answer()])
    gateway = headrace(
        "access_log logs/access.log; "
        f"server {{ listen %%PORT%%; http2 on; location / {{ proxy_pass http://{upstream.address}; "
        "proxy_buffering off; } }"
    )
    with H2Client(gateway.port) as client:
        number = client.ask("/")
        upstream.wait(1)
        client.h2.reset_stream(number, 8)
        client.flush()
        wait_for(lambda: gateway.log())
        assert '" 499 ' in gateway.log()[0]
        assert client.get("/").status == 200


def slowly():
    time.sleep(0.5)
    yield answer()


def test_control_frames_beside_work_are_no_flood(gateway: Gateway) -> None:
    """A client that downloads and acknowledges, pings now and then, and cancels a few."""
    with H2Client(gateway.port) as client:
        for i in range(60):
            client.h2.ping(bytes(8))
            assert client.get().status == 200
            if i % 3 == 0:
                number = client.ask()
                client.h2.reset_stream(number, 8)
                client.flush()
        assert client.parted is None


@pytest.mark.parametrize("pieces", [b"PRI * HTTP/2.0\r\n", PREFACE, PREFACE + frame(4)[:5],
                                    PREFACE + frame(4) + request(1, 5)[:-1],
                                    PREFACE + frame(4) + request(1, 0)])  # fmt: skip
def test_a_frame_that_does_not_come_whole_is_not_awaited_for_ever(headrace, pieces: bytes) -> None:
    gateway = headrace(
        "client_header_timeout 1s; server { listen %%PORT%%; http2 on; return 200 a; }")
    with gateway.client() as client:
        client.send(pieces)
        client.sock.settimeout(5)
        while client.sock.recv(4096):
            pass


def test_a_body_that_does_not_come(headrace, upstream: Recorder) -> None:
    gateway = headrace(
        "client_body_timeout 1s; server { listen %%PORT%%; http2 on; "
        f"location / {{ proxy_pass http://{upstream.address}; }} }}"
    )
    with H2Client(gateway.port) as client:
        silent = client.ask("/", method="POST", end=False)
        assert client.get("/").status == 200
        assert client.read(silent).status == 408
        assert client.get("/").status == 200


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_no_body_is_read_before_it_is_wanted(headrace, upstream: Recorder, buffering: str) -> None:
    gateway = headrace(proxied(
        upstream, f"http2_body_preread_size 0; proxy_request_buffering {buffering};"))
    with H2Client(gateway.port) as client:
        client.step()
        assert client.h2.remote_settings.initial_window_size == 0
        assert client.get("/", method="POST", body=b"x" * 300_000).status == 200
    assert upstream.last.body == b"x" * 300_000


def test_the_more_urgent_goes_first(headrace, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(30_000))
    gateway = headrace(f"server {{ listen %%PORT%%; http2 on; root {tmp_path}; }}")
    with H2Client(gateway.port, takes=False) as client:
        eater = client.ask("/f")                             # half of the connection's window …
        also = client.ask("/f")
        numbers = [client.ask("/f", fields=[("priority", f"u={u}")]) for u in (6, 3, 0, 5)]
        while sum(len(it.body) for it in client.responses.values()) < 65535:
            assert client.step()
        assert len(client.responses[eater].body) == len(client.responses[also].body) == 30_000
        order: list[int] = []
        while len(order) < 4:                                # and then a little at a time
            client.h2.increment_flow_control_window(10_000)
            client.flush()
            client.step()
            order += [n for n in numbers if client.responses[n].is_whole and n not in order]
    first = numbers[0]                                       # the last of the window was its
    assert [n for n in order if n != first] == [numbers[2], numbers[1], numbers[3]]


def test_limit_rate_paces_each_stream(headrace, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(30_000))
    gateway = headrace(
        f"server {{ listen %%PORT%%; http2 on; root {tmp_path}; limit_rate 10k; "
        "location /free { limit_rate 0; return 200 free; } }"
    )
    with H2Client(gateway.port) as client:
        slow = [client.ask("/f"), client.ask("/f")]
        assert client.get("/free").text == "free"
        assert not any(client.responses[n].is_whole for n in slow)
        for number in slow:
            assert client.read(number).body == bytes(30_000)

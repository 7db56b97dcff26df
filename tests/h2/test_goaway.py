"""How a connection of HTTP/2 ends: nothing that was begun is lost, and clients are told."""

from __future__ import annotations

import signal
import threading
import time

from gateway import wait_for
from h2client import H2Client
from recorder import Recorder, answer


def proxied(upstream: Recorder, more: str = "") -> str:
    """A server that passes everything on but what `more` says."""
    return (f"server {{ listen %%PORT%%; http2 on; {more} "
            f"location / {{ proxy_pass http://{upstream.address}; }} }}")  # fmt: skip


def slow(_: object) -> bytes:
    time.sleep(0.7)
    return answer(b"slow")


def test_a_reload_says_goaway_and_finishes(headrace, upstreams) -> None:
    go_on = threading.Event()

    def held(_: object) -> bytes:
        go_on.wait(20)
        return answer(b"held")

    upstream = upstreams(held)
    gateway = headrace(proxied(upstream, "location /here { return 200 here; }"))
    with H2Client(gateway.port) as client, H2Client(gateway.port) as idle:
        assert idle.get("/here").status == 200
        numbers = [client.ask("/") for _ in range(5)]
        upstream.wait(5)
        gateway.signal(signal.SIGHUP)
        while client.parted is None:
            assert client.step()
        assert client.parted.last_stream_id == 2**31 - 1
        late = client.ask("/here")                           # on its way when GOAWAY came
        assert client.read(late).status == 200
        go_on.set()
        assert [client.read(n).body for n in numbers] == [b"held"] * 5
        parted = client.wait_closed()
        assert parted is not None
        assert parted.last_stream_id == late
        parted = idle.wait_closed()
        assert parted is not None
        assert parted.last_stream_id == 1
    assert gateway.get("/here").status == 200


def test_who_takes_nothing_is_told_the_last_one_at_once(headrace) -> None:
    """And is refused, safely for both, what crosses that; what it began still comes whole."""
    body = "x" * 80000
    gateway = headrace("server { listen %%PORT%%; http2 on; root %%DIR%%; }")
    (gateway.prefix / "long").write_text(body)
    with H2Client(gateway.port, takes=False) as client:
        number = client.ask("/long")
        while len(client.responses[number].body) < 65535:    # both windows are shut now
            assert client.step()
        gateway.signal(signal.SIGHUP)
        while client.parted is None:
            assert client.step()
        assert (client.parted.last_stream_id, client.parted.error_code) == (number, 0)
        late = client.read(client.ask("/long"))
        assert (late.status, late.code) == (0, 7)            # REFUSED_STREAM: ask again
        client.h2.increment_flow_control_window(80000)
        client.h2.increment_flow_control_window(80000, number)
        client.flush()
        assert client.read(number).text == body
        parted = client.wait_closed()
        assert parted is not None
        assert parted.last_stream_id == number


def test_quit_waits_for_streams(headrace, upstreams) -> None:
    upstream = upstreams(slow)
    gateway = headrace(
        proxied(upstream)
    )
    with H2Client(gateway.port) as client:
        number = client.ask("/")
        upstream.wait(1)
        gateway.signal(signal.SIGQUIT)
        assert client.read(number).body == b"slow"
        assert client.wait_closed() is not None
    assert gateway.stop() == 0


def test_keepalive_requests_is_said_by_goaway(headrace) -> None:
    gateway = headrace("keepalive_requests 3; server { listen %%PORT%%; http2 on; return 200 a; }")
    with H2Client(gateway.port) as client:
        for _ in range(3):
            assert client.get().status == 200
        parted = client.wait_closed()
        assert parted is not None
        assert (parted.error_code, parted.last_stream_id) == (0, 5)


def test_keepalive_time_is_said_by_goaway(headrace) -> None:
    gateway = headrace("keepalive_time 1s; server { listen %%PORT%%; http2 on; return 200 a; }")
    with H2Client(gateway.port) as client:
        assert client.get().status == 200
        assert client.parted is None
        time.sleep(1.1)
        assert client.get().status == 200
        assert client.wait_closed() is not None


def test_an_idle_connection_ends(headrace) -> None:
    gateway = headrace("keepalive_timeout 1s; server { listen %%PORT%%; http2 on; return 200 a; }")
    with H2Client(gateway.port) as client:
        assert client.get().status == 200
        parted = client.wait_closed()
        assert parted is not None
        assert parted.error_code == 0


def test_a_client_that_says_goaway_gets_what_it_asked(headrace, upstreams) -> None:
    upstream = upstreams(slow)
    gateway = headrace(
        proxied(upstream)
    )
    with H2Client(gateway.port) as client:
        number = client.ask("/")
        client.raw(b"\0\0\x08\7\0\0\0\0\0" + bytes(8))
        assert client.read(number).body == b"slow"
        client.wait_closed()


def test_idle_connections_make_room_for_others(headrace) -> None:
    gateway = headrace(
        "server { listen %%PORT%%; http2 on; return 200 a; }",
        main="events { worker_connections 32; }",
    )
    clients = []
    try:
        for _ in range(60):
            clients.append(H2Client(gateway.port))
            assert clients[-1].get().status == 200
    finally:
        for client in clients:
            client.sock.close()


def test_a_lost_client_leaves_nothing_behind(headrace, upstreams) -> None:
    upstream = upstreams(slow)
    gateway = headrace(
        "access_log logs/access.log;" + proxied(upstream, "location /s { stub_status; }")
    )
    for _ in range(3):
        client = H2Client(gateway.port)
        for _ in range(10):
            client.ask("/")
        upstream.wait(10)
        client.sock.close()
    wait_for(lambda: len(gateway.log()) == 30)
    assert all('" 499 ' in line for line in gateway.log())
    with H2Client(gateway.port) as client:
        words = client.get("/s").text.split()
        assert words[2] == "1"                               # active connections
        assert words[-5:] == ["0", "Writing:", "1", "Waiting:", "0"]

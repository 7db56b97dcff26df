"""HTTP/2 to upstreams: streams of one connection, and which requests are asked again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from gateway import wait_for
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

REFUSED = ErrorCodes.REFUSED_STREAM


class Peer:
    """An upstream of HTTP/2. `judge(peer, h2, number, count)` answers a request that came whole:
    the count-th of all; or does something else to its connection."""

    def __init__(self, judge: Callable[[Peer, H2Connection, int, int], None], most: int) -> None:
        self.judge, self.most = judge, most
        self.pump: Callable[[H2Connection], None] = lambda _h2: None  # after each read
        self.seen: list[tuple[int, bytes]] = []  # number of the connection, body
        self.most_open = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.links: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                self.links.append(link)
                threading.Thread(
                    target=self.serve, args=(link, len(self.links)), daemon=True
                ).start()

    def serve(self, link: socket.socket, which: int) -> None:
        h2 = H2Connection(H2Configuration(client_side=False))
        h2.initiate_connection()
        h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.most})
        bodies: dict[int, bytes] = {}
        with contextlib.suppress(OSError, ProtocolError):  # what comes behind a GOAWAY
            link.sendall(h2.data_to_send())
            while data := link.recv(65536):
                for event in h2.receive_data(data):
                    if isinstance(event, RequestReceived):
                        bodies[event.stream_id] = b""
                        self.most_open = max(self.most_open, h2.open_inbound_streams)
                    elif isinstance(event, DataReceived):
                        bodies[event.stream_id] += event.data
                    elif isinstance(event, StreamEnded):
                        with self.lock:
                            self.seen.append((which, bodies[event.stream_id]))
                            count = len(self.seen)
                        self.judge(self, h2, event.stream_id, count)
                self.pump(h2)
                link.sendall(h2.data_to_send())
        link.close()

    def close(self) -> None:
        self.listener.close()
        for link in self.links:
            link.close()


def answer(_peer: Peer, h2: H2Connection, number: int, _count: int) -> None:
    h2.send_headers(number, [(":status", "200")])
    h2.send_data(number, b"good", end_stream=True)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(judge: Callable[..., None] = answer, most: int = 100) -> Peer:
        made.append(Peer(judge, most))
        return made[-1]

    yield make
    for it in made:
        it.close()


def passing(peer: Peer, more: str = "") -> str:
    return (f"upstream up {{ server 127.0.0.1:{peer.port}; keepalive 4; }}"
            "server { listen %%PORT%%; location / { proxy_pass http://up; proxy_http_version 2;"
            f"{more} }} }}")  # fmt: skip


def test_requests_in_turn_share_a_connection(headrace, peers) -> None:
    peer = peers()
    gateway = headrace(passing(peer))
    for _ in range(5):
        assert gateway.ask("POST", "/", b"x").text == "good"
    assert {which for which, _ in peer.seen} == {1}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_peer_refused_is_asked_again(headrace, peers, method: str) -> None:
    """RFC 9113 §8.7: nothing was done with it, so a POST may go again, too."""

    def refuse(peer: Peer, h2: H2Connection, number: int, count: int) -> None:
        if count == 1:
            h2.reset_stream(number, REFUSED)
        else:
            answer(peer, h2, number, count)

    peer, other = peers(refuse), peers()
    text = passing(peer).replace("keepalive", f"server 127.0.0.1:{other.port} backup; keepalive")
    gateway = headrace(text)
    assert gateway.ask(method, "/", b"once").text == "good"
    assert [body for _, body in peer.seen + other.seen] == [b"once"] * 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_goaway_leaves_out_is_asked_again(headrace, peers, method: str) -> None:
    """RFC 9113 §6.8: streams above the last one named were not looked at."""

    def leave(peer: Peer, h2: H2Connection, number: int, count: int) -> None:
        if count == 2:
            h2.close_connection(last_stream_id=number - 2)
        else:
            answer(peer, h2, number, count)

    peer, other = peers(leave), peers()
    text = passing(peer).replace("keepalive", f"server 127.0.0.1:{other.port} backup; keepalive")
    gateway = headrace(text)
    for _ in range(2):
        assert gateway.ask(method, "/", b"once").text == "good"
    assert [body for _, body in peer.seen + other.seen] == [b"once"] * 3


def test_no_more_streams_than_the_peer_allows(headrace, peers) -> None:
    """The first request learned the bound of its connection: while one is on it, the next has a
    connection of its own."""
    is_held, go_on = threading.Event(), threading.Event()

    def hold(peer: Peer, h2: H2Connection, number: int, count: int) -> None:
        if count == 2:
            is_held.set()
            go_on.wait(20)
        answer(peer, h2, number, count)

    peer = peers(hold, most=1)
    gateway = headrace(passing(peer))
    assert gateway.get().text == "good"
    with gateway.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert is_held.wait(20)
        assert gateway.get().text == "good"
        go_on.set()
        assert client.read().text == "good"
    assert peer.most_open == 1
    assert [which for which, _ in peer.seen] == [1, 1, 2]


def test_a_slow_client_stops_its_stream_alone(headrace, peers) -> None:
    """No more of its answer comes than windows and buffers hold, requests beside it on the same
    connection are answered, and in the end it is whole."""
    size = 64 << 20
    left = {0: size}  # number of its stream: what is still to be said

    def begin(peer: Peer, h2: H2Connection, number: int, count: int) -> None:
        if count > 1:
            answer(peer, h2, number, count)
            return
        h2.send_headers(number, [(":status", "200"), ("content-length", str(size))])
        left[number] = left.pop(0)

    def pump(h2: H2Connection) -> None:
        for number in left:
            while number and left[number]:
                n = min(left[number], h2.local_flow_control_window(number), 16384)
                if n == 0:
                    break
                left[number] -= n
                h2.send_data(number, bytes(n), end_stream=left[number] == 0)

    peer = peers(begin)
    peer.pump = pump
    gateway = headrace(passing(peer, "proxy_buffering off;"))
    with gateway.client(timeout_s=60) as slow:
        slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: 0 not in left)
        before = [size]
        while before != list(left.values()):
            before = list(left.values())
            assert {gateway.get().text for _ in range(20)} == {"good"}
        assert before[0] > size // 2
        assert slow.read().body == bytes(size)
    assert {which for which, _ in peer.seen} == {1}

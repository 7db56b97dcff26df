"""WebSockets whose frames are read on their way: what passes, what ends, who hears which code."""

from __future__ import annotations

import re
import signal
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from gateway import Gateway, run, wait_for
from websocket_frames import BAD, GOOD, KEY, close, frame, written

HTTP = """
    access_log logs/access.log;
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        location / {
            proxy_pass http://127.0.0.1:%d;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            %s
        }
        location = /metrics { metrics; }
    }
"""
ASK = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


class Side:
    """One end of a tunnel, in plain bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(10)
        self.got = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, n: int) -> bytes:
        while len(self.got) < n:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed behind {self.got!r}")
            self.got += piece
        data, self.got = self.got[:n], self.got[n:]
        return data

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self.got:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed behind {self.got!r}")
            self.got += piece
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        return head

    def read_end(self) -> bytes:
        """All until FIN."""
        while piece := self.sock.recv(65536):
            self.got += piece
        data, self.got = self.got, b""
        return data


class Tunnels:
    """A gateway in front of an upstream that is a bare socket."""

    def __init__(self, headrace, more: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        self.sides: list[Side] = []
        self.gateway: Gateway = headrace(HTTP % (self.server.getsockname()[1], more))

    def open(self, more: bytes = b"", early: bytes = b"", switch: bytes = SWITCH) -> tuple:
        """(client, upstream) of a new tunnel; early: what the upstream sends with its head."""
        client = Side(socket.create_connection(("127.0.0.1", self.gateway.port)))
        client.send(ASK)
        upstream = Side(self.server.accept()[0])
        self.sides += [client, upstream]
        upstream.read_head()
        upstream.send(switch + more + b"\r\n" + early)
        assert client.read_head().startswith(b"HTTP/1.1 101")
        return client, upstream

    def count(self, name: str, **labels: str) -> int:
        told = self.gateway.get("/metrics").text
        for line in told.splitlines():
            if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return int(line.rpartition(" ")[2])
        return 0

    def close(self) -> None:
        for side in self.sides:
            side.sock.close()
        self.server.close()


@pytest.fixture
def tunnels(headrace) -> Iterator:
    made: list[Tunnels] = []

    def make(more: str = "websocket_inspect on;") -> Tunnels:
        made.append(Tunnels(headrace, more))
        return made[-1]

    yield make
    for it in made:
        it.close()


def unmasked(data: bytes) -> bytes:
    """One masked control frame, as it would be without its key."""
    assert data[1] & 0x80
    key, payload = data[2:6], data[6:]
    return bytes([data[0], data[1] & 127]) + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def test_what_may_pass_passes_unchanged(tunnels) -> None:
    it = tunnels()
    for _, frames in GOOD:
        client, upstream = it.open()
        up, down = written(frames, KEY), written(frames)
        client.send(up)
        assert upstream.read(len(up)) == up
        upstream.send(down)
        assert client.read(len(down)) == down


def test_frames_pass_in_whatever_pieces_they_come(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b"".join(frame(2, b"p" * n, key=KEY) for n in (0, 1, 126, 3)) + frame(9, b"x", key=KEY)
    for at in range(len(data)):
        client.send(data[at : at + 1])
    assert upstream.read(len(data)) == data
    large = frame(1, "é€😀".encode() * 300_000, key=KEY)
    sender = threading.Thread(target=client.send, args=(large,))
    sender.start()
    assert upstream.read(len(large)) == large
    sender.join()
    upstream.send(data)
    assert client.read(4) == struct.pack("!BBH", 0x88, 2, 1001), "an upstream does not mask"


def test_who_sends_what_is_forbidden_hears_the_code(tunnels) -> None:
    it = tunnels()
    for name, frames, code in BAD:
        client, upstream = it.open()
        good = written(frames[:-1], KEY)
        client.send(good + written(frames[-1:], KEY))
        assert client.read_end() == close(code), name
        client.sock.close()
        assert upstream.read(len(good)) == good, name
        said = upstream.read_end()
        assert unmasked(said) == close(1001), name


def test_an_upstream_that_does_hears_it_too(tunnels) -> None:
    it = tunnels()
    for name, frames, code in BAD:
        client, upstream = it.open()
        good = written(frames[:-1])
        upstream.send(good + written(frames[-1:]))
        assert unmasked(upstream.read_end()) == close(code), name
        upstream.sock.close()
        assert client.read_end() == good + close(1001), name


def test_no_close_stands_inside_a_frame_that_was_begun(tunnels) -> None:
    client, upstream = tunnels().open()
    text = frame(1, b"a" * 100 + b"\xff" + b"b" * 100, key=KEY)
    client.send(text[:50])
    assert upstream.read(50) == text[:50]
    client.send(text[50:])
    assert client.read_end() == close(1007)
    assert upstream.read_end() == b"", "it is cut, not closed"


def test_what_comes_with_the_heads_is_read_too(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open(early=frame(1, b"hello") + frame(3, b"no"))
    assert client.read_end() == frame(1, b"hello") + close(1001)
    assert unmasked(upstream.read_end()) == close(1002)
    client = Side(socket.create_connection(("127.0.0.1", it.gateway.port)))
    early = frame(1, b"early", key=KEY)
    client.send(ASK + early)
    upstream = Side(it.server.accept()[0])
    it.sides += [client, upstream]
    upstream.read_head()
    upstream.send(SWITCH + b"\r\n")
    assert upstream.read(len(early)) == early


def test_a_message_that_is_too_large(tunnels) -> None:
    client, upstream = tunnels("websocket_inspect on; websocket_max_message 1k;").open()
    good = frame(1, b"a" * 1000, 0, KEY) + frame(9, b"p", key=KEY) + frame(0, b"b" * 24, key=KEY)
    client.send(good + frame(2, b"c" * 1025, key=KEY))
    assert upstream.read(len(good)) == good
    assert client.read_end() == close(1009)
    assert unmasked(upstream.read_end()) == close(1001)


def test_an_upstream_may_send_more(tunnels) -> None:
    client, upstream = tunnels("websocket_inspect on; websocket_max_message 1k;").open()
    large = frame(2, b"c" * 5000)
    upstream.send(large)
    assert client.read(len(large)) == large


@pytest.mark.parametrize("kind", ["messages", "pings", "empty fragments"])
def test_who_sends_too_much_is_closed(tunnels, kind) -> None:
    client, upstream = tunnels("websocket_inspect on; websocket_rate 1r/m burst=4;").open()
    begin = frame(1, b"a", 0, KEY) if kind == "empty fragments" else b""
    one = {
        "messages": frame(1, b"hello", key=KEY),
        "pings": frame(9, b"p", key=KEY),
        "empty fragments": frame(0, b"", 0, KEY),
    }[kind]
    n_good = 4 if begin else 5
    client.send(begin + one * 20)
    assert client.read_end() == close(1008)
    good = begin + one * n_good
    assert upstream.read(len(good)) == good
    assert unmasked(upstream.read_end()) == close(1001)


def test_fragments_of_one_message_are_one(tunnels) -> None:
    client, upstream = tunnels("websocket_inspect on; websocket_rate 1r/m burst=0;").open()
    whole = frame(1, b"a", 0, KEY) + frame(0, b"b", 0, KEY) * 50 + frame(0, b"c", key=KEY)
    client.send(whole)
    assert upstream.read(len(whole)) == whole
    client.send(whole)
    assert client.read_end() == close(1008)


def test_a_silent_client_is_asked_and_stays(tunnels) -> None:
    client, upstream = tunnels("websocket_inspect on; websocket_ping 100ms;").open()
    pong = frame(10, key=KEY)
    for _ in range(4):
        assert client.read(2) == frame(9)
        client.send(pong)
        assert upstream.read(len(pong)) == pong
    data = frame(1, b"still here")
    upstream.send(data[:4])
    assert client.read(4) == data[:4], "no Ping stands inside a frame"
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.read(1)
    client.sock.settimeout(10)
    upstream.send(data[4:])
    assert client.read(len(data) - 4 + 2) == data[4:] + frame(9)


def test_one_that_does_not_answer_is_gone(tunnels) -> None:
    it = tunnels("websocket_inspect on; websocket_ping 100ms;")
    client, upstream = it.open()
    assert client.read_end() == frame(9) + close(1001)
    assert unmasked(upstream.read_end()) == close(1001)
    assert it.count("headrace_websocket_closes_total", code="1006") == 1


@pytest.mark.parametrize("name", ["permessage-deflate", "x, permessage-deflate; a=1"])
def test_compressed_messages_pass(tunnels, name) -> None:
    it = tunnels()
    packed = frame(1, b"\xff\xfe", 0xC0, KEY)
    field = b"Sec-WebSocket-Extensions: " + name.encode() + b"\r\n"
    client, upstream = it.open(field)
    client.send(packed)
    assert upstream.read(len(packed)) == packed
    client, upstream = it.open(b"Sec-WebSocket-Extensions: permessage-deflated\r\n")
    client.send(packed)
    assert client.read_end() == close(1002)


def test_the_gateway_says_that_it_leaves(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open()
    inside, inside_upstream = it.open()
    data = frame(1, b"a" * 100)
    inside_upstream.send(data[:50])
    assert inside.read(50) == data[:50]
    it.gateway.signal(signal.SIGQUIT)
    assert client.read_end() == close(1001)
    assert unmasked(upstream.read_end()) == close(1001)
    inside_upstream.send(data[50:])
    assert inside.read_end() == data[50:] + close(1001), "the frame at hand goes first"
    for side in it.sides:
        side.sock.close()
    assert it.gateway.process.wait(10) == 0


def test_after_a_reload_clients_are_asked_to_come_again(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open()
    it.gateway.signal(signal.SIGHUP)
    assert client.read_end() == close(1012)
    assert unmasked(upstream.read_end()) == close(1001)
    client.sock.close()
    it.open()


def test_messages_bytes_and_ends_are_counted(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open()
    assert it.count("headrace_websockets", server="", location="/") == 1
    up = frame(1, b"abc", 0, KEY) + frame(9, b"xx", key=KEY) + frame(0, b"de", key=KEY)
    down = frame(2, b"1234567") * 2
    client.send(up)
    upstream.read(len(up))
    upstream.send(down)
    client.read(len(down))
    assert it.count("headrace_websocket_messages_total", **{"from": "client"}) == 1
    assert it.count("headrace_websocket_bytes_total", **{"from": "client"}) == 5
    assert it.count("headrace_websocket_messages_total", **{"from": "upstream"}) == 2
    assert it.count("headrace_websocket_bytes_total", **{"from": "upstream"}) == 14
    client.send(close(4321, b"bye", KEY))
    upstream.read(len(close(4321, b"bye", KEY)))
    upstream.send(close(4321))
    upstream.sock.close()
    assert client.read_end() == close(4321)
    client.sock.close()
    wait_for(lambda: it.count("headrace_websockets") == 0)
    assert it.count("headrace_websocket_closes_total", code="4xxx") == 1
    client, upstream = it.open()
    client.sock.close()
    upstream.sock.close()
    wait_for(lambda: it.count("headrace_websocket_closes_total", code="1006") == 1)
    assert it.count("headrace_websockets") == 0


def test_nothing_passes_behind_a_close(tunnels) -> None:
    client, upstream = tunnels().open()
    ours = close(1000, key=KEY)
    client.send(ours + frame(1, b"late", key=KEY))
    client.send(frame(9, b"later", key=KEY))
    assert upstream.read(len(ours)) == ours
    upstream.send(frame(1, b"yet") + close(1000) + frame(1, b"late"))
    assert client.read(len(frame(1, b"yet"))) == frame(1, b"yet")
    upstream.sock.shutdown(socket.SHUT_WR)
    assert client.read_end() == close(1000)
    client.sock.close()
    assert upstream.read_end() == b""


@pytest.mark.parametrize("more", ["", "websocket_inspect off;"])
def test_without_it_a_tunnel_is_opaque(tunnels, more) -> None:
    client, upstream = tunnels(more).open()
    noise = bytes(range(256)) * 20
    client.send(noise)
    assert upstream.read(len(noise)) == noise
    upstream.send(noise)
    assert client.read(len(noise)) == noise


def test_another_protocol_is_opaque(tunnels) -> None:
    switch = SWITCH.replace(b"websocket", b"echo/2")
    client, upstream = tunnels().open(switch=switch)
    noise = bytes(range(256))
    client.send(noise)
    assert upstream.read(256) == noise


def test_a_slow_client_holds_its_upstream_back(tunnels) -> None:
    it = tunnels()
    client, upstream = it.open()
    piece = frame(2, b"x" * 60_000)
    upstream.sock.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 1000:
            upstream.send(piece)
            sent += 1
    got = client.read(sent * len(piece))
    assert got == piece * sent


RATES = ["0r/s", "x", "10r/s burst=x", "10r/s size=3", "off burst=1"]


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_has_to_be_one(headrace, tmp_path, rate) -> None:
    it = headrace(HTTP % (1, f"websocket_rate {rate};"), start=False)
    said = run("-t", "-p", str(it.prefix), "-c", str(it.conf))
    assert said.returncode == 1
    assert re.search(r"invalid (rate|parameter) .* in .*headrace.conf:\d+", said.stderr)

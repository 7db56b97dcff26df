"""WebSockets over HTTP/2 (RFC 8441): the upstream sees an upgrade, the client a stream of bytes."""

from __future__ import annotations

import base64
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from h2client import H2Client, Response
from recorder import answer
from websocket_peer import Upstream, accepted, assert_ended
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

CANCEL, NO_ERROR, PROTOCOL_ERROR = 8, 0, 1
HTTP = """
    access_log logs/access.log;
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        http2 on;
        location / {
            proxy_pass http://127.0.0.1:%d;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            %s
        }
        location /plain/ { proxy_pass http://127.0.0.1:%d; }
        location /ours { return 200 here; }
        location /file { root %%%%DIR%%%%; }
        location /moved { return 301 /; }
        location = /metrics { metrics; }
    }
"""
FIELDS = [("sec-websocket-version", "13"), ("origin", "http://a.test")]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    it = Upstream()
    yield it
    it.close()


@pytest.fixture
def gateway_of(headrace, upstream: Upstream) -> Callable[..., Gateway]:
    return lambda more="": headrace(HTTP % (upstream.port, more, upstream.port))


def ask(client: H2Client, target: str = "/chat", protocol: str = "websocket") -> int:
    """Extended CONNECT. Its stream."""
    while client.h2.remote_settings.get(8) is None:
        assert client.step()
    client.last += 2
    client.responses[client.last] = Response()
    block = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"),
             (":path", target), (":authority", "a.test"), *FIELDS]  # fmt: skip
    client.h2.send_headers(client.last, block)
    client.flush()
    return client.last


def head_of(client: H2Client, number: int) -> Response:
    """The answer's head, and what came with it."""
    response = client.responses[number]
    while not response.fields and response.code is None:
        assert client.step(), client.parted
    return response


def body(client: H2Client, number: int, n: int) -> bytes:
    """The next n bytes that come."""
    response = client.responses[number]
    while len(response.body) < n:
        assert client.step(), response
        assert response.code is None, response
    data, response.body = response.body[:n], response.body[n:]
    return data


def received(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        assert piece, data
        data += piece
    return data


def opened(client: H2Client, upstream: Upstream) -> tuple[int, socket.socket]:
    """A tunnel: its stream, and the upstream's end."""
    number = ask(client)
    sock = upstream.switch()
    assert head_of(client, number).status == 200
    return number, sock


def test_the_upstream_sees_an_upgrade_of_http_1(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H2Client(gateway.port) as client:
        number = ask(client, "/chat?room=1")
        sock, line, fields = upstream.take()
        assert line == "GET /chat?room=1 HTTP/1.1"
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert fields["sec-websocket-version"] == "13"
        assert fields["origin"] == "http://a.test"
        assert len(base64.b64decode(fields["sec-websocket-key"])) == 16
        assert "content-length" not in fields
        assert "transfer-encoding" not in fields
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "
            + accepted(fields["sec-websocket-key"]).encode() + b"\r\n\r\nearly"
        )
        response = head_of(client, number)
        assert response.status == 200
        names = {name for name, _ in response.fields}
        assert response.get("sec-websocket-protocol") == "chat"
        assert not names & {"upgrade", "connection", "sec-websocket-accept", "content-length",
                            "transfer-encoding"}  # fmt: skip
        assert body(client, number, 5) == b"early"
        second = ask(client)
        assert upstream.take()[2]["sec-websocket-key"] != fields["sec-websocket-key"]
        client.h2.reset_stream(second, CANCEL)
        client.flush()


def test_bytes_pass_both_ways_while_others_are_served(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H2Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        for size in (1, 100, 70_000):
            data = bytes(i % 251 for i in range(size))
            client.send(number, data)
            assert received(sock, size) == data
            sock.sendall(data)
            assert body(client, number, size) == data
            assert client.get("/ours").body == b"here"
        client.h2.end_stream(number)
        client.flush()
        assert sock.recv(1) == b""                           # END_STREAM is a FIN …
        sock.sendall(b"last words")
        sock.close()                                         # … and a FIN is END_STREAM
        response = client.read(number)
        assert (response.body, response.is_whole) == (b"last words", True)
        assert client.get("/ours").status == 200
    wait_for(lambda: [line for line in gateway.log() if '"GET /chat' in line])
    assert '"GET /chat HTTP/2.0" 200 ' in next(line for line in gateway.log() if "/chat" in line)


def test_the_upstream_may_end_first(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        sock.shutdown(socket.SHUT_WR)
        assert client.read(number).is_whole
        client.send(number, b"still heard", end=True)
        assert received(sock, 11) == b"still heard"
        assert sock.recv(1) == b""
        assert client.get("/ours").status == 200
        assert client.responses[number].code is None


def test_bytes_before_the_answer_wait(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of().port) as client:
        number = ask(client)
        client.send(number, b"e" * 3000)
        client.send(number, b"f" * 3000, end=True)
        sock = upstream.switch()
        assert received(sock, 6000) == b"e" * 3000 + b"f" * 3000
        assert sock.recv(1) == b""
        sock.sendall(b"bye")
        sock.close()
        assert client.read(number).body == b"bye"


def test_a_cancelled_stream_ends_the_upstream(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        client.h2.reset_stream(number, CANCEL)
        client.flush()
        assert_ended(sock)
        assert client.get("/ours").status == 200


def test_a_reset_of_the_upstream_is_one_of_the_stream(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert client.read(number).code == CANCEL            # RFC 8441 §5
        assert client.get("/ours").status == 200


def test_a_lost_client_ends_its_tunnels(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of().port) as client:
        socks = [opened(client, upstream)[1] for _ in range(3)]
    for sock in socks:
        assert_ended(sock)


@pytest.mark.parametrize("accept", ["", "x" * 28, accepted("another key")])
def test_an_upstream_that_saw_no_key_is_refused(gateway_of, upstream: Upstream, accept) -> None:
    with H2Client(gateway_of().port) as client:
        number = ask(client)
        upstream.switch(accept=accept)
        assert client.read(number).status == 502
        assert client.get("/ours").status == 200


@pytest.mark.parametrize(("status", "shown"), [(200, 502), (204, 502), (403, 403), (302, 302)])
def test_what_is_no_upgrade_is_no_tunnel(headrace, upstreams, status: int, shown: int) -> None:
    words = b"" if status == 204 else b"words"
    port = int(upstreams(answer(words, status)).address.rpartition(":")[2])
    gateway = headrace(HTTP % (port, "", port))
    with H2Client(gateway.port) as client:
        response = client.read(ask(client))
        assert response.status == shown
        assert response.body == (words if status == shown else b"")
        assert client.get("/ours").status == 200


@pytest.mark.parametrize(
    ("target", "status"), [("/ours", 501), ("/file", 501), ("/moved", 301), ("/missing/", 404)]
)
def test_our_own_answers_begin_no_tunnel(headrace, tmp_path: Path, target, status) -> None:
    conf = HTTP % (1, "", 1)
    gateway = headrace(conf.replace("location / {", "location /missing/ { return 404; } "
                                    "location / {"), start=False)  # fmt: skip
    (gateway.prefix / "file").write_text("x" * 100_000)
    gateway.start()
    with H2Client(gateway.port) as client:
        response = client.read(ask(client, target))
        assert response.status == status
        assert response.is_whole
        assert client.get("/ours").status == 200


def test_another_protocol_is_not_implemented(gateway_of) -> None:
    with H2Client(gateway_of().port) as client:
        assert client.read(ask(client, protocol="connect-udp")).status == 501
        assert client.get("/ours").status == 200


def test_a_client_that_does_not_read_stops_the_upstream(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H2Client(gateway.port, takes=False) as client:
        client.h2.increment_flow_control_window(1 << 30)     # of the connection
        number, sock = opened(client, upstream)
        sock.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 100_000_000:
                sent += sock.send(b"x" * 65536)
                client.get("/ours")
        assert client.get("/ours").status == 200             # others of its connection go on
        response = client.responses[number]
        assert len(response.body) < 65536                    # no more than its window
        sock.setblocking(True)
        got = len(response.body)
        client.h2.increment_flow_control_window(1 << 30, number)
        client.flush()
        while got < sent:
            assert client.step()
            got = len(response.body)
        assert response.body == b"x" * sent


def test_an_upstream_that_does_not_read_stops_the_client(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H2Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        sent = 0
        for _ in range(2000):
            room = min(client.h2.local_flow_control_window(number), 16384)
            if room == 0:
                if client.get("/ours").status and not client.h2.local_flow_control_window(number):
                    break
                continue
            client.h2.send_data(number, b"y" * room)
            client.flush()
            sent += room
        else:
            pytest.fail("nothing held the client back")
        assert received(sock, sent) == b"y" * sent
        client.send(number, b"z" * 100_000)
        assert received(sock, 100_000) == b"z" * 100_000


def test_a_silent_tunnel_ends(gateway_of, upstream: Upstream) -> None:
    with H2Client(gateway_of("proxy_read_timeout 300ms;").port) as client:
        number, _ = opened(client, upstream)
        assert client.read(number).code == CANCEL
        assert client.get("/ours").status == 200


def test_a_leaving_worker_keeps_tunnels(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H2Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        gateway.signal(signal.SIGQUIT)
        while client.parted is None:
            assert client.step()
        sock.sendall(b"still here")
        assert body(client, number, 10) == b"still here"
        client.send(number, b"bye", end=True)
        assert received(sock, 3) == b"bye"
        sock.close()
        assert client.read(number).is_whole
        client.wait_closed()


# -- frames on their way --------------------------------------------------------------------------

class Speaker:
    """A WebSocket on a stream; wsproto speaks."""

    def __init__(self, client: H2Client, number: int) -> None:
        self.client, self.number = client, number
        self.ws = Connection(ConnectionType.CLIENT)
        self.events: list = []

    def say(self, event) -> None:
        self.client.send(self.number, self.ws.send(event))

    def hear(self):
        response = self.client.responses[self.number]
        while not self.events:
            if response.body:
                self.ws.receive_data(response.body)
                response.body = b""
                self.events += self.ws.events()
            else:
                assert not response.is_whole, response
                assert response.code is None, response
                assert self.client.step()
        return self.events.pop(0)


def echo(sock: socket.socket) -> None:
    """The other end, until it ends."""
    ws = Connection(ConnectionType.SERVER)
    while data := sock.recv(65536):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, Ping | CloseConnection):
                sock.sendall(ws.send(event.response()))
            elif isinstance(event, TextMessage | BytesMessage):
                sock.sendall(ws.send(type(event)(
                    data=event.data, message_finished=event.message_finished)))
        if ws.state.name == "CLOSED":
            break
    sock.close()


@pytest.mark.parametrize("more", ["", "websocket_inspect on;"])
def test_messages_come_back(gateway_of, upstream: Upstream, more: str) -> None:
    with H2Client(gateway_of(more).port) as client:
        number, sock = opened(client, upstream)
        threading.Thread(target=echo, args=(sock,), daemon=True).start()
        speaker = Speaker(client, number)
        for size in (0, 125, 126, 70_000):
            speaker.say(BytesMessage(b"m" * size))
            got = b""
            while True:
                event = speaker.hear()
                got += event.data
                if event.message_finished:
                    break
            assert got == b"m" * size
        speaker.say(Ping(b"there?"))
        assert speaker.hear() == Pong(bytearray(b"there?"))
        speaker.say(CloseConnection(1000, "done"))
        assert speaker.hear().code == 1000
        assert client.get("/ours").status == 200


def test_inspected_frames_that_are_wrong_end_their_stream_alone(gateway_of, upstream) -> None:
    gateway = gateway_of("websocket_inspect on;")
    with H2Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        client.send(number, b"\x82\x01x")                    # not masked: RFC 6455 §5.1
        speaker = Speaker(client, number)
        assert speaker.hear().code == 1002
        assert received(sock, 2)[0] == 0x88                  # the upstream hears a Close, too
        sock.close()
        client.h2.end_stream(number)
        client.flush()
        assert client.read(number).is_whole
        assert client.get("/ours").status == 200


@pytest.mark.parametrize(("order", "code"), [(signal.SIGHUP, 1012), (signal.SIGQUIT, 1001)])
def test_inspected_tunnels_hear_that_the_worker_leaves(gateway_of, upstream, order, code) -> None:
    gateway = gateway_of("websocket_inspect on;")
    with H2Client(gateway.port) as client:
        numbers = [opened(client, upstream) for _ in range(3)]
        gateway.signal(order)
        for number, sock in numbers:
            speaker = Speaker(client, number)
            assert speaker.hear().code == code
            assert received(sock, 2)[0] == 0x88
            sock.close()
            client.h2.end_stream(number)
            client.flush()
            assert client.read(number).is_whole
        client.wait_closed()


def test_a_silent_client_is_asked_and_given_up(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of("websocket_inspect on; websocket_ping 200ms;")
    with H2Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        assert isinstance(Speaker(client, number).hear(), Ping)
        assert received(sock, 1) == b"\x88"                  # nobody answered
        assert client.get("/ours").status == 200


def test_a_tunnel_is_counted_while_it_lives(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of("websocket_inspect on;")

    def number_of() -> int:
        told = gateway.get("/metrics").text
        line = next((it for it in told.splitlines() if it.startswith("headrace_websockets{")), "")
        return int(line.rpartition(" ")[2] or 0)

    with H2Client(gateway.port) as client:
        number, _ = opened(client, upstream)
        opened(client, upstream)
        assert number_of() == 2
        client.h2.reset_stream(number, CANCEL)
        client.flush()
        wait_for(lambda: number_of() == 1)
    wait_for(lambda: number_of() == 0)

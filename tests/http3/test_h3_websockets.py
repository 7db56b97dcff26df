"""WebSockets over HTTP/3 (RFC 9220): the upstream sees an upgrade, the client a stream of bytes."""

from __future__ import annotations

import base64
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from h3client import H3Client, Response
from websocket_echo import serving
from websocket_peer import Upstream, accepted, assert_ended
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

CANCELLED, NO_ERROR, FRAME_UNEXPECTED = 0x10C, 0x100, 0x105
FIELDS = [("sec-websocket-version", "13"), ("origin", "https://a.test")]
LOCATIONS = """
    location / {
        proxy_pass http://127.0.0.1:%d;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        %s
    }
    location /ours { return 200 here; }
    location /moved { return 301 /; }
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    it = Upstream()
    yield it
    it.close()


@pytest.fixture
def gateway_of(quic, upstream: Upstream) -> Callable[..., Gateway]:
    return lambda more="": quic(LOCATIONS % (upstream.port, more))


def ask(client: H3Client, target: str = "/chat", protocol: str = "websocket") -> int:
    """Extended CONNECT, once the server said that it knows it. Its stream."""
    client.run(lambda: client.http.received_settings is not None)
    assert client.http.received_settings[8] == 1             # SETTINGS_ENABLE_CONNECT_PROTOCOL
    return client.ask_raw(
        [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":path", target),
         (":authority", "a.test"), *FIELDS], end=False)  # fmt: skip


def head_of(client: H3Client, number: int) -> Response:
    """The answer's head, and what came with it."""
    response = client.responses[number]
    client.run(lambda: response.fields or response.code is not None)
    return response


def body(client: H3Client, number: int, n: int) -> bytes:
    """The next n bytes that come."""
    response = client.responses[number]
    client.run(lambda: len(response.body) >= n or response.code is not None)
    data, response.body = response.body[:n], response.body[n:]
    return data


def received(sock: socket.socket, n: int, client: H3Client | None = None) -> bytes:
    """n bytes of an upstream's side; the client's side runs meanwhile."""
    data = b""
    sock.settimeout(10 if client is None else 0.02)
    for _ in range(1500):
        if len(data) == n:
            break
        try:
            piece = sock.recv(n - len(data))
        except TimeoutError:
            assert client is not None, data
            client.step(0.01)
            continue
        assert piece, data
        data += piece
    sock.settimeout(10)
    return data


def opened(client: H3Client, upstream: Upstream) -> tuple[int, socket.socket]:
    """A tunnel: its stream, and the upstream's end."""
    number = ask(client)
    sock = upstream.switch()
    assert head_of(client, number).status == 200
    return number, sock


def test_the_upstream_sees_an_upgrade_of_http_1(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H3Client(gateway.port) as client:
        number = ask(client, "/chat?room=1")
        sock, line, fields = upstream.take()
        assert line == "GET /chat?room=1 HTTP/1.1"
        assert fields["upgrade"] == "websocket"
        assert fields["connection"].lower() == "upgrade"
        assert fields["origin"] == "https://a.test"
        assert len(base64.b64decode(fields["sec-websocket-key"])) == 16
        assert not {"content-length", "transfer-encoding"} & set(fields)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "
            + accepted(fields["sec-websocket-key"]).encode() + b"\r\n\r\nearly"
        )
        response = head_of(client, number)
        assert response.status == 200
        assert response.get("sec-websocket-protocol") == "chat"
        assert not {name for name, _ in response.fields} & {
            "upgrade", "connection", "sec-websocket-accept", "content-length", "transfer-encoding"}
        assert body(client, number, 5) == b"early"


def test_bytes_pass_both_ways_while_others_are_served(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H3Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        for size in (1, 100, 200_000):
            data = bytes(i % 251 for i in range(size))
            client.send(number, data)
            assert received(sock, size, client) == data
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            assert body(client, number, size) == data
            sender.join()
            assert client.get("/ours").text == "here"
        client.quic.send_stream_data(number, b"", end_stream=True)
        client.flush()
        assert sock.recv(1) == b""                           # FIN of the stream is one …
        sock.sendall(b"last words")
        sock.close()                                         # … and so the other way
        response = client.read(number)
        assert (response.body, response.is_whole, response.code) == (b"last words", True, None)
        assert client.get("/ours").status == 200
    wait_for(lambda: [line for line in gateway.log() if '"GET /chat' in line])
    assert '"GET /chat HTTP/3.0" 200 ' in next(line for line in gateway.log() if "/chat" in line)


def test_the_upstream_may_end_first(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        sock.shutdown(socket.SHUT_WR)
        assert client.read(number).is_whole
        client.send(number, b"still heard", end=True)
        assert received(sock, 11) == b"still heard"
        assert sock.recv(1) == b""
        assert client.get("/ours").status == 200
        assert client.responses[number].code is None


def test_bytes_before_the_answer_wait(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number = ask(client)
        client.send(number, b"e" * 3000)
        client.send(number, b"f" * 3000, end=True)
        sock = upstream.switch()
        assert received(sock, 6000, client) == b"e" * 3000 + b"f" * 3000
        assert sock.recv(1) == b""
        sock.sendall(b"bye")
        sock.close()
        assert client.read(number).body == b"bye"


def test_a_cancelled_stream_ends_the_upstream(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        client.quic.reset_stream(number, CANCELLED)
        client.flush()
        assert_ended(sock)
        assert client.get("/ours").status == 200


def test_a_reset_of_the_upstream_is_one_of_the_stream(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert client.read(number).code == CANCELLED         # RFC 9220 §3
        assert client.get("/ours").status == 200


def test_a_lost_client_ends_its_tunnels(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        socks = [opened(client, upstream)[1] for _ in range(3)]
    for sock in socks:
        assert_ended(sock)


@pytest.mark.parametrize("accept", ["", accepted("another key")])
def test_an_upstream_that_saw_no_key_is_refused(gateway_of, upstream: Upstream, accept) -> None:
    with H3Client(gateway_of().port) as client:
        number = ask(client)
        upstream.switch(accept=accept)
        assert client.read(number).status == 502
        assert client.get("/ours").status == 200


@pytest.mark.parametrize(("target", "protocol", "status"), [
    ("/ours", "websocket", 501), ("/moved", "websocket", 301), ("/chat", "connect-udp", 501),
])  # fmt: skip
def test_what_begins_no_tunnel(gateway_of, target: str, protocol: str, status: int) -> None:
    with H3Client(gateway_of().port) as client:
        response = client.read(ask(client, target, protocol))
        assert (response.status, response.is_whole) == (status, True)
        assert client.get("/ours").status == 200


def test_only_data_may_follow(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number, _ = opened(client, upstream)
        client.http.send_headers(number, [(b"x-late", b"1")], end_stream=True)
        client.flush()
        assert client.wait_closed().error_code == FRAME_UNEXPECTED


def test_a_client_that_does_not_read_stops_the_upstream(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port, window=20_000) as client:
        number, sock = opened(client, upstream)
        client.quic.takes = False
        sock.setblocking(False)
        sent, idle = 0, 0
        while idle < 20:
            try:
                sent += sock.send(b"x" * 65536)
                idle = 0
            except BlockingIOError:
                idle += 1
                client.step(0.02)
            assert sent < 100_000_000
        assert len(client.responses[number].body) <= 20_000
        client.quic.takes = True
        client.quic.send_ping(1)
        client.flush()
        assert body(client, number, sent) == b"x" * sent


def test_an_upstream_that_does_not_read_stops_the_client(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of().port) as client:
        number, sock = opened(client, upstream)
        data = bytes(i % 241 for i in range(8_000_000))
        client.send(number, data)
        sender = client.quic._streams[number].sender
        before = -1
        while sender.highest_offset > before or sender.highest_offset == 0:
            before = sender.highest_offset
            for _ in range(20):
                client.step(0.02)
        assert before < len(data)                            # the rest waits at its client
        assert client.get("/ours").status == 200
        assert received(sock, len(data), client) == data


def test_a_close_that_ends_its_stream_is_answered_over_tls(quic, certificates: Path) -> None:
    """So browsers do it; a TLS upstream may take close_notify for the end of both ways."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "a.crt", certificates / "a.key")
    with serving(tls) as port:
        gateway = quic((LOCATIONS % (port, "")).replace("http://127", "https://127"))
        for _ in range(5):
            with H3Client(gateway.port) as client:
                number = ask(client)
                assert head_of(client, number).status == 200
                ws = Connection(ConnectionType.CLIENT)
                client.send(number, ws.send(CloseConnection(1000)), end=True)
                ws.receive_data(client.read(number).body)
                assert [event.code for event in ws.events()] == [1000]


def test_a_silent_tunnel_ends(gateway_of, upstream: Upstream) -> None:
    with H3Client(gateway_of("proxy_read_timeout 300ms;").port) as client:
        number, _ = opened(client, upstream)
        assert client.read(number).code == CANCELLED
        assert client.get("/ours").status == 200


def test_a_leaving_worker_keeps_tunnels(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of()
    with H3Client(gateway.port) as client:
        number, sock = opened(client, upstream)
        gateway.signal(signal.SIGQUIT)
        client.run(lambda: client.parted is not None)
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

    def __init__(self, client: H3Client, number: int) -> None:
        self.client, self.number = client, number
        self.ws = Connection(ConnectionType.CLIENT)
        self.events: list = []

    def say(self, event) -> None:
        self.client.send(self.number, self.ws.send(event))

    def hear(self):
        response = self.client.responses[self.number]
        while not self.events:
            self.client.run(lambda: response.body or response.is_whole or response.code is not None)
            assert response.body, response
            self.ws.receive_data(response.body)
            response.body = b""
            self.events += self.ws.events()
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


@pytest.mark.parametrize("more", ["", "websocket_inspect on;"], ids=["tunnel", "inspected"])
def test_messages_come_back(gateway_of, upstream: Upstream, more: str) -> None:
    with H3Client(gateway_of(more).port) as client:
        number, sock = opened(client, upstream)
        threading.Thread(target=echo, args=(sock,), daemon=True).start()
        speaker = Speaker(client, number)
        for size in (0, 125, 126, 70_000):
            speaker.say(BytesMessage(b"m" * size))
            got, is_whole = b"", False
            while not is_whole:
                event = speaker.hear()
                got += event.data
                is_whole = event.message_finished
            assert got == b"m" * size
        speaker.say(Ping(b"there?"))
        assert speaker.hear() == Pong(bytearray(b"there?"))
        speaker.say(CloseConnection(1000))
        assert speaker.hear().code == 1000
        assert client.read(number).is_whole
        assert client.responses[number].code is None
        assert client.get("/ours").status == 200


def test_a_message_that_is_too_large_ends_it(gateway_of, upstream: Upstream) -> None:
    more = "websocket_inspect on; websocket_max_message 1000;"
    with H3Client(gateway_of(more).port) as client:
        number, sock = opened(client, upstream)
        speaker = Speaker(client, number)
        speaker.say(BytesMessage(b"m" * 1001))
        assert speaker.hear().code == 1009
        speaker.say(CloseConnection(1009))
        heard = Connection(ConnectionType.SERVER)
        heard.receive_data(received(sock, 8))
        assert [event.code for event in heard.events()] == [1001]


def test_a_reload_says_so_to_an_inspected_one(gateway_of, upstream: Upstream) -> None:
    gateway = gateway_of("websocket_inspect on;")
    with H3Client(gateway.port) as client:
        number, _ = opened(client, upstream)
        speaker = Speaker(client, number)
        gateway.signal(signal.SIGHUP)
        assert speaker.hear().code == 1012

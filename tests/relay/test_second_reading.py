"""What only shows when sides are slow, gone or rude at the wrong moment."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from gateway import wait_for
from recorder import Close, answer

SERVER = """
    server {
        listen 127.0.0.1:%%PORT%%;
        client_max_body_size 0;
        keepalive_timeout 60s;
        {more}
        location = /ok { return 200 fine; }
        location / { proxy_pass http://{address}; {inside} }
    }
"""


def conf(address: str, inside: str = "", more: str = "") -> str:
    return (
        SERVER.replace("{address}", address).replace("{inside}", inside).replace("{more}", more)
    )


def descriptors(gateway) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in gateway.workers())


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(it), it) for it in pieces) + b"0\r\n\r\n"


def post(body: bytes, target: str = "/up") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (
        target.encode(), len(body), body,
    )


def test_what_follows_a_body_in_a_file_is_not_overwritten_by_it(headrace, upstream):
    gateway = headrace(
        f"upstream kept {{ server {upstream.address}; keepalive 8; }}"
        + conf("kept", "client_body_buffer_size 1k;"))
    body = b"x" * 60_000
    with gateway.client() as client:
        client.get("/up")                        # leaves an idle connection to take
        for _ in range(5):
            # the last read is short: the file's bytes would lie over what follows in it
            client.send(post(body)[:-100])
            time.sleep(0.05)
            client.send(body[-100:] + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read("POST").status == 200
            assert client.read().status == 200
    assert [it.target for it in upstream.requests[1:]] == ["/up", "/next"] * 5


def test_a_held_chunked_body_goes_on_when_the_upstream_drains(headrace):
    """All of it was read, but the upstream was full: nothing more comes to wake the reading."""
    took: list[int] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/up.sock")       # such a socket holds the same amount each time
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                data = b""
                time.sleep(0.15)
                while not data.endswith(b"0\r\n\r\n"):
                    piece = sock.recv(65536)
                    if not piece:
                        break
                    data += piece
                else:
                    took.append(len(data))
                    sock.sendall(answer(b"took"))
                sock.close()

        threading.Thread(target=serve, daemon=True).start()
        gateway = headrace(conf(
            f"unix:{folder}/up.sock",
            "proxy_request_buffering off; proxy_send_timeout 3s; proxy_read_timeout 3s;"
            " proxy_next_upstream off;",
            "client_body_timeout 3s;",
        ))
        sizes = range(100, 301, 10)
        for kib in sizes:
            with gateway.client() as client:
                client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                            + chunked(b"y" * (kib * 1024), 5000))
                assert client.read("POST").text == "took", kib
        listener.shutdown(socket.SHUT_RDWR)
    assert len(took) == len(sizes)


def test_a_slow_client_is_no_fault_of_the_upstream(headrace, upstreams):
    upstream = upstreams()
    once = "max_fails=1 fail_timeout=60s"
    servers = "".join(f"server {it} {once};" for it in (upstream.address, upstreams().address))
    text = f"upstream two {{ {servers} }}" + conf(
        "two", "proxy_request_buffering off; proxy_read_timeout 1s; proxy_send_timeout 1s;",
        "client_body_timeout 3s;")
    gateway = headrace(text)
    for _ in range(2):
        with gateway.client() as client:
            client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            assert client.read("POST").status == 408
    assert gateway.get("/up").status == 200, "both peers are still trusted"


def test_a_peer_that_cannot_be_dialed_costs_no_place(headrace):
    gateway = headrace(
        "upstream none { server unix:%%DIR%%/nobody.sock max_fails=0; }" + conf("none"),
        main="events { worker_connections 64; }",
    )
    with gateway.client() as client:
        for _ in range(200):
            assert client.get("/up").status == 502
    for _ in range(3):
        assert gateway.get("/ok").text == "fine"


def test_an_upstream_that_reads_nothing_is_let_go(headrace):
    listener = socket.create_server(("127.0.0.1", 0))
    gateway = headrace(conf(
        f"127.0.0.1:{listener.getsockname()[1]}",
        "proxy_send_timeout 1s; proxy_read_timeout 1s; proxy_next_upstream off;",
    ))
    gateway.get("/ok")
    before = descriptors(gateway)
    try:
        for _ in range(5):
            with gateway.client() as client:
                client.send(post(b"z" * (12 << 20)))
                assert client.read("POST").status == 504
        wait_for(lambda: descriptors(gateway) <= before + 1, 3, "descriptors are given back")
    finally:
        listener.close()


def test_a_client_that_leaves_half_and_reads_nothing_is_let_go(headrace, upstreams):
    big = upstreams(answer(b"b" * (24 << 20)))
    gateway = headrace(conf(
        big.address, "proxy_request_buffering off; proxy_buffering off;",
        "send_timeout 1s; lingering_timeout 1s;",
    ))
    gateway.get("/ok")
    before = descriptors(gateway)
    clients = []
    for _ in range(5):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(b"GET /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        time.sleep(0.1)
        sock.shutdown(socket.SHUT_WR)
        clients.append(sock)
    wait_for(lambda: descriptors(gateway) <= before + 1, 8, "descriptors are given back")
    for sock in clients:
        sock.close()


def narrow_client(gateway) -> socket.socket:
    """A client whose socket takes little at a time."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", gateway.port))
    return sock


def test_a_client_that_takes_a_little_at_a_time_is_not_cut(headrace, upstreams):
    """send_timeout is for one who takes nothing, however long the rest takes."""
    body = b"l" * 120_000
    upstream = upstreams(Close(b"HTTP/1.1 200 OK\r\n\r\n" + body))
    gateway = headrace(conf(upstream.address, "proxy_buffering off;", "send_timeout 1s;").replace(
        "%%PORT%%;", "%%PORT%% sndbuf=16k;"))
    with narrow_client(gateway) as sock:
        sock.sendall(b"GET /up HTTP/1.0\r\n\r\n")
        got = b""
        while piece := sock.recv(4000):
            got += piece
            time.sleep(0.1)
    assert got.endswith(body) and len(got) > len(body)


@pytest.mark.parametrize("inside", ["proxy_buffering off;", "proxy_max_temp_file_size 0;", ""])
def test_a_client_that_takes_nothing_is_cut_and_no_peer_blamed(headrace, upstreams, inside):
    """Nor while its answer is moved by the kernel alone."""
    upstream = upstreams(answer(b"b" * (4 << 20)))
    gateway = headrace(conf(
        upstream.address, inside + "proxy_read_timeout 1s; proxy_send_timeout 1s;",
        "send_timeout 2s;"))
    with narrow_client(gateway) as sock:
        sock.sendall(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n")
        said = "client timed out (110: Connection timed out) while sending to client"
        wait_for(lambda: said in gateway.error_log, 9)
    assert "upstream timed out" not in gateway.error_log


def test_an_upstream_that_takes_nothing_of_a_spliced_body_is_let_go(headrace):
    listener = socket.create_server(("127.0.0.1", 0))
    gateway = headrace(conf(
        f"127.0.0.1:{listener.getsockname()[1]}",
        "proxy_request_buffering off; proxy_send_timeout 1s; proxy_read_timeout 30s;",
        "client_body_timeout 30s;",
    ))
    with gateway.client() as client:
        client.send(post(b"z" * (12 << 20)))
        assert client.read("POST").status == 504
    assert "timed out (110: Connection timed out) while sending" in gateway.error_log
    listener.close()


def test_a_second_head_that_drips_has_the_same_time(headrace, upstream):
    gateway = headrace(conf(upstream.address, "", "client_header_timeout 1s;"))
    with gateway.client() as client:
        assert client.get("/ok").text == "fine"
        with pytest.raises(OSError):
            for _ in range(100):                 # each would give it another second
                client.send("G")
                time.sleep(0.2)


def test_the_log_tells_of_the_answer_after_a_wait(headrace, upstreams):
    """An answer that came whole in one read, but left slowly: its fields are still its own."""
    slow = upstreams(answer(b"s" * 3000, headers=[("X-Told", "the-slow-one")]))
    other = upstreams(answer(b"o" * 3000, headers=[("X-Told", "another-one!")]))
    gateway = headrace(
        "log_format told '$request_uri $upstream_http_x_told';"
        "access_log %%DIR%%/logs/access.log told;"
        + conf(slow.address, "", f"location /other {{ proxy_pass http://{other.address}; }}"
               f"location /paced {{ limit_rate 1500; proxy_pass http://{slow.address}; }}")
    )
    with gateway.client() as client:
        client.send("GET /paced HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        for _ in range(3):
            gateway.get("/other")
        assert client.read().body == b"s" * 3000
    log = gateway.prefix / "logs" / "access.log"
    wait_for(lambda: "/paced" in log.read_text())
    assert "/paced the-slow-one" in log.read_text()


SAID = {
    "$same": "abc123", "$http_x": "abc123", "$arg_a": "1", "$cookie_c": "biscuit",
    "$request_uri": "/up?a=1", "$args": "a=1", "$host": "host.example", "$part": "abc",
    "$mapped": "abc-abc123", "$http_user_agent": "agent-of-ours", "$uri": "/up",
}  # fmt: skip


@pytest.mark.parametrize("asked", [["$same"], list(SAID)], ids=["one", "all"])
def test_values_that_were_asked_early_stay_what_they_were(headrace, upstreams, asked):
    """They were found in the read buffer, which is another's by the time the log is written."""
    gate = threading.Event()

    def late(request) -> bytes:
        if request.target.startswith("/up"):
            gate.wait(10)
        return answer(b"late")

    upstream = upstreams(late)
    gateway = headrace(
        "map $http_x $mapped { ~^(?<part>[a-z]+) $part-$http_x; }"
        "map $http_x $same { default $http_x; }"
        f"log_format told '{' '.join(asked)}'; access_log %%DIR%%/logs/access.log told;"
        + conf(upstream.address, " ".join(f'if ({it} = "never") {{ return 500; }}' for it in asked))
    )
    said = " ".join(SAID[it] for it in asked) + "\n"
    with gateway.client() as client:
        client.send("GET /up?a=1 HTTP/1.1\r\nHost: host.example\r\nX: abc123\r\n"
                    "Cookie: c=biscuit\r\nUser-Agent: agent-of-ours\r\n\r\n")
        upstream.wait(1)
        for _ in range(3):
            gateway.get("/ok?" + "z" * 500, X="y" * 500)
        gate.set()
        assert client.read().text == "late"
    log = gateway.prefix / "logs" / "access.log"
    wait_for(lambda: log.read_text().count("\n") > 3)
    assert said in log.read_text()


def test_trailers_behind_an_answer_that_fills_every_buffer(headrace, upstreams):
    """Many small chunks wait for one write; trailers that find no room behind them go after it."""
    trailers = b"".join(b"X-Trailer-%d: %s\r\n" % (n, b"t" * 1000) for n in range(12))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    upstream = upstreams()
    gateway = headrace(
        f"upstream kept {{ server {upstream.address}; keepalive 8; }}"
        + conf("kept", "proxy_pass_trailers on;"))
    sent = threading.Event()

    def chunks(count: int) -> bytes:
        return head + (b"3e8\r\n" + b"c" * 1000 + b"\r\n") * count + b"0\r\n" + trailers + b"\r\n"

    def whole(body: bytes) -> Iterator[bytes]:
        yield body
        sent.set()

    upstream.answer = lambda _: chunks(8000)     # the window grows: all of the next ones fits it
    with gateway.client() as client:
        assert client.get("/up").is_whole
        for count in range(160, 200, 3):
            body = chunks(count)
            upstream.answer = lambda _, body=body: whole(body)
            sent.clear()
            held = len(upstream.requests)
            client.send("GET /up HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
            upstream.wait(held + 1)
            for pid in gateway.workers():        # it finds all of it at once
                os.kill(pid, signal.SIGSTOP)
            sent.wait(1)
            time.sleep(0.05)
            for pid in gateway.workers():
                os.kill(pid, signal.SIGCONT)
            got = client.read()
            assert got.is_whole and got.body == b"c" * 1000 * count, count
            assert len(got.trailers) == 12, count


def test_a_value_of_ours_cannot_end_a_field(headrace, upstream):
    gateway = headrace(conf(
        upstream.address, "proxy_set_header X-Up $uri;",
        "add_header X-Down $uri always; location /to { return 302 http://a$uri; }",
    ))
    for target in ("/to/%0d%0aX-Evil:%20yes", "/up/%0d%0aX-Evil:%20yes%0d%0a%0d%0aGET%20/x"):
        got = gateway.get(target)
        assert got.get("x-evil") is None
    assert all(it.get("x-evil") is None for it in upstream.requests)
    assert len(upstream.requests) <= 1


def test_thousands_of_pipelined_requests_are_answered_one_by_one(headrace, upstream):
    gateway = headrace(conf(upstream.address, "", "keepalive_requests 100000;"))
    count = 20_000
    with gateway.client(timeout_s=30) as client:
        sender = threading.Thread(
            target=client.send, args=(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n" * count,)
        )
        sender.start()
        for _ in range(count):
            assert client.read().text == "fine"
        sender.join()

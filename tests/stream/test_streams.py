"""A session carries bytes both ways, ends as its sides end, and counts what it holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import threading
from pathlib import Path

import pytest
from gateway import wait_for
from peers import Peer, echo, read_all
from ports import free_port

CONF = """
stream {
    %(more)s
    server { listen 127.0.0.1:%%%%PORT%%%%; proxy_pass %(to)s; %(inside)s }
}
"""


@pytest.fixture
def peer():
    made = []

    def make(serve=echo, **how):
        made.append(Peer(serve, **how))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def stream(headrace):
    def make(to: str, inside: str = "", more: str = "", main: str = ""):
        return headrace(main=main + CONF % {"to": to, "inside": inside, "more": more})

    return make


def dial(gateway, number: int = 0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.ports[number]), timeout=10)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_bytes_go_both_ways(stream, peer) -> None:
    to = peer()
    gateway = stream(f"127.0.0.1:{to.port}")
    with dial(gateway) as sock:
        for piece in (b"a", b"bc" * 100, os.urandom(50_000)):
            sock.sendall(piece)
            got = b""
            while len(got) < len(piece):
                got += sock.recv(65536)
            assert got == piece
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert to.count == 1
    wait_for(lambda: "client disconnected, bytes from/to client:50201/50201, "
                     "bytes from/to upstream:50201/50201" in gateway.error_log)  # fmt: skip


@pytest.mark.parametrize("is_upload", [False, True])
def test_a_large_body_arrives_whole(stream, peer, is_upload) -> None:
    data = os.urandom(1 << 20) * 48
    got = []

    def serve(sock: socket.socket) -> None:
        if is_upload:
            digest, size = hashlib.sha256(), 0
            while size < len(data) and (piece := sock.recv(1 << 20)):
                digest.update(piece)
                size += len(piece)
            got.append(digest.digest())
            sock.sendall(b"done")
        else:
            sock.sendall(data)

    gateway = stream(f"127.0.0.1:{peer(serve).port}")
    with dial(gateway) as sock:
        if is_upload:
            sock.sendall(data)
            assert sock.recv(10) == b"done"
        else:
            got.append(hashlib.sha256(read_all(sock)).digest())
    assert got == [hashlib.sha256(data).digest()]


@pytest.mark.parametrize("is_upload", [False, True])
def test_bursts_are_spliced(headrace, peer, is_upload) -> None:
    """A worker has a pipe while it does."""
    done = threading.Event()

    def pour(sock: socket.socket) -> None:
        piece = bytes(1 << 20)
        with contextlib.suppress(OSError):
            while not done.is_set():
                sock.sendall(piece)

    def drain(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            pass

    far, other = peer(drain if is_upload else pour), peer()
    gateway = headrace(
        main="stream { "
        f"server {{ listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{far.port}; }} "
        f"server {{ listen 127.0.0.1:%%PORT_1%%; proxy_pass 127.0.0.1:{other.port}; }} }}"
    )
    with dial(gateway, 1) as sock:                         # small pieces: it has all that it opens
        for _ in range(50):
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    [worker] = gateway.workers()

    def pipes() -> int:
        found = 0
        for name in os.listdir(f"/proc/{worker}/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/{worker}/fd/{name}").startswith("pipe:")
        return found

    before = pipes()
    with dial(gateway) as sock:
        mover = threading.Thread(target=pour if is_upload else drain, args=(sock,))
        mover.start()
        try:
            wait_for(lambda: pipes() > before)
        finally:
            done.set()
            if is_upload:
                mover.join()
                sock.shutdown(socket.SHUT_RDWR)
            mover.join()


def test_both_ways_at_once(stream, peer) -> None:
    gateway = stream(f"127.0.0.1:{peer().port}", "proxy_half_close on;")
    data = os.urandom(1 << 20) * 16
    with dial(gateway) as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = read_all(sock)
        sender.join()
    assert got == data


def test_a_slow_reader_stops_the_sender(stream, peer) -> None:
    """What lies in the gateway is bounded, however much the upstream would send."""
    sent = [0]

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        piece = b"x" * 65536
        while sent[0] < 256 << 20:
            sock.sendall(piece)
            sent[0] += len(piece)

    gateway = stream(f"127.0.0.1:{peer(serve).port}")
    wait_for(gateway.workers)                    # it has its title by then
    pid = gateway.workers()[0]

    def held() -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    with dial(gateway) as sock:
        sock.recv(1)
        before, last = held(), -1
        while sent[0] != last:
            last = sent[0]
            threading.Event().wait(0.3)
        assert last < 64 << 20
        assert held() - before < 4 << 20
        count = 1
        while count < 100 << 20:
            count += len(sock.recv(1 << 20))


def test_half_close_is_passed_on_both_ways(stream, peer) -> None:
    def serve(sock: socket.socket) -> None:
        said = read_all(sock)  # until the client's FIN
        sock.sendall(b"you said " + said)

    gateway = stream(f"127.0.0.1:{peer(serve).port}", "proxy_half_close on;")
    with dial(gateway) as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"you said hello"

    heard = []

    def hang_up(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    gateway = stream(f"127.0.0.1:{peer(hang_up).port}", "proxy_half_close on;")
    with dial(gateway) as sock:
        assert read_all(sock) == b"bye"
        sock.sendall(b"still here")
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: heard == [b"still here"])


def test_without_half_close_one_end_ends_both(stream, peer) -> None:
    ended = []
    gateway = stream(f"127.0.0.1:{peer(lambda sock: ended.append(read_all(sock))).port}")
    with dial(gateway) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    wait_for(lambda: ended == [b"last words"])


def test_a_reset_becomes_a_reset(stream, peer) -> None:
    met = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"x")
        try:
            met.append(sock.recv(10))
        except ConnectionResetError:
            met.append("reset")

    gateway = stream(f"127.0.0.1:{peer(serve).port}")
    sock = dial(gateway)
    assert sock.recv(1) == b"x"
    reset(sock)
    wait_for(lambda: met == ["reset"])

    def refuse(sock: socket.socket) -> None:
        sock.recv(1)
        reset(sock)

    gateway = stream(f"127.0.0.1:{peer(refuse).port}")
    with dial(gateway) as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            sock.recv(10)


def test_the_next_server_is_asked_and_a_dead_one_is_left_alone(stream, peer) -> None:
    to, other = peer(), peer()
    dead = free_port()
    gateway = stream(
        "u",
        more=f"upstream u {{ server 127.0.0.1:{dead}; server 127.0.0.1:{to.port}; "
        f"server 127.0.0.1:{other.port} weight=2; }} "
        "log_format f '$upstream_addr $status $bytes_received/$bytes_sent $protocol';"
        "access_log logs/access.log f;",
    )
    for _ in range(9):
        with dial(gateway) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    assert (to.count, other.count) == (3, 6)
    wait_for(lambda: len(gateway.log()) == 9)
    tries = [line for line in gateway.log() if f"127.0.0.1:{dead}, 127.0.0.1" in line]
    assert len(tries) == 1
    assert all(line.endswith(" 200 1/1 TCP") for line in gateway.log())
    assert "connect() failed (111: Connection refused) while connecting to upstream, " \
           "client: 127.0.0.1, server: 127.0.0.1:" in gateway.error_log  # fmt: skip


def test_a_peer_that_takes_connections_again_gets_them_at_once(stream, peer) -> None:
    """Before the first of its sessions ends."""
    port = free_port()
    other = peer()
    gateway = stream(
        "u",
        more=f"upstream u {{ server 127.0.0.1:{port} fail_timeout=1s; "
        f"server 127.0.0.1:{other.port} backup; }}",
    )

    def session() -> socket.socket:
        sock = dial(gateway)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        return sock

    session().close()
    assert other.count == 1
    back = peer(port=port)
    held = []

    def is_asked() -> bool:
        held.append(session())
        return back.count > 0

    wait_for(is_asked)
    before = other.count
    held += [session() for _ in range(5)]
    assert (back.count, other.count) == (6, before)
    for sock in held:
        sock.close()


def test_nobody_to_ask_is_told_and_the_client_is_let_go(stream) -> None:
    dead = free_port()
    gateway = stream(
        f"127.0.0.1:{dead}", more="log_format s $status; access_log logs/access.log s;"
    )
    with dial(gateway) as sock:
        assert read_all(sock) == b""
    wait_for(lambda: gateway.log() == ["502"])


def test_next_upstream_off_asks_one(stream, peer) -> None:
    to = peer()
    dead = free_port()
    gateway = stream(
        "u", "proxy_next_upstream off;",
        f"upstream u {{ server 127.0.0.1:{dead}; server 127.0.0.1:{to.port} backup; }}",
    )  # fmt: skip
    with dial(gateway) as sock:
        assert read_all(sock) == b""
    assert to.count == 0


def test_a_hash_keeps_a_client_at_its_server(stream, peer) -> None:
    peers = [peer() for _ in range(4)]
    servers = " ".join(f"server 127.0.0.1:{it.port};" for it in peers)
    gateway = stream("u", more=f"upstream u {{ hash $remote_addr consistent; {servers} }}")
    for _ in range(6):
        with dial(gateway) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    assert sorted(it.count for it in peers) == [0, 0, 0, 6]


def test_limit_conn_is_exact(stream, peer) -> None:
    gateway = stream(
        f"127.0.0.1:{peer().port}", "limit_conn z 3;",
        "limit_conn_zone $binary_remote_addr zone=z:1m;"
        "log_format s '$status $limit_conn_status'; access_log logs/access.log s;",
        "worker_processes 2;",
    )  # fmt: skip

    def works(sock: socket.socket) -> bool:
        try:
            sock.sendall(b"x")
            return sock.recv(1) == b"x"
        except ConnectionError:
            return False

    count = 0
    for _ in range(3):
        held = [dial(gateway) for _ in range(3)]
        assert all(works(sock) for sock in held)
        for _ in range(5):
            with dial(gateway) as sock:
                assert not works(sock)
        for sock in held:
            sock.close()
        count += 3
        wait_for(lambda: sum("200" in line for line in gateway.log()) == count)  # noqa: B023
    assert gateway.log().count("503 REJECTED") == 15
    assert 'limiting connections by zone "z"' in gateway.error_log


def test_who_is_denied_is_let_go(stream, peer) -> None:
    to = peer()
    gateway = stream(
        f"127.0.0.1:{to.port}", "deny 127.0.0.0/8; allow all;",
        "log_format s $status; access_log logs/access.log s;",
    )  # fmt: skip
    with dial(gateway) as sock:
        assert read_all(sock) == b""
    wait_for(lambda: gateway.log() == ["403"])
    assert "access forbidden by rule" in gateway.error_log
    assert to.count == 0


def test_silence_ends_a_session_and_is_named(stream, peer) -> None:
    gateway = stream(f"127.0.0.1:{peer().port}", "proxy_timeout 300ms;")
    with dial(gateway) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert read_all(sock) == b""
    assert "connection timed out (110: Connection timed out) while proxying connection, client: " \
           "127.0.0.1, server: 127.0.0.1:" in gateway.error_log  # fmt: skip


def test_return_answers_with_a_text(headrace) -> None:
    gateway = headrace(
        main="stream { map $server_port $said { %%PORT%% 'first'; default 'other'; } "
        "server { listen 127.0.0.1:%%PORT%%; listen 127.0.0.1:%%PORT_1%%; "
        "return '$said $remote_addr'; } }",
        http="map $host $said { default http; } server { listen 127.0.0.1:%%PORT_2%%; "
        "return 200 $said; }",
    )
    assert read_all(dial(gateway)) == b"first 127.0.0.1"
    assert read_all(dial(gateway, 1)) == b"other 127.0.0.1"
    assert gateway.get("/", port=gateway.ports[2]).text == "http"  # maps are apart


def test_set_gives_variables_values_in_order(headrace, peer) -> None:
    """Also to one that a map made; another server's stay as they were."""
    to = peer()
    gateway = headrace(
        main="stream { map $server_port $of_map { default map; } "
        "server { listen 127.0.0.1:%%PORT%%; return $a,$b,$of_map; "
        "set $a $of_map-$b; set $b '$remote_addr:$a'; set $of_map new; set $a $b; } "
        "server { listen 127.0.0.1:%%PORT_1%%; return $a,$b,$of_map; } "
        f"server {{ listen 127.0.0.1:%%PORT_2%%; set $to 127.0.0.1:{to.port}; proxy_pass $to; }} }}"
    )
    assert read_all(dial(gateway)) == b"127.0.0.1:map-,127.0.0.1:map-,new"
    assert read_all(dial(gateway, 1)) == b",,map"
    with dial(gateway, 2) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_a_variable_says_where_to(headrace, peer) -> None:
    to = peer()
    gateway = headrace(
        main="stream { upstream named { server 127.0.0.1:@TO@; } "
        "map $server_port $where { %%PORT%% named; %%PORT_1%% 127.0.0.1:@TO@; default nowhere; } "
        "server { listen 127.0.0.1:%%PORT%%; listen 127.0.0.1:%%PORT_1%%; "
        "listen 127.0.0.1:%%PORT_2%%; proxy_pass $where; } }".replace("@TO@", str(to.port))
    )
    for number in (0, 1):
        with dial(gateway, number) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    with dial(gateway, 2) as sock:
        assert read_all(sock) == b""


def test_a_session_lives_on_over_a_reload_and_ends_at_the_limit(stream, peer) -> None:
    to = peer()
    gateway = stream(f"127.0.0.1:{to.port}", main="worker_shutdown_timeout 2s;")
    old = gateway.workers()
    with dial(gateway) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: len(gateway.workers()) == 2)
        with dial(gateway) as another:
            another.sendall(b"y")
            assert another.recv(1) == b"y"
        sock.sendall(b"z")
        assert sock.recv(1) == b"z"
        assert set(old) <= set(gateway.workers())
        assert sock.recv(1) == b""  # worker_shutdown_timeout
    wait_for(lambda: not set(old) & set(gateway.workers()))


def test_a_leaving_worker_waits_for_its_last_session(stream, peer) -> None:
    gateway = stream(f"127.0.0.1:{peer().port}")
    old = gateway.workers()
    with dial(gateway) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: len(gateway.workers()) == 2)
    wait_for(lambda: not set(old) & set(gateway.workers()))


def test_worker_connections_count_both_sides(headrace, peer) -> None:
    to = peer()
    gateway = headrace(
        main="events { worker_connections 16; } stream { server { "
        f"listen 127.0.0.1:%%PORT%%; proxy_pass 127.0.0.1:{to.port}; }} }}"
    )
    socks = [dial(gateway) for _ in range(12)]
    for sock in socks:
        sock.sendall(b"x")
    for sock in socks[:6]:
        assert sock.recv(1) == b"x"
    wait_for(lambda: "worker_connections are not enough" in gateway.error_log)
    assert to.count <= 9
    for sock in socks[:6]:
        sock.close()
    for sock in socks[6:]:
        assert sock.recv(1) == b"x"
        sock.close()


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("stream { server { proxy_pass 127.0.0.1:1; } }", 'no "listen" is defined for server in'),
        ("stream { server { listen 1; proxy_pass 127.0.0.1; } }",
         'no port in upstream "127.0.0.1"'),
        ("stream { server { listen 1; proxy_pass u; } }", 'no port in upstream "u"'),
        ("stream { upstream u { server 127.0.0.1; } }", 'no port in upstream "127.0.0.1"'),
        ("stream { upstream u { server 127.0.0.1:1; } server { listen 1; proxy_pass u:1; } }",
         'upstream "u" may not have port 1'),
        ("stream { server { listen 127.0.0.1; proxy_pass 127.0.0.1:1; } }", 'no port in "127.0'),
        ("stream { server { listen 1 udp; proxy_pass 127.0.0.1:1; } }", 'the "udp" parameter'),
        ("stream { server { listen 1; set a b; } }", 'invalid variable name "a"'),
        ("stream { server { listen 1; set $pid b; } }", 'the duplicate "pid" variable'),
        ("stream { server { listen 1; return $host; } }", 'unknown "host" variable'),
        ("stream { server { listen 1; root /; } }", '"root" directive is not allowed here'),
        ("stream { server { listen 1 ssl; return x; } }", 'no "ssl_certificate" is defined'),
        ("stream { server { listen 1; listen 1; return x; } }", "a duplicate listen 0.0.0.0:1"),
        ("stream { server { listen 1 default_server; return x; } "
         "server { listen 1 default_server; return y; } }", "a duplicate default server for"),
        ("stream { limit_conn_zone $remote_addr zone=z:1m; } "
         "http { limit_conn_zone $host zone=z:1m; }",
         'the shared memory zone "z" is already declared for a different use'),
        ("stream { } stream { }", '"stream" directive is duplicate'),
    ],
)  # fmt: skip
def test_what_a_conf_says_wrong_is_told(tmp_path, inside, said) -> None:
    from gateway import run

    (tmp_path / "c").write_text("events { } " + inside)
    done = run("-t", "-p", str(tmp_path), "-c", "c", "-e", "stderr")
    assert done.returncode == 1
    assert said in done.stderr


def test_a_log_s_name_may_hold_variables(headrace) -> None:
    gateway = headrace(
        main="stream { log_format s 'said $status'; server { listen 127.0.0.1:%%PORT%%; return x;"
        " access_log logs/a$bytes_sent.log s; } }"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        assert read_all(sock) == b"x"
    path = gateway.prefix / "logs" / "a1.log"
    wait_for(lambda: path.exists() and path.read_text() == "said 200\n")

"""Checks of health: who does not answer well is left out, in all workers, until he does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from gateway import Gateway, run, wait_for

CONF = """
    upstream u { zone u 256k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; CHECK; }
    server { listen %%PORT%%;
        location / { proxy_pass http://u; proxy_next_upstream off; }
        location /metrics { metrics; } }
"""


class Backend:
    """An HTTP/1.1 server that says its name, and `status` where its health is asked."""

    def __init__(self, name: str) -> None:
        self.name, self.status, self.asked = name, 200, 0
        self.is_reached = threading.Event()
        self.hosts: set[str] = set()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.sock.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                head = b"".join(iter(lines.readline, b"\r\n"))
                status = 200
                if b"/health" in line:
                    self.asked += 1
                    self.hosts.add(head.decode().partition("Host: ")[2].partition("\r")[0])
                    self.is_reached.set()
                    status = self.status
                connection.sendall(
                    f"HTTP/1.1 {status} x\r\nContent-Length: {len(self.name)}\r\n\r\n{self.name}"
                    .encode()
                )  # fmt: skip

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


@pytest.fixture
def pair() -> Iterator[tuple[Backend, Backend]]:
    both = Backend("a"), Backend("b")
    yield both
    for it in both:
        it.close()


def conf(pair: tuple[Backend, Backend], check: str) -> str:
    text = CONF.replace("%%A%%", str(pair[0].port)).replace("%%B%%", str(pair[1].port))
    return text.replace("CHECK", check)


def who(gateway: Gateway, times: int = 20) -> set[str]:
    """Whose answers come, by name; "502" where there is none."""
    answers = [gateway.get("/") for _ in range(times)]
    return {it.body.decode() if it.status == 200 else str(it.status) for it in answers}


def wait_until(is_so: Callable[[], bool]) -> None:
    wait_for(is_so, 30)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_answers_badly_is_left_out_until_he_answers_well(headrace, pair, workers) -> None:
    a, b = pair
    gateway = headrace(
        conf(pair, "health_check uri=/health interval=50ms"),
        main=f"worker_processes {workers};",
    )
    wait_until(lambda: who(gateway) == {"a", "b"})
    a.status = 503
    wait_until(lambda: who(gateway, 40) == {"b"})
    assert f"127.0.0.1:{a.port} of upstream" in gateway.said
    assert "is unhealthy: status 503" in gateway.said
    up = 'headrace_upstream_peer_up{upstream="u",peer="127.0.0.1:'
    assert f'{up}{a.port}"}} 0' in gateway.get("/metrics").body.decode()
    a.status = 200
    wait_until(lambda: who(gateway) == {"a", "b"})
    assert a.hosts == {"u"}
    b.status = a.status = 404
    wait_until(lambda: who(gateway) == {"502"})


def test_one_worker_asks_for_all(headrace, pair) -> None:
    gateway = headrace(
        conf(pair, "health_check uri=/health interval=60s"), main="worker_processes 4;"
    )
    wait_until(lambda: pair[0].asked == pair[1].asked == 1)
    assert len(gateway.workers()) == 4
    assert who(gateway) == {"a", "b"}                         # all of them serve by now
    assert pair[0].asked == pair[1].asked == 1


def test_another_takes_over_when_the_asking_worker_leaves(headrace, pair) -> None:
    text = conf(pair, "health_check uri=/health interval=50ms")
    gateway = headrace(text, main="worker_processes 2;")
    wait_until(lambda: pair[0].asked > 0)
    gateway.reload()
    pair[0].status = 500
    wait_until(lambda: who(gateway, 40) == {"b"})
    # what was found holds over a reload, and is forgotten where nobody asks any more
    gateway.reload()
    wait_until(lambda: who(gateway, 40) == {"b"})
    gateway.write_conf(conf(pair, "keepalive 1"), main="worker_processes 2;")
    gateway.reload()
    wait_until(lambda: who(gateway, 40) == {"a", "b"})


def test_fails_and_passes_count_in_a_row(headrace, pair) -> None:
    a, _ = pair
    a.status = 500
    gateway = headrace(conf(pair, "health_check uri=/health interval=30ms fails=3 passes=2"))
    wait_until(lambda: who(gateway) == {"b"})
    assert a.asked >= 3
    asked = a.asked
    a.status = 200
    wait_until(lambda: who(gateway) == {"a", "b"})
    assert a.asked >= asked + 2


def test_mandatory_leaves_out_who_was_never_asked(headrace, pair) -> None:
    a, _ = pair
    silent = socket.create_server(("127.0.0.1", 0))           # it accepts, and never answers
    text = conf(pair, "health_check uri=/health interval=60s timeout=50s mandatory")
    with silent:
        text = text.replace(str(a.port), str(silent.getsockname()[1]))
        gateway = headrace(text)
        wait_until(lambda: who(gateway) == {"b"})


def test_a_port_that_accepts_is_enough_for_tcp(headrace, pair) -> None:
    a, b = pair
    gateway = headrace(conf(pair, f"health_check type=tcp interval=50ms port={b.port}"))
    a.close()
    wait_until(lambda: who(gateway) == {"b", "502"})          # the port that is asked is another's
    gateway.write_conf(conf(pair, "health_check type=tcp interval=50ms"))
    gateway.reload()
    wait_until(lambda: who(gateway) == {"b"})


def test_a_stream_upstream_is_checked_too(headrace, pair) -> None:
    a, b = pair
    a.close()
    gateway = headrace("", main=f"""stream {{
        upstream s {{ zone s 256k; server 127.0.0.1:{a.port} max_fails=0; server 127.0.0.1:{b.port};
                      health_check interval=50ms; }}
        server {{ listen %%PORT_1%%; proxy_pass s; proxy_next_upstream off; }} }}""")  # fmt: skip
    wait_until(lambda: f"127.0.0.1:{a.port} of upstream \"s\" is unhealthy" in gateway.said)
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", gateway.ports[1]), 10) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(100).endswith(b"b")


WRONG = {
    "no zone": ("upstream u { server a:1; health_check; }", "to be in shared memory"),
    "type": ("upstream u { zone z 64k; server a:1; health_check type=udp; }", "invalid type"),
    "uri of gRPC": ("upstream u { zone z 64k; server a:1; health_check type=grpc uri=/; }",
                    '"uri" needs type=http'),
    "service of HTTP": ("upstream u { zone z 64k; server a:1; health_check grpc_service=a; }",
                        '"grpc_service" needs type=grpc'),
    "interval": ("upstream u { zone z 64k; server a:1; health_check interval=0; }",
                 'invalid parameter "interval=0"'),
    "status": ("upstream u { zone z 64k; server a:1; health_check status=2xx; }",
               'invalid parameter "status=2xx"'),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_the_conf_may_not_say(headrace, name: str) -> None:
    text, message = WRONG[name]
    gateway = headrace(text, start=False)
    said = run("-t", "-p", str(gateway.prefix), "-c", str(gateway.conf))
    assert said.returncode == 1
    assert message in said.stderr

"""What clients that keep their connection see of a worker that leaves."""

from __future__ import annotations

import signal
import socket
import threading
import time

from gateway import wait_for

CONF = """
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { return 200 fine; }
    }
"""


def test_a_busy_connection_is_told_with_its_last_answer(headrace):
    gateway = headrace(CONF)
    with gateway.client() as client:
        assert client.get("/").get("connection") != "close"
        old = gateway.workers()
        stop = threading.Timer(0.3, gateway.signal, [1])
        stop.start()
        while True:
            answer = client.get("/")             # a close without a word would raise
            assert answer.text == "fine"
            if answer.get("connection") == "close":
                break
        assert client.is_closed()
    wait_for(lambda: not set(old) & set(gateway.workers()), 10)


def test_a_quiet_connection_ends_cleanly_also_when_a_request_crosses_it(headrace):
    """Nothing of what comes behind the FIN is answered with a reset."""
    gateway = headrace(CONF)
    clients = [gateway.client() for _ in range(20)]
    for client in clients:
        assert client.get("/").text == "fine"
    time.sleep(1.2)                              # longer than one that was busy is kept for
    gateway.signal(1)
    wait_for(lambda: all(peek(client) for client in clients), 10)
    for client in clients:
        client.send("GET /crosses HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.005)
        assert client.sock.recv(100) == b"", "an end, no reset"
        client.close()


def test_who_connected_before_a_worker_was_ready_is_answered_though_it_leaves(headrace):
    """The order to leave comes before the first accept: sockets that close would reset them."""
    rows = "".join(f"location /{n}/ {{ return 200 many; }}" for n in range(2000))
    gateway = headrace(CONF.replace("location", rows + "location", 1))  # takes a while to read
    clients = [gateway.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)]
    gateway.signal(signal.SIGQUIT)
    for client in clients:
        answer = client.read()
        assert (answer.text, answer.get("connection")) == ("fine", "close")
        client.close()
    assert gateway.process.wait(10) == 0


def test_a_reload_asked_for_as_soon_as_it_listens_is_made(headrace):
    gateway = headrace(CONF, start=False)

    def ask() -> None:
        while gateway.process is None or not accepts(gateway.port):
            time.sleep(0.001)
        gateway.signal(1)

    asking = threading.Thread(target=ask)
    asking.start()
    gateway.start()
    asking.join()
    wait_for(lambda: "reconfiguring" in gateway.error_log, 10)
    assert gateway.get("/").text == "fine"


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def peek(client) -> bool:
    """Did its FIN come?"""
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1, 2) == b""     # MSG_PEEK
    except BlockingIOError:
        return False
    finally:
        client.sock.settimeout(10)

"""Early data (0-RTT): taken where the conf allows it, told of, and never where it does not."""

from __future__ import annotations

import dataclasses
import datetime
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from gateway import Gateway, wait_for
from h3client import H3Client, Response
from recorder import answer

LOCATIONS = """
    location / { return 200 '[$ssl_early_data] $ssl_session_reused'; }
    location = /unsafe { if ($ssl_early_data) { return 425; } return 200 done; }
"""
MOST = 0xFFFFFFFF


def ticket_of(port: int):
    """What a first connection is given."""
    with H3Client(port) as client:
        assert client.get().text == "[] ."
        client.run(lambda: client.tickets)
        return client.tickets[0]


def ask_early(port: int, ticket, target: str = "/", **more) -> tuple[H3Client, Response]:
    """A request that leaves before the server has said anything."""
    client = H3Client(port, connect=False, session_ticket=ticket)
    client.http = client.make_messages()
    number = client.ask(target, **more)
    assert client.quic._streams[number].sender.highest_offset  # it is on its way
    return client, client.read(number)


def test_a_request_before_the_handshake_is_over(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on;")
    ticket = ticket_of(gateway.port)
    assert ticket.max_early_data_size == MOST
    client, response = ask_early(gateway.port, ticket)
    with client:
        assert response.text == "[1] r"
        client.connect()
        assert client.get().text == "[] r"


def test_who_may_not_take_it_says_so(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on;")
    ticket = ticket_of(gateway.port)
    client, response = ask_early(gateway.port, ticket, "/unsafe")
    with client:
        assert response.status == 425
        client.connect()
        assert client.get("/unsafe", method="POST", body=b"x").text == "done"


def told(upstream) -> str:
    """Locations: a first connection gets its ticket, the rest goes to the upstream."""
    return f"""location = / {{ return 200 '[] .'; }}
               location /up {{ client_max_body_size 1m; proxy_pass http://{upstream.address}; }}"""


def test_upstreams_are_told_what_is_early(quic, upstream) -> None:
    gateway = quic(told(upstream), "ssl_early_data on;")
    for fields in ([], [("early-data", "1")]):
        client, response = ask_early(gateway.port, ticket_of(gateway.port), "/up", fields=fields)
        with client:
            assert response.status == 200
            assert upstream.last.get_all("early-data") == ["1"]
            client.connect()
            client.get("/up")
            assert upstream.last.get("early-data") is None


def test_an_answer_of_425_comes_to_who_asked(quic, upstreams) -> None:
    upstream = upstreams(lambda it: answer(b"", 425 if it.get("early-data") else 200))
    gateway = quic(told(upstream), "ssl_early_data on;")
    client, response = ask_early(gateway.port, ticket_of(gateway.port), "/up")
    with client:
        assert response.status == 425
        client.connect()
        assert client.get("/up").status == 200


def test_what_is_not_safe_waits_for_the_end_of_the_handshake(quic, upstream) -> None:
    gateway = quic(told(upstream), "ssl_early_data on;")
    client = H3Client(gateway.port, connect=False, session_ticket=ticket_of(gateway.port))
    client.http = client.make_messages()
    body = bytes(i % 233 for i in range(2000))
    posted = client.ask("/up/posted", method="POST", body=body, end=False)
    got = client.ask("/up/got")                              # what follows it does not wait
    with client:
        wait_for(lambda: upstream.requests)
        assert [it.target for it in upstream.requests] == ["/up/got"]
        client.connect()
        client.send(posted, body, end=True)
        assert client.read(posted).status == client.read(got).status == 200
    assert [it.target for it in upstream.requests] == ["/up/got", "/up/posted"]
    assert upstream.last.body == body + body
    assert upstream.last.get("early-data") is None


def test_what_waits_may_be_taken_back(quic, upstream) -> None:
    gateway = quic(told(upstream), "ssl_early_data on;")
    client = H3Client(gateway.port, connect=False, session_ticket=ticket_of(gateway.port))
    client.http = client.make_messages()
    posted = client.ask("/up/posted", method="POST", body=b"x", end=False)
    client.quic.reset_stream(posted, 0x10C)
    client.flush()
    with client:
        client.connect()
        assert client.read(posted).code == 0x10C
        assert client.get("/up/got").status == 200
    assert [it.target for it in upstream.requests] == ["/up/got"]


class Overheard(H3Client):
    """Keeps what it sends."""

    def __init__(self, port: int, **more: Any) -> None:
        self.sent: list[bytes] = []
        super().__init__(port, **more)

    def flush(self) -> None:
        for data, to in self.quic.datagrams_to_send(now=time.monotonic()):
            self.sent.append(data)
            self.sock.sendto(data, to)


def test_who_sends_again_what_he_saw_gets_nothing_done_twice(
    certificates: Path, tmp_path: Path, upstream
) -> None:
    gateway = Gateway(tmp_path, f"""
        ssl_certificate {certificates}/a.crt; ssl_certificate_key {certificates}/a.key;
        server {{ listen 127.0.0.1:%%PORT%% quic; ssl_early_data on; {told(upstream)} }}""").start()
    client = Overheard(gateway.port, connect=False, session_ticket=ticket_of(gateway.port))
    client.http = client.make_messages()
    number = client.ask("/up/posted", method="POST", body=b"pay")
    with client:
        assert client.read(number).status == 200
    (before,) = gateway.workers()
    os.kill(before, signal.SIGKILL)                          # nobody knows its ids any more
    wait_for(lambda: gateway.workers() not in ([], [before]))
    asked = len(upstream.requests)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in client.sent:
            sock.sendto(data, client.to)
        sock.settimeout(10)
        sock.recv(65536)                                     # it is taken for a new handshake …
        with H3Client(gateway.port) as other:
            assert other.get("/up/other").status == 200
    gateway.stop()
    assert [it.target for it in upstream.requests[asked:]] == ["/up/other"]


def test_what_is_older_than_it_says_is_no_early_data(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on;")
    ticket = ticket_of(gateway.port)
    before = ticket.not_valid_before - datetime.timedelta(seconds=60)
    ticket = dataclasses.replace(ticket, not_valid_before=before)
    client, response = ask_early(gateway.port, ticket)
    with client:
        assert response.text == "[] ."                       # sent again when it was safe


def test_a_body_that_begins_early(quic, upstream) -> None:
    gateway = quic(f"location / {{ return 200 '[] .'; }} location /up {{ client_max_body_size 1m; "
                   f"proxy_pass http://{upstream.address}; }}", "ssl_early_data on;")  # fmt: skip
    body = bytes(i % 231 for i in range(300_000))
    client, response = ask_early(gateway.port, ticket_of(gateway.port), "/up", method="POST",
                                 body=body)  # fmt: skip
    with client:
        assert response.status == 200
    assert upstream.last.body == body


def test_none_is_taken_where_it_is_off(quic) -> None:
    gateway = quic(LOCATIONS)
    ticket = ticket_of(gateway.port)
    assert ticket.max_early_data_size is None
    ticket = dataclasses.replace(ticket, max_early_data_size=MOST)
    client, response = ask_early(gateway.port, ticket)
    with client:
        assert response.text == "[] ."                       # sent again when it was safe


def test_a_reload_that_forbids_it(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on;")
    ticket = ticket_of(gateway.port)
    gateway.conf.write_text(gateway.conf.read_text().replace("early_data on", "early_data off"))
    gateway.reload()
    client, response = ask_early(gateway.port, ticket)
    with client:
        assert response.text == "[] ."


def test_limits_that_became_smaller_are_not_remembered(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on; http3_stream_buffer_size 64k;")
    ticket = ticket_of(gateway.port)
    gateway.conf.write_text(gateway.conf.read_text().replace("size 64k", "size 16k"))
    gateway.reload()
    client, response = ask_early(gateway.port, ticket, method="POST", body=bytes(10_000))
    with client:
        assert response.text == "[] ."


def test_a_client_that_never_ends_its_handshake_is_forgotten(quic) -> None:
    gateway = quic(LOCATIONS, "ssl_early_data on; client_header_timeout 1s;")
    ticket = ticket_of(gateway.port)
    for _ in range(3):
        client = H3Client(gateway.port, connect=False, session_ticket=ticket)
        client.http = client.make_messages()
        client.ask()
        client.sock.close()
    gateway.signal(3)                                        # nobody of them keeps the worker
    assert gateway.process.wait(15) == 0

"""Early data (0-RTT): taken where the conf allows it, told of, and never where it does not."""

from __future__ import annotations

import dataclasses

from h3client import H3Client, Response

LOCATIONS = """
    location / { return 200 '[$ssl_early_data] $ssl_session_reused'; }
    location /unsafe { if ($ssl_early_data) { return 425; } return 200 done; }
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
    client, response = ask_early(gateway.port, ticket, "/unsafe", method="POST", body=b"x")
    with client:
        assert response.status == 425
        client.connect()
        assert client.get("/unsafe", method="POST", body=b"x").text == "done"


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

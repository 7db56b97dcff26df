"""TLS sessions of HTTP/3 are resumed: by any worker, over a reload, and not where they must not."""

from __future__ import annotations

import dataclasses
import datetime
import os
from pathlib import Path

import pytest
from gateway import wait_for
from h3client import H3Client

TOLD = "location / { return 200 '$ssl_session_reused $ssl_server_name $pid'; }"


def ticket_of(port: int, name: str = "a.test"):
    """What a first connection is given."""
    with H3Client(port, name=name) as client:
        assert client.get().text.startswith(f". {name} ")
        client.run(lambda: client.tickets)
        return client.tickets[0]


def is_resumed(port: int, ticket, name: str = "a.test") -> bool:
    with H3Client(port, name=name, session_ticket=ticket) as client:
        said = client.get().text
        assert said.split()[0] == ("r" if client.is_resumed else ".")
        return client.is_resumed


def test_a_session_is_resumed_by_any_worker_and_over_a_reload(quic) -> None:
    gateway = quic(TOLD, main="worker_processes 3;")
    wait_for(lambda: len(gateway.workers()) == 3)
    ticket = ticket_of(gateway.port)
    assert ticket.max_early_data_size is None                # nobody may send early data
    for _ in range(6):
        assert is_resumed(gateway.port, ticket)
    gateway.reload()
    assert is_resumed(gateway.port, ticket)


def test_a_resumed_session_gets_a_ticket_too(quic) -> None:
    gateway = quic(TOLD)
    with H3Client(gateway.port, session_ticket=ticket_of(gateway.port)) as client:
        assert client.get().status == 200
        client.run(lambda: client.tickets)
    assert is_resumed(gateway.port, client.tickets[0])


@pytest.mark.parametrize("at", [0, 3, 4, 16, 40, -1])
def test_a_ticket_that_was_changed_begins_anew(quic, at: int) -> None:
    gateway = quic(TOLD)
    ticket = ticket_of(gateway.port)
    changed = bytearray(ticket.ticket)
    changed[at] ^= 1
    assert not is_resumed(gateway.port, dataclasses.replace(ticket, ticket=bytes(changed)))
    assert not is_resumed(gateway.port, dataclasses.replace(ticket, ticket=os.urandom(60)))
    assert not is_resumed(gateway.port, dataclasses.replace(ticket, ticket=b"x"))


def test_a_secret_that_is_not_the_ticket_s_is_refused(quic) -> None:
    gateway = quic(TOLD)
    ticket = dataclasses.replace(ticket_of(gateway.port), resumption_secret=bytes(32))
    with H3Client(gateway.port, session_ticket=ticket) as client:
        assert client.ended is not None
    assert ticket_of(gateway.port)


def test_a_ticket_of_another_name_begins_anew(quic) -> None:
    gateway = quic(TOLD)
    ticket = dataclasses.replace(ticket_of(gateway.port), server_name="b.test")
    assert not is_resumed(gateway.port, ticket, "b.test")


def test_a_session_ends_with_its_time(quic) -> None:
    gateway = quic(TOLD, "ssl_session_timeout 1s;")
    ticket = ticket_of(gateway.port)
    later = ticket.not_valid_after + datetime.timedelta(hours=1)
    ticket = dataclasses.replace(ticket, not_valid_after=later)  # the client asks for it still
    wait_for(lambda: not is_resumed(gateway.port, ticket), 10)


def test_no_tickets_where_there_shall_be_none(quic) -> None:
    gateway = quic(TOLD, "ssl_session_tickets off;")
    with H3Client(gateway.port) as client:
        assert client.get().status == 200
        client.step(0.2)
        assert not client.tickets


def test_files_of_keys_seal_and_open(quic, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(os.urandom(48))
    gateway = quic(TOLD, f"ssl_session_ticket_key {tmp_path}/one;")
    ticket = ticket_of(gateway.port)
    assert is_resumed(gateway.port, ticket)
    text = gateway.conf.read_text()
    both = f"ssl_session_ticket_key {tmp_path}/two; ssl_session_ticket_key {tmp_path}/one;"
    gateway.conf.write_text(text.replace(f"ssl_session_ticket_key {tmp_path}/one;", both))
    gateway.reload()
    assert is_resumed(gateway.port, ticket)                  # the second one opens only
    newer = ticket_of(gateway.port)
    gateway.conf.write_text(gateway.conf.read_text().replace(
        both, f"ssl_session_ticket_key {tmp_path}/two;"))
    gateway.reload()
    assert is_resumed(gateway.port, newer)
    assert not is_resumed(gateway.port, ticket)

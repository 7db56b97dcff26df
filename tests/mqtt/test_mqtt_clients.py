"""What all workers know of a client beyond its connection: its rates, its newest session."""

from __future__ import annotations

import time

import pytest
from mqtthouse import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    Client,
    packet,
    publish,
)

TWO = "worker_processes 2;"


def published_in_time(port: int, names: list[tuple[str, str | None]], version: int = 4) -> float:
    """Seconds until each of these clients, who come anew, had its PUBLISH acknowledged."""
    began = time.monotonic()
    for id, user in names:
        with Client(port) as client:
            assert client.connect(id, user=user, version=version)[0] == CONNACK
            client.send(publish("t", b"x", 1, 1, version))
            assert client.read()[0] == PUBACK
    return time.monotonic() - began


@pytest.mark.parametrize("version", [4, 5])
def test_who_comes_again_finds_his_bucket_as_he_left_it(mqtt, mosquitto, version) -> None:
    broker = mosquitto()
    gateway = mqtt(
        f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_publish_rate 20r/s burst=5;", main=TWO
    )
    assert published_in_time(gateway.port, [("c", "u")] * 15, version) >= 10 / 20 * 0.9
    spent = published_in_time(gateway.port, [(f"c{n}", "u") for n in range(5)])
    assert spent < 10, "others have buckets of their own"


def test_bytes_are_remembered_too(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_publish_bytes 100k burst=10k;")
    began = time.monotonic()
    for _ in range(5):
        with Client(gateway.port) as client:
            client.connect("c")
            client.send(publish("t", b"x" * 10_000, 1, 1))
            assert client.read()[0] == PUBACK
    assert time.monotonic() - began >= 40_000 / 102_400 * 0.9


def test_a_rate_may_be_a_tenant_s(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(
        f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_publish_rate 20r/s burst=5;"
        " mqtt_publish_key $mqtt_user;",
        main=TWO,
    )
    names = [(f"c{n}", "tenant") for n in range(15)]
    assert published_in_time(gateway.port, names) >= 10 / 20 * 0.9


def test_clients_without_an_id_share_their_address_s_bucket(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_publish_rate 20r/s burst=5;")
    assert published_in_time(gateway.port, [("", None)] * 15) >= 10 / 20 * 0.9


def test_rates_go_on_over_a_reload(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_publish_rate 30r/m burst=2;")
    published_in_time(gateway.port, [("c", None)] * 2)
    gateway.reload()
    assert published_in_time(gateway.port, [("c", None)]) >= 1


@pytest.mark.parametrize("version", [4, 5])
def test_only_the_newest_session_of_a_client_is_served(headrace, version) -> None:
    """Also where another worker has it: the older one ends as soon as it says anything."""
    gateway = headrace(
        "function f { python app.py:f; } server { listen 127.0.0.1:%%PORT_1%%; }",
        main=TWO + "mqtt { server { listen 127.0.0.1:%%PORT%%;"
        " on_publish a { function_pass f; } } }",
        start=False,
    )
    (gateway.prefix / "app.py").write_text("def f(event, context): pass")
    gateway.start()
    clients = [Client(gateway.port) for _ in range(16)]
    for client in clients:
        assert client.connect("same", version=version)[0] == CONNACK
    for client in clients[:-1]:
        try:
            client.send(packet(PINGREQ))
            said = client.read()
        except (EOFError, OSError):
            said = None
        assert said == ((DISCONNECT, b"\x8e") if version == 5 else None)
    clients[-1].send(packet(PINGREQ))
    assert clients[-1].read()[0] == PINGRESP
    with Client(gateway.port) as other:                    # another user's is another client
        other.connect("same", user="u", version=version)
        clients[-1].send(packet(PINGREQ))
        assert clients[-1].read()[0] == PINGRESP
    for client in clients:
        client.sock.close()

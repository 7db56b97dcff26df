"""A SUBSCRIBE of which some filters are allowed: each is judged for itself."""

from __future__ import annotations

import pytest
from mqtthouse import (
    CONNACK,
    PINGREQ,
    PINGRESP,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    Client,
    packet,
    publish,
    string,
    subscribe,
)

from proxy.mqtt.suback import merge_suback

ALLOW = "mqtt_allow all mine/#;"


@pytest.mark.parametrize("version", [4, 5])
def test_allowed_filters_work_beside_refused_ones(mqtt, mosquitto, version) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; {ALLOW}")
    bad, empty = (0x87, b"\0") if version == 5 else (0x80, b"")
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(subscribe("other", "mine/a", "#", "mine/b", version=version, qos=1, id=7))
        assert client.read() == (SUBACK, b"\0\x07" + empty + bytes([bad, 1, bad, 1]))
        client.send(publish("mine/b", b"x", version=version))
        kind, body = client.read()
        assert (kind, body[-1:]) == (PUBLISH, b"x")
    assert "other" not in broker.log and " #" not in broker.log


def test_the_broker_sees_only_what_is_allowed_and_the_rest_as_it_was(mqtt, brokers) -> None:
    seen: list[bytes] = []

    def serve(client: Client) -> None:
        for codes in (b"\x01\x02", b"\x87"):
            seen.append(client.read_raw()[1])
            client.send(packet(SUBACK, seen[-1][2:4] + b"\x03\x1f\0\0" + codes))
        client.read_raw()

    broker = brokers(b"\x20\x03\0\0\0", serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; {ALLOW}")
    properties = b"\x02\x0b\x05"                           # a Subscription Identifier
    filters = [string("x") + b"\0", string("mine/1") + b"\x2d", string("$share/g/mine/2") + b"\x02",
               string("y") + b"\x01"]  # fmt: skip
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        client.send(packet(SUBSCRIBE, b"\0\x09" + properties + b"".join(filters), 2))
        assert client.read() == (SUBACK, b"\0\x09\x03\x1f\0\0\x87\x01\x02\x87")
        client.send(subscribe("z", "mine/3", id=10, version=5))
        assert client.read() == (SUBACK, b"\0\x0a\x03\x1f\0\0\x87\x87")  # the broker's own no
    assert seen == [
        packet(SUBSCRIBE, b"\0\x09" + properties + filters[1] + filters[2], 2),
        subscribe("mine/3", id=10, version=5),
    ]


def test_an_answer_may_come_split_anywhere_among_others(mqtt, brokers) -> None:
    said = (publish("news", b"n" * 40, version=5) + packet(SUBACK, b"\0\x63\0\0")
            + packet(SUBACK, b"\0\x01\0\x01") + packet(PINGRESP))  # fmt: skip

    def serve(client: Client) -> None:
        for at in range(len(said) + 1):
            client.read_raw()
            client.send(said[:at])
            client.read_raw()                              # PINGREQ: the first part is there
            client.send(said[at:])

    broker = brokers(b"\x20\x03\0\0\0", serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; {ALLOW}")
    with Client(gateway.port) as client:
        assert client.connect("c", version=5)[0] == CONNACK
        for at in range(len(said) + 1):
            client.send(subscribe("mine/1", "other", id=1, version=5))
            client.send(packet(PINGREQ))
            got = [client.read() for _ in range(4)]
            assert got == [
                (PUBLISH, publish("news", b"n" * 40, version=5)[2:]),
                (SUBACK, b"\0\x63\0\0"),                   # of another SUBSCRIBE: as it is
                (SUBACK, b"\0\x01\0\x01\x87"),
                (PINGRESP, b""),
            ], at


@pytest.mark.parametrize("answer", [
    packet(SUBACK, b"\0\x01\0\0\0\0"), packet(SUBACK, b"\0\x01\0"),
    packet(SUBACK, b"\0\x01\x7f"), packet(SUBACK, b"\0\x01\0" + b"\0" * 70_000),
], ids=["too many", "none", "properties", "huge"])  # fmt: skip
def test_an_answer_that_does_not_fit_ends_the_session(mqtt, brokers, answer) -> None:
    def serve(client: Client) -> None:
        client.read_raw()
        client.send(answer)
        client.read_raw()

    broker = brokers(b"\x20\x03\0\0\0", serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; {ALLOW}")
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        client.send(subscribe("mine/1", "other", id=1, version=5))
        assert client.is_closed()
    assert "SUBACK" in gateway.error_log


def test_a_broker_that_never_answers_is_not_asked_without_end(mqtt, brokers) -> None:
    broker = brokers(b"\x20\x03\0\0\0")
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; {ALLOW}")
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        client.send(*[subscribe("mine/1", "other", id=n, version=5) for n in range(1, 41)])
        assert [client.read() for _ in range(8)] == [
            (SUBACK, bytes([0, n, 0, 0x97, 0x87])) for n in range(33, 41)
        ]  # fmt: skip


@pytest.mark.parametrize("packet_, version, number, codes, merged", [
    (b"\x90\x03\0\x01\x02", 4, 1, [0x80, None], b"\x90\x04\0\x01\x80\x02"),
    (b"\x90\x03\0\x01\x02", 4, 2, [0x80, None], None),
    (b"\x90\x05\0\x01\x01\0\x02", 5, 1, [None], b"\x90\x05\0\x01\x01\0\x02"),
    (b"\x90\x03\0\x01\x02", 4, 1, [None, *[0x80] * 200],
     b"\x90\xcb\x01\0\x01\x02" + b"\x80" * 200),
])  # fmt: skip
def test_codes_are_put_together_in_order(packet_, version, number, codes, merged) -> None:
    assert merge_suback(packet_, version, number, codes) == merged

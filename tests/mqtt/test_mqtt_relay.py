"""mqtt_pass: what clients and brokers say to each other arrives as it was said."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading

import pytest
from gateway import controllers, wait_for
from mqtthouse import (
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    Client,
    connect,
    packet,
    publish,
    string,
    subscribe,
)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_round(mqtt, mosquitto, version, qos) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    word = {4: "mqttv311", 5: "mqttv5"}[version]
    common = ["-h", "127.0.0.1", "-p", str(gateway.port), "-V", word, "-q", str(qos), "-t", "a/b"]
    with subprocess.Popen(
        ["mosquitto_sub", *common, "-C", "2", "-W", "10", "-i", "reader"], stdout=subprocess.PIPE
    ) as reader:
        wait_for(lambda: "SUBSCRIBE from reader" in broker.log)
        for text in ("one", "x" * 200_000):
            subprocess.run(["mosquitto_pub", *common, "-s"], input=text.encode(), check=True)
        said, _ = reader.communicate(timeout=15)
    assert said.decode().split() == ["one", "x" * 200_000]


def test_what_is_split_anywhere_arrives_whole(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    said = [connect("split"), subscribe("t", qos=1), publish("t", b"hello", 1, 7),
            packet(PINGREQ), publish("t", b"bye")]  # fmt: skip
    whole = b"".join(said)
    for at in range(1, len(whole)):
        with Client(gateway.port) as client:
            client.send(whole[:at])
            client.send(whole[at:])
            got = [client.read() for _ in range(6)]
            assert sorted(kind for kind, _ in got) == sorted(
                [CONNACK, SUBACK, PUBACK, PUBLISH, PINGRESP, PUBLISH]
            )
            assert got[0][1] == b"\0\0"
            client.send(packet(DISCONNECT))
            assert client.is_closed()


def test_one_client_stays_with_one_broker_and_another_takes_over(mqtt, mosquitto) -> None:
    first, second = mosquitto(), mosquitto()
    gateway = mqtt(
        "mqtt_pass both;",
        f"upstream both {{ server 127.0.0.1:{first.port}; server 127.0.0.1:{second.port}; }}",
    )
    for _ in range(3):
        for n in range(8):
            with Client(gateway.port) as client:
                assert client.connect(f"client{n}") == (CONNACK, b"\0\0")
    chosen = {}
    for n in range(8):
        counts = [it.log.count(f"as client{n} ") for it in (first, second)]
        assert sorted(counts) == [0, 3]
        chosen[n] = counts.index(3)
    assert set(chosen.values()) == {0, 1}
    first.stop(kill=True)
    for n in range(8):
        with Client(gateway.port) as client:
            assert client.connect(f"client{n}") == (CONNACK, b"\0\0")
            assert second.log.count(f"as client{n} ") >= 1


@pytest.mark.parametrize("answer, version, is_elsewhere", [
    (b"\x20\x02\0\x03", 4, True),              # unavailable
    (b"\x20\x02\0\x05", 4, False),             # not authorized: any broker says so
    (b"\x20\x03\0\x88\0", 5, True),
    (b"\x20\x03\0\x9d\0", 5, True),            # moved
    (b"\x20\x03\0\x87\0", 5, False),
    (b"\x30\x03\0\x01a", 4, True),             # no CONNACK
    (b"", 4, True),                            # it says nothing and goes
    (None, 4, True),                           # it says nothing at all
])  # fmt: skip
def test_a_broker_that_refuses(mqtt, brokers, mosquitto, answer, version, is_elsewhere) -> None:
    def leave(client: Client) -> None:
        client.sock.settimeout(5)
        if answer is None:
            client.sock.recv(1)

    bad, good = brokers(answer, leave), mosquitto()
    gateway = mqtt(
        "mqtt_pass both; mqtt_connack_timeout 200ms;",
        f"upstream both {{ server 127.0.0.1:{bad.port}; server 127.0.0.1:{good.port} backup; }}",
    )
    with Client(gateway.port) as client:
        kind, body = client.connect("c", version=version)
        assert kind == CONNACK
        assert (body[1] == 0) == is_elsewhere
        assert bad.connects == [connect("c", version=version)]
        if not is_elsewhere:
            assert body == answer[2:]
            assert client.is_closed()


@pytest.mark.parametrize("version, said", [(4, b"\0\x03"), (5, b"\0\x88\0")])
def test_no_broker_is_there(mqtt, version, said) -> None:
    gateway = mqtt("mqtt_pass 127.0.0.1:%%PORT_7%%;")
    with Client(gateway.port) as client:
        assert client.connect("c", version=version) == (CONNACK, said)
        assert client.is_closed()


def test_the_broker_dies(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    with Client(gateway.port) as client:
        client.connect("c")
        broker.stop(kill=True)
        assert client.is_closed()


def test_a_client_that_goes_has_its_will_published(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    with Client(gateway.port) as reader:
        reader.connect("reader")
        reader.send(subscribe("gone"))
        assert reader.read()[0] == SUBACK
        with Client(gateway.port) as client:
            client.connect("c", will=("gone", b"farewell"))
        assert reader.read() == (PUBLISH, string("gone") + b"farewell")


def test_a_client_may_speak_before_connack(mqtt, brokers) -> None:
    """It is held, and not read beyond one piece, until a broker has it."""
    go = threading.Event()
    got = []

    def serve(client: Client) -> None:
        go.wait(10)
        client.send(b"\x20\x02\0\0")
        got.extend(client.read_raw()[1] for _ in range(200))
        client.send(packet(PINGRESP))

    broker = brokers(b"", serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    said = [publish("t", bytes([n]) * 10_000) for n in range(200)]
    with Client(gateway.port) as client:
        writer = threading.Thread(target=lambda: client.send(connect("c"), *said))
        writer.start()
        wait_for(lambda: broker.connects)
        assert not got
        go.set()
        assert client.read()[0] == CONNACK
        assert client.read()[0] == PINGRESP
        writer.join()
    assert got == said


def test_a_broker_that_does_not_read_stops_the_client(mqtt, brokers) -> None:
    """What it does not take waits with the client, not here; then it goes on, nothing lost."""
    go = threading.Event()
    sizes = []

    def serve(client: Client) -> None:
        go.wait(20)
        sizes.extend(len(client.read_raw()[1]) for _ in range(400))
        client.send(packet(PINGRESP))

    broker = brokers(serve=serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    one = publish("t", b"x" * 100_000)
    with Client(gateway.port) as client:
        client.connect("c")
        sent = [0]

        def write() -> None:
            for _ in range(400):
                client.send(one)
                sent[0] += 1

        writer = threading.Thread(target=write)
        writer.start()
        before = -1
        while before != sent[0]:
            before = sent[0]
            writer.join(0.5)
        assert sent[0] < 300                     # 40 MB do not fit into four sockets' buffers
        go.set()
        assert client.read()[0] == PINGRESP
        writer.join()
    assert sizes == [len(one)] * 400


def test_sessions_live_on_over_a_reload(mqtt, mosquitto) -> None:
    broker = mosquitto()
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};", main="worker_shutdown_timeout 1h;\n")
    with Client(gateway.port) as client:
        client.connect("stays")
        old = gateway.workers()
        gateway.signal(1)
        wait_for(lambda: set(gateway.workers()) - set(old))
        with Client(gateway.port) as other:
            wait_for(lambda: other.connect("new") == (CONNACK, b"\0\0"))
            client.send(subscribe("t"))
            assert client.read()[0] == SUBACK
            other.send(publish("t", b"news"))
            assert client.read() == (PUBLISH, string("t") + b"news")
    wait_for(lambda: not set(gateway.workers()) & set(old))


def test_ours_never_cuts_the_broker_s_packet(mqtt, brokers) -> None:
    """What we answer ourselves waits until the broker's packet is over, wherever that is."""
    big = publish("news", b"n" * 5000, version=5)
    half, go, again = threading.Event(), threading.Event(), threading.Event()

    def serve(client: Client) -> None:
        for at in (1, 2, 3, 2500, len(big) - 1):
            client.send(big[:at])
            half.set()
            for said in (go, again):  # the next packet begins when nothing of ours is under way
                assert said.wait(20)
                said.clear()
                if said is go:
                    client.send(big[at:])
        client.read_raw()

    broker = brokers(b"\x20\x03\0\0\0", serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_allow all mine;")
    with Client(gateway.port) as client:
        assert client.connect("c", version=5) == (CONNACK, b"\0\0\0")
        for n in range(1, 6):
            assert half.wait(10)
            half.clear()
            client.send(publish("other", b"", 1, n, 5), subscribe("other", id=n, version=5))
            with contextlib.suppress(TimeoutError):
                client.sock.settimeout(0.2)
                client.sock.recv(1 << 20, socket.MSG_PEEK | socket.MSG_WAITALL)
            client.sock.settimeout(10)
            go.set()
            assert client.read() == (PUBLISH, big[3:])
            assert client.read() == (PUBACK, bytes([0, n, 0x87]))
            assert client.read() == (SUBACK, bytes([0, n, 0, 0x87]))
            again.set()


def test_a_client_that_asks_much_amid_a_packet_is_cut(mqtt, brokers) -> None:
    broker = brokers(b"\x20\x03\0\0\0" + publish("news", b"n" * 500, version=5)[:100])
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; mqtt_allow all mine;")
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        with contextlib.suppress(OSError):
            client.send(publish("other", b"", 1, 1, 5) * 20_000)
        assert client.is_closed()
    assert "the broker's packet does not end" in gateway.error_log


def test_broker_and_client_prove_who_they_are(mqtt, brokers) -> None:
    """AUTH goes both ways before CONNACK (§4.12)."""
    method = b"\x15" + string("m")
    ask = packet(15, b"\x18" + bytes([len(method)]) + method)

    def serve(client: Client) -> None:
        assert client.read_raw()[1] == ask
        client.send(b"\x20\x03\0\0\0")
        assert client.read()[0] == PINGREQ
        client.send(packet(PINGRESP))

    broker = brokers(ask, serve)
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    with Client(gateway.port) as client:
        kind, body = client.connect("c", version=5, properties=method)
        assert packet(kind, body) == ask
        client.send(ask)
        assert client.read() == (CONNACK, b"\0\0\0")
        client.send(packet(PINGREQ))
        assert client.read() == (PINGRESP, b"")


def test_the_broker_s_keep_alive_counts(mqtt, brokers) -> None:
    broker = brokers(b"\x20\x06\0\0\x03\x13\0\x01")
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port};")
    with Client(gateway.port) as client:
        client.connect("c", version=5, keepalive=600)
        assert client.read() == (DISCONNECT, b"\x8d")      # after one and a half seconds


def test_a_conf_of_nothing_else(headrace, mosquitto) -> None:
    broker = mosquitto()
    gateway = headrace(
        text="daemon off; pid logs/headrace.pid; error_log logs/error.log; worker_processes 1;"
        "user root; events { }\n"
        f"mqtt {{ server {{ listen 127.0.0.1:%%PORT%%; mqtt_pass 127.0.0.1:{broker.port}; }} }}"
    )
    with Client(gateway.port) as client:
        assert client.connect("c") == (CONNACK, b"\0\0")
    gateway.reload()
    assert len(controllers(gateway.process.pid)) == 1
    assert "exited with code 1" not in gateway.error_log  # who has no http has a controller, too

"""No broker but us: who may come in, by which door, and what such a server never does."""

from __future__ import annotations

import queue
import ssl
import subprocess
import time

import pytest
from gateway import wait_for
from mqtthouse import (
    CONNACK,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    Client,
    packet,
    publish,
    string,
    subscribe,
)

HTTP = "access_log off; function echo { python app.py:echo; concurrency 20; }"
ECHO = 'def echo(event, context): return {"statusCode": 200, "body": b"got " + event.body}\n'
RULES = 'mqtt_reply "reply/%c/#"; on_publish "#" { function_pass echo; reply_topic "answers/%c"; }'


@pytest.fixture
def own(headrace):
    """own(inside, files, http): a gateway whose server in mqtt gives every message to a function
    that echoes."""

    def make(inside: str = "", files: dict[str, str] | None = None, http: str = ""):
        main = f"mqtt {{ server {{ listen 127.0.0.1:%%PORT%%; {RULES} {inside} }} }}"
        gateway = headrace(HTTP + http, main=main, start=False)
        for name, content in {"app.py": ECHO, **(files or {})}.items():
            (gateway.prefix / name).write_text(content)
        return gateway.start()

    return make


# -- what it never does ------------------------------------------------------------------

@pytest.mark.parametrize("version", [4, 5])
def test_a_session_is_clean_whatever_its_client_asks_for(own, version) -> None:
    """CONNACK says that there was none, and what was subscribed is forgotten."""
    gateway = own()
    wanted = b"\x11\0\0\x0e\x10" if version == 5 else b""  # it shall live for an hour
    with Client(gateway.port) as client:
        said = client.connect("c", version=version, clean=False, properties=wanted)
        assert said[0] == CONNACK and said[1][:2] == b"\0\0"
        if version == 5:
            assert b"\x11\0\0\0\0" in said[1]              # … it lives for no second
        client.send(subscribe("answers/c", version=version))
        assert client.read()[0] == SUBACK
        client.send(publish("t", b"1", 1, 1, version))
        assert {client.read()[0] for _ in range(2)} == {PUBLISH, PUBACK}
    with Client(gateway.port) as client:
        said = client.connect("c", version=version, clean=False, properties=wanted)
        assert said[1][:2] == b"\0\0"
        client.send(publish("t", b"2", 1, 1, version), packet(PINGREQ))
        assert {client.read()[0] for _ in range(2)} == {PUBACK, PINGRESP}
        client.send(packet(PINGREQ))
        assert client.read()[0] == PINGRESP


@pytest.mark.parametrize("version", [4, 5])
def test_nobody_hears_of_another_s_messages_nor_later_of_any(own, version) -> None:
    gateway = own()
    retain = version == 4                                  # MQTT 5 was told that there is none
    with Client(gateway.port) as reader, Client(gateway.port) as writer:
        reader.connect("reader", version=version)
        writer.connect("writer", version=version)
        reader.send(subscribe("answers/reader", "reply/reader/#", version=version))
        assert reader.read()[0] == SUBACK
        for n, topic in enumerate(("answers/reader", "reply/reader/x"), 1):
            writer.send(publish(topic, b"news", 1, n, version, retain=retain))
            assert writer.read() == (PUBACK, bytes([0, n]))
        if version == 5:                                   # nor may an answer go there
            asked = b"\x08" + string("reply/reader/x")
            writer.send(publish("t", b"news", 1, 3, version, asked))
            assert writer.read() == (PUBACK, b"\0\x03")
        reader.send(packet(PINGREQ))
        assert reader.read()[0] == PINGRESP
    with Client(gateway.port) as late:
        late.connect("reader", version=version)
        late.send(subscribe("answers/reader", "reply/reader/#", version=version), packet(PINGREQ))
        assert [late.read()[0] for _ in range(2)] == [SUBACK, PINGRESP]


# -- who may come in ---------------------------------------------------------------------

@pytest.mark.parametrize("version", [4, 5])
def test_a_password_is_asked_for_and_its_user_has_his_topics(own, version) -> None:
    gateway = own(
        "auth_basic_user_file users; mqtt_allow publish in/%u/#; mqtt_allow subscribe answers/%c;",
        {"users": "ann:{PLAIN}secret\n"},
    )
    for password in ("wrong", None):
        with Client(gateway.port) as client:
            said = client.connect("c", user="ann", password=password, version=version)
            assert said == (CONNACK, b"\0\x86\0" if version == 5 else b"\0\x04")
            assert client.is_closed()
    with Client(gateway.port) as client:
        assert client.connect("c", user="ann", password="secret", version=version)[1][1] == 0
        client.send(subscribe("answers/c", version=version))
        assert client.read()[0] == SUBACK
        client.send(publish("in/ann/x", b"1", 1, 1, version))
        got = dict(client.read() for _ in range(2))
        assert got[PUBACK] == b"\0\x01" and got[PUBLISH].endswith(b"got 1")
        client.send(publish("in/bob/x", b"2", 1, 2, version))
        if version == 5:
            assert client.read() == (PUBACK, b"\0\x02\x87")
        else:
            assert client.is_closed()


def test_a_client_s_rate_and_size_are_bounded_here_too(own) -> None:
    gateway = own("mqtt_publish_rate 20r/s burst=5; mqtt_max_packet_size 1k;")
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        began = time.monotonic()
        client.send(*[publish("t", b"x", 1, n, 5) for n in range(1, 16)])
        assert [client.read() for _ in range(15)] == [(PUBACK, bytes([0, n])) for n in range(1, 16)]
        assert time.monotonic() - began >= 10 / 20 * 0.9   # the bound that the conf names
        client.send(publish("t", b"x" * 2000, 1, 16, 5))
        assert client.read()[1] == b"\x95"                 # DISCONNECT: packet too large


# -- by which door -----------------------------------------------------------------------

def sealed_listen(papers, more: str = "") -> str:
    return (f"ssl_certificate {papers}/broker.test.crt; ssl_certificate_key"
            f" {papers}/broker.test.key; listen 127.0.0.1:%%PORT_1%% ssl {more};")  # fmt: skip


@pytest.mark.parametrize("word", ["mqttv311", "mqttv5"])
def test_real_clients_by_tls_to_a_broker(mqtt, mosquitto, papers, word) -> None:
    """`listen 8883 ssl`: the certificate is verified by its name, as a client in the field does."""
    broker = mosquitto()
    gateway = mqtt(f"{sealed_listen(papers)} mqtt_pass 127.0.0.1:{broker.port};")
    context = ssl.create_default_context(cafile=papers / "ca.crt")
    import paho.mqtt.client as paho

    protocol = paho.MQTTv5 if word == "mqttv5" else paho.MQTTv311
    got: queue.Queue[bytes] = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "reader", protocol=protocol)
    context.check_hostname = False                         # we dial an address
    client.tls_set_context(context)
    client.on_connect = lambda *_: client.subscribe("a/b", 1)
    client.on_message = lambda _, __, message: got.put(message.payload)
    client.connect("127.0.0.1", gateway.ports[1])
    client.loop_start()
    try:
        wait_for(lambda: "SUBSCRIBE from reader" in broker.log, 10)
        common = ["-h", "127.0.0.1", "-p", str(gateway.ports[1]), "-V", word, "-q", "1",
                  "--cafile", str(papers / "ca.crt"), "--insecure", "-t", "a/b"]  # fmt: skip
        for text in ("one", "x" * 100_000):
            subprocess.run(
                ["mosquitto_pub", *common, "-s"], input=text.encode(), check=True, timeout=20
            )
            assert got.get(timeout=10).decode() == text
        other = ["--cafile", str(papers / "gate.crt")]     # it does not know who signed ours
        done = subprocess.run(
            ["mosquitto_pub", *common, *other, "-m", "no"], capture_output=True, timeout=20
        )
        assert done.returncode != 0
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_a_real_client_by_tls_to_a_function(own, papers, transport) -> None:
    """MQTT 5's request and response, as a library has them."""
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    gateway = own(sealed_listen(papers, "websocket" if transport == "websockets" else ""))
    got: queue.Queue[tuple[str, bytes, bytes]] = queue.Queue()
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, "dev", transport=transport, protocol=paho.MQTTv5
    )
    client.tls_set(str(papers / "ca.crt"))
    client.tls_insecure_set(True)                          # the name: we dial an address
    client.on_connect = lambda *_: client.subscribe("reply/dev/#")
    asked = Properties(PacketTypes.PUBLISH)
    asked.ResponseTopic = "reply/dev/1"
    asked.CorrelationData = b"\0id"
    client.on_subscribe = lambda *_: client.publish("t", b"q" * 50_000, 1, properties=asked)
    client.on_message = lambda _, __, it: got.put(
        (it.topic, it.payload, it.properties.CorrelationData)
    )
    client.connect("127.0.0.1", gateway.ports[1])
    client.loop_start()
    try:
        assert got.get(timeout=20) == ("reply/dev/1", b"got " + b"q" * 50_000, b"\0id")
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("version", [1, 2])
def test_behind_a_balancer_the_client_s_address_is_judged(own, version) -> None:
    """set_real_ip_from: whom the PROXY header of a trusted one names."""
    from proxy.wire import _proxy_protocol

    gateway = own("listen 127.0.0.1:%%PORT_1%% proxy_protocol; set_real_ip_from 127.0.0.1;"
                  " deny 192.0.2.9;")  # fmt: skip
    for source, is_good in ((b"192.0.2.7:1", True), (b"192.0.2.9:1", False)):
        with Client(gateway.ports[1]) as client:
            client.send(_proxy_protocol.write(version, source, b"198.51.100.1:1883"))
            if is_good:
                assert client.connect("c") == (CONNACK, b"\0\0")
            else:
                assert client.is_closed()

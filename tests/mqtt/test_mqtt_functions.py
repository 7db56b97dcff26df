"""on_publish without a broker: messages go to functions, that wake for them, and answers come back
to whoever published."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from gateway import wait_for
from mqtthouse import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    PUBREL,
    SUBACK,
    UNSUBACK,
    UNSUBSCRIBE,
    Client,
    packet,
    publish,
    string,
    subscribe,
)

HANDLER = """
import json, os, time

def handle(event, context):
    told = {k.lower(): v for k, v in event.headers.items()}
    with open("called", "a") as file:
        file.write(json.dumps({"headers": told, "body": event.body.decode("latin-1")}) + "\\n")
    while event.body == b"hold" and not os.path.exists("go"):
        time.sleep(0.01)
    if event.body.startswith(b"sleep"):
        time.sleep(float(event.body[5:]))
    if event.body == b"later" and told["x-retry"] == "0" or event.body == b"fail":
        return {"statusCode": 503, "body": "no"}
    if event.body == b"bad":
        return {"statusCode": 400, "body": "no"}
    if event.body == b"silent":
        return {"statusCode": 204, "body": ""}
    return {"statusCode": 200, "body": b"got " + event.body, "headers": {"Content-Type": "text/x"}}
"""
HTTP = """
    access_log off;
    functions { queue sqlite:var/queue.db; }
    function thermo { python app.py:handle; concurrency 20;
                      async_retry attempts=1 min_wait=10ms max_wait=20ms; }
    server { listen 127.0.0.1:%%PORT_1%%; openfaas_api on; openfaas_auth off;
             location = /metrics { metrics; } }
"""
RULES = """
    mqtt_in_flight 4;
    on_publish "sensors/+/temp" "deep/#" {
        function_pass thermo;
        publish_retry attempts=3 min_wait=10ms max_wait=20ms;
        reply_topic "answers/%c";
    }
    on_publish "drop/#" { function_pass thermo; dead_letter off; publish_retry attempts=1; }
    on_publish "none" { function_pass nobody; publish_retry attempts=2 min_wait=1ms; }
"""


@pytest.fixture
def thermo(mqtt, headrace):
    def make(inside: str = RULES, more: str = "", http: str = HTTP):
        main = f"mqtt {{ {more} server {{ listen 127.0.0.1:%%PORT%%; {inside} }} }}"
        gateway = headrace(http, main=main, start=False)
        (gateway.prefix / "app.py").write_text(HANDLER)
        return gateway.start()

    return make


def called(gateway) -> list[dict]:
    for path in (gateway.prefix / "called", *gateway.prefix.glob("**/called")):
        if path.exists():
            return [json.loads(line) for line in path.read_text().splitlines()]
    return []


@pytest.mark.parametrize("version", [4, 5])
def test_a_message_wakes_a_function_and_is_acknowledged_after_it(thermo, version) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        assert client.connect("c1", user="u 1", version=version)[0] == CONNACK
        client.send(publish("sensors/kitchen/temp", b"21.5", 1, 77, version))
        assert client.read() == (PUBACK, b"\0\x4d")
        [call] = called(gateway)
        told = call["headers"]
        assert call["body"] == "21.5"
        assert told["x-topic"] == "sensors/kitchen/temp"
        assert told["x-topic-1"] == "kitchen"
        assert told["x-mqtt-client-id"] == "c1"
        assert told["x-mqtt-user"] == "u%201"
        assert told["x-mqtt-qos"] == "1"
        assert told["x-connector"] == "mqtt"
        assert told["content-type"] == "application/octet-stream"
        assert told["ce-specversion"] == "1.0"
        assert told["ce-subject"] == "sensors/kitchen/temp"
        assert told["ce-type"] == "io.headrace.mqtt.publish"
        assert told["ce-source"].startswith("mqtt://127.0.0.1:")
        assert told["ce-mqttclientid"] == "c1" and told["ce-mqttuser"] == "u%201"
        assert told["ce-mqtttopic1"] == "kitchen"
        assert len(told["ce-id"]) == 36 and told["ce-time"].endswith("Z")
        client.send(packet(PINGREQ))
        assert client.read() == (PINGRESP, b"")
        client.send(packet(DISCONNECT))
        assert client.is_closed()


def test_answers_come_to_the_reply_topic_of_whoever_published(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as one, Client(gateway.port) as other:
        for name, client in (("one", one), ("other", other)):
            client.connect(name)
            client.send(subscribe(f"answers/{name}"))
            assert client.read() == (SUBACK, b"\0\x01\0")
        one.send(publish("deep/a/b", b"hello"))
        assert one.read() == (PUBLISH, string("answers/one") + b"got hello")
        one.send(publish("deep/a/b", b"silent", 1, 5))
        assert one.read() == (PUBACK, b"\0\x05")
        other.send(packet(PINGREQ))
        assert other.read() == (PINGRESP, b"")             # it heard of nothing
        assert [it["headers"]["x-topic-1"] for it in called(gateway)] == ["a/b", "a/b"]


def test_a_response_topic_has_its_correlation_data(thermo) -> None:
    gateway = thermo()
    wanted = (
        b"\x08" + string("reply/c5/x") + b"\x09" + string(b"\0id\xff") + b"\x03"
        + string("text/plain") + b"\x26" + string("Color") + string("bl\u00fce")
        + b"\x26" + string("bad name") + string("x")
    )  # fmt: skip
    with Client(gateway.port) as client:
        client.connect("c5", version=5)
        client.send(subscribe("reply/c5/+", version=5))
        assert client.read() == (SUBACK, b"\0\x01\0\0")
        client.send(publish("deep/a", b"q", 1, 9, 5, wanted))
        properties = b"\x03" + string("text/x") + b"\x09" + string(b"\0id\xff")
        assert client.read() == (
            PUBLISH, string("reply/c5/x") + bytes([len(properties)]) + properties + b"got q"
        )  # fmt: skip
        assert client.read() == (PUBACK, b"\0\x09")
        told = called(gateway)[0]["headers"]
        assert told["content-type"] == "text/plain"
        assert told["x-mqtt-property-color"] == "bl%C3%BCe"
        assert told["ce-color"] == "bl%C3%BCe"
        assert not [name for name in told if "bad" in name]
        # not its own: the function is called, nobody hears of its answer
        other = b"\x08" + string("reply/c6/x")
        client.send(publish("deep/a", b"q", 1, 10, 5, other))
        assert client.read() == (PUBACK, b"\0\x0a")


def test_a_cloud_event_stays_one(thermo) -> None:
    gateway = thermo()
    event = b"".join(
        b"\x26" + string(name) + string(value)
        for name, value in [("specversion", "1.0"), ("id", "7"), ("source", "/s"), ("type", "t"),
                            ("mine", "a b"), ("mqttclientid", "somebody else")]
    )  # fmt: skip
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        client.send(publish("deep", b"x", 1, 1, 5, event))
        assert client.read()[0] == PUBACK
    told = called(gateway)[0]["headers"]
    assert (told["ce-id"], told["ce-source"], told["ce-type"]) == ("7", "/s", "t")
    assert told["ce-mine"] == "a%20b"
    assert told["ce-mqttclientid"] == "c"                  # nobody says that but we


def test_what_is_no_cloud_event_cannot_pretend_to_be_another_s(thermo) -> None:
    """Attributes that CloudEvents names are taken of an event only."""
    gateway = thermo()
    said = b"".join(
        b"\x26" + string(name) + string("x") for name in ("id", "Source", "subject", "mqttuser")
    )
    with Client(gateway.port) as client:
        client.connect("c", version=5)
        client.send(publish("deep", b"x", 1, 1, 5, said))
        assert client.read()[0] == PUBACK
    told = called(gateway)[0]["headers"]
    assert told["ce-subject"] == "deep" and told["ce-source"].startswith("mqtt://")
    assert len(told["ce-id"]) == 36 and "ce-mqttuser" not in told
    assert told["x-mqtt-property-id"] == "x"


def test_a_function_that_fails_once_is_asked_again(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("deep/x", b"later", 1, 3))
        assert client.read() == (PUBACK, b"\0\x03")
        calls = called(gateway)
        assert [it["headers"]["x-retry"] for it in calls] == ["0", "1"]
        assert len({it["headers"]["ce-id"] for it in calls}) == 1
        client.send(publish("deep/x", b"fail", 0))         # at most once
        client.send(publish("deep/x", b"silent", 1, 4))
        assert client.read() == (PUBACK, b"\0\x04")
        wait_for(lambda: len(called(gateway)) >= 4)
        time.sleep(0.1)
        assert len([it for it in called(gateway) if it["body"] == "fail"]) == 1


@pytest.mark.parametrize("payload, tries", [(b"fail", 3), (b"bad", 1)])
def test_a_dead_letter_is_durable_before_the_acknowledgement(thermo, payload, tries) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("deep/x", payload, 1, 3))
        assert client.read() == (PUBACK, b"\0\x03")
    assert (gateway.prefix / "var" / "queue.db").exists()
    wait_for(lambda: len(called(gateway)) > tries)         # the queue has its own attempts
    last = called(gateway)[tries]
    assert last["body"] == payload.decode()
    assert last["headers"]["x-mqtt-status"] == {b"fail": "503", b"bad": "400"}[payload]
    [said] = json.loads(gateway.get("/system/queue", gateway.ports[1]).body)["functions"]
    assert said["accepted"] == 1


@pytest.mark.parametrize("version", [4, 5])
def test_without_a_dead_letter_it_is_not_acknowledged(thermo, version) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(publish("drop/x", b"fail", 1, 3, version))
        if version == 5:
            assert client.read() == (PUBACK, b"\0\x03\x83")
        else:
            assert client.is_closed()                      # it shall be sent again


def test_acknowledgements_keep_their_order_and_a_slow_function_holds_back(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("deep/x", b"silent", 1, 1))
        assert client.read()[0] == PUBACK
        sent = [b"hold", b"sleep0.2", *[b"sleep0"] * 6]
        client.send(*[publish("deep/x", it, 1, n) for n, it in enumerate(sent, 10)])
        wait_for(lambda: len(called(gateway)) == 5)
        time.sleep(0.3)
        assert len(called(gateway)) == 5                   # mqtt_in_flight
        next(gateway.prefix.glob("**/called")).with_name("go").touch()
        got = [client.read() for _ in sent]
        assert got == [(PUBACK, bytes([0, n])) for n in range(10, 18)]


def test_what_a_client_without_a_broker_cannot_have(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        kind, body = client.connect("", version=5)
        assert (kind, body[:2]) == (CONNACK, b"\0\0")
        for wanted in (b"\x24\x01", b"\x25\0", b"\x29\0", b"\x2a\0", b"\x12\0\x19headrace-"):
            assert wanted in body
        client.send(subscribe("sensors/#", "#", "$share/g/answers/x", "reply/other/x", version=5))
        assert client.read() == (SUBACK, b"\0\x01\0\x87\x87\x9e\x87")
        client.send(packet(UNSUBSCRIBE, b"\0\x02\0" + string("x"), 2))
        assert client.read() == (UNSUBACK, b"\0\x02\0\x11")
        client.send(publish("no/such", b"", 1, 4, 5))
        assert client.read() == (PUBACK, b"\0\x04\x10")
    with Client(gateway.port) as client:
        client.connect("c", version=4)
        client.send(subscribe("sensors/#", "answers/c", "#"))
        assert client.read() == (SUBACK, b"\0\x01\x80\0\x80")
    for said, reason in (
        (publish("deep/x", b"", 2, 1, 5), 0x9B),
        (publish("deep/x", b"", 0, 1, 5, retain=True), 0x9A),
        (publish("deep/x", b"", 0, 1, 5, b"\x23\0\x01"), 0x94),
        (packet(PUBREL, b"\0\x01", 2), 0x82),
        (packet(AUTH, b"\x18\0"), 0x82),
    ):
        with Client(gateway.port) as client:
            client.connect("c", version=5)
            client.send(said)
            assert client.read() == (DISCONNECT, bytes([reason]))
            assert client.is_closed()


def test_a_will_is_published_unless_its_client_takes_leave(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("polite", will=("deep/will", b"polite"))
        client.send(packet(DISCONNECT))
        assert client.is_closed()
    with Client(gateway.port) as client:
        client.connect("gone", will=("deep/will", b"gone"))
    wait_for(lambda: called(gateway), 10)
    assert [it["body"] for it in called(gateway)] == ["gone"]


def test_a_second_session_of_the_same_client_takes_over(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as old, Client(gateway.port) as new:
        old.connect("same", user="u", version=5)
        assert new.connect("same", user="u", version=5)[1][1] == 0
        assert old.read() == (DISCONNECT, b"\x8e")
        with Client(gateway.port) as stranger:
            stranger.connect("same", user="other", version=5)
            new.send(packet(PINGREQ))
            assert new.read() == (PINGRESP, b"")


def test_sessions_live_on_over_a_reload(thermo) -> None:
    """… and their messages find functions through the workers that came."""
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("stays")
        client.send(publish("deep/x", b"silent", 1, 1))
        assert client.read() == (PUBACK, b"\0\x01")
        old = gateway.workers()
        gateway.signal(1)
        wait_for(lambda: set(gateway.workers()) - set(old))
        client.send(publish("deep/x", b"sleep0.3", 1, 2), publish("deep/x", b"silent", 1, 3))
        assert client.read() == (PUBACK, b"\0\x02")
        assert client.read() == (PUBACK, b"\0\x03")
        client.send(packet(DISCONNECT))
        assert client.is_closed()
    wait_for(lambda: not set(gateway.workers()) & set(old))


def test_a_flood_of_sessions_is_borne(thermo) -> None:
    """Clients that publish, and go before their functions are done, with a will each."""
    gateway = thermo()
    for n in range(150):
        with Client(gateway.port) as client:
            client.connect(f"c{n}", will=("deep/w", b"silent"))
            client.send(*[publish("deep/x", b"silent", 1, k) for k in range(1, 9)])
    with Client(gateway.port) as client:
        client.connect("good")
        client.send(publish("deep/x", b"silent", 1, 1))
        assert client.read() == (PUBACK, b"\0\x01")


def test_metrics_tell(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("deep/x", b"silent", 1, 1))
        assert client.read()[0] == PUBACK
        client.send(publish("deep/x", b"bad", 1, 1))
        assert client.read()[0] == PUBACK
    said = gateway.get("/metrics", gateway.ports[1]).body.decode()
    label = f'{{server="127.0.0.1:{gateway.port}"}}'
    for name, value in (("connects", 1), ("published", 2), ("calls", 2), ("dead_letters", 1)):
        assert f"headrace_mqtt_{name}_total{label} {value}\n" in said


@pytest.mark.parametrize("text, said", [
    ("mqtt { server { listen 1; } }", "wants \"mqtt_pass\" or \"on_publish\""),
    ("mqtt { server { listen 1; mqtt_pass 127.0.0.1:1; on_publish a { function_pass f; } } }",
     "exclude each other"),
    ("mqtt { server { listen 1; on_publish a { } } }", "wants a \"function_pass\""),
    ("mqtt { server { listen 1; on_publish a/#/b { function_pass f; } } }", "no filter of topics"),
    ("mqtt { server { listen 1; on_publish a { function_pass f; dead_letter topic:x; } } }",
     "only a broker keeps"),
    ("mqtt { server { listen 1; on_publish a { function_pass f; reply_topic a/+; } } }",
     "is no topic"),
    ("mqtt { server { listen 1; mqtt_pass 127.0.0.1:1; mqtt_allow all a/%x; } }", "no pattern"),
    ("mqtt { server { listen 1; mqtt_pass 127.0.0.1; } }", "no port in upstream"),
    ("mqtt { server { mqtt_pass 127.0.0.1:1; } }", "no \"listen\""),
    ("http { server { location / { mqtt_websocket 127.0.0.1:9; } } }", "no server in mqtt says"),
    ("mqtt { server { listen 1 udp; mqtt_pass 127.0.0.1:1; } }", "in mqtt is known to nginx"),
    ("mqtt { server { listen 1; mqtt_pass 127.0.0.1:1; mqtt_certificate_user on; } }",
     "wants \"ssl_verify_client\""),
    ("http { function thermo { python a.py:f; } } mqtt { server { listen 1; on_publish a { "
     "function_pass termo; } } }", 'function "termo" is not declared, did you mean "thermo"? in'),
    ("mqtt { server { listen 1; on_publish a { function_pass f; } } }", '"f" is not declared in'),
])  # fmt: skip
def test_a_conf_that_makes_no_sense_is_refused(tmp_path: Path, text, said) -> None:
    from gateway import run

    conf = tmp_path / "x.conf"
    http = "" if "http {" in text else "http { }"
    (tmp_path / "a.py").write_text("def f(event, context): pass")
    conf.write_text(f"events {{ }}\n{http}\n{text}\n")
    done = run("-t", "-p", str(tmp_path), "-c", str(conf), cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr

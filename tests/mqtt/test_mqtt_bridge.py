"""bridge: messages of a real broker go to functions, and none of QoS 1 is lost on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from gateway import Gateway, descendants, title, wait_for
from mqtthouse import (
    CONNACK,
    PUBACK,
    PUBLISH,
    SUBACK,
    Client,
    Mosquitto,
    publish,
    sealed,
    string,
    subscribe,
)
from test_mqtt_functions import HANDLER, called

HTTP = """
    access_log off;
    functions { queue sqlite:var/queue.db; }
    function thermo { python app.py:handle; concurrency 20;
                      async_retry attempts=1 min_wait=10ms max_wait=20ms; }
    server { listen 127.0.0.1:%%PORT%%; openfaas_api on; openfaas_auth off; }
"""
RULES = """
    on_publish "sensors/+/temp" {
        function_pass thermo; reply_topic answers/all;
        publish_retry attempts=3 min_wait=10ms max_wait=20ms;
    }
    on_publish "dead/#" {
        function_pass thermo; dead_letter topic:graveyard;
        publish_retry attempts=2 min_wait=10ms max_wait=20ms;
    }
"""


@pytest.fixture
def bridge(headrace, mosquitto):
    """bridge(more): a gateway that is a client of a mosquitto, and the mosquitto."""

    def make(more: str = "", broker: Mosquitto | None = None, count: int = 1):
        broker = broker or mosquitto("persistence false")
        made = []
        for _ in range(count):
            main = f"mqtt {{ bridge 127.0.0.1:{broker.port} {{ {RULES} {more} }} }}"
            gateway = headrace(HTTP, main=main, start=False)
            (gateway.prefix / "app.py").write_text(HANDLER)
            made.append(gateway.start())
        for it in made:
            wait_for(lambda it=it: "subscribed 2 filters" in it.error_log, 10)
        return (*made, broker)

    return make


def controller(gateway) -> int:
    pids = descendants(gateway.process.pid)
    return next(pid for pid in pids if "controller process" in title(pid))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_s_message_is_a_call(bridge, version) -> None:
    gateway, broker = bridge(f"version {version};")
    with Client(broker.port) as client:
        assert client.connect("pub", version=5) == (CONNACK, client_answer(5)) or True
        client.send(subscribe("answers/all", "back/me", version=5, qos=1))
        assert client.read()[0] == SUBACK
        properties = b"\x26" + string("Color") + string("blue") + b"\x03" + string("text/plain")
        client.send(publish("sensors/attic/temp", b"20", 1, 5, 5, properties))
        kinds = {client.read()[0], client.read()[0]}
        assert kinds == {PUBACK, PUBLISH}
        told = called(gateway)[0]["headers"]
        assert told["x-topic"] == "sensors/attic/temp"
        assert told["x-topic-1"] == "attic"
        assert told["ce-source"] == f"mqtt://127.0.0.1:{broker.port}"
        if version == "5":
            assert told["x-mqtt-property-color"] == "blue"
            assert told["content-type"] == "text/plain"
            asked = b"\x08" + string("back/me") + b"\x09" + string(b"\0\1")
            client.send(publish("sensors/attic/temp", b"21", 0, version=5, properties=asked))
            kind, body = client.read()
            while kind == PUBACK:
                kind, body = client.read()
            assert body.startswith(string("back/me"))
            assert b"\x09" + string(b"\0\1") in body and body.endswith(b"got 21")


def client_answer(version: int) -> bytes:
    return b"\0\0\0" if version == 5 else b"\0\0"


def test_what_a_function_does_not_take_is_buried_at_the_broker(bridge) -> None:
    gateway, broker = bridge()
    with Client(broker.port) as client:
        client.connect("pub")
        client.send(subscribe("graveyard", qos=1))
        client.read()
        client.send(publish("dead/x", b"fail", 1, 5))
        got = [client.read(), client.read()]
        assert (PUBACK, b"\0\x05") in got
        [dead] = [body for kind, body in got if kind == PUBLISH]
        assert dead.startswith(string("graveyard")) and dead.endswith(b"fail")
    assert [it["headers"]["x-retry"] for it in called(gateway)] == ["0", "1"]


def test_it_comes_back_when_the_broker_does(bridge, mosquitto) -> None:
    gateway, broker = bridge()
    broker.stop(kill=True)
    time.sleep(0.3)
    again = mosquitto(port=broker.port)
    wait_for(lambda: "$share/headrace/dead/#" in again.log, 15)
    with Client(again.port) as client:
        client.connect("pub")
        client.send(publish("sensors/a/temp", b"1", 1, 1))
        assert client.read() == (PUBACK, b"\0\x01")
    wait_for(lambda: called(gateway), 10)


def test_gateways_part_the_messages(bridge) -> None:
    one, two, broker = bridge(count=2)
    said = "".join(f"{n}\n" for n in range(1, 41))
    words = ["-p", str(broker.port), "-t", "sensors/a/temp", "-q", "1", "-V", "mqttv5", "-l"]
    subprocess.run(["mosquitto_pub", *words], input=said.encode(), check=True, timeout=20)
    wait_for(lambda: len(called(one)) + len(called(two)) >= 40, 15)
    got = [it["body"] for it in called(one)] + [it["body"] for it in called(two)]
    assert sorted(got, key=int) == [str(n) for n in range(1, 41)]
    assert called(one) and called(two)


def test_none_is_lost_when_the_controller_is_killed(tmp_path, mosquitto) -> None:
    """What was not acknowledged comes again: each at least once."""
    broker = mosquitto()
    main = f"mqtt {{ bridge 127.0.0.1:{broker.port} {{ {RULES} }} }}"
    gateway = Gateway(tmp_path / "gateway", HTTP, main)    # who is killed is an alert
    (gateway.prefix / "app.py").write_text(HANDLER)
    gateway.start()
    try:
        kill_and_count(gateway, broker)
    finally:
        gateway.stop()


def kill_and_count(gateway: Gateway, broker: Mosquitto) -> None:
    wait_for(lambda: "subscribed 2 filters" in gateway.error_log, 10)
    with Client(broker.port) as client:
        client.connect("pub")
        for n in range(1, 61):
            client.send(publish("sensors/a/temp", b"sleep0.02" if n % 2 else b"%d" % n, 1, n))
            if n == 30:
                os.kill(controller(gateway), signal.SIGKILL)
        done = {f"{n}" for n in range(2, 61, 2)}
        wait_for(lambda: done <= {it["body"] for it in called(gateway)}, 30)


def test_a_reload_takes_a_bridge_away_and_brings_another(bridge, mosquitto) -> None:
    gateway, broker = bridge()
    other = mosquitto()
    text = gateway.conf.read_text().replace(f":{broker.port} ", f":{other.port} ")
    gateway.conf.write_text(text)
    gateway.reload()
    wait_for(lambda: "$share/headrace/dead/#" in other.log, 10)
    wait_for(lambda: "disconnected" in broker.log or "closed its connection" in broker.log, 10)
    with Client(other.port) as client:
        client.connect("pub")
        client.send(publish("sensors/a/temp", b"1", 1, 1))
        wait_for(lambda: called(gateway), 10)
    assert json.dumps(called(gateway)[0]["body"]) == '"1"'


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_bridge_by_tls_and_what_it_counts(headrace, mosquitto, papers, version) -> None:
    broker = mosquitto(sealed(papers, "require_certificate true\nuse_identity_as_username true"))
    plain = Mosquitto(broker.folder.parent / "x").port     # nobody is there
    tls = (
        "proxy_ssl on; proxy_ssl_verify on; proxy_ssl_name broker.test;"
        f"proxy_ssl_trusted_certificate {papers}/ca.crt;"
        f"proxy_ssl_certificate {papers}/gate.crt; proxy_ssl_certificate_key {papers}/gate.key;"
    )
    main = (
        f"mqtt {{ {tls} bridge 127.0.0.1:{broker.port} {{ {RULES} version {version}; }}"
        f" bridge 127.0.0.1:{plain} {{ on_publish x {{ function_pass thermo; }} }} }}"
    )
    gateway = headrace(
        HTTP.replace("server {", "server { location /metrics { metrics; }"), main=main, start=False
    )
    (gateway.prefix / "app.py").write_text(HANDLER)
    gateway.start()
    wait_for(lambda: "subscribed 2 filters" in gateway.error_log, 10)

    def counted(name: str, port: int = broker.port) -> str:
        said = gateway.get("/metrics").body.decode()
        start = f'headrace_mqtt_{name}{{bridge="127.0.0.1:{port}"}}'
        found = [line for line in said.splitlines() if line.startswith(start)]
        return found[0].split()[1] if found else "0"

    common = ["mosquitto_pub", "-h", "localhost", "-p", str(broker.port), "-q", "1", "--insecure",
              "--cafile", papers / "ca.crt", "--cert", papers / "gate.crt",
              "--key", papers / "gate.key"]  # fmt: skip
    subprocess.run([*common, "-t", "sensors/a/temp", "-m", "20"], check=True)
    subprocess.run([*common, "-t", "dead/a", "-m", "fail"], check=True)
    wait_for(lambda: counted("dead_letters_total") == "1", 10)
    wait_for(lambda: counted("calls_total") == "2" and counted("answers_total") == "1", 10)
    assert counted("bridge_connected") == "1" and counted("bridge_connected", plain) == "0"
    broker.stop(kill=True)
    wait_for(lambda: counted("bridge_connected") == "0", 10)


def test_a_bridge_does_not_speak_to_somebody_else(headrace, mosquitto, papers) -> None:
    broker = mosquitto(sealed(papers))
    main = (
        f"mqtt {{ bridge 127.0.0.1:{broker.port} {{ {RULES} proxy_ssl on; proxy_ssl_verify on;"
        f" proxy_ssl_trusted_certificate {papers}/ca.crt; proxy_ssl_name other.test; }} }}"
    )
    gateway = headrace(HTTP, main=main, start=False)
    (gateway.prefix / "app.py").write_text(HANDLER)
    gateway.start()
    wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in gateway.error_log, 10)
    assert "subscribed" not in gateway.error_log

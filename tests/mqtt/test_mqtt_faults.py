"""What breaks on the way of a message: a broker, a function, the disk that dead letters lie on."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from gateway import Gateway, controllers, wait_for
from mqtthouse import (
    CONNACK,
    PUBACK,
    PUBLISH,
    SUBACK,
    Client,
    publish,
    string,
    subscribe,
)
from test_mqtt_functions import called

HANDLER = """
import json, os, signal, time

def handle(event, context):
    told = {k.lower(): v for k, v in event.headers.items()}
    body = event.body.decode()
    with open("called", "a") as file:
        file.write(json.dumps({"headers": told, "body": body, "time": time.monotonic()}) + "\\n")
    if body == "die" and told["x-retry"] == "0" or body == "die always":
        os.kill(os.getpid(), signal.SIGKILL)
    if body == "fail":
        return {"statusCode": 503, "body": "no"}
    return {"statusCode": 200, "body": "got " + body}
"""
HTTP = """
    access_log off;
    functions { queue sqlite:var/queue.db; }
    function thermo { python app.py:handle;
                      async_retry attempts=1 min_wait=10ms max_wait=20ms; }
    server { listen 127.0.0.1:%%PORT_1%%; openfaas_api on; openfaas_auth off; }
"""
RULES = """
    on_publish "deep/#" { function_pass thermo; reply_topic answers;
                          publish_retry attempts=3 min_wait=10ms max_wait=20ms; }
    on_publish patient { function_pass thermo; reply_topic answers;
                         publish_retry attempts=20 min_wait=50ms max_wait=200ms; }
    on_publish slow { function_pass thermo;
                      publish_retry attempts=4 min_wait=100ms max_wait=300ms; }
"""


@pytest.fixture
def gateways(tmp_path: Path):
    """gateways(mqtt): one whose replicas may be killed, which its log calls an alert."""
    made: list[Gateway] = []

    def make(inside: str) -> Gateway:
        made.append(Gateway(tmp_path / "gateway", HTTP, f"mqtt {{ {inside} }}"))
        (made[0].prefix / "app.py").write_text(HANDLER)
        return made[0].start()

    yield make
    for it in made:
        it.stop()


@pytest.fixture
def thermo(gateways):
    return lambda: gateways(f"server {{ listen 127.0.0.1:%%PORT%%; {RULES} }}")


def stored(gateway: Gateway) -> int:
    """Calls that the queue has taken; not to be asked while the disk is full."""
    said = json.loads(gateway.get("/system/queue", gateway.ports[1]).body)["functions"]
    return sum(it["accepted"] for it in said)


# -- a broker ----------------------------------------------------------------------------

@pytest.mark.parametrize("version", [4, 5])
def test_a_broker_is_killed_and_its_clients_find_another(mqtt, mosquitto, version) -> None:
    """Amid a packet, too; who comes again is with the other broker, and served."""
    first, second = mosquitto(), mosquitto()
    gateway = mqtt(
        "mqtt_pass both;",
        f"upstream both {{ server 127.0.0.1:{first.port};"
        f" server 127.0.0.1:{second.port} backup; }}",
    )
    with Client(gateway.port) as reader, Client(gateway.port) as writer:
        for name, client in (("reader", reader), ("writer", writer)):
            assert client.connect(name, version=version)[0] == CONNACK
        writer.send(publish("t", b"half")[:5])             # it lies in the gateway and the broker
        first.stop(kill=True)
        assert reader.is_closed() and writer.is_closed()
    with Client(gateway.port) as reader, Client(gateway.port) as writer:
        for name, client in (("reader", reader), ("writer", writer)):
            assert client.connect(name, version=version)[1][1] == 0
        reader.send(subscribe("t", version=version))
        assert reader.read()[0] == SUBACK
        writer.send(publish("t", b"whole", 1, 7, version))
        assert writer.read()[0] == PUBACK
        kind, body = reader.read()
        assert kind == PUBLISH and body.startswith(string("t")) and body.endswith(b"whole")
    assert "as writer" in second.log


# -- a function --------------------------------------------------------------------------

@pytest.mark.parametrize("version", [4, 5])
def test_a_function_that_dies_amid_a_call_is_asked_again(thermo, version) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(subscribe("answers", version=version))
        assert client.read()[0] == SUBACK
        client.send(publish("patient", b"die", 1, 3, version))
        kind, body = client.read()
        assert kind == PUBLISH and body.endswith(b"got die")
        assert client.read() == (PUBACK, b"\0\x03")
    calls = called(gateway)
    assert len(calls) == 2 and calls[1]["headers"]["x-retry"] != "0"
    assert len({it["headers"]["ce-id"] for it in calls}) == 1


def test_one_that_always_dies_leaves_a_dead_letter(thermo) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("deep/x", b"die always", 1, 3))
        assert client.read() == (PUBACK, b"\0\x03")
    assert stored(gateway) == 1
    assert {it["body"] for it in called(gateway)} == {"die always"}


def test_it_is_asked_again_later_and_later(thermo) -> None:
    """Each wait is at least half of what the conf says, twice the one before up to the bound."""
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c")
        client.send(publish("slow", b"fail", 1, 3))
        assert client.read() == (PUBACK, b"\0\x03")
    times = [it["time"] for it in called(gateway)][:4]
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert len(gaps) == 3
    assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.15), strict=True))


# -- the disk ----------------------------------------------------------------------------

class Disk:
    """The disk of a gateway's controller: full() lets it write nothing more to any file."""

    def __init__(self, gateway: Gateway) -> None:
        assert gateway.process is not None
        [self.pid] = controllers(gateway.process.pid)
        self.before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)

    def full(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, self.before[1]))

    def freed(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, self.before)


@pytest.mark.parametrize("version", [4, 5])
def test_no_acknowledgement_while_a_dead_letter_cannot_be_stored(thermo, version) -> None:
    gateway = thermo()
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(publish("deep/x", b"fail", 1, 1, version))
        assert client.read() == (PUBACK, b"\0\x01")
    assert stored(gateway) == 1
    disk = Disk(gateway)
    disk.full()
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(publish("deep/x", b"fail", 1, 2, version))
        if version == 5:
            assert client.read() == (PUBACK, b"\0\x02\x83")
        else:
            assert client.is_closed()                      # it shall be sent again
    wait_for(lambda: "a dead letter of 'deep/x' could not be stored: 5" in gateway.error_log)
    disk.freed()
    assert stored(gateway) == 1
    with Client(gateway.port) as client:
        client.connect("c", version=version)
        client.send(publish("deep/x", b"fail", 1, 2, version))
        assert client.read() == (PUBACK, b"\0\x02")
    assert stored(gateway) == 2


def test_a_bridge_keeps_a_message_until_its_dead_letter_can_be_stored(gateways, mosquitto) -> None:
    """Unacknowledged at the broker, which has it still when nobody else does."""
    broker = mosquitto()
    gateway = gateways(f"bridge 127.0.0.1:{broker.port} {{ {RULES} }}")
    wait_for(lambda: "subscribed 3 filters" in gateway.error_log, 10)
    assert stored(gateway) == 0                            # the queue is open by now
    disk = Disk(gateway)
    disk.full()
    with Client(broker.port) as client:
        client.connect("pub")
        client.send(publish("deep/x", b"fail", 1, 1))
        assert client.read() == (PUBACK, b"\0\x01")
    wait_for(lambda: len(called(gateway)) >= 6, 10)        # tried again and again
    assert "Received PUBACK from headrace-" not in broker.log
    disk.freed()
    wait_for(lambda: stored(gateway) == 1, 10)
    wait_for(lambda: "Received PUBACK from headrace-" in broker.log, 10)

"""Who is let in, what he may say and how much of it: judged before a broker hears of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import socket
import ssl
import subprocess
import time

import pytest
from gateway import wait_for
from h2client import H2Client, Response
from mqtthouse import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    PUBREC,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Client,
    connect,
    packet,
    publish,
    string,
    subscribe,
)


def sha(password: str) -> str:
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


@pytest.fixture
def relay(mqtt, mosquitto, headrace):
    """relay(inside): a gateway before a mosquitto, and the mosquitto."""

    def make(inside: str = "", more: str = "", files: dict[str, str] | None = None):
        broker = mosquitto()
        text = (
            f"mqtt {{ {more} server {{ listen 127.0.0.1:%%PORT%%; "
            f"mqtt_pass 127.0.0.1:{broker.port}; {inside} }} }}"
        )
        gateway = headrace(main=text, start=False)
        for name, content in (files or {}).items():
            (gateway.prefix / name).write_text(content)
        return gateway.start(), broker

    return make


# -- who ---------------------------------------------------------------------------------

def test_passwords_are_checked_before_a_broker_is_touched(relay) -> None:
    slow = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", "abc", "six"], capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    gateway, broker = relay(
        "auth_basic_user_file users;",
        files={"users": f"fast:{sha('one')}\nslow:{slow}\nplain:{{PLAIN}}p-w\n"},
    )
    before = broker.log.count("New connection")
    for user, password in (
        ("fast", "two"), ("slow", "seven"), ("nobody", "x"), ("fast", None), (None, None),
        ("", "one"), ("fast", "one\0"),
    ):  # fmt: skip
        for version, said in ((4, b"\0\x04"), (5, b"\0\x86\0")):
            if version == 4 and user is None:
                said = b"\0\x04"
            with Client(gateway.port) as client:
                assert client.connect("c", user=user, password=password, version=version) == (
                    CONNACK, said
                )  # fmt: skip
                assert client.is_closed()
    assert broker.log.count("New connection") == before
    for user, password in (("fast", "one"), ("slow", "six"), ("plain", "p-w")):
        with Client(gateway.port) as client:
            assert client.connect("c", user=user, password=password)[1] == b"\0\0"


def test_a_token_as_password(relay) -> None:
    from joserfc import jwt
    from joserfc.jwk import KeySet, RSAKey

    rsa, other = RSAKey.generate_key(2048, {"kid": "a"}), RSAKey.generate_key(2048, {"kid": "a"})
    public = KeySet([RSAKey.import_key(rsa.as_dict(private=False))]).as_dict(private=False)
    gateway, broker = relay(
        "mqtt_jwt_key_file keys.json; mqtt_allow publish t/%u;",
        files={"keys.json": json.dumps(public)},
    )
    now = int(time.time())

    def token(key=rsa, alg: str = "RS256", **claims) -> str:
        return jwt.encode({"alg": alg, "kid": "a"}, claims, key, algorithms=[alg])

    good = token(sub="ann", exp=now + 600)
    head, body, sign = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    hs256 = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"a"}').rstrip(b"=").decode()
    mac = hmac.digest(rsa.as_pem(private=False), f"{hs256}.{body}".encode(), "sha256")
    with_public = f"{hs256}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    bad = {
        "old": token(sub="ann", exp=now - 600),
        "not yet": token(sub="ann", exp=now + 600, nbf=now + 300),
        "for ever": token(sub="ann"),
        "nobody": token(exp=now + 600),
        "another key": token(other, sub="ann", exp=now + 600),
        "no algorithm": f"{none}.{body}.",
        "public key as secret": with_public,
        "cut": good[:-4],
        "changed": f"{head}.{body[:-2]}AA.{sign}",
        "nothing": "a.b.c",
        "dots": "..",
        "long": good + "A" * 20_000,
    }
    for name, text in bad.items():
        with Client(gateway.port) as client:
            said = client.connect("c", user="ann", password=text)
            assert said == (CONNACK, b"\0\x04"), name
    for user in ("bob", "ANN"):
        with Client(gateway.port) as client:
            assert client.connect("c", user=user, password=good)[1] == b"\0\x04"
    for user in ("ann", ""):
        with Client(gateway.port) as client:
            assert client.connect("c", user=user, password=good, version=5)[1][1] == 0
            client.send(publish("t/ann", b"", 1, 1, 5), publish("t/bob", b"", 1, 2, 5))
            assert {client.read()[1][:3] for _ in range(2)} >= {b"\0\x02\x87"}
    assert "as c" in broker.log


def test_a_certificate_is_a_user(headrace, mosquitto, tmp_path) -> None:
    def run(*words: object) -> None:
        subprocess.run(list(map(str, words)), check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca, ca_key = tmp_path / "ca.crt", tmp_path / "ca.key"
    run("openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", ca_key,
        "-out", ca)  # fmt: skip
    for name in ("gate", "device7"):
        run("openssl", "req", *key, "-subj", f"/O=x/CN={name}", "-keyout", tmp_path / f"{name}.key",
            "-out", tmp_path / f"{name}.csr")  # fmt: skip
        run("openssl", "x509", "-req", "-in", tmp_path / f"{name}.csr", "-CA", ca, "-CAkey", ca_key,
            "-CAcreateserial", "-days", "2", "-out", tmp_path / f"{name}.crt")  # fmt: skip
    broker = mosquitto()
    gateway = headrace(main=f"""
        mqtt {{ server {{
            listen 127.0.0.1:%%PORT%% ssl;
            ssl_certificate {tmp_path}/gate.crt; ssl_certificate_key {tmp_path}/gate.key;
            ssl_client_certificate {ca}; ssl_verify_client optional;
            mqtt_certificate_user on; mqtt_allow all devices/%u/#;
            mqtt_pass 127.0.0.1:{broker.port};
        }} }}
    """)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)

    def dial() -> Client:
        raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        return Client(sock=context.wrap_socket(raw))

    with dial() as client:
        assert client.connect("c", version=5) == (CONNACK, b"\0\x87\0")
    context.load_cert_chain(tmp_path / "device7.crt", tmp_path / "device7.key")
    with dial() as client:
        assert client.connect("c", user="admin")[1] == b"\0\0"
        client.send(subscribe("devices/device7/+", qos=1))
        assert client.read() == (SUBACK, b"\0\x01\x01")
        client.send(publish("devices/device7/x", b"y" * 50_000))
        assert client.read() == (PUBLISH, string("devices/device7/x") + b"y" * 50_000)
        client.send(subscribe("devices/admin/+"))
        assert client.read() == (SUBACK, b"\0\x01\x80")


def test_addresses_and_numbers_of_connections(headrace, mosquitto) -> None:
    broker = mosquitto()
    gateway = headrace(main=f"""
        mqtt {{
            limit_conn_zone $binary_remote_addr zone=a:64k;
            log_format told "$remote_addr $mqtt_client_id $mqtt_user/$mqtt_version $status "
                            "$mqtt_published $mqtt_refused $mqtt_reason $bytes_received";
            server {{ listen 127.0.0.1:%%PORT%%; mqtt_pass 127.0.0.1:{broker.port};
                     limit_conn a 2; mqtt_allow all a/#; access_log logs/mqtt.log told; }}
            server {{ listen 127.0.0.1:%%PORT_1%%; mqtt_pass 127.0.0.1:{broker.port}; deny all; }}
        }}
    """)
    with Client(gateway.ports[1]) as client:
        assert client.is_closed()
    with Client(gateway.port) as one, Client(gateway.port) as two, Client(gateway.port) as three:
        one.connect("one", user="me", version=5)
        two.connect("two")
        assert three.is_closed()
        one.send(publish("a", b"x", 0, version=5), publish("b", b"x", 0, version=5))
        one.send(packet(PINGREQ))
        assert one.read()[0] == PINGRESP
    wait_for(lambda: len(gateway.log("mqtt.log")) == 3)
    size = len(connect("one", user="me", version=5)) + 2 * len(publish("a", b"x", version=5)) + 2
    assert f"127.0.0.1 one me/5 200 2 1 0 {size}" in gateway.log("mqtt.log")
    assert "127.0.0.1 - -/- 503 0 0 0 0" in gateway.log("mqtt.log")


# -- topics ------------------------------------------------------------------------------

ALLOW = "mqtt_allow publish up/%c/# shared; mqtt_allow subscribe down/%u/+ news/#;"


@pytest.mark.parametrize("version", [4, 5])
def test_subscriptions_are_held_against_patterns(relay, version) -> None:
    gateway, broker = relay(ALLOW)
    bad = 0x87 if version == 5 else 0x80
    empty = b"\0" if version == 5 else b""
    with Client(gateway.port) as client:
        client.connect("c", user="u", version=version)
        for filters, codes in [
            (["down/u/x", "news/#"], [0, 0]),
            (["news"], [0]),
            (["$share/g/news/a"], [0]),
            (["down/#"], [bad]),
            (["down/u/#"], [bad]),
            (["down/+/x"], [bad]),
            (["#"], [bad]),
            (["+/u/x"], [bad]),
            (["$share/g/down/v/x"], [bad]),
            (["$SYS/#"], [bad]),
            (["up/c/x"], [bad]),
            (["news/a", "down/v/x"], [0, bad]),
            (["up/c/x", "news/b", "#", "news/c", "down/v/x"], [bad, 0, bad, 0, bad]),
        ]:
            client.send(subscribe(*filters, version=version))
            assert client.read() == (SUBACK, b"\0\x01" + empty + bytes(codes)), filters
    assert "down/v" not in broker.log and "SYS" not in broker.log


def test_publishes_that_are_not_allowed(relay) -> None:
    gateway, broker = relay(ALLOW)
    with Client(gateway.port) as client:
        client.connect("c", user="u", version=5)
        client.send(
            publish("up/c/x", b"1", 1, 1, 5), publish("up/d/x", b"2", 1, 2, 5),
            publish("up/d/x", b"3", 2, 3, 5), publish("up/d/x", b"z" * 300_000, 0, version=5),
            publish("shared", b"4", 1, 4, 5),
        )  # fmt: skip
        got = [client.read() for _ in range(4)]
        assert [it for it in got if len(it[1]) > 2 and it[1][2] == 0x87] == [
            (PUBACK, b"\0\x02\x87"), (PUBREC, b"\0\x03\x87")
        ]  # fmt: skip
        assert {it[1][:2] for it in got if len(it[1]) == 2 or it[1][2] != 0x87} == {
            b"\0\x01", b"\0\x04"
        }  # fmt: skip
        assert "up/d/x" not in broker.log
    with Client(gateway.port) as client:
        client.connect("c", user="u")
        client.send(publish("up/d/x", b"2", 0), packet(PINGREQ))
        assert client.read()[0] == PINGRESP                # dropped
        client.send(publish("up/d/x", b"2", 1, 2))
        assert client.is_closed()                          # 3.1.1 has no word for it
    for version, said in ((4, b"\0\x05"), (5, b"\0\x87\0")):
        with Client(gateway.port) as client:
            answer = client.connect("c", version=version, will=("other", b""))
            assert answer == (CONNACK, said)
    assert "up/d/x" not in broker.log


@pytest.mark.parametrize("name", ["+", "#", "a/b", "$SYS", ""])
def test_no_name_reaches_beyond_its_place(relay, name) -> None:
    gateway, broker = relay("mqtt_allow all %u/#; mqtt_allow all x/%u;")
    with Client(gateway.port) as client:
        client.connect("c", user=name, version=5)
        for topic in ("x/y", "a/b", "a/b/c", "/x", "$SYS/a", "x/"):
            client.send(publish(topic, b"", 1, 1, 5))
            assert client.read() == (PUBACK, b"\0\x01\x87"), topic
        client.send(subscribe("+/#", version=5))
        assert client.read() == (SUBACK, b"\0\x01\0\x87")


def test_an_alias_is_as_good_as_its_topic(relay) -> None:
    """A topic that was refused never reached the broker: its alias means another one there."""
    gateway, broker = relay(ALLOW)
    alias = b"\x23\0\x05"
    with Client(gateway.port) as client:
        client.connect("c", user="u", version=5)
        steps = [
            ("", 0x87), ("up/c/a", 0), ("", 0), ("up/d/a", 0x87), ("", 0x87), ("shared", 0), ("", 0)
        ]  # fmt: skip
        for n, (topic, code) in enumerate(steps, 1):
            client.send(publish(topic, b"", 1, n, 5, alias))
            kind, body = client.read()
            assert (kind, body[1]) == (PUBACK, n)
            assert (body[2] if len(body) > 2 else 0) in ((0, 0x10) if not code else (code,)), n


# -- how much ----------------------------------------------------------------------------

def test_publishes_beyond_the_rate_wait_and_none_is_lost(relay) -> None:
    gateway, broker = relay("mqtt_publish_rate 50r/s burst=10;")
    with Client(gateway.port) as reader, Client(gateway.port) as client:
        reader.connect("reader")
        reader.send(subscribe("t"))
        reader.read()
        client.connect("c")
        began = time.monotonic()
        client.send(*[publish("t", b"%d" % n) for n in range(40)])
        got = [reader.read()[1][3:] for _ in range(40)]
        assert got == [b"%d" % n for n in range(40)]
        assert time.monotonic() - began >= 30 / 50 * 0.9   # the bound that the conf names
        reader.send(packet(PINGREQ))
        assert reader.read()[0] == PINGRESP


def test_bytes_beyond_the_rate_wait_while_others_are_served(relay) -> None:
    gateway, broker = relay("mqtt_publish_bytes 100k burst=20k;")
    with Client(gateway.port) as client, Client(gateway.port) as other:
        client.connect("c")
        other.connect("other")
        began = time.monotonic()
        client.send(*[publish("t", b"x" * 10_000, 1, n) for n in range(1, 9)])
        other.send(publish("t", b"x", 1, 1))
        assert other.read() == (PUBACK, b"\0\x01")
        assert [client.read()[1][1] for _ in range(8)] == list(range(1, 9))
        assert time.monotonic() - began >= 60_000 / 102_400 * 0.9
        client.send(publish("t", b"x" * 50_000, 1, 9))     # more than the bucket holds
        assert client.read() == (PUBACK, b"\0\x09")


def test_a_slow_connect_is_cut_and_a_silent_client_too(relay) -> None:
    gateway, broker = relay("mqtt_connect_timeout 300ms;")
    with Client(gateway.port) as silent, Client(gateway.port) as slow:
        data = connect("slow", keepalive=1)
        slow.send(data[:3])
        with contextlib.suppress(OSError):                 # on a slow machine it is cut by then
            for at in range(3, 6):
                time.sleep(0.08)
                slow.send(data[at : at + 1])
        assert slow.is_closed()
        assert silent.is_closed()
    with Client(gateway.port) as client:
        client.connect("c", keepalive=2, version=5)
        for _ in range(4):                                 # together longer than 1.5 keepalives
            time.sleep(0.8)
            client.send(packet(PINGREQ))
            assert client.read()[0] == PINGRESP
        assert client.read() == (DISCONNECT, b"\x8d")
        assert client.is_closed()


# -- what is no MQTT ---------------------------------------------------------------------

GOOD_CONNECT = connect("c", version=5)
BAD_FIRST = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "not CONNECT": packet(PINGREQ),
    "another name": GOOD_CONNECT.replace(b"MQTT", b"MQTt"),
    "endless length": b"\x10\xff\xff\xff\xff\x01",
    "giant length": b"\x10\xff\xff\xff\x7f" + b"x" * 100,
    "type 0": b"\x00\x00",
    "flags": b"\x11" + GOOD_CONNECT[1:],
    "text behind": packet(CONNECT, GOOD_CONNECT[2:] + b"x"),
    "id not UTF-8": connect("c").replace(b"\0\x01c", b"\0\x01\xff"),
    "id with NUL": connect("\0"),
    "will with a wildcard": connect("c", will=("a/#", b"")),
    "reserved flag": packet(CONNECT, string("MQTT") + b"\x04\x03\0\0" + string("c")),
    "will QoS 3": packet(CONNECT, string("MQTT") + b"\x04\x1e\0\0" + string("c") + string("w")
                         + string("")),
    "password alone": packet(CONNECT, string("MQTT") + b"\x04\x42\0\0" + string("c") + string("")),
    "property twice": connect("c", version=5, properties=b"\x21\0\x01\x21\0\x01"),
    "property of another": connect("c", version=5, properties=b"\x23\0\x01"),
    "property unknown": connect("c", version=5, properties=b"\x7d\0"),
    "property cut": connect("c", version=5, properties=b"\x11\0\0"),
    "receive maximum 0": connect("c", version=5, properties=b"\x21\0\0"),
}  # fmt: skip
BAD_LATER = {
    "second CONNECT": (GOOD_CONNECT, 0x82),
    "giant length": (b"\x30\xff\xff\xff\x7f", 0x95),
    "endless length": (b"\x30\xff\xff\xff\xff\x01", 0x81),
    "longer than it must be": (b"\xc0\x80\x00", 0x81),
    "QoS 3": (packet(PUBLISH, string("a") + b"\0\x01\0", 6), 0x81),
    "DUP with QoS 0": (packet(PUBLISH, string("a") + b"\0", 8), 0x81),
    "wildcard in PUBLISH": (publish("a/+", b"", version=5), 0x90),
    "hash in PUBLISH": (publish("a#", b"", version=5), 0x90),
    "no topic, no alias": (publish("", b"", version=5), 0x82),
    "topic not UTF-8": (packet(PUBLISH, string(b"\xc0\x80") + b"\0"), 0x81),
    "surrogate": (packet(PUBLISH, string(b"\xed\xa0\x80") + b"\0"), 0x81),
    "topic longer than its packet": (packet(PUBLISH, b"\0\x10ab\0"), 0x81),
    "packet id 0": (publish("a", b"", 1, 0, 5), 0x82),
    "alias 0": (publish("a", b"", 0, version=5, properties=b"\x23\0\0"), 0x94),
    "subscription id in PUBLISH": (publish("a", version=5, properties=b"\x0b\x01"), 0x82),
    "response topic with a wildcard": (
        publish("a", version=5, properties=b"\x08" + string("b/#")), 0x82),
    "SUBSCRIBE without flags": (packet(SUBSCRIBE, subscribe("a", version=5)[2:], 0), 0x81),
    "SUBSCRIBE of nothing": (packet(SUBSCRIBE, b"\0\x01\0\0\0", 2), 0x8F),
    "bad filter": (subscribe("a#", version=5), 0x8F),
    "hash not last": (subscribe("#/a", version=5), 0x8F),
    "plus in a level": (subscribe("a/b+", version=5), 0x8F),
    "share without a name": (subscribe("$share//a", version=5), 0x8F),
    "share without a filter": (subscribe("$share/g", version=5), 0x8F),
    "subscription QoS 3": (subscribe("a", version=5, qos=3), 0x81),
    "no local of a share": (subscribe("$share/g/a", version=5, qos=4), 0x82),
    "UNSUBSCRIBE of nothing": (packet(UNSUBSCRIBE, b"\0\x01\0", 2), 0x81),
    "CONNACK from a client": (packet(CONNACK, b"\0\0\0"), 0x82),
    "PINGREQ with a body": (packet(PINGREQ, b"x"), 0x81),
    "server's reason": (packet(DISCONNECT, b"\x8b\0"), 0x82),
    "behind DISCONNECT": (packet(DISCONNECT) + packet(PINGREQ), 0x82),
}


def test_what_is_no_connect_reaches_no_broker(relay) -> None:
    gateway, broker = relay()
    before = broker.log.count("New connection")
    for name, data in BAD_FIRST.items():
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))][:40]):
            with Client(gateway.port) as client:
                for piece in pieces:
                    try:
                        client.send(piece)
                    except OSError:
                        break
                if len(pieces) > 1:
                    with contextlib.suppress(OSError):
                        client.sock.shutdown(socket.SHUT_WR)
                assert client.is_closed(), name
    assert broker.log.count("New connection") == before
    for level, said in ((3, b"\0\1"), (6, b"\0\x84\0"), (0, b"\0\1"), (0x84, b"\0\1")):
        data = bytearray(connect("c"))
        data[8] = level
        with Client(gateway.port) as client:
            client.send(bytes(data))
            assert client.read() == (CONNACK, said)
    with Client(gateway.port) as client:
        assert client.connect("", clean=False) == (CONNACK, b"\0\x02")
    with Client(gateway.port) as client:                   # and the next one is served
        assert client.connect("c")[1] == b"\0\0"


def test_what_is_no_packet_ends_the_connection_with_its_reason(relay) -> None:
    gateway, broker = relay()
    for name, (data, reason) in BAD_LATER.items():
        with Client(gateway.port) as client:
            client.connect("c", version=5)
            client.send(packet(PINGREQ), data)
            said = client.read()
            if said == (PINGRESP, b""):                    # the broker may be as fast as we
                said = client.read()
            assert said == (DISCONNECT, bytes([reason])), name
            assert client.is_closed()


def test_a_flood_of_packets_holds_nobody_up(relay) -> None:
    gateway, broker = relay()
    flood = publish("t", b"") * 2000 + packet(PINGREQ) * 2000
    with Client(gateway.port) as bad, Client(gateway.port) as good:
        bad.connect("bad")
        good.connect("good")
        for _ in range(10):
            bad.send(flood)
            good.send(packet(PINGREQ))
            assert good.read()[0] == PINGRESP


def test_many_half_connects_hold_little(relay) -> None:
    gateway, broker = relay()
    wait_for(gateway.workers)
    [worker] = gateway.workers()

    def memory_kib() -> int:
        with open(f"/proc/{worker}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    for it in [Client(gateway.port).send(connect("c")[:9]) for _ in range(50)]:
        it.sock.close()
    with Client(gateway.port) as client:
        client.connect("c")
    before = memory_kib()
    clients = [Client(gateway.port).send(connect("c")[:9]) for _ in range(200)]
    with Client(gateway.port) as client:
        client.connect("c")
    assert memory_kib() - before < 200 * 24
    for it in clients:
        it.sock.close()


# -- WebSockets --------------------------------------------------------------------------

def frames(data: bytes, size: int = 0, opcode: int = 2) -> bytes:
    """Binary frames of a client, of `size` bytes each."""
    out = b""
    for at in range(0, len(data), size or len(data) or 1):
        piece = data[at : at + (size or len(data))]
        key = os.urandom(4)
        n = len(piece)
        head = bytes([0x80 | opcode]) + (
            bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big") if n < 65536
            else b"\xff" + n.to_bytes(8, "big"))  # fmt: skip
        out += head + key + bytes(c ^ key[i & 3] for i, c in enumerate(piece))
    return out


UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
WEBSOCKET = "listen 127.0.0.1:%%PORT_1%% websocket;"


@pytest.mark.parametrize("size", [0, 1, 7])
def test_mqtt_in_a_websocket(relay, size) -> None:
    gateway, broker = relay(WEBSOCKET)
    with Client(gateway.ports[1]) as client:
        client.send(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.exactly(1)
        assert b" 101 " in head and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert b"Sec-WebSocket-Protocol: mqtt\r\n" in head
        big = publish("t", b"z" * 3000)
        client.send(frames(connect("ws") + subscribe("t") + big, size))
        got, want = b"", b"\x20\x02\0\0" + b"\x90\x03\0\x01\0" + big
        while len(got) < len(want):
            first, n = client.exactly(2)
            assert first == 0x82
            if n == 126:
                n = int.from_bytes(client.exactly(2), "big")
            got += client.exactly(n)
        assert got == want
        client.send(frames(b"ping!", 0, 9))
        assert client.exactly(7) == b"\x8a\x05ping!"
        client.send(frames(b"\x03\xe8", 0, 8))
        assert client.exactly(4) == b"\x88\x02\x03\xe8"
        assert client.is_closed()


def test_a_real_client_over_websockets(relay) -> None:
    import paho.mqtt.client as paho

    gateway, broker = relay(WEBSOCKET)
    got = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "ws", transport="websockets")
    client.on_message = lambda _client, _data, message: got.append(message.payload)
    client.on_connect = lambda client, *_: client.subscribe("t", 1)
    client.on_subscribe = lambda client, *_: client.publish("t", b"x" * 100_000, 1)
    client.connect("127.0.0.1", gateway.ports[1])
    client.loop_start()
    wait_for(lambda: got, 10)
    client.disconnect()
    client.loop_stop()
    assert got == [b"x" * 100_000]


@pytest.mark.parametrize("data, said", [
    (UPGRADE.replace(b"Protocol: mqtt", b"Protocol: chat"), b" 400 "),
    (UPGRADE.replace(b"Version: 13", b"Version: 8"), b" 426 "),
    (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c"), b" 426 "),
    (UPGRADE.replace(b"GET", b"POST"), b" 400 "),
    (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), b" 400 "),
    (b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000, b""),
    (UPGRADE + b"\x81\x80\0\0\0\0", b"\x88\x02\x03\xeb"),  # text: 1003
    (UPGRADE + b"\x82\x01x", b"\x88\x02\x03\xea"),         # not masked: 1002
    (UPGRADE + frames(b"junk that is no packet"), b"\x88\x02\x03\xe8"),
])  # fmt: skip
def test_a_websocket_that_is_not_good(relay, data, said) -> None:
    gateway, broker = relay(WEBSOCKET)
    with Client(gateway.ports[1]) as client:
        client.send(data)
        got = b""
        try:
            while piece := client.sock.recv(65536):
                got += piece
        except ConnectionError:
            pass
        assert said in got
    assert "New client" not in broker.log


def test_behind_a_proxy_header(relay) -> None:
    gateway, broker = relay("listen 127.0.0.1:%%PORT_1%% proxy_protocol; deny 10.1.1.1;")
    head = b"PROXY TCP4 10.1.1.1 10.0.0.2 1000 1883\r\n"
    with Client(gateway.ports[1]) as client:
        client.send(head + connect("c"))
        assert client.read() == (CONNACK, b"\0\0")
    with Client(gateway.ports[1]) as client:
        client.send(b"PROXY nonsense\r\n" + connect("c"))
        assert client.is_closed()


def test_a_location_of_http_passes_websockets_of_mqtt(headrace, mosquitto) -> None:
    import paho.mqtt.client as paho

    broker = mosquitto()
    gateway = headrace(
        """
        server { listen 127.0.0.1:%%PORT%%; access_log off;
                 location /mqtt { mqtt_websocket unix:%%DIR%%/mqtt.sock; deny 127.0.0.2; } }
        """,
        main=f"""
        mqtt {{
            log_format who "$remote_addr $mqtt_client_id";
            server {{ listen unix:%%DIR%%/mqtt.sock websocket; access_log logs/mqtt.log who;
                      mqtt_pass 127.0.0.1:{broker.port}; }}
        }}
        """,
    )
    got = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "ws", transport="websockets")
    client.on_message = lambda _client, _data, message: got.append(message.payload)
    client.on_connect = lambda client, *_: client.subscribe("t", 1)
    client.on_subscribe = lambda client, *_: client.publish("t", b"x" * 100_000, 1)
    client.connect("127.0.0.1", gateway.port)
    client.loop_start()
    wait_for(lambda: got, 10)
    client.disconnect()
    client.loop_stop()
    assert got == [b"x" * 100_000]
    wait_for(lambda: gateway.log("mqtt.log") == ["127.0.0.1 ws"])


def test_mqtt_in_a_websocket_over_http2(headrace, mosquitto) -> None:
    """Extended CONNECT (RFC 8441) is an upgrade like any other to the location."""
    broker = mosquitto()
    gateway = headrace(
        """
        server { listen 127.0.0.1:%%PORT%%; http2 on; access_log off;
                 location /mqtt { mqtt_websocket unix:%%DIR%%/mqtt.sock; } }
        """,
        main=f"""
        mqtt {{ server {{ listen unix:%%DIR%%/mqtt.sock websocket;
                mqtt_pass 127.0.0.1:{broker.port}; }} }}
        """,
    )
    with H2Client(gateway.port) as client:
        while client.h2.remote_settings.get(8) is None:
            assert client.step()
        client.last += 2
        stream = client.last
        client.responses[stream] = answer = Response()
        block = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                 (":path", "/mqtt"), (":authority", "a.test"), ("sec-websocket-version", "13"),
                 ("sec-websocket-protocol", "mqtt")]  # fmt: skip
        client.h2.send_headers(stream, block)
        client.h2.send_data(stream, frames(connect("h2") + subscribe("t") + publish("t", b"hi")))
        client.flush()
        want = b"\x82\x04\x20\x02\0\0"
        while len(answer.body) < 22:
            assert client.step()
        assert answer.status == 200
        assert bytes(answer.body).startswith(want)
        assert publish("t", b"hi")[2:] in bytes(answer.body)

"""TLS towards brokers: who they must be, who we are, and what if it is somebody else."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from gateway import wait_for
from mqtthouse import CONNACK, PUBACK, PUBLISH, SUBACK, Client, publish, sealed, subscribe

VERIFY = "proxy_ssl on; proxy_ssl_verify on; proxy_ssl_name broker.test;"


@pytest.mark.parametrize("version", [4, 5])
def test_messages_go_round_by_tls(mqtt, mosquitto, papers, version) -> None:
    broker = mosquitto(sealed(papers))
    gateway = mqtt(
        f"mqtt_pass 127.0.0.1:{broker.port}; {VERIFY}"
        f"proxy_ssl_trusted_certificate {papers}/ca.crt;"
    )
    for _ in range(3):                                     # the second resumes a session
        with Client(gateway.port) as client:
            assert client.connect("c", version=version)[0] == CONNACK
            client.send(subscribe("t", version=version))
            assert client.read()[0] == SUBACK
            client.send(publish("t", b"x" * 200_000, 1, 3, version))
            got = dict(client.read() for _ in range(2))
            assert got[PUBACK][:2] == b"\0\3" and got[PUBLISH].endswith(b"x" * 200_000)


def test_a_broker_asks_who_we_are(mqtt, mosquitto, papers) -> None:
    broker = mosquitto(sealed(papers, "require_certificate true\nuse_identity_as_username true"))
    common = f"mqtt_pass 127.0.0.1:{broker.port}; proxy_ssl on; mqtt_connack_timeout 2s;"
    gateway = mqtt(
        f"{common} proxy_ssl_certificate {papers}/gate.crt;"
        f"proxy_ssl_certificate_key {papers}/gate.key;"
    )
    with Client(gateway.port) as client:
        assert client.connect("c") == (CONNACK, b"\0\0")
    wait_for(lambda: "u'gate'" in broker.log)
    nobody = mqtt(common)
    with Client(nobody.port) as client:
        assert client.connect("c") == (CONNACK, b"\0\x03")


@pytest.mark.parametrize("settings, said", [
    ("proxy_ssl_verify on; proxy_ssl_name other.test;", 'does not match "other.test"'),
    ("proxy_ssl_verify on;", 'does not match "127.0.0.1"'),
    ("proxy_ssl_verify on; proxy_ssl_name gate; proxy_ssl_trusted_certificate {gate};",
     "certificate verify error"),
])  # fmt: skip
def test_a_broker_that_is_somebody_else_gets_no_connect(mqtt, brokers, papers, settings, said):
    broker = brokers()
    seal(broker, papers)
    if "trusted" not in settings:
        settings += f"proxy_ssl_trusted_certificate {papers}/ca.crt;"
    settings = settings.format(gate=papers / "gate.crt")
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; proxy_ssl on; {settings}")
    with Client(gateway.port) as client:
        assert client.connect("c") == (CONNACK, b"\0\x03")
    assert said in gateway.error_log
    assert broker.connects == []


def test_another_broker_is_asked_when_one_has_no_tls(mqtt, mosquitto, brokers, papers) -> None:
    plain, broker = brokers(None), mosquitto(sealed(papers))
    silent = brokers(None, lambda client: client.sock.recv(1))
    gateway = mqtt(
        "mqtt_pass all; proxy_ssl on; proxy_connect_timeout 500ms;",
        more=f"upstream all {{ server 127.0.0.1:{plain.port}; server 127.0.0.1:{silent.port};"
        f" server 127.0.0.1:{broker.port}; }}",
    )
    for n in range(12):
        with Client(gateway.port) as client:
            assert client.connect(f"c{n}") == (CONNACK, b"\0\0")


def test_a_broker_that_shares_its_port_is_asked_by_alpn(mqtt, brokers, papers) -> None:
    """As clouds have it: MQTT and HTTPS on port 443 (proxy_ssl_alpn)."""
    broker = brokers()
    chosen = seal(broker, papers, ["http/1.1", "mqtt"])
    gateway = mqtt(f"mqtt_pass 127.0.0.1:{broker.port}; proxy_ssl on; proxy_ssl_alpn mqtt;")
    with Client(gateway.port) as client:
        assert client.connect("c") == (CONNACK, b"\0\0")
    assert chosen == ["mqtt"]


def test_a_conf_of_tls_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    from gateway import run

    conf = tmp_path / "x.conf"
    conf.write_text("events { } mqtt { server { listen 1; mqtt_pass 127.0.0.1:1; proxy_ssl on;"
                    " proxy_ssl_verify on; } }")  # fmt: skip
    done = run("-t", "-p", str(tmp_path), "-c", str(conf), cwd=tmp_path)
    assert done.returncode == 1
    assert "no proxy_ssl_trusted_certificate for proxy_ssl_verify" in done.stderr


def seal(broker, papers: Path, protocols: list[str] | None = None) -> list[str | None]:
    """A broker by hand speaks TLS from now on; what ALPN chose of each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers / "broker.test.crt", papers / "broker.test.key")
    if protocols:
        context.set_alpn_protocols(protocols)
    chosen: list[str | None] = []
    run = broker._run

    def run_sealed(sock) -> None:
        try:
            sock = context.wrap_socket(sock, server_side=True)
        except OSError:
            return
        chosen.append(sock.selected_alpn_protocol())
        run(sock)

    broker._run = run_sealed
    return chosen


@pytest.mark.parametrize("through_http", [False, True])
def test_a_real_client_over_websockets_and_tls(headrace, mosquitto, papers, through_http) -> None:
    import paho.mqtt.client as paho

    broker = mosquitto(sealed(papers))
    tls = (
        f"ssl_certificate {papers}/broker.test.crt; ssl_certificate_key {papers}/broker.test.key;"
        " listen 127.0.0.1:%%PORT%% ssl"
    )
    http, mqtt = "", f"{tls} websocket;"
    if through_http:
        http = f"server {{ {tls}; location /mqtt {{ mqtt_websocket 127.0.0.1:%%PORT_1%%; }} }}"
        mqtt = "listen 127.0.0.1:%%PORT_1%% websocket;"
    gateway = headrace(
        http,
        main=f"mqtt {{ server {{ {mqtt} mqtt_pass 127.0.0.1:{broker.port}; proxy_ssl on; }} }}",
    )
    got: list[bytes] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "ws", transport="websockets")
    client.ws_set_options("/mqtt")
    client.tls_set(str(papers / "ca.crt"), cert_reqs=ssl.CERT_REQUIRED)
    client.tls_insecure_set(True)                          # the name: we dial an address
    client.on_connect = lambda *_: client.subscribe("t", 1)
    client.on_subscribe = lambda *_: client.publish("t", b"x" * 50_000, 1)
    client.on_message = lambda _, __, message: got.append(message.payload)
    client.connect("127.0.0.1", gateway.port)
    client.loop_start()
    wait_for(lambda: got == [b"x" * 50_000], 10)
    client.disconnect()
    client.loop_stop()

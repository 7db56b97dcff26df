"""The conf that is handed out does what its first lines say."""

from __future__ import annotations

import re
import shutil
import subprocess

from gateway import ROOT
from mqtthouse import CONNACK, Client


def test_its_lines_work(headrace, mosquitto) -> None:
    broker = mosquitto()
    gateway = headrace(start=False)
    shutil.copytree(ROOT / "conf", gateway.prefix / "conf")
    (gateway.prefix / "var").mkdir()
    text = (ROOT / "conf" / "mqtt.conf").read_text()
    lines = re.findall(r"^# try: (mosquitto_.*)$", text, re.MULTILINE)
    ports = dict(zip(("1883", "1885", "1886", "8080"), gateway.ports, strict=False))
    ports["1884"] = broker.port
    for number, port in ports.items():
        text = re.sub(rf"127\.0\.0\.1:{number}\b", f"127.0.0.1:{port}", text)
    gateway.conf = gateway.prefix / "conf" / "mqtt.conf"
    gateway.write_conf(text="user root;\n" + text.replace("var/headrace.pid", "logs/headrace.pid"))
    gateway.start()
    said = ""
    for line in lines:
        words = line.replace(" -p 1883 ", f" -p {ports['1883']} ").split()
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        said += done.stdout
    assert len(lines) == 2 and said.strip() == "attic: 70.7 F"
    with Client(ports["1885"]) as client:
        assert client.connect("a", user="ann", password="secret") == (CONNACK, b"\0\0")
    with Client(ports["1885"]) as client:
        assert client.connect("a", user="ann", password="wrong") == (CONNACK, b"\0\x04")

"""The conf that is handed out does what its first lines say."""

from __future__ import annotations

import re
import socket
import subprocess

from gateway import ROOT
from peers import Peer, client_context, echo, make_certificate, server_context


def test_its_lines_work(headrace, tmp_path) -> None:
    one, two = (Peer(echo, server_context(*make_certificate(tmp_path, name)))
                for name in ("one.example", "a.two.example"))  # fmt: skip
    gateway = headrace(start=False)
    (gateway.prefix / "var").mkdir()
    text = (ROOT / "conf" / "stream.conf").read_text()
    [line] = re.findall(r"^# try: (curl .*)$", text, re.MULTILINE)
    ports = dict(zip(("8080", "8081", "8443"), gateway.ports, strict=False))
    ports |= {"8444": one.port, "8445": two.port}
    for number, port in ports.items():
        text = re.sub(rf"127\.0\.0\.1:{number}\b", f"127.0.0.1:{port}", text)
        line = line.replace(f":{number}/", f":{port}/")
    gateway.write_conf(text="user root;\n" + text.replace("var/headrace.pid", "logs/headrace.pid"))
    gateway.start()
    done = subprocess.run(line.split(), capture_output=True, text=True, timeout=30, check=True)
    assert re.fullmatch(r"you are 127\.0\.0\.1, port \d+\n", done.stdout)
    for name, peer in (("one.example", one), ("a.two.example", two), ("other.test", two)):
        before = peer.count
        plain = socket.create_connection(("127.0.0.1", ports["8443"]), timeout=10)
        with client_context().wrap_socket(plain, server_hostname=name) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
        assert peer.count == before + 1, name
    for it in (one, two):
        it.close()

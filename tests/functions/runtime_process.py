"""A real process of functions/runtime.py, asked over its Unix socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

RUNTIME = Path(__file__).resolve().parents[2] / "proxy" / "functions" / "runtime.py"


class Running:
    """words: what the runtime is told to serve; it listens when this is made."""

    def __init__(self, python: str, *words: str, **env: str) -> None:
        self.home = tempfile.mkdtemp(prefix="hr", dir="/tmp")
        self.path = f"{self.home}/s"
        self.process = subprocess.Popen(
            [python, str(RUNTIME), *words],
            env={"SOCKET": self.path, "FUNCTION_NAME": "f", "PATH": os.environ["PATH"], **env},
            stderr=subprocess.PIPE,
        )
        limit = time.monotonic() + 20
        while not os.path.exists(self.path):
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < limit
            time.sleep(0.005)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        limit = time.monotonic() + 5
        while True:
            try:
                sock.connect(self.path)
                return sock
            except ConnectionRefusedError:
                assert time.monotonic() < limit
                time.sleep(0.005)

    def raw(self, data: bytes, cut: int = 0) -> bytes:
        with self.connect() as sock:
            if cut:
                sock.sendall(data[:cut])
                time.sleep(0.002)
            sock.sendall(data[cut:])
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer

    def ask(self, target: str = "/", body: bytes = b"", method: str = "", **fields: str) -> tuple:
        lines = [f"{method or ('POST' if body else 'GET')} {target} HTTP/1.1", "Host: h:81"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += ["Connection: close", "", ""]
        head, _, rest = self.raw("\r\n".join(lines).encode() + body).partition(b"\r\n\r\n")
        first, *others = head.decode().split("\r\n")
        pairs = [it.split(": ", 1) for it in others]
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}, rest

    def close(self) -> int:
        self.process.terminate()
        code = self.process.wait(10)
        self.process.stderr.close()
        shutil.rmtree(self.home, ignore_errors=True)
        return code

"""The confs that are handed out run as they are, and what they promise to answer is answered."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gateway import ROOT, run
from ports import free_port

CONFS = sorted((ROOT / "conf").glob("*.conf"))


def checkout(folder: Path) -> Path:
    """A prefix that looks like a fresh clone: conf/, and var/ with the certificate for trying."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / "var").mkdir()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=a -keyout server.key"
    subprocess.run(
        [*make.split(), "-out", "server.crt"], cwd=folder / "var", check=True, capture_output=True
    )
    return folder


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: path.name)
def test_conf_is_accepted(conf: Path, tmp_path: Path) -> None:
    prefix = checkout(tmp_path)
    done = run("-t", "-p", f"{prefix}/", "-c", f"conf/{conf.name}")
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


@pytest.mark.parametrize("name", ["quickstart", "functions", "openfaas"])
def test_conf_answers_its_curl_lines(name: str, tmp_path: Path) -> None:
    prefix = checkout(tmp_path)
    conf = prefix / "conf" / f"{name}.conf"
    port = free_port()
    conf.write_text(conf.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    lines = re.findall(r"^# try: (curl .*)$", conf.read_text(), re.MULTILINE)
    assert len(lines) >= 3
    command = [sys.executable, "-m", "proxy", "-p", f"{prefix}/", "-c", str(conf)]
    if os.geteuid() == 0:
        command += ["-g", "user root;"]  # the temporary directory is root's alone
    with open(prefix / "said.log", "wb") as said:
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=said, stderr=said
        )
    try:
        limit = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None, (prefix / "said.log").read_text()
            assert time.monotonic() < limit, "does not listen"
            time.sleep(0.02)
        for line in lines:
            # --retry: a function may be starting still, which is a 502 or 503 for now
            shell = line.replace("curl ", "curl -sS --fail --retry 8 --retry-delay 1 ", 1)
            done = subprocess.run(
                ["sh", "-c", shell], cwd=prefix, capture_output=True, text=True, check=False,
                timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert done.stdout, line
        if name == "quickstart":
            done = subprocess.run(
                ["curl", "-sS", f"http://127.0.0.1:{port}/hello?name=weir"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert done.stdout == "Hello, weir!\n"
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_unit_is_well_formed(tmp_path: Path) -> None:
    text = (ROOT / "conf" / "headrace.service").read_text()
    unit = tmp_path / "headrace.service"
    unit.write_text(text.replace("/opt/headrace/bin/headrace", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    wrong = [line for line in done.stderr.splitlines() if "headrace.service" in line]
    assert not wrong, done.stderr

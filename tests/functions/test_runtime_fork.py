"""`fork`: a process per request, by the classic contract of OpenFaaS."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime_process import Running

ENV = "import os, sys; print({k: v for k, v in os.environ.items() if k.startswith('Http_')})"


@pytest.fixture
def fork() -> Iterator:
    made: list[Running] = []

    def make(*argv: str, **env: str) -> Running:
        made.append(Running(sys.executable, "fork", *argv, **env))
        return made[-1]

    yield make
    for it in made:
        it.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def receive(sock: socket.socket) -> bytes:
    data = sock.recv(999)
    assert data, "cut"
    return data


@pytest.mark.parametrize("mode", ["streaming", "serializing"])
def test_input_and_output(fork, mode: str) -> None:
    it = fork("tr", "a-z", "A-Z", mode=mode, content_type="text/x")
    body = b"hello " * 40_000
    status, fields, answer = it.ask("/", body)
    assert (status, fields["content-type"]) == (200, "text/x")
    assert answer.replace(b"\r\n", b"").count(b"HELLO ") > 39_000
    if mode == "serializing":
        assert answer == body.upper()
        assert float(fields["x-duration-seconds"]) > 0
    status, _, answer = it.ask("/")
    assert (status, answer) == (200, b"")


def test_the_request_is_in_the_environment(fork) -> None:
    it = fork(*python(ENV), mode="serializing")
    _, _, answer = it.ask("/a%20b/c?x=1&y", b"z", X_One_two="three", Proxy="http://evil/")
    assert eval(answer) == {
        "Http_Method": "POST", "Http_Path": "/a%20b/c", "Http_Query": "x=1&y", "Http_Host": "h:81",
        "Http_X_One_Two": "three", "Http_Content_Length": "1", "Http_Connection": "close",
    }  # fmt: skip


def test_output_goes_out_as_it_comes(fork) -> None:
    it = fork("sh", "-c", "echo one; read line; echo $line")
    with it.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")
        first = b""
        while b"one" not in first:
            first += receive(sock)
        sock.sendall(b"two\n")
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += receive(sock)
    assert b"chunked" in first
    assert b"two" in rest


@pytest.mark.parametrize("mode", ["streaming", "serializing"])
def test_a_program_that_fails(fork, mode: str) -> None:
    status, fields, answer = fork("false", mode=mode).ask("/")
    assert (status, answer) == (500, b"exit code 1\n")
    assert fields["x-openfaas-internal"] == "headrace"
    status, _, answer = fork("/no/such/program", mode=mode).ask("/")
    assert (status, answer) == (500, b"/no/such/program cannot be run: No such file or directory\n")
    status, _, answer = fork("sh", "-c", "kill -9 $$", mode=mode).ask("/")
    assert (status, answer) == (500, b"killed by signal 9\n")


def test_a_failure_after_output_cuts_the_answer(fork) -> None:
    _, _, answer = fork("sh", "-c", "echo begun; exit 1").ask("/")
    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("mode", ["streaming", "serializing"])
def test_a_program_that_takes_too_long_is_killed_with_all_it_started(
    fork, mode: str, tmp_path: Path
) -> None:
    code = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    status, _, answer = fork("sh", "-c", code, mode=mode, exec_timeout="300ms").ask("/")
    assert (status, answer) == (504, b"the function took longer than 0.3 s\n")
    pid = int((tmp_path / "pid").read_text())
    limit = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_program_need_not_read_its_input(fork) -> None:
    status, _, answer = fork("echo", "done", mode="streaming").ask("/", b"x" * 1_000_000)
    assert status == 200
    assert b"done" in answer


def test_max_inflight(fork) -> None:
    it = fork("sh", "-c", "read line; echo $line", max_inflight="1")
    with it.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.1)
        assert it.ask("/")[0] == 429
        sock.sendall(b"x\n")
        assert b"200 OK" in sock.recv(999)

"""The command line: what is printed where, and the exit status, as nginx's users know them."""

from __future__ import annotations

import os
import re
import socket
import subprocess

import pytest
from test_master import Running, until


@pytest.fixture
def running(tmp_path):
    it = Running(tmp_path)
    yield it
    it.end()


def test_a_good_conf(running: Running):
    said = running.conf().ask("-t")
    assert said.returncode == 0
    assert said.stderr == (
        f"headrace: the configuration file {running.path} syntax is ok\n"
        f"headrace: configuration file {running.path} test is successful\n"
    )
    assert running.ask("-tq").stderr == ""
    assert not (running.prefix / "logs/h.pid").exists()


def test_a_bad_conf(running: Running):
    running.path.write_text("events { }\nhttp { server { listen 127.0.0.1:99999; } }\n")
    said = running.ask("-t")
    line = f'invalid port in "127.0.0.1:99999" of the "listen" directive in {running.path}:2'
    assert said.returncode == 1
    assert said.stderr == (
        f"headrace: [emerg] {line}\nheadrace: configuration file {running.path} test failed\n"
    )
    logged = running.log
    assert re.match(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[emerg\] (\d+)#\1: ", logged)
    assert line in logged
    said = running.ask()
    assert said.returncode == 1
    assert said.stderr == f"headrace: [emerg] {line}\n"


def test_what_means_nothing_is_listed(running: Running):
    running.conf("lock_file x;")
    assert '[info] "lock_file" means nothing here' in running.ask("-t").stderr


def test_the_dump(running: Running):
    said = running.conf().ask("-T")
    assert said.stdout == f"# configuration file {running.path}:\n{running.path.read_text()}\n"


CONFLICTS = [
    (
        "server { listen 127.0.0.1:81 default_server; } server { listen 127.0.0.1:81 default; }",
        "a duplicate default server for 127.0.0.1:81",
    ),
    (
        "server { listen 127.0.0.1:81 backlog=9; } server { listen 127.0.0.1:81 sndbuf=8k; }",
        "duplicate listen options for 127.0.0.1:81",
    ),
    ("server { listen 127.0.0.1:81; listen 127.0.0.1:81; }", "a duplicate listen 127.0.0.1:81"),
    (
        "server { listen 127.0.0.1:81 quic ssl; }",
        '"ssl" parameter is incompatible with "quic"',
    ),
    (
        "server { listen 127.0.0.1:81 multipath; }",
        'the "multipath" parameter of "listen" is known to nginx, not supported by Headrace',
    ),
    ("server { listen 127.0.0.1:81 bogus; }", 'invalid parameter "bogus"'),
    ("server { listen 127.0.0.1:81 backlog=0; }", 'invalid backlog "backlog=0"'),
    ("server { listen 127.0.0.1:81 so_keepalive=::; }", 'invalid so_keepalive value: "::"'),
    ("server { listen 127.0.0.1:81 ipv6only=x; }", 'invalid ipv6only flags "x"'),
    ("server { listen 90-80; }", 'invalid port range in "90-80" of the "listen" directive'),
    ("server { listen [::1; }", 'invalid IPv6 address in "[::1" of the "listen" directive'),
    (
        "server { listen unix:; }",
        'no path in the unix domain socket in "unix:" of the "listen" directive',
    ),
]


@pytest.mark.parametrize(("http", "message"), CONFLICTS)
def test_what_listen_refuses(running: Running, http: str, message: str):
    said = running.conf(http=http).ask("-t")
    assert said.returncode == 1
    assert f"[emerg] {message} in {running.path}:3" in said.stderr


BAD_OPTIONS = [
    (["x"], 'invalid option: "x"'),
    (["-x"], 'invalid option: "x"'),
    (["-c"], 'option "-c" requires file name'),
    (["-g"], 'option "-g" requires parameter'),
    (["-s", "dance"], 'invalid option: "-s dance"'),
]


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS)
def test_bad_options(running: Running, words: list[str], message: str):
    said = running.ask(*words)
    assert (said.returncode, said.stderr) == (1, f"headrace: {message}\n")


def test_versions(running: Running):
    assert re.fullmatch(r"headrace version: headrace/[\d.]+\n", running.ask("-v").stderr)
    said = running.ask("-V").stderr
    assert re.search(r"^built with OpenSSL \d+\.\d+\.\d+", said, re.MULTILINE)
    assert "TLS SNI support enabled" in said
    assert "--with-http_ssl_module" in said
    assert "-s signal" in running.ask("-h").stderr


def test_directives_of_the_command_line(running: Running):
    assert running.conf().ask("-t", "-g", "worker_priority 1;").returncode == 0
    said = running.ask("-t", "-g", "nonsense;")
    assert 'unknown directive "nonsense"' in said.stderr


def test_signals_by_name(running: Running):
    said = running.conf().ask("-s", "stop")
    pid_path = running.prefix / "logs/h.pid"
    assert said.returncode == 1
    assert said.stderr == (
        f'headrace: [error] open() "{pid_path}" failed (2: No such file or directory)\n'
    )
    pid_path.write_text("")
    assert running.ask("-s", "stop").stderr == (
        f'headrace: [error] invalid PID number "" in "{pid_path}"\n'
    )
    pid_path.write_text("4194300\n")
    said = running.ask("-s", "reload")
    assert said.stderr == "headrace: [alert] kill(4194300, 1) failed (3: No such process)\n"
    pid_path.unlink()
    running.start()
    assert running.ask("-s", "reload").returncode == 0
    until(lambda: running.get().split()[1:2] == ["2"])
    assert running.ask("-s", "reopen").returncode == 0
    assert running.ask("-s", "quit").returncode == 0
    assert running.process.wait(10) == 0
    assert "signal process started" in running.log


def test_an_address_that_is_taken(running: Running):
    with socket.create_server(("127.0.0.1", running.port)):
        said = running.conf().ask()
    line = (
        f"headrace: [emerg] bind() to 127.0.0.1:{running.port} failed (98: Address already in use)"
    )
    assert said.returncode == 1
    assert said.stderr.splitlines() == [line] * 5 + ["headrace: [emerg] still could not bind()"]
    assert not (running.prefix / "logs/h.pid").exists()


def test_a_second_gateway_does_not_share_the_address_in_silence(running: Running):
    running.conf().start()
    said = subprocess.run(
        [*running.command(), "-g", "pid logs/other.pid;"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.returncode == 1
    assert '"pid" directive is duplicate' in said.stderr
    running.path.write_text(running.path.read_text().replace("logs/h.pid", "logs/other.pid"))
    said = running.ask()
    assert "still could not bind()" in said.stderr
    assert os.path.exists(running.prefix / "logs/h.pid")

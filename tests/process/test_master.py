"""Births, signals, reloads and deaths, on the real thing."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time

import pytest
from gateway import descendants, free_ports, run, title, wait_for

PAGE = 'server { listen 127.0.0.1:%%PORT%%; location / { return 200 "one $pid"; } }'


@pytest.fixture
def gateway(headrace):
    return headrace(PAGE)


class Load(threading.Thread):
    """Asks for / again and again, each time on a new connection; counts what failed."""

    def __init__(self, gateway) -> None:
        super().__init__(daemon=True)
        self.gateway, self.is_over, self.done, self.failed = gateway, False, 0, []
        self.start()

    def run(self) -> None:
        while not self.is_over:
            try:
                assert self.gateway.get("/").status == 200
                self.done += 1
            except Exception as error:  # noqa: BLE001  (whatever it is, it is a failed request)
                self.failed.append(repr(error))

    def end(self) -> None:
        self.is_over = True
        self.join()
        assert self.done > 0
        assert self.failed == []


def test_three_roles_have_their_titles(gateway):
    titles = [title(pid) for pid in descendants(gateway.process.pid)]
    assert sorted(titles) == ["headrace: controller process", "headrace: worker process"]
    assert title(gateway.process.pid).startswith("headrace: master process")


def test_the_pid_file_is_the_masters_and_goes_with_it(gateway):
    path = gateway.prefix / "logs" / "headrace.pid"
    assert path.read_text() == f"{gateway.process.pid}\n"
    assert gateway.stop(signal.SIGQUIT) == 0
    assert not path.exists()


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_leaves_when_told(gateway, order):
    pids = descendants(gateway.process.pid)
    assert gateway.stop(order) == 0
    assert not [pid for pid in pids if title(pid)]


def test_a_running_request_is_finished_on_quit(headrace, upstreams):
    def slow(_request):
        time.sleep(0.5)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"

    upstream = upstreams(slow)
    gateway = headrace(
        "server { listen 127.0.0.1:%%PORT%%; location / { proxy_pass http://"
        + upstream.address
        + "; } }"
    )
    with gateway.client() as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        upstream.wait(1)
        gateway.signal(signal.SIGQUIT)
        answered = client.read()
        assert (answered.body, answered.get("connection")) == (b"slow", "close")
    assert gateway.stop(signal.SIGQUIT) == 0


def test_reload_takes_the_new_conf_and_fails_nobody(gateway):
    load = Load(gateway)
    gateway.write_conf(PAGE.replace("one", "two"))
    gateway.reload()
    load.end()
    assert gateway.get("/").text.startswith("two")


def test_reloads_under_load_fail_nobody(gateway):
    load = Load(gateway)
    for _ in range(5):
        gateway.reload()
    load.end()


def test_a_bad_conf_leaves_the_old_one_serving(gateway):
    workers = gateway.workers()
    gateway.write_conf("server { listen 127.0.0.1:%%PORT%%; retrun 200; }")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: "[emerg]" in gateway.error_log)
    assert 'unknown directive "retrun"' in gateway.error_log
    assert gateway.get("/").status == 200
    assert gateway.workers() == workers


def test_what_only_the_plan_finds_wrong_is_refused_too(gateway):
    gateway.write_conf(
        'server { listen 127.0.0.1:%%PORT%%; location / { return 200 "$no_such_variable"; } }'
    )
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: "[emerg]" in gateway.error_log)
    assert "no_such_variable" in gateway.error_log
    assert gateway.get("/").text.startswith("one")


def test_from_four_workers_to_one_and_back(headrace):
    gateway = headrace(PAGE, main="worker_processes 4;")
    assert len(gateway.workers()) == 4
    load = Load(gateway)
    gateway.write_conf(PAGE, main="worker_processes 1;")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: len(gateway.workers()) == 1, 10)
    gateway.write_conf(PAGE, main="worker_processes 3;")
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: len(gateway.workers()) == 3, 10)
    load.end()


def test_a_killed_worker_is_born_again(gateway):
    (old,) = gateway.workers()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: gateway.workers() not in ([], [old]))
    assert gateway.get("/").status == 200
    assert f"worker process {old} exited on signal 9" in gateway.error_log
    # the fixture takes an alert for a failure; this one was asked for
    log = gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("[alert]", "[asked]"))


def test_a_killed_controller_is_born_again(gateway):
    def controllers():
        pids = descendants(gateway.process.pid)
        return [pid for pid in pids if "controller" in title(pid)]

    (old,) = controllers()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: controllers() not in ([], [old]))
    assert gateway.get("/").status == 200
    log = gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("[alert]", "[asked]"))


def test_usr1_opens_the_log_anew(gateway):
    log = gateway.prefix / "logs" / "error.log"
    log.rename(gateway.prefix / "logs" / "error.old")
    gateway.signal(signal.SIGUSR1)
    wait_for(log.exists)


def test_upgrade_and_back_out(gateway):
    """USR2 starts a second master on the same sockets; WINCH retires the old workers; the new
    one is told to leave, and HUP brings the old workers back."""
    pid_file = gateway.prefix / "logs" / "headrace.pid"
    old = gateway.process.pid
    load = Load(gateway)
    gateway.signal(signal.SIGUSR2)
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() != str(old), 10)
    new = int(pid_file.read_text())
    assert (gateway.prefix / "logs" / "headrace.pid.oldbin").read_text() == f"{old}\n"
    gateway.signal(signal.SIGWINCH)
    wait_for(lambda: all(pid in descendants(new) for pid in gateway.workers()), 10)
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: any(pid not in descendants(new) for pid in gateway.workers()), 10)
    os.kill(new, signal.SIGQUIT)
    wait_for(lambda: pid_file.exists() and pid_file.read_text() == f"{old}\n", 10)
    load.end()


def test_a_taken_address_is_said(headrace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = headrace(f"server {{ listen 127.0.0.1:{port}; }}", start=False)
        done = run("-p", str(gateway.prefix), "-c", str(gateway.conf))
    assert done.returncode == 1
    assert f"bind() to 127.0.0.1:{port} failed (98: Address already in use)" in done.stderr


def test_the_conf_is_tested(headrace):
    gateway = headrace(PAGE, start=False)
    done = run("-p", str(gateway.prefix), "-c", str(gateway.conf), "-t")
    assert done.returncode == 0
    assert f"the configuration file {gateway.conf} syntax is ok" in done.stderr
    assert f"configuration file {gateway.conf} test is successful" in done.stderr
    gateway.write_conf("serv { }")
    done = run("-p", str(gateway.prefix), "-c", str(gateway.conf), "-t")
    assert done.returncode == 1
    assert re.search(r'\[emerg\] unknown directive "serv".* in .*headrace.conf:\d+', done.stderr)
    assert f"configuration file {gateway.conf} test failed" in done.stderr


def test_the_conf_is_dumped_with_its_files(headrace):
    gateway = headrace("include more.conf;", start=False)
    (gateway.prefix / "more.conf").write_text(PAGE.replace("%%PORT%%", str(free_ports(1)[0])))
    done = run("-p", str(gateway.prefix), "-c", str(gateway.conf), "-T", "-q")
    assert done.returncode == 0
    assert f"# configuration file {gateway.conf}:" in done.stdout
    assert f"# configuration file {gateway.prefix / 'more.conf'}:" in done.stdout


def test_signals_by_the_command(gateway):
    args = ("-p", str(gateway.prefix), "-c", str(gateway.conf))
    (old,) = gateway.workers()
    assert run(*args, "-s", "reload").returncode == 0
    wait_for(lambda: gateway.workers() not in ([], [old]) and old not in gateway.workers(), 10)
    assert run(*args, "-s", "quit").returncode == 0
    assert gateway.process.wait(10) == 0


def test_without_a_master(headrace):
    gateway = headrace(PAGE, main="master_process off;")
    assert gateway.get("/").text == f"one {gateway.process.pid}"
    assert gateway.stop(signal.SIGQUIT) == 0


def test_in_the_background(headrace):
    gateway = headrace(PAGE, start=False)
    gateway.conf.write_text(gateway.conf.read_text().replace("daemon off;", ""))
    done = run("-p", str(gateway.prefix), "-c", str(gateway.conf))
    pid_file = gateway.prefix / "logs" / "headrace.pid"
    assert done.returncode == 0, done.stderr
    pid = int(pid_file.read_text())
    assert gateway.get("/").status == 200
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not pid_file.exists())


def test_a_full_worker_waits_and_goes_on(headrace):
    gateway = headrace(PAGE, main="events { worker_connections 20; }")
    clients = [gateway.client() for _ in range(40)]
    for client in clients:
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert [client.read().status for client in clients] == [200] * 40


@pytest.mark.parametrize("word", ["-z", "-s nonsense", "-c"])
def test_an_unknown_option_is_refused(word):
    done = run(*word.split())
    assert done.returncode == 1
    assert "headrace: " in done.stderr

"""Access logs of a running gateway: what is written where, and when it is on the disk."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import threading

import pytest
from gateway import run, wait_for

SERVER = "server { listen 127.0.0.1:%%PORT%%; "


def test_combined_is_the_default_and_stands_in_logs(headrace):
    gateway = headrace(SERVER + "return 200 hello; }")
    gateway.get("/a?b=c", **{"User-Agent": 'say "hi"', "Referer": "http://r/"})
    wait_for(lambda: gateway.log())
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /a\?b=c HTTP/1\.1" 200 5 "http://r/" "say \\x22hi\\x22"',
        gateway.log()[0],
    )


def test_off_if_and_several(headrace):
    gateway = headrace(
        "log_format u $uri; log_format s $status;"
        + SERVER
        + """
        location /off { access_log off; return 204; }
        location /if { access_log logs/if.log u if=$arg_a$arg_b; return 204; }
        location /two { access_log logs/one.log u; access_log logs/two.log s; return 204; }
        }"""
    )
    for target in ("/off", "/if", "/if0?a=0", "/if1?a=1", "/if2?b=no", "/if3?a=0&b=0", "/two"):
        gateway.get(target)
    wait_for(lambda: gateway.log("two.log"))
    assert gateway.log("if.log") == ["/if1", "/if2", "/if3"]
    assert gateway.log("one.log") == ["/two"]
    assert gateway.log("two.log") == ["204"]
    assert gateway.log() == []


def test_json_lines_are_json(headrace):
    gateway = headrace(
        """log_format j escape=json '{"uri":"$uri","status":$status,"time":$request_time,'
                                    '"agent":"$http_user_agent","none":"$http_none"}';"""
        + SERVER
        + "access_log logs/j.log j; return 200 ok; }"
    )
    gateway.get("/%22%5C%0A%09%C3%A9", **{"User-Agent": 'a"\\b'})
    wait_for(lambda: gateway.log("j.log"))
    said = json.loads((gateway.prefix / "logs" / "j.log").read_bytes())
    assert said["uri"] == '/"\\\n\té'
    assert said["agent"] == 'a"\\b'
    assert (said["status"], said["none"]) == (200, "")
    assert 0 <= said["time"] < 10


def test_a_buffer_is_written_when_full_after_its_time_and_at_the_end(headrace):
    gateway = headrace(
        "log_format u $uri;"
        + SERVER
        + """
        location /full { access_log logs/full.log u buffer=100; return 204; }
        location /time { access_log logs/time.log u buffer=64k flush=50ms; return 204; }
        location /end { access_log logs/end.log u buffer=64k; return 204; }
        }"""
    )
    with gateway.client() as client:
        for number in range(30):
            client.get(f"/full/{number}")
        client.get("/full/" + "x" * 500)  # longer than the buffer
        client.get("/time")
        client.get("/end")
    wait_for(lambda: gateway.log("time.log") == ["/time"])
    assert gateway.log("full.log") == [f"/full/{n}" for n in range(30)] + ["/full/" + "x" * 500]
    assert gateway.log("end.log") == []
    gateway.stop(signal.SIGQUIT)
    assert gateway.log("end.log") == ["/end"]


def test_gzip_members_follow_each_other(headrace):
    gateway = headrace(
        "log_format u $uri;" + SERVER + "access_log logs/a.gz u gzip=9 buffer=200; return 204; }"
    )
    wanted = [f"/{number:060}" for number in range(20)]
    with gateway.client() as client:
        for target in wanted:
            client.get(target)
    gateway.stop()
    data = (gateway.prefix / "logs" / "a.gz").read_bytes()
    assert data.count(b"\x1f\x8b\x08") > 1
    assert gzip.decompress(data).decode().split() == wanted


def test_a_path_with_variables(headrace):
    gateway = headrace(
        "log_format u $uri;"
        + SERVER
        + """root %%DIR%%;
        location /gone { root %%DIR%%/nowhere; access_log logs/$arg_a.gone u; return 204; }
        location / { access_log logs/$arg_a.var u; return 204; }
        }"""
    )
    for target in ("/1?a=x", "/2?a=y", "/3?a=x", "/gone?a=x", "/4?a=no/such/folder"):
        gateway.get(target)
    wait_for(lambda: "no/such/folder" in gateway.error_log)
    assert gateway.log("x.var") == ["/1", "/3"]
    assert gateway.log("y.var") == ["/2"]
    assert not (gateway.prefix / "logs" / "x.gone").exists()
    assert re.search(r'\[crit\] .*testing ".*/nowhere" existence failed', gateway.error_log)


def test_statuses_that_the_client_never_saw(headrace, upstream):
    gateway = headrace(
        "log_format s '$status $request'; access_log logs/s.log s;"
        + SERVER
        + "client_header_timeout 200ms; location /444 { return 444; } }"
    )
    gateway.raw("NONSENSE\r\n\r\n")
    gateway.raw("GET /half HTTP/1.1\r\nHost: x\r\n")
    gateway.raw("GET /444 HTTP/1.1\r\nHost: x\r\n\r\n")
    with gateway.client() as client:
        client.send("GET /slow HTTP/1.1\r\n")
        assert client.is_closed()
    wait_for(lambda: len(gateway.log("s.log")) == 4)
    assert sorted(line[:3] for line in gateway.log("s.log")) == ["400", "400", "408", "444"]


def test_who_left_before_the_answer_is_499_later_its_status_stands(headrace, upstream):
    is_over = threading.Event()

    def slowly(request):
        if request.target == "/body":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        is_over.wait(10)
        yield b"more"

    upstream.answer = slowly
    gateway = headrace(
        "log_format s '$status $uri $body_bytes_sent'; access_log logs/s.log s;"
        + SERVER
        + "proxy_buffering off; location / { proxy_pass http://127.0.0.1:UPSTREAM; } }".replace(
            "UPSTREAM", str(upstream.port)
        )
    )
    for target in ("/head", "/body"):
        client = gateway.client()
        client.send(f"GET {target} HTTP/1.0\r\n\r\n")
        if target == "/body":
            client.sock.recv(1)
        else:
            wait_for(lambda: upstream.requests)
        client.close()
    wait_for(lambda: len(gateway.log("s.log")) == 2)
    is_over.set()
    assert gateway.log("s.log") == ["499 /head 0", "200 /body 4"]
    wait_for(lambda: gateway.error_log.count("client prematurely closed connection") == 2)


def test_rotation_under_load_loses_no_line(headrace):
    gateway = headrace(
        "log_format u $uri; keepalive_requests 1000000;"
        + SERVER
        + """
        location / { access_log logs/b.log u buffer=4k flush=10s; access_log logs/n.log u;
                     return 204; } }""",
        main="worker_processes 2;",
    )
    done: list[str] = []
    is_over = threading.Event()

    def ask(name: int) -> None:
        with gateway.client() as client:
            number = 0
            while not is_over.is_set():
                target = f"/{name}-{number}"
                assert client.get(target).status == 204
                done.append(target)
                number += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    logs = gateway.prefix / "logs"
    for turn in range(5):
        before = len(done)
        for name in ("b", "n"):
            os.rename(logs / f"{name}.log", logs / f"{name}.{turn}")
        gateway.signal(signal.SIGUSR1)
        wait_for(lambda: all((logs / f"{n}.log").exists() for n in ("b", "n")))
        wait_for(lambda before=before: len(done) > before + 50)
    is_over.set()
    for thread in threads:
        thread.join()
    gateway.stop(signal.SIGQUIT)
    for name in ("b", "n"):
        lines: list[str] = []
        for path in logs.glob(f"{name}.*"):
            lines += path.read_text().split()
        assert sorted(lines) == sorted(done), name


def test_a_full_disk_is_told_once_and_requests_go_on(tmp_path):
    from gateway import Gateway

    gateway = Gateway(tmp_path, SERVER + "access_log /dev/full; return 204; }").start()
    try:
        for _ in range(20):
            assert gateway.get("/").status == 204
        told = re.findall(r"\[alert\] .*write\(\) to \"/dev/full\" failed \(28", gateway.error_log)
        assert len(told) == 1
    finally:
        gateway.stop()


REFUSED = [
    ("access_log syslog:server=127.0.0.1;", '"syslog:" is known to nginx, not supported'),
    ("access_log logs/a nonesuch;", 'unknown log format "nonesuch"'),
    ("access_log logs/a combined flush=1s;", 'no buffer is defined for access_log "logs/a"'),
    ("access_log logs/$host combined buffer=1k;", "buffered logs cannot have variables in name"),
    ("access_log logs/a combined buffer=x;", 'invalid buffer size "x"'),
    ("access_log logs/a combined gzip=10;", 'invalid compression level "10"'),
    ("access_log logs/a combined more;", 'invalid parameter "more"'),
    ("access_log off more;", 'invalid parameter "more"'),
    (
        "access_log logs/a combined buffer=1k; access_log logs/a combined buffer=2k;",
        "already defined with conflicting parameters",
    ),
    ("open_log_file_cache inactive=1s;", 'must have "max" parameter'),
    ("open_log_file_cache max=x;", 'invalid "open_log_file_cache" parameter "max=x"'),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_wrong_words_are_refused_with_their_place(tmp_path, text, message):
    conf = tmp_path / "a.conf"
    (tmp_path / "logs").mkdir()
    conf.write_text("events { }\nhttp {\n" + text + "\nserver { listen 127.0.0.1:1; }\n}\n")
    done = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert done.returncode == 1
    assert message in done.stderr
    assert f"{conf}:3" in done.stderr


def test_sub_requests_are_logged_where_the_conf_says_so(headrace):
    gateway = headrace(
        'log_format u "$uri $status";'
        + SERVER
        + """
        access_log logs/a.log u;
        location /quiet { auth_request /ask; return 200 a; }
        location /told { auth_request /ask-told; return 200 b; }
        location = /ask { return 204; }
        location = /ask-told { log_subrequest on; return 204; }
        location /file { auth_request /ask-told; root %%DIR%%; }
        }"""
    )
    (gateway.prefix / "file").write_text("c")
    with gateway.client() as client:
        for target in ("/quiet", "/told", "/file"):
            client.get(target)
    wait_for(lambda: len(gateway.log("a.log")) >= 4)
    assert gateway.log("a.log") == ["/quiet 200", "/told 200", "/ask-told 204", "/file 200"]


def test_pipe_tells_what_came_with_the_request_before(headrace, upstream):
    gateway = headrace(
        'log_format u "$uri $pipe";'
        + SERVER
        + f"""
        access_log logs/a.log u;
        location / {{ return 200 a; }}
        location /up {{ proxy_pass http://{upstream.address}; }}
        }}"""
    )
    with gateway.client() as client:
        client.get("/1")
        client.send("".join(f"GET {it} HTTP/1.1\r\nHost: a\r\n\r\n" for it in ("/2", "/up", "/4")))
        assert [client.read().status for _ in range(3)] == [200] * 3
        client.get("/5")
    wait_for(lambda: len(gateway.log("a.log")) >= 5)
    assert gateway.log("a.log") == ["/1 .", "/2 .", "/up p", "/4 p", "/5 ."]

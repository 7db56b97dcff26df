"""The OpenFaaS API of a running gateway: every row of it, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from typing import Any

import pytest
from apihouse import House
from gateway import wait_for

BASE = {"service": "f", "image": "one.py"}


def test_a_function_is_deployed_called_changed_and_removed(house) -> None:
    it: House = house()
    assert it.ask("PUT", "/system/functions", BASE).status == 404
    said = it.deploy("f", "one.py", labels={"team": "a"}, envVars={"A": "1"})
    assert said.status == 202, said
    it.wait_ready("f")
    assert it.call("f", body=b"x").text == "one x"
    assert it.call("f.openfaas-fn", body=b"x").text == "one x"
    assert it.call("f", "/env?name=A").text == "1"
    row = next(row for row in it.ask("GET", "/system/functions").json if row["name"] == "f")
    assert row["namespace"] == "openfaas-fn"
    assert row["image"] == "one.py"
    assert row["labels"] == {"team": "a"}
    assert row["envVars"] == {"A": "1"}
    assert row["replicas"] == row["availableReplicas"] == 1
    assert row["createdAt"].endswith("Z")
    assert it.deploy("f", "two.py").status == 409
    assert it.ask("PUT", "/system/functions", {**BASE, "image": "two.py"}).status == 202
    wait_for(lambda: it.call("f", body=b"x").text == "two x", 20)
    assert it.describe("f")["usage"]["totalMemoryBytes"] > 1_000_000
    assert it.ask("DELETE", "/system/functions", {"functionName": "f"}).status == 202
    assert it.ask("DELETE", "/system/functions", {"functionName": "f"}).status == 404
    assert it.ask("GET", "/system/function/f").status == 404
    wait_for(lambda: it.call("f").status == 404)


def test_what_came_by_the_api_is_there_after_a_restart(house) -> None:
    it: House = house()
    assert it.deploy("f", "one.py", annotations={"headrace.io/min_scale": "1"}).status == 202
    assert it.ask("POST", "/system/namespace/", {"name": "a"}).status == 201
    said = it.ask("PUT", "/system/function/f/versions/v2", {"image": "two.py", "weight": 40})
    assert said.status == 202, said
    split = it.ask("PUT", "/system/function/f/split", {"weights": {"v1": 1, "v2": 3}})
    assert split.json == {"weights": {"v1": 1, "v2": 3}}
    it.gateway.stop()
    it.gateway.start()
    it.wait_ready("f")
    weights = {row["name"]: row["weight"] for row in it.describe("f")["versions"]}
    assert weights == {"v1": 1, "v2": 3}
    assert it.ask("GET", "/system/namespaces").json == ["openfaas-fn", "a"]


def test_a_killed_controller_comes_back_with_all(house) -> None:
    it: House = house()
    assert it.deploy("f", "one.py").status == 202
    it.wait_ready("f")
    before = it.describe("f")["versions"][0]["instances"]
    from gateway import descendants, title

    pids = descendants(it.gateway.process.pid)
    (old,) = [pid for pid in pids if "controller process" in title(pid)]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: it.call("f", body=b"x").text == "one x")
    wait_for(lambda: it.ask("GET", "/system/function/f").status == 200, 10)
    it.wait_ready("f")
    after = it.describe("f")["versions"][0]["instances"]
    assert [row["pid"] for row in after] == [row["pid"] for row in before]
    path = it.gateway.prefix / "logs" / "error.log"
    path.write_text(it.gateway.error_log.replace("[alert]", "[asked]"))


IMAGES = [
    ("one.py", {}, b"one x"),
    ("one.py:handle", {}, b"one x"),
    ("one.py:latest", {}, b"one x"),
    ("sub", {}, b"sub x"),
    ("sub:latest", {}, b"sub x"),
    ("anything/at/all:1.2", {"envProcess": "tr a-z A-Z"}, b"X"),
    ("sub", {"envProcess": "cat"}, b"x"),
    ("server", {"envProcess": "python3 server.py", "envVars": {"mode": "http"}}, b"server"),
]


@pytest.mark.parametrize(("image", "more", "answer"), IMAGES, ids=[str(it[:2]) for it in IMAGES])
def test_what_an_image_may_be(house, image: str, more: dict[str, Any], answer: bytes) -> None:
    it: House = house()
    (it.gateway.prefix / "images" / "server").mkdir()
    (it.gateway.prefix / "images" / "server" / "server.py").write_text(
        "import http.server, os\n"
        "class Answer(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'server')\n"
        "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()\n"
    )
    said = it.deploy("f", image, **more)
    assert said.status == 202, said
    it.wait_ready("f")
    assert it.call("f", body=b"x").body == answer


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "functions", b"{", 400, "no JSON"),
    ("POST", "functions", b"[]", 400, "no JSON object"),
    ("POST", "functions", {}, 400, 'invalid function name ""'),
    ("POST", "functions", {**BASE, "service": "a/b"}, 400, 'invalid function name "a/b"'),
    ("POST", "functions", {**BASE, "service": "x" * 99}, 400, "invalid function name"),
    ("POST", "functions", {**BASE, "namespace": "a.b"}, 400, 'invalid namespace "a.b"'),
    ("POST", "functions", {**BASE, "namespace": "none"}, 400, 'there is no namespace "none"'),
    ("POST", "functions", {**BASE, "image": "../outside.py"}, 400, "lies outside the folder"),
    ("POST", "functions", {**BASE, "image": "link.py"}, 400, "lies outside the folder"),
    ("POST", "functions", {**BASE, "image": "/etc/passwd"}, 400, "lies outside the folder"),
    ("POST", "functions", {**BASE, "image": "ghcr.io/openfaas/figlet:latest"}, 400,
     "cannot be run: functions are processes here, not containers"),
    ("POST", "functions", {**BASE, "image": "empty"}, 400, "the folder has no handler.py"),
    ("POST", "functions", {**BASE, "image": "plain.txt"}, 400, "the file is not executable"),
    ("POST", "functions", {**BASE, "envProcess": "'"}, 400, "envProcess: No closing quotation"),
    ("POST", "functions", {**BASE, "envProcess": "no-such-program", "envVars": {"mode": "http"}},
     400, 'there is no program "no-such-program"'),
    ("POST", "functions", {**BASE, "envVars": {"A": 1}}, 400, "must be an object of strings"),
    ("POST", "functions", {**BASE, "envVars": {"A-B": "1"}}, 400, "invalid environment variable"),
    ("POST", "functions", {**BASE, "envVars": {"PORT": "1"}}, 400, "is set by Headrace"),
    ("POST", "functions", {**BASE, "labels": ["a"]}, 400, '"labels" must be an object'),
    ("POST", "functions", {**BASE, "labels": {"a": "x" * 200_000}}, 400, "over 131072 bytes"),
    ("POST", "functions", {**BASE, "secrets": ["key"]}, 400, 'there is no secret "key"'),
    ("POST", "functions", {**BASE, "secrets": ["../key"]}, 400, "invalid name of a secret"),
    ("POST", "functions", {**BASE, "limits": {"memory": "lots"}}, 400, "invalid memory limit"),
    ("POST", "functions", {**BASE, "limits": {"cpu": "-1"}}, 400, "invalid cpu limit"),
    ("POST", "functions", {**BASE, "labels": {"com.openfaas.scale.type": "cpu"}}, 400,
     '"cpu" is not supported'),
    ("POST", "functions", {**BASE, "annotations": {"headrace.io/nonsense": "1"}}, 400,
     'unknown setting "headrace.io/nonsense"'),
    ("POST", "functions", {**BASE, "annotations": {"headrace.io/user": "root"}}, 400,
     'unknown setting "headrace.io/user"'),
    ("POST", "functions", {**BASE, "annotations": {"headrace.io/concurrency": "1; user root"}},
     400, "invalid number of arguments"),
    ("POST", "functions", {**BASE, "annotations": {"headrace.io/concurrency": "many"}}, 400,
     "invalid number"),
    ("PUT", "functions", {"service": "declared", "image": "one.py"}, 409, "stands in the conf"),
    ("DELETE", "functions", {"functionName": "declared"}, 409, "stands in the conf"),
    ("DELETE", "functions", {}, 400, '"functionName" is missing'),
    ("PATCH", "functions", {}, 405, "method not allowed"),
    ("GET", "function/none", None, 404, "there is no function none.openfaas-fn"),
    ("POST", "scale-function/none", {"replicas": 1}, 404, "there is no function"),
    ("POST", "scale-function/declared", {"replicas": -1}, 400, "between 0 and 1000"),
    ("POST", "scale-function/declared", {"replicas": "2"}, 400, "must be a number"),
    ("POST", "scale-function/declared?version=x", {"replicas": 2}, 404, 'no version "x"'),
    ("PUT", "function/declared/split", {"weights": {"v9": 1}}, 404, 'no version "v9"'),
    ("PUT", "function/declared/split", {"weights": {"v1": 0}}, 400, "no version would have"),
    ("PUT", "function/declared/split", {"weights": {"v1": "x"}}, 400, "must be a number"),
    ("POST", "function/declared/rollback", {}, 404, "no earlier split"),
    ("PUT", "function/declared/versions/v2", {"image": "two.py"}, 409, "stands in the conf"),
    ("POST", "secrets", {"name": "../x", "value": "y"}, 400, "invalid name of a secret"),
    ("POST", "secrets", {"name": "x", "rawValue": "?"}, 400, "no base64"),
    ("PUT", "secrets", {"name": "none", "value": "y"}, 404, 'there is no secret "none"'),
    ("DELETE", "secrets", {"name": "none"}, 404, 'there is no secret "none"'),
    ("GET", "namespace/none", None, 404, 'there is no namespace "none"'),
    ("DELETE", "namespace/openfaas-fn", {}, 409, "has functions"),
    ("POST", "namespace/", {"name": "a/b"}, 400, "invalid namespace"),
    ("GET", "logs", None, 422, '"name" is missing'),
    ("GET", "logs?name=none", None, 404, "there is no function"),
    ("GET", "logs?name=declared&tail=x", None, 422, '"tail" is no number'),
    ("GET", "logs?name=declared&since=x", None, 422, '"since" is no time'),
    ("POST", "alert", {"alerts": 1}, 400, "must be a list"),
    ("POST", "alert", {"alerts": [{}]}, 400, "no label"),
    ("GET", "none", None, 404, "not found"),
    ("POST", "functions", {**BASE, "labels": []}, 202, ""),
]  # fmt: skip


def test_what_is_refused(house) -> None:
    it: House = house()
    link = it.gateway.prefix / "images" / "link.py"
    link.symlink_to(it.gateway.prefix / "outside.py")
    wrong = []
    for method, path, said, status, text in REFUSED:
        answer = it.ask(method, f"/system/{path}", said)
        if answer.status != status or text not in answer.text:
            wrong.append(f"{method} {path} {said!s:.80}: {answer}, not {status} {text}")
    assert not wrong, "\n".join(wrong)
    assert it.call("declared", body=b"x").status in (200, 503)


def test_nobody_gets_in_without_the_password(house) -> None:
    it: House = house()
    path = it.gateway.prefix / "var" / "openfaas-auth"
    assert it.password.startswith("admin:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in it.gateway.error_log
    assert it.password.partition(":")[2] not in it.gateway.error_log
    wrong = ("", "Basic", "Basic !", "Basic YWRtaW46eA==", "Bearer x", it.field + "x")
    for field in wrong:
        answer = it.ask("GET", "/system/functions", Authorization=field)
        assert answer.status == 401, field
        assert answer.get("WWW-Authenticate") == 'Basic realm="Restricted"'
        assert answer.text == "invalid credentials"
    answer = it.ask("GET", "/system/functions", Authorization="", X_Headrace_Auth="off")
    assert answer.status == 401
    for rest in ("secrets", "namespaces", "logs?name=f", "info", "function/f", "queue"):
        assert it.ask("GET", f"/system/{rest}", Authorization="").status == 401, rest
    assert it.ask("GET", "/healthz", Authorization="").status == 200
    path.write_text("me:mine\n")
    assert it.ask("GET", "/system/functions").status == 200
    assert it.ask("GET", "/system/functions", Authorization="Basic bWU6bWluZQ==").status == 200


def test_auth_off_and_servers_without_the_api(house) -> None:
    it: House = house("", "openfaas_auth off;")
    wait_for(lambda: it.gateway.get("/system/functions").status == 200)
    other = it.gateway.get("/system/functions", port=it.gateway.ports[1])
    assert (other.status, other.body) == (200, b"other")


def test_secrets_are_files_for_those_who_name_them(house) -> None:
    it: House = house()
    secret = {"name": "key", "value": "open sesame"}
    assert it.ask("POST", "/system/secrets", secret).status == 202
    assert it.ask("POST", "/system/secrets", secret).status == 409
    raw = {"name": "raw", "rawValue": "AAH/"}
    assert it.ask("POST", "/system/secrets", raw).status == 202
    path = it.gateway.prefix / "var" / "secrets" / "openfaas-fn" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name("raw").read_bytes() == b"\0\1\xff"
    listed = it.ask("GET", "/system/secrets").json
    assert listed == [{"name": name, "namespace": "openfaas-fn"} for name in ("key", "raw")]
    assert it.deploy("f", "one.py", secrets=["key"]).status == 202
    it.wait_ready("f")
    assert it.call("f", "/secret?name=key").text == "open sesame"
    assert it.call("f", "/secret?name=raw").status == 500
    assert it.ask("PUT", "/system/secrets", {**secret, "value": "new"}).status == 202
    assert path.read_text() == "new"
    assert it.call("f", "/secret?name=key").text == "new"  # a replica that runs sees it, too
    elsewhere = {**secret, "namespace": "elsewhere"}
    assert it.ask("POST", "/system/namespace/", {"name": "elsewhere"}).status in (200, 201, 202)
    assert it.ask("POST", "/system/secrets", elsewhere).status == 202
    assert it.ask("PUT", "/system/secrets", {**elsewhere, "value": "no"}).status == 202
    assert it.call("f", "/secret?name=key").text == "new"
    assert it.ask("DELETE", "/system/secrets", {"name": "key"}).status == 202
    assert not path.exists()
    log = it.gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("Traceback", "its trace"))  # of the 500


def test_namespaces_are_apart(house) -> None:
    it: House = house()
    said = {"name": "shop", "labels": {"a": "b"}}
    assert it.ask("POST", "/system/namespace/", said).status == 201
    assert it.ask("POST", "/system/namespace/", said).status == 409
    assert it.ask("GET", "/system/namespace/shop").json == {**said, "annotations": {}}
    assert it.ask("PUT", "/system/namespace/shop", {"labels": {}}).status == 202
    assert it.deploy("f", "one.py").status == 202
    assert it.deploy("f", "two.py", namespace="shop").status == 202
    wait_for(lambda: it.call("f.shop", body=b"x").text == "two x", 20)
    wait_for(lambda: it.call("f", body=b"x").text == "one x", 20)
    names = [row["name"] for row in it.ask("GET", "/system/functions?namespace=shop").json]
    assert names == ["f"]
    assert it.ask("GET", "/system/function/f?namespace=shop").json["image"] == "two.py"
    every = it.ask("GET", "/system/functions?namespace=*").json
    assert len(every) == 3
    assert it.ask("DELETE", "/system/namespace/shop", {}).status == 409
    gone = {"functionName": "f", "namespace": "shop"}
    assert it.ask("DELETE", "/system/functions", gone).status == 202
    assert it.ask("DELETE", "/system/namespace/shop", {}).status == 202
    assert it.ask("GET", "/system/namespaces").json == ["openfaas-fn"]


def test_logs_are_lines_of_json_and_can_be_followed(house) -> None:
    it: House = house()
    assert it.deploy("f", "one.py").status == 202
    it.wait_ready("f")
    for word in "abc":
        it.call("f", f"/print?what={word}")
    wait_for(lambda: it.ask("GET", "/system/logs?name=f").body.count(b"printed") == 3)
    said = it.ask("GET", "/system/logs?name=f&tail=2&since=1m")
    assert said.get("Content-Type") == "application/x-ndjson"
    rows = [json.loads(line) for line in said.body.splitlines()]
    assert [row["text"] for row in rows] == ["printed b", "printed c"]
    assert rows[0]["name"] == "f"
    assert rows[0]["instance"].startswith("f.openfaas-fn/v1/")
    assert rows[0]["timestamp"].endswith("Z")
    assert it.ask("GET", "/system/logs?name=f&since=2100-01-01T00:00:00Z").body == b""
    with it.gateway.client() as client:
        client.send(
            "GET /system/logs?name=f&follow=1&tail=1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {it.field}\r\n\r\n"
        )
        said_so_far = b""
        while b"printed c" not in said_so_far:
            said_so_far += client.sock.recv(65536)
        it.call("f", "/print?what=d")
        while b"printed d" not in said_so_far:
            said_so_far += client.sock.recv(65536)


def test_scale_by_order_and_by_alert(house) -> None:
    it: House = house()
    label = {"com.openfaas.scale.max": "4"}
    assert it.deploy("f", "one.py", labels=label).status == 202
    it.wait_ready("f")
    said = {"serviceName": "f", "replicas": 3, "namespace": "openfaas-fn"}
    assert it.ask("POST", "/system/scale-function/f", said).status == 202
    it.wait_ready("f", 3)
    assert it.ask("POST", "/system/scale-function/f", {"replicas": 9}).status == 202
    it.wait_ready("f", 4)
    assert it.describe("f")["replicas"] == 4
    assert it.ask("POST", "/system/scale-function/f", {"replicas": 0}).status == 202
    wait_for(lambda: it.describe("f")["availableReplicas"] == 0, 20)
    alert = {"status": "firing", "labels": {"function_name": "f.openfaas-fn"}}
    assert it.ask("POST", "/system/alert", {"alerts": [alert]}).status == 200
    it.wait_ready("f", 1)
    assert it.ask("POST", "/system/alert", {"alerts": [alert]}).status == 200
    it.wait_ready("f", 2)
    over = {**alert, "status": "resolved"}
    assert it.ask("POST", "/system/alert", {"alerts": [over]}).status == 200
    wait_for(lambda: it.describe("f")["replicas"] == 1, 20)


def test_versions_share_and_go_back(house) -> None:
    it: House = house()
    assert it.deploy("f", "one.py").status == 202
    said = {"image": "two.py", "weight": 10, "tag": "next"}
    answer = it.ask("PUT", "/system/function/f/versions/v2", said)
    assert answer.status == 202, answer
    listed = it.ask("GET", "/system/function/f/versions").json["versions"]
    rows = {row["name"]: row for row in listed}
    assert {name: row["weight"] for name, row in rows.items()} == {"v1": 90, "v2": 10}
    assert rows["v2"]["tag"] == "next"
    wait_for(lambda: all(row["availableReplicas"] for row in it.describe("f")["versions"]), 20)
    split = {"weights": {"v1": 0, "v2": 100}}
    assert it.ask("PUT", "/system/function/f/split", split).json == split
    wait_for(lambda: it.call("f", body=b"x").text == "two x")
    assert {it.call("f", body=b"x").text for _ in range(10)} == {"two x"}
    back = it.ask("POST", "/system/function/f/rollback", {})
    assert back.json == {"weights": {"v1": 90, "v2": 10}}
    split = {"weights": {"v1": 100, "v2": 0}}
    assert it.ask("PUT", "/system/function/f/split", split).status == 200
    wait_for(lambda: it.call("f", body=b"x").text == "one x")
    assert it.ask("DELETE", "/system/function/f/versions/v2", {}).status == 202
    assert it.ask("DELETE", "/system/function/f/versions/v2", {}).status == 404
    assert [row["name"] for row in it.describe("f")["versions"]] == ["v1"]
    bad = it.ask("PUT", "/system/function/f/versions/v3", {"image": "two.py", "weight": 101})
    assert bad.status == 400
    assert "more than 100" in bad.text


def test_what_does_not_start_says_why(house) -> None:
    it: House = house()
    assert it.deploy("f", "broken.py").status == 202
    wait_for(lambda: "nothing_there" in it.describe("f")["versions"][0]["error"], 20)
    assert it.describe("f")["availableReplicas"] == 0
    assert it.ask("GET", "/system/functions").status == 200
    assert it.ask("DELETE", "/system/functions", {"functionName": "f"}).status == 202
    time.sleep(0.2)
    it.gateway.stop()
    log = it.gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("Traceback", "its trace"))


def test_info_has_every_object_that_faas_cli_needs(house) -> None:
    info = house().ask("GET", "/system/info").json
    for part in (info["version"], info["provider"]["version"]):
        assert {"commit_message", "sha", "release"} == part.keys()
    assert info["provider"]["provider"] == "headrace"
    assert info["arch"]


def test_a_body_that_lies_about_its_length(house) -> None:
    it: House = house()
    head = (
        "POST /system/functions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: {it.field}\r\nContent-Length: "
    )
    with it.gateway.client() as client:
        client.send(f'{head}1000\r\n\r\n{{"service": "x"}}')
        time.sleep(0.2)
    with it.gateway.client() as client:
        client.send(f'{head}5\r\n\r\n{{"service": "x"}}')
        assert b" 400 " in client.read_all().split(b"\r\n")[0]
    assert it.ask("GET", "/system/functions").status == 200


def test_the_page_shows_what_the_api_says(house) -> None:
    it: House = house()
    assert it.ask("GET", "/ui/", Authorization="").status == 401
    page = it.ask("GET", "/ui/")
    assert page.status == 200
    assert page.get("Content-Type") == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in page.get("Content-Security-Policy")
    assert "/system/functions" in page.text
    assert "innerHTML" not in page.text  # what a function is called is never markup

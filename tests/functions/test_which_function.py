"""Which function and which version answers, in a running gateway: names, labels, paths, routes,
shares, and that a change of any of them loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from gateway import Gateway, internal_sockets, wait_for
from rawclient import RawClient
from test_life import Load

HANDLER = """
import os

def handle(event, context):
    return {"body": {"who": os.environ["WHO"], "path": event.path, "query": dict(event.query),
                     "method": event.method, "headers": dict(event.headers), "version": 0}}
"""
FUNCTIONS = """
    access_log off;
    function a {
        python app.py:handle; env WHO a; min_scale 1;
        labels team=pay tier=gold;
        annotation headrace.io/route "/thumbs/* rewrite=/v1";
        annotation headrace.io/route.2 "GET api.test/only";
    }
    function b {
        namespace photos;
        python app.py:handle; env WHO b; min_scale 1;
        labels team=pay;
        annotation headrace.io/route "POST /thumbs/*";
        annotation headrace.io/route.2 "/thumbs/* header.X-Tier=gold query.v=2";
        annotation headrace.io/route.3 "/";
    }
    function c.d { python app.py:handle; env WHO c.d; min_scale 1; }
"""
SERVERS = """
    server {
        listen 127.0.0.1:%%PORT%%;
        openfaas_api on;
        location /label { function_pass label:team=pay,tier=gold; }
        location /labels { function_pass label:team=pay; }
        location /no-label { function_pass label:team=none; }
        location /name { function_pass b; }
        location /key/ { function_pass b.photos; }
        location /dot { function_pass c.d; }
        location /later { function_pass later; }
        location /text { function_pass $arg_f; }
        location /pages { error_page 404 = /page; function_pass $arg_f; }
        location = /page { return 200 page; }
        location /fn/ { function_pass path:; }
        location /function/c.d { return 200 "the conf's own"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        function_routes on;
        location /thumbs/static { return 200 static; }
        location ~ [.]png$ { return 200 png; }
        location / { return 200 root; }
    }
    server { listen 127.0.0.1:%%PORT_2%%; location /x { return 200 x; } }
    server { listen 127.0.0.1:%%PORT_3%%; function_routes on; location /x { return 200 x; } }
"""


def make(headrace, http: str, main: str = "worker_processes 1;", whole: int = 0) -> Gateway:
    """A gateway whose functions all run."""
    gateway = headrace(http, main, start=False)
    (gateway.prefix / "app.py").write_text(HANDLER)
    gateway.start()
    count = whole or http.count("min_scale 1;")
    wait_for(lambda: len(re.findall(r"\S+ ready \(", gateway.error_log)) >= count, 20)
    return gateway


@pytest.fixture
def gateway(headrace) -> Iterator[Gateway]:
    gateway = make(headrace, FUNCTIONS + SERVERS)
    wait_for(lambda: gateway.get("/name").status == 200)
    return gateway


def who(answer) -> str:
    assert answer.status == 200, answer
    return json.loads(answer.body)["who"]


def test_a_location_names_its_function(gateway) -> None:
    get = gateway.get
    assert who(get("/name")) == who(get("/key/x")) == "b"
    assert who(get("/dot")) == "c.d"
    assert who(get("/label")) == "a"
    assert who(get("/labels")) == "a"  # of two the older: those of the conf by name
    assert who(get("/text?f=a")) == who(get("/text?f=a.openfaas-fn")) == "a"
    assert who(get("/text?f=b.photos")) == who(get("/text?f=b")) == "b"
    assert who(get("/text?f=c.d")) == "c.d"
    assert 'the labels "team=pay": "a.openfaas-fn", "b.photos": the first' in gateway.error_log


def test_a_name_that_nobody_has_is_a_problem_in_words(gateway) -> None:
    for path, name in (
        ("/text?f=z%22", "z%22"), ("/text?f=", ""), ("/text?f=b.openfaas-fn", "b.openfaas-fn"),
        ("/later", "later"), ("/no-label", "label:team=none"), ("/function/z/rest", "z"),
        ("/fn/" + "z" * 900, "z" * 256),
    ):  # fmt: skip
        answer = gateway.get(path)
        assert answer.status == 404
        assert answer.get("content-type") == "application/problem+json"
        assert json.loads(answer.body) == {
            "type": "about:blank", "title": "Not Found", "status": 404,
            "detail": "no such function", "function": name,
        }  # fmt: skip
    assert gateway.get("/pages?f=z").text == "page"


@pytest.mark.parametrize(
    ("target", "name", "path", "query"),
    [
        ("/function/a", "a", "/", {}),
        ("/function/a/", "a", "/", {}),
        ("/function/a?x=1", "a", "/", {"x": "1"}),
        ("/function/a.openfaas-fn/b/c?x=1&y", "a", "/b/c", {"x": "1"}),
        ("/function/b.photos/b%2Fc//d%20e", "b", "/b/c//d e", {}),
        ("/function/b/x", "b", "/x", {}),
        ("/fn/a/x", "a", "/x", {}),
        ("/x/../function/a/b%20c?d=%20", "a", "/b c", {"d": " "}),
        ("//function//a/x", "a", "/x", {}),
    ],
)
def test_a_path_names_its_function_and_is_cut(gateway, target, name, path, query) -> None:
    told = json.loads(gateway.get(target).body)
    told["query"].pop("y", None)
    assert (told["who"], told["path"], told["query"]) == (name, path, query)


def test_calls_by_path_speak_openfaas(gateway) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert json.loads(gateway.ask(method, "/function/a").body)["method"] == method
    assert gateway.ask("HEAD", "/function/a").status == 200
    assert gateway.ask("PROPFIND", "/function/a").status == 405
    answer = gateway.ask("POST", "/function/a", b"x", X_Call_Id="mine")
    told = json.loads(answer.body)["headers"]
    assert answer.get("x-call-id") == told["X-Call-Id"] == "mine"
    assert answer.get("x-start-time") == told["X-Start-Time"]
    assert re.fullmatch(r"\d{19}", answer.get("x-start-time"))
    assert re.fullmatch(r"\d+\.\d{3}", answer.get("x-duration-seconds"))
    assert len(gateway.get("/function/a").get("x-call-id")) == 32
    assert gateway.get("/name").get("x-call-id") is None
    assert gateway.get("/function/c.d").text == "the conf's own"


def test_the_api_is_where_the_conf_says_so_and_nowhere_else(gateway) -> None:
    for path in ("/function/a", "/system/functions", "/async-function/a", "/healthz"):
        for port in gateway.ports[1:4]:
            assert "no such function" not in gateway.get(path, port).text
            assert gateway.get(path, gateway.ports[2]).status == 404
    assert gateway.ask("POST", "/system/functions", b"x" * 3_000_000).status == 413


def test_routes_of_functions_come_before_the_last_resort_alone(gateway) -> None:
    port = gateway.ports[1]

    def ask(target: str, method: str = "GET", **headers: str) -> str:
        with gateway.client(port) as client:
            answer = client.ask(method, target, **headers)
        assert answer.status == 200
        if answer.text[:1] != "{":
            return answer.text
        told = json.loads(answer.body)
        return f"{told['who']} {told['path']}"

    assert ask("/thumbs/x%20y/z") == "a /v1/x y/z"
    assert ask("/thumbs/x", "POST") == "b /thumbs/x"
    assert ask("/thumbs/x?v=2", X_Tier="gold") == "b /thumbs/x"
    assert ask("/thumbs/x?v=2") == "a /v1/x"
    assert ask("/only", Host="api.test") == "a /only"
    assert ask("/only", Host="api.test:80") == "a /only"
    assert ask("/thumbs/static/x") == "static"
    assert ask("/thumbs/x.png") == "png"
    assert ask("/only") == "b /only"
    assert gateway.get("/else", gateway.ports[3]).status == 200
    assert gateway.get("/x", gateway.ports[3]).text == "x"


SPLIT = """
    access_log off;
    function a {
        python app.py:handle; env WHO v1; min_scale 1; %(more)s
        version v2 { env WHO v2; weight %(weight)d; tag beta; }
        version dark { env WHO dark; weight 0; tag dark; }
        annotation headrace.io/route "/%(route)s/*";
    }
    server {
        listen 127.0.0.1:%%%%PORT%%%%; function_routes on;
        location /f { function_pass a; }
        location / { return 404; }
    }
"""


def split(weight: int, more: str = "", route: str = "one") -> str:
    return SPLIT % {"weight": weight, "more": more, "route": route}


def test_versions_get_exactly_what_their_weights_say(headrace) -> None:
    gateway = make(headrace, split(10, "sticky cookie=hr httponly tag_header=X-V;"), whole=3)
    wait_for(lambda: {who(gateway.get("/f", X_V=it)) for it in ("beta", "dark")} == {"v2", "dark"})
    answers = [gateway.get("/f") for _ in range(100)]
    assert Counter(map(who, answers)) == {"v1": 90, "v2": 10}
    for answer in answers[:20]:
        cookie = answer.get("set-cookie")
        assert re.fullmatch(r"hr=\d{4}; HttpOnly; Path=/", cookie)
        again = [gateway.get("/f", Cookie=cookie.partition(";")[0]) for _ in range(3)]
        assert {(who(it), it.get("set-cookie")) for it in again} == {(who(answer), None)}
    assert who(gateway.get("/f", Knative_Serving_Tag="dark")) == "dark"
    assert who(gateway.get("/f", Knative_Serving_Tag="none", Cookie="hr=0000")) in ("v1", "v2")


def test_a_change_of_weights_and_routes_under_load_loses_nothing(headrace) -> None:
    gateway = make(headrace, split(0, "sticky header=X-User;"), "worker_processes 2;", whole=3)
    wait_for(lambda: gateway.get("/one/x").status == 200)
    with Load(gateway, "/f") as load:
        for weight, route in ((30, "two"), (100, "three"), (0, "one"), (50, "two")):
            gateway.write_conf(split(weight, "sticky header=X-User;", route), "worker_processes 2;")
            gateway.reload()
            wait_for(lambda path=f"/{route}/x": gateway.get(path).status == 200)
            load.more(60)
    assert not load.failed
    assert gateway.get("/one/x").status == 404


def test_the_controller_has_a_door_of_its_own_to_functions(headrace) -> None:
    http = FUNCTIONS + "deny all;" + SERVERS
    gateway = make(headrace, http, "worker_processes 2;")
    (path,) = internal_sockets(gateway, gateway.process.pid)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def ask(target: str, **headers: str):
        with RawClient(path=str(path)) as client:
            return client.ask("POST", target, b"x", **headers)

    answer = ask("/function/b.photos/x", X_Forwarded_For="10.0.0.9", X_Call_Id="mine")
    told = json.loads(answer.body)
    assert (told["who"], told["path"]) == ("b", "/x")
    assert told["headers"]["X-Forwarded-For"] == "10.0.0.9"
    assert told["headers"]["X-Call-Id"] == answer.get("x-call-id") == "mine"
    assert ask("/name").status == ask("/").status == 404
    assert gateway.get("/name").status == 403
    gateway.reload()
    assert internal_sockets(gateway, gateway.process.pid) == [path]
    for pid in gateway.workers():
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: pid not in gateway.workers())
        assert ask("/function/a").status == 200
    gateway.stop()
    assert not path.exists()
    # the fixture would mind: these alerts were asked for
    log = gateway.prefix / "logs" / "error.log"
    log.write_text(log.read_text().replace("[alert]", "[asked]"))


def test_without_functions_there_is_no_such_door(headrace) -> None:
    gateway = headrace("server { listen 127.0.0.1:%%PORT%%; }")
    assert not internal_sockets(gateway, gateway.process.pid)


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("location / { function_pass nobody; }", 'function "nobody" is not declared'),
        ("location / { function_pass label:x; }", 'invalid label "x"'),
        ("location ~ x { function_pass path:; }", '"path:" wants a location that is a prefix'),
        ("openfaas_api maybe;", 'invalid value "maybe"'),
        ("location / { function_pass $nobody; }", 'unknown "nobody" variable'),
    ],
)
def test_what_cannot_be_is_refused(headrace, inside, why) -> None:
    with pytest.raises(AssertionError, match=re.escape(why)):
        headrace(f"server {{ listen 127.0.0.1:%%PORT%%; {inside} }}")


MIRROR = """
    access_log off;
    function a {
        python app.py:handle; env WHO a; min_scale 1;
        version b { env WHO b; weight 50; }
        version dark { env WHO dark; mirror 50%; }
    }
    server {
        listen 127.0.0.1:%%PORT%%; openfaas_api on; openfaas_auth off;
        client_body_buffer_size 16k;
        location /metrics { metrics; }
        location / { function_pass a; error_page 500 = /other; add_header X-B $function_version; }
        location /other { return 200 other; }
    }
"""
SHADOWED = """
import json, os

def handle(event, context):
    if os.environ["WHO"] == "dark":
        with open("dark.log", "a") as log:
            print(json.dumps([event.method, event.path, dict(event.query), len(event.body),
                              event.headers.get("X-A")]), file=log)
        return {"statusCode": 500, "body": "nobody sees this"}
    return os.environ["WHO"]
"""


def test_a_shadow_gets_copies_and_nobody_its_answers(headrace) -> None:
    gateway = headrace(MIRROR, "worker_processes 1;", start=False)
    (gateway.prefix / "app.py").write_text(SHADOWED)
    gateway.start()
    wait_for(lambda: len(re.findall(r"\S+ ready \(", gateway.error_log)) >= 3, 20)
    wait_for(lambda: {gateway.get("/").text for _ in range(2)} == {"a", "b"})
    log = gateway.prefix / "dark.log"

    def copies(path: str = "/") -> list:
        told = [json.loads(it) for it in log.read_text().splitlines()] if log.exists() else []
        return sorted((it for it in told if it[1].startswith(path)), key=lambda it: it[3])

    wait_for(lambda: gateway.get("/first").text and copies())
    with gateway.client() as client:
        for n in range(20):
            answer = client.ask("POST", f"/p%20{n}?q={n}", b"x" * n, X_A=str(n))
            assert (answer.text, answer.get("x-b")) in (("a", "v1"), ("b", "b"))
    wait_for(lambda: len(copies("/p ")) == 10)
    begin = copies("/p ")[0][3]
    assert begin in (0, 1)
    assert copies("/p ") == [
        ["POST", f"/p {n}", {"q": str(n)}, n, str(n)] for n in range(begin, 20, 2)
    ]
    # a body that does not fit its buffer is not copied; a chunked one that fits is
    for body in (b"x" * 50_000, b"5\r\nhello\r\n0\r\n\r\n"):
        fields = {"Transfer-Encoding": "chunked"} if body[:1] == b"5" else {}
        for _ in range(2):
            assert gateway.ask("PUT", "/body", body, **fields).status == 200
    wait_for(lambda: copies("/body") == [["PUT", "/body", {}, 5, None]])

    def counted(version: str, status: str, what: str = "requests") -> int:
        name = f'function="a.openfaas-fn",version="{version}",status="{status}"'
        text = gateway.get("/metrics").text
        found = re.search(rf"headrace_function_{what}_total{{{name}}} (\d+)", text)
        return int(found[1]) if found else 0

    wait_for(lambda: counted("dark", "5xx", "mirrored_requests") == len(copies()))
    assert counted("dark", "5xx") == 0  # no client asked it
    told = json.loads(gateway.get("/system/function/a").body)["versions"]
    calls = {it["name"]: (it["invocationCount"], it["copies"]) for it in told}
    assert calls["dark"] == (0, len(copies()))
    assert calls["b"][0] > 10 and calls["b"][1] == 0
    assert abs(counted("v1", "2xx") - counted("b", "2xx")) <= 1
    assert counted("dark", "2xx") == 0
    text = gateway.get("/metrics").text
    labels = 'function="a.openfaas-fn",version="b",status="2xx",le="+Inf"'
    assert f"headrace_function_request_duration_seconds_bucket{{{labels}}}" in text


ASYNC = """
    access_log off;
    function a { python app.py:handle; env WHO a; min_scale 1;
                 annotation headrace.io/route "/route/* rewrite=/r"; }
    function late { python app.py:handle; env WHO late; min_scale 1; async on;
                    annotation headrace.io/route "/late/*"; }
    functions { store %%DIR%%/f.db; queue sqlite:%%DIR%%/q.db; }
    server {
        listen 127.0.0.1:%%PORT%%; openfaas_api on; openfaas_auth off; function_routes on;
        location /now { function_pass a; }
        location /later { function_pass a; async on; }
        location /function-of-late { function_pass late; }
        location / { return 404; }
    }
"""
WRITING = """
import json, os

def handle(event, context):
    with open("calls.log", "a") as log:
        print(json.dumps([os.environ["WHO"], event.method, event.path, dict(event.query),
                          len(event.body)]), file=log)
    return os.environ["WHO"]
"""


def test_async_on_answers_202_and_the_queue_makes_the_call(headrace) -> None:
    gateway = headrace(ASYNC, "worker_processes 1;", start=False)
    (gateway.prefix / "app.py").write_text(WRITING)
    gateway.start()
    log = gateway.prefix / "calls.log"
    wait_for(lambda: gateway.get("/now/x").text == "a", 20)
    for target, told in (
        ("/later/x%20y?z=1", ["a", "POST", "/later/x y", {"z": "1"}, 3]),
        ("/function-of-late", ["late", "POST", "/function-of-late", {}, 3]),
        ("/late/b", ["late", "POST", "/late/b", {}, 3]),
        ("/function/late/c?d=e", ["late", "POST", "/c", {"d": "e"}, 3]),
        ("/async-function/a/d", ["a", "POST", "/d", {}, 3]),
    ):
        answer = gateway.ask("POST", target, b"abc")
        assert (answer.status, answer.body) == (202, b"")
        assert answer.get("x-call-id")
        wait_for(lambda told=told: json.dumps(told) in log.read_text(), 10)
    assert gateway.get("/route/x").text == "a"


def test_the_api_changes_weights_and_routes_without_a_reload(headrace) -> None:
    http = split(0) + "functions { store %%DIR%%/f.db; queue sqlite:%%DIR%%/q.db; }"
    http = http.replace("function_routes on;", "function_routes on; openfaas_api on;")
    gateway = make(headrace, http + "openfaas_auth off;", "worker_processes 2;", whole=3)
    wait_for(lambda: {who(gateway.get("/f")) for _ in range(9)} == {"v1"})
    path = "/system/function/a"

    def weigh(**weights: int) -> None:
        body = json.dumps({"weights": weights}).encode()
        answer = gateway.ask("PUT", f"{path}/split", body, Content_Type="application/json")
        assert answer.status == 200, answer

    with Load(gateway, "/f") as load:
        weigh(v1=0, v2=100)
        wait_for(lambda: {who(gateway.get("/f")) for _ in range(9)} == {"v2"})
        weigh(v1=50, v2=50)
        wait_for(lambda: {who(gateway.get("/f")) for _ in range(9)} == {"v1", "v2"})
        load.more(50)
        assert gateway.ask("POST", f"{path}/rollback").status == 200
        wait_for(lambda: {who(gateway.get("/f")) for _ in range(9)} == {"v2"})
        load.more(50)
    assert not load.failed


class Silent:
    """Takes requests and never answers; `asked` is how many came."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.sock.getsockname()[1]
        self.heard: list[bytes] = []
        self.held: list[socket.socket] = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.sock.accept()
                self.held.append(link)
                threading.Thread(target=self.read, args=(link,), daemon=True).start()

    def read(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data = link.recv(65536)
            if data:
                self.heard.append(data)

    @property
    def asked(self) -> int:
        return len(self.heard)

    def close(self) -> None:
        self.sock.close()
        for link in self.held:
            link.close()


def test_a_shadow_that_never_answers_harms_nobody(headrace, upstream) -> None:
    silent = Silent()
    http = f"""
        access_log off;
        function a {{
            static 127.0.0.1:{upstream.port};
            version dark {{ static 127.0.0.1:{silent.port}; mirror 100%; }}
        }}
        server {{ listen 127.0.0.1:%%PORT%%; location / {{ function_pass a; }} }}
    """
    gateway = headrace(http, "worker_processes 1;")
    wait_for(lambda: gateway.get("/").status == 200 and silent.asked, 20)
    with gateway.client() as client:
        for _ in range(200):
            assert client.get("/").status == 200
    wait_for(lambda: silent.asked == 64)
    silent.close()
    wait_for(lambda: gateway.get("/").status == 200)
    assert silent.asked == 64


INTERNAL = (
    "K-Network-Hash", "K-Network-Probe", "K-Kubelet-Probe", "K-Proxy-Request", "K-Original-Host",
    "K-Passthrough-Lb", "Knative-Serving-Default-Route", "Knative-Serving-Namespace",
    "Knative-Serving-Revision",
)  # fmt: skip


def test_what_knative_says_between_its_parts_no_client_says(headrace) -> None:
    """A function would believe it; where the conf sets one itself, it is that."""
    conf = """
        access_log off;
        function a { python app.py:handle; min_scale 1; }
        server {
            listen 127.0.0.1:%%PORT%%;
            location / { function_pass a; }
            location /set { function_pass a; proxy_set_header K-Original-Host ours; }
        }
    """
    gateway = headrace(conf, "worker_processes 1;", start=False)
    (gateway.prefix / "app.py").write_text(
        "def handle(event, context):\n    return dict(event.headers)\n"
    )
    gateway.start()
    wait_for(lambda: gateway.get("/").status == 200, 20)
    sent = {name: "theirs" for name in INTERNAL} | {"K-Other": "x", "Knative-Serving-Tag": "y"}
    got = json.loads(gateway.get("/", **{k.lower(): v for k, v in sent.items()}).body)
    assert {k: v for k, v in got.items() if k.startswith("K")} == {
        "K-Other": "x", "Knative-Serving-Tag": "y"
    }  # fmt: skip
    got = json.loads(gateway.get("/set", **sent).body)
    assert got["K-Original-Host"] == "ours" and "K-Network-Hash" not in got

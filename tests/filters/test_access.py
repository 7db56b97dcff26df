"""allow, deny, auth_basic, auth_request, limit_except and satisfy, from outside."""

import base64
import time

import pytest
from recorder import answer

from proxy.filters.users import UserFiles, check_fast, read_users

USERS = (
    "plain:{PLAIN}secret\n"
    "# plain2:{PLAIN}secret\n"
    "sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"
    "ssha:{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0\n"
    "apr1:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.:a comment\n"
    "md5:$1$salt$qJH7.N4xYta3aEG/dfqo/0\n"
    "sha512:$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS1"
    "30MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.\n"
    "broken:$apr1$\n"
    "empty:\n"
)
CONF = """
    server {
        listen 127.0.0.1:%%PORT%%;
        location /open      { return 200 open; }
        location /a/        { root %%DIR%%; }
        location /a/none    { deny all; root %%DIR%%; }
        location /a/some    { allow 127.0.0.0/8; deny all; root %%DIR%%; }
        location /a/other   { allow 10.0.0.0/8; deny all; root %%DIR%%; }
        location /a/first   { deny 127.0.0.1; allow all; root %%DIR%%; }
        location /a/any     { satisfy any; deny all; auth_basic r; auth_basic_user_file users;
                              root %%DIR%%; }
        location /a/any2    { satisfy any; allow all; auth_basic r; auth_basic_user_file users;
                              root %%DIR%%; }
        location /a/basic   { auth_basic "the $arg_r"; auth_basic_user_file users; root %%DIR%%; }
        location /a/nofile  { auth_basic r; auth_basic_user_file nothing; root %%DIR%%; }
        location /a/slow    { auth_delay 300ms; auth_basic r; auth_basic_user_file users;
                              root %%DIR%%; }
        location /a/except  { limit_except GET { deny all; } proxy_pass http://127.0.0.1:UP; }
        location /a/kept { limit_except GET { allow all; } proxy_pass http://127.0.0.1:UP/under; }
        location /a/asked   { auth_request /check; auth_request_set $who $upstream_http_x_who;
                              add_header X-Who $who; root %%DIR%%; }
        location /a/asking  { auth_request /local?status=$arg_s; root %%DIR%%; }
        location /a/page    { error_page 401 = /login; auth_request /check; root %%DIR%%; }
        location /a/pass    { auth_request /check; auth_basic r; auth_basic_user_file users;
                              proxy_pass http://127.0.0.1:UP; }
        location /a/stream  { auth_request /check; proxy_request_buffering off;
                              proxy_pass http://127.0.0.1:UP; }
        location = /login   { return 302 /signin; }
        location = /check   { internal; proxy_pass http://127.0.0.1:UP;
                              proxy_set_header X-Original $request_uri; }
        location = /local   { return 204; }
    }
"""


@pytest.fixture
def gateway(headrace, upstream):
    made = headrace(CONF.replace(":UP", f":{upstream.port}"), start=False)
    (made.prefix / "users").write_text(USERS)
    (made.prefix / "a").mkdir()
    names = ("none", "some", "other", "first", "any", "any2", "basic", "nofile", "slow", "asked",
             "asking", "page")  # fmt: skip
    for name in names:
        (made.prefix / "a" / name).write_text("in")
    return made.start()


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("name", "status"), [("none", 403), ("some", 200), ("other", 403), ("first", 403)]
)
def test_addresses(gateway, name, status):
    assert gateway.get(f"/a/{name}").status == status


@pytest.mark.parametrize("user", ["plain", "sha", "ssha", "apr1", "md5", "sha512"])
def test_passwords(gateway, user):
    password = "secret" if user == "plain" else "password"
    assert gateway.get("/a/basic", **basic(user, password)).status == 200
    assert gateway.get("/a/basic", **basic(user, password + "1")).status == 401
    assert gateway.get("/a/basic", **basic(user, "")).status == 401


@pytest.mark.parametrize(
    "authorization",
    ["Basic", "Basic !!!!", "Basic ", "Bearer cGxhaW46c2VjcmV0", "Basic cGxhaW4=",
     basic("", "")["Authorization"], basic("nobody", "x")["Authorization"],
     basic("broken", "")["Authorization"], basic("empty", "")["Authorization"],
     basic("# plain2", "secret")["Authorization"],
     basic("apr1", "x" * 600)["Authorization"], basic("apr1", "pass\0word")["Authorization"]],
)  # fmt: skip
def test_credentials_that_are_none(gateway, authorization):
    answered = gateway.get("/a/basic?r=realm", Authorization=authorization)
    assert answered.status == 401
    assert answered.get_all("WWW-Authenticate") == ['Basic realm="the realm"']


def test_user_file(gateway):
    assert gateway.get("/a/nofile", **basic("plain", "secret")).status == 403
    (gateway.prefix / "users").write_text("new:{PLAIN}one\n")
    assert gateway.get("/a/basic", **basic("new", "one")).status == 200
    assert gateway.get("/a/basic", **basic("plain", "secret")).status == 401


def test_delay_is_for_wrong_passwords(gateway):
    assert gateway.get("/a/slow", **basic("plain", "secret")).status == 200
    began = time.monotonic()
    assert gateway.get("/a/slow", **basic("plain", "wrong")).status == 401
    assert time.monotonic() - began >= 0.29  # auth_delay 300ms: never sooner


def test_satisfy_any(gateway):
    refused = gateway.get("/a/any")
    assert (refused.status, len(refused.get_all("WWW-Authenticate"))) == (401, 1)
    assert gateway.get("/a/any", **basic("plain", "secret")).status == 200
    assert gateway.get("/a/any2").status == 200


def test_limit_except(gateway, upstream):
    assert gateway.get("/a/except").status == 200
    assert gateway.ask("HEAD", "/a/except").status == 200
    assert gateway.ask("POST", "/a/except", b"x").status == 403
    assert gateway.ask("BREW", "/a/except").status == 403
    assert [it.method for it in upstream.requests] == ["GET", "HEAD"]
    assert gateway.ask("POST", "/a/kept/x", b"x").status == 200
    assert upstream.last.target == "/under/x", "who answers is the location's"


@pytest.mark.parametrize(
    ("said", "status"), [(200, 200), (204, 200), (401, 401), (403, 403), (404, 500), (302, 500)]
)
def test_the_asked_one_decides(gateway, upstream, said, status):
    upstream.answer = answer(
        b"" if said == 204 else b"never shown", said,
        [("WWW-Authenticate", "A"), ("WWW-Authenticate", "B"), ("X-Who", "me")])  # fmt: skip
    answered = gateway.ask("POST", "/a/asked", b"the body")
    if status == 200:
        answered = gateway.get("/a/asked")
        assert answered.get("X-Who") == "me"
    assert answered.status in (status, 405)
    assert b"never shown" not in answered.body
    if status == 401:
        assert answered.get_all("WWW-Authenticate") == ["A", "B"]
    asked = upstream.requests[0]
    assert (asked.method, asked.target, asked.body) == ("GET", "/check", b"")
    assert (asked.get("X-Original"), asked.get("Content-Length")) == ("/a/asked", None)


def test_asked_without_an_upstream_and_with_error_page(gateway, upstream):
    assert gateway.get("/a/asking").status == 200
    upstream.answer = answer(b"", 401)
    answered = gateway.get("/a/page")
    assert (answered.status, answered.get("Location").endswith("/signin")) == (302, True)


@pytest.mark.parametrize("name", ["pass", "stream"])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_body_waits_for_the_answer_and_goes_on(gateway, upstream, name, size):
    upstream.answer = lambda asked: (time.sleep(0.05), answer(b"passed"))[1]
    body = b"b" * size
    answered = gateway.ask("POST", f"/a/{name}", body, **basic("sha512", "password"))
    assert (answered.status, answered.body) == (200, b"passed")
    assert [(it.method, it.target, it.body) for it in upstream.requests] == [
        ("GET", "/check", b""), ("POST", f"/a/{name}", body)]  # fmt: skip


def test_pipelined_requests_wait_for_each_other(gateway):
    slow = basic("sha512", "password")["Authorization"]
    one = "GET /a/basic HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n"
    with gateway.client() as client:
        client.send(one.format(slow) + one.format("Basic") + one.format(slow))
        assert [client.read().status for _ in range(3)] == [200, 401, 200]


def test_whoever_was_refused_is_named(gateway):
    gateway.get("/a/none")
    gateway.get("/a/basic", **basic("plain", "wrong"))
    gateway.get("/a/basic", **basic("no\nbody", "x"))
    gateway.get("/a/nofile", **basic("plain", "wrong"))
    log = gateway.error_log
    assert "access forbidden by rule, client: 127.0.0.1" in log
    assert 'user "plain": password mismatch' in log
    assert 'user "no?body" was not found' in log
    assert "failed (2: No such file or directory)" in log


def test_conditions_are_not_asked_along(gateway, upstream):
    gateway.get("/a/asked", **{"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT",
                               "Range": "bytes=0-0"})  # fmt: skip
    asked = upstream.requests[0]
    assert (asked.get("If-Modified-Since"), asked.get("Range")) == (None, None)


def test_a_client_that_leaves_takes_its_sub_requests_along(gateway, upstream):
    upstream.answer = lambda asked: (time.sleep(0.3), answer())[1]
    for _ in range(5):
        with gateway.client() as client:
            client.send("GET /a/asked HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.02)
    upstream.answer = answer()
    assert gateway.get("/a/asked").status == 200
    assert len(gateway.workers()) == 1


def test_read_users():
    users = read_users(b"a:1\r\nb:2:comment\n#c:3\nno colon\na:4\nd:5")
    assert users == {b"a": b"1", b"b": b"2", b"d": b"5"}


def test_user_files_are_bounded(tmp_path):
    files = UserFiles()
    for number in range(600):
        path = tmp_path / str(number)
        path.write_bytes(b"u:x")
        assert files.find(bytes(path), b"u") == b"x"
    assert len(files.files) <= 256


def test_fast_hashes():
    assert check_fast(b"{PLAIN}x", b"x") is True
    assert check_fast(b"{SHA}nonsense", b"x") is False
    assert check_fast(b"{SSHA}Zm9vCg==", b"x") is False
    assert check_fast(b"$1$x$y", b"x") is None

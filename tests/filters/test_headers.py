"""add_header, add_trailer and expires on answers of ours and of upstreams."""

import time
from email.utils import parsedate_to_datetime

import pytest
from recorder import answer

from proxy.conf import load_text
from proxy.conf.report import ConfError
from proxy.filters import directives  # noqa: F401  (its import declares)
from proxy.filters.headers import lines, read_expiry

CONF = """
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Outer $uri;
        add_header X-Always $uri always;

        location /ok        { return 200 ok; }
        location /bad       { return 404; }
        location /own       { add_header X-Own 1; return 200 ok; }
        location /merged    { add_header_inherit merge; add_header X-Own 1; return 200 ok; }
        location /off       { add_header_inherit off; return 200 ok; }
        location /empty     { add_header X-Empty $arg_x; return 200 ok; }
        location /cut       { add_header X-Uri $uri; return 200 ok; }
        location /epoch     { expires epoch; return 200 ok; }
        location /max       { expires max; return 200 ok; }
        location /after     { expires 1h; return 200 ok; }
        location /before    { expires -1; return 200 ok; }
        location /daily     { expires @15h30m; return 200 ok; }
        location /var       { expires $arg_e; return 200 ok; }
        location /up/       { add_header X-Up $upstream_http_x_their; expires 1h;
                              proxy_pass http://127.0.0.1:UPSTREAM/; }
        location /tag/      { add_header ETag ''; proxy_pass http://127.0.0.1:UPSTREAM/; }
        location /trailed   { add_trailer X-T $host; add_trailer X-A $status always;
                              add_trailer X-None $arg_none; return 200 body; }
        location /trailbad  { add_trailer X-T $host; return 404; }
        location /trailup/  { add_trailer X-Len $upstream_response_length;
                              proxy_pass http://127.0.0.1:UPSTREAM/; }
    }
"""


@pytest.fixture
def gateway(headrace, upstream):
    return headrace(CONF.replace("UPSTREAM", str(upstream.port)))


def test_fields_by_status_and_level(gateway):
    ok = gateway.get("/ok")
    assert (ok.get("X-Outer"), ok.get("X-Always")) == ("/ok", "/ok")
    bad = gateway.get("/bad")
    assert (bad.get("X-Outer"), bad.get("X-Always")) == (None, "/bad")
    own = gateway.get("/own")
    assert (own.get("X-Outer"), own.get("X-Own")) == (None, "1")
    merged = gateway.get("/merged")
    assert (merged.get("X-Outer"), merged.get("X-Own")) == ("/merged", "1")
    assert gateway.get("/off").get("X-Always") is None
    assert gateway.get("/empty").get("X-Empty") is None
    assert gateway.get("/empty?x=1").get("X-Empty") == "1"


def test_no_line_of_its_own_from_a_path(gateway):
    answered = gateway.get("/cut%0d%0aX-Evil:%201")
    assert answered.get("X-Evil") is None
    assert b"\r\nX-Evil" not in answered.raw_head


def test_expires(gateway):
    assert gateway.get("/epoch").get("Expires") == "Thu, 01 Jan 1970 00:00:01 GMT"
    assert gateway.get("/epoch").get("Cache-Control") == "no-cache"
    assert gateway.get("/max").get("Cache-Control") == "max-age=315360000"
    after = gateway.get("/after")
    assert after.get("Cache-Control") == "max-age=3600"
    at = parsedate_to_datetime(after.get("Expires")).timestamp()
    assert abs(at - time.time() - 3600) < 5
    assert gateway.get("/before").get("Cache-Control") == "no-cache"
    daily = parsedate_to_datetime(gateway.get("/daily").get("Expires")).timestamp()
    assert 0 < daily - time.time() <= 86400 and time.localtime(daily)[3:5] == (15, 30)


@pytest.mark.parametrize(
    ("value", "control"),
    [("epoch", "no-cache"), ("20", "max-age=20"), ("-20", "no-cache"), ("off", None),
     ("bad", None), ("", None), ("@25h", None)],
)  # fmt: skip
def test_expires_of_the_moment(gateway, value, control):
    assert gateway.get(f"/var?e={value}").get("Cache-Control") == control


def test_upstreams_fields_give_way(gateway, upstream):
    upstream.answer = answer(
        b"ok", headers=[("X-Their", "t"), ("Expires", "0"), ("Cache-Control", "private"),
                        ("ETag", '"theirs"')])  # fmt: skip
    answered = gateway.get("/up/")
    assert answered.get("X-Up") == "t"
    assert answered.get_all("Cache-Control") == ["max-age=3600"]
    assert len(answered.get_all("Expires")) == 1
    assert answered.get("ETag") == '"theirs"'
    assert gateway.get("/tag/").get("ETag") is None


def test_trailers(gateway, upstream):
    answered = gateway.get("/trailed")
    assert answered.body == b"body"
    assert answered.trailers == (("X-T", "localhost"), ("X-A", "200"))
    assert gateway.get("/trailbad").trailers == ()
    upstream.answer = answer(b"twelve bytes")
    answered = gateway.get("/trailup/")
    assert (answered.body, answered.trailers) == (b"twelve bytes", (("X-Len", "12"),))
    old = gateway.raw("GET /trailed HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nbody")


def block(text):
    model = load_text(f"events {{ }} http {{ server {{ {text} }} }}")
    return model.find("http")[0].find("server")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("expires modified @1h;", "daily time cannot be used"), ("expires 1x;", "invalid value"),
     ("expires @25h;", "less than 24 hours"), ("add_header A b c;", 'invalid parameter "c"'),
     ("add_header Content-Length 1;", "frames the message")],
)  # fmt: skip
def test_what_is_refused(text, message):
    with pytest.raises(ConfError, match=message):
        block(text)


def test_merged_lines_come_behind_own_ones():
    inner = block("add_header A 1; location / { add_header_inherit merge; add_header B 2; }")
    names = [it.name for it in lines(inner.find("location")[0], "add_header")]
    assert names == ["B", "A"]


def test_read_expiry():
    assert read_expiry("-1h", False) == (3, -3600)
    assert read_expiry("+1h", True) == (4, 3600)
    assert read_expiry("max", True) == "invalid value"

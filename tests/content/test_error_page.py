"""error_page: where an error's answer comes from, and with which status."""

from __future__ import annotations

import pytest
from gateway import Gateway
from recorder import answer

CONF = """
    error_page 418 /everywhere;
    error_page 400 =400 /malformed;
    error_page 414 @proxied;
    server {
        listen 127.0.0.1:%%PORT%%;
        root %%DIR%%/site;
        location = /everywhere { return 200 "everywhere $request_method $uri"; }
        location = /page.html { internal; }
        location /file { error_page 404 /page.html; }
        location /said { error_page 404 =201 /page.html; return 404; }
        location /own { error_page 404 = /own-status; return 404; }
        location = /own-status { return 202 "own"; }
        location /named { error_page 404 @named; return 404; }
        location @named { return 200 "named $uri $args"; }
        location /absent-name { error_page 404 @absent; return 404; }
        location /url { error_page 404 http://example.com/x; return 404; }
        location /url-307 { error_page 404 =307 http://example.com/x; return 404; }
        location /variable { error_page 404 /echo/$arg_to?$args; return 404; }
        location /echo/ { return 200 "$uri|$args"; }
        location /redirected { error_page 302 /page.html; return 302 /there; }
        location /once { error_page 404 /again; error_page 403 /page.html; return 404; }
        location = /again { error_page 403 /page.html; return 403; }
        location /deep { recursive_error_pages on; error_page 404 /deeper; return 404; }
        location = /deeper {
            recursive_error_pages on;
            error_page 403 /page.html;
            return 403;
        }
        location /circle { recursive_error_pages on; error_page 404 /circle; return 404; }
        location /teapot { return 418; }
        location /large {
            client_max_body_size 4;
            error_page 413 /page.html;
            proxy_pass http://%%UP%%;
        }
        location /large-named {
            client_max_body_size 4;
            error_page 413 @up;
            proxy_pass http://%%UP%%;
        }
        location = /malformed { return 200 "malformed"; }
        location @proxied { proxy_pass http://%%UP%%; }
        location @up { client_max_body_size 0; proxy_pass http://%%UP%%; }
        location /dead { error_page 502 @up; proxy_pass http://127.0.0.1:%%PORT_6%%; }
        location /dead-stream {
            proxy_request_buffering off;
            error_page 502 @up;
            proxy_pass http://127.0.0.1:%%PORT_6%%;
        }
        location /intercepted {
            proxy_intercept_errors on;
            error_page 401 403 500 /page.html;
            proxy_pass http://%%UP%%;
        }
        location /passed { error_page 500 /page.html; proxy_pass http://%%UP%%; }
    }
"""


@pytest.fixture
def site(headrace, upstream) -> Gateway:
    gateway = headrace(CONF.replace("%%UP%%", upstream.address), start=False)
    (gateway.prefix / "site").mkdir()
    (gateway.prefix / "site/page.html").write_bytes(b"page")
    return gateway.start()


def test_answers(site: Gateway) -> None:
    for target, status, body in (
        ("/file", 404, "page"),
        ("/said", 201, "page"),
        ("/own", 202, "own"),
        ("/named?a", 404, "named /named a"),
        ("/variable?to=x", 404, "/echo/x|to=x"),
        ("/teapot", 418, "everywhere GET /everywhere"),
        ("/deep", 403, "page"),
        ("/page.html", 404, None),
        ("/absent-name", 500, None),
        ("/circle", 500, None),
        ("/once", 403, None),
    ):
        got = site.get(target)
        assert got.status == status, target
        if body is not None:
            assert got.text == body, target
        else:
            assert "<h1>" in got.text, target


def test_redirects(site: Gateway) -> None:
    got = site.get("/url")
    assert (got.status, got.get_all("Location")) == (302, ["http://example.com/x"])
    got = site.get("/url-307")
    assert (got.status, got.get_all("Location")) == (307, ["http://example.com/x"])
    got = site.get("/redirected")
    assert (got.status, got.text) == (302, "page")
    assert got.get_all("Location") == [f"http://localhost:{site.port}/there"]


def test_the_method_becomes_get(site: Gateway) -> None:
    assert site.ask("POST", "/teapot", b"abc").text == "everywhere GET /everywhere"
    got = site.ask("HEAD", "/file")
    assert (got.status, got.body, got.get("Content-Length")) == (404, b"", "4")
    assert site.ask("POST", "/file", b"abc").text == "page"


def test_a_page_is_not_a_conditional_answer(site: Gateway) -> None:
    got = site.get("/file", If_None_Match="*", Range="bytes=0-1")
    assert (got.status, got.text, got.get("Accept-Ranges")) == (404, "page", None)


def test_a_body_too_large(site: Gateway, upstream) -> None:
    with site.client() as client:
        got = client.ask("POST", "/large", b"12345")
        assert (got.status, got.text) == (413, "page")
    upstream.answer = lambda request: answer(request.body + request.method.encode())
    got = site.ask("POST", "/large-named", b"12345")
    assert (got.status, got.text) == (413, "POST")  # the body was dropped


def test_an_upstream_that_cannot_be_reached(site: Gateway, upstream) -> None:
    upstream.answer = lambda request: answer(request.target.encode() + b" " + request.body)
    got = site.ask("POST", "/dead", b"12345")
    assert (got.status, got.text) == (502, "/dead 12345")
    with site.client() as client:
        for _ in range(3):
            got = client.ask("POST", "/dead-stream", b"12345")
            assert (got.status, got.text) == (502, "/dead-stream 12345")


def test_an_upstreams_errors(site: Gateway, upstream) -> None:
    for status, is_intercepted in ((500, True), (401, True), (404, False), (200, False)):
        upstream.answer = answer(
            b"theirs", status=status, headers=[("WWW-Authenticate", "a"), ("WWW-Authenticate", "b")]
        )
        got = site.get("/intercepted")
        assert (got.status, got.text) == (status, "page" if is_intercepted else "theirs")
        if status == 401:
            assert got.get_all("WWW-Authenticate") == ["a", "b"]
        assert site.get("/passed").text == "theirs"


def test_a_head_that_cannot_be_read(site: Gateway, upstream) -> None:
    for head in ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n"):
        said = site.raw(head + "GET /teapot HTTP/1.1\r\nHost: x\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), said
        assert said.endswith(b"\r\n\r\nmalformed"), said  # and closed: nothing is read behind it
    assert site.raw(b"\0\r\n\r\n").endswith(b"malformed")
    # a named location has no path to answer for
    assert b" 500 " in site.raw("GET /" + "x" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n")
    assert upstream.requests == []

"""Server-side includes, of files and of upstreams, whatever way the bytes are cut."""

import threading
import time

import pytest
from recorder import answer

CONF = """
    ssi on;
    server {
        listen 127.0.0.1:%%PORT%%;
        root %%DIR%%/html;
        location /up/    { proxy_pass http://127.0.0.1:UP; }
        location /raw/   { ssi off; alias %%DIR%%/html/; }
        location /small  { subrequest_output_buffer_size 8; }
        location /silent { ssi_silent_errors on; }
        location = /empty-answer { return 204; }
        location = /error { return 500; }
    }
"""

PAGES = {
    "one.html": "ONE",
    "args.html": '<!--#echo var="arg_a" -->',
    "nested.html": '[<!--#include virtual="/one.html" -->]',
    "loop.html": '.<!--#include virtual="/loop.html" -->',
    "big.html": "b" * 300_000,
}

# page, query, what comes out
TABLE = [
    ("plain", "", "plain"),
    ("a<!--#", "", "a<!--#"),
    ("a<!-- comment -->b", "", "a<!-- comment -->b"),
    ('<!--#echo var="arg_x" -->', "", "(none)"),
    ('<!--#echo var="arg_x" -->', "x=", ""),
    ('<!--#echo var="arg_x" default="d" -->', "", "d"),
    ("<!--# echo var='arg_x'-->", "x=v", "v"),
    ('<!--#echo var="no_such" -->', "", "(none)"),
    ('<!--#set var="v" value="<a&\\"b>" --><!--#echo var="v" -->', "", "&lt;a&amp;&quot;b&gt;"),
    ('<!--#set var="v" value="<a>" --><!--#echo var="v" encoding="none" -->', "", "<a>"),
    ('<!--#set var="v" value="<a>" --><!--#echo var="v" encoding="url" -->', "", "%3Ca%3E"),
    ('<!--#set var="v" value="-$arg_x-${arg_x}y\\$z" --><!--#echo var="V" -->', "x=1",
     "-1-1y$z"),
    ('<!--#if expr="$arg_x" -->Y<!--#else -->N<!--#endif -->', "x=1", "Y"),
    ('<!--#if expr="$arg_x" -->Y<!--#else -->N<!--#endif -->', "", "N"),
    ('<!--#if expr="$arg_x = 1" -->A<!--#elif expr="$arg_x = 2" -->B<!--#endif -->C', "x=2", "BC"),
    ('<!--#if expr="$arg_x != 1" -->A<!--#endif -->', "x=1", ""),
    ('<!--#if expr="$arg_x = /^(a+)(?P<r>b)/" --><!--#echo var="1" -->-<!--#echo var="r" -->'
     "<!--#endif -->", "x=aabc", "aa-b"),
    ('<!--#if expr="$arg_x" -->1<!--#if expr="$arg_y" -->2<!--#else -->3<!--#endif -->4'
     "<!--#endif -->5", "x=1", "1345"),
    ('<!--#if expr="$arg_x" --><!--#include virtual="/one.html" --><!--#endif -->', "", ""),
    ('a<!--#include virtual="/one.html" -->b<!--#include virtual="one.html" -->c', "", "aONEbONEc"),
    ('<!--#include file="nested.html" -->', "", "[ONE]"),
    ('<!--#include virtual="/args.html?a=$arg_q" -->', "q=7", "7"),
    ('<!--#include virtual="/%6fne.html" -->', "", "ONE"),
    ('<!--#include virtual="/one.html" set="v" -->(<!--#echo var="v" -->)', "", "(ONE)"),
    ('<!--#include virtual="/one.html" wait="yes" -->!', "", "ONE!"),
    ('<!--#include virtual="/empty-answer" -->x', "", "x"),
    ('<!--#block name="b" -->S<!--#echo var="arg_x" --><!--#endblock -->'
     '<!--#include virtual="/error" stub="b" -->', "x=1", "S1"),
    ('<!--#block name="b" -->S<!--#endblock --><!--#include virtual="/empty-answer" stub="b" -->',
     "", "S"),
    ('<!--#block name="b" -->S<!--#endblock --><!--#include virtual="/one.html" stub="b" -->', "",
     "ONE"),
    ('<!--#config errmsg="E" --><!--#nonsense -->', "", "E"),
    ('<!--#config errmsg="E" --><!--#include virtual="/../etc/passwd" -->', "", "E"),
    ('<!--#config errmsg="E" --><!--#include virtual="/a/%2e%2e/x" -->', "", "E"),
    ('<!--#config errmsg="E" --><!--#include -->|<!--#echo -->|<!--#endblock -->|<!--#else -->', "",
     "E|E|E|E"),
    ('<!--#config timefmt="%Y" --><!--#echo var="date_gmt" -->', "", time.strftime("%Y")),
]  # fmt: skip


@pytest.fixture
def gateway(headrace, upstream):
    made = headrace(CONF.replace("UP;", f"{upstream.port};"), start=False)
    (made.prefix / "html").mkdir()
    for name, text in PAGES.items():
        (made.prefix / "html" / name).write_text(text)
    return made.start()


def write(gateway, name, text):
    path = gateway.prefix / "html" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def pieces_of(page):
    """An answer whose body comes byte by byte."""
    head = f"HTTP/1.1 200 X\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
    return (head.encode(), *(bytes([byte]) for byte in page.encode()))


def test_commands(gateway, upstream):
    for number, (page, query, expected) in enumerate(TABLE):
        write(gateway, f"t{number}.html", page)
        assert gateway.get(f"/t{number}.html?{query}").text == expected, page
    for page, query, expected in TABLE:
        upstream.answer = pieces_of(page.replace('"one.html"', '"/one.html"').replace(
            '"nested.html"', '"/nested.html"'))  # fmt: skip
        assert gateway.get(f"/up/x?{query}").text == expected, page


def test_what_changes_of_the_head(gateway):
    write(gateway, "t.html", "x")
    answered = gateway.get("/t.html")
    names = {name.lower() for name, _ in answered.headers}
    assert not names & {"last-modified", "etag", "accept-ranges", "content-length"}
    assert gateway.get("/t.html", Range="bytes=0-0").status == 200
    assert gateway.get("/raw/t.html").get("ETag")
    assert gateway.ask("HEAD", "/t.html").body == b""


def test_other_types_pass_as_they_are(gateway, upstream):
    page = b'<!--#echo var="arg_x" -->'
    upstream.answer = answer(page, headers=[("Content-Type", "text/plain")])
    assert gateway.get("/up/").body == page


def test_answers_stand_in_order_though_they_come_in_another(gateway, upstream):
    """Slow ones come when all were asked: they are asked at once."""
    targets: list[str] = []
    are_all_asked = threading.Event()
    waits: list[bool] = []

    def make(asked):
        targets.append(asked.target)
        if len(targets) == 4:
            are_all_asked.set()
        if asked.target.startswith("/up/slow"):
            waits.append(are_all_asked.wait(5))
        return answer(asked.target.encode())

    upstream.answer = make
    write(gateway, "t.html", "".join(
        f'<!--#include virtual="/up/{name}" -->,' for name in ("slow1", "fast1", "slow2", "fast2")))
    assert gateway.get("/t.html").text == "/up/slow1,/up/fast1,/up/slow2,/up/fast2,"
    assert waits == [True, True]


def test_large_answers(gateway, upstream):
    write(gateway, "t.html", '<!--#include virtual="/big.html" -->' * 5 + "end")
    body = gateway.get("/t.html").body
    assert len(body) == 1_500_003 and body.endswith(b"bend")
    upstream.answer = answer(b"u" * 1_000_000)
    write(gateway, "t.html", '1<!--#include virtual="/up/a" -->2<!--#include virtual="/up/b" -->3')
    assert gateway.get("/t.html").body == b"1" + b"u" * 1_000_000 + b"2" + b"u" * 1_000_000 + b"3"


def test_bounds(gateway):
    assert 40 <= gateway.get("/loop.html").body.count(b".") <= 60
    page = '<!--#include virtual="/big.html" set="v" --><!--#echo var="v" -->'
    write(gateway, "small.html", page)
    assert gateway.get("/small.html").body == b""
    write(gateway, "t.html", "<!--#" + "x" * 40000)
    assert gateway.get("/t.html").text == "<!--#" + "x" * 40000
    write(gateway, "t.html", '<!--#if expr="1" -->' * 100 + "x" + "<!--#endif -->" * 100)
    assert gateway.get("/t.html").status == 200
    write(gateway, "silent.html", "a<!--#nonsense -->b")
    assert gateway.get("/silent.html").text == "ab"


def test_upstream_of_an_include_fails(gateway, upstream):
    upstream.answer = None
    write(gateway, "t.html", 'a<!--#include virtual="/up/x" -->b')
    answered = gateway.get("/t.html")
    assert answered.status == 200
    assert answered.text.startswith("a<html>") and answered.text.endswith("b")
    assert "502 Bad Gateway" in answered.text


def test_a_slow_reader_gets_it_all(gateway, upstream):
    upstream.answer = answer(b"u" * 3_000_000)
    write(gateway, "t.html", 'a<!--#include virtual="/up/x" -->b')
    with gateway.client() as client:
        client.send("GET /t.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(0.3)
        data = client.read_all()
    assert data.count(b"u") >= 3_000_000


def test_a_client_that_leaves(gateway, upstream):
    upstream.answer = lambda asked: (time.sleep(0.2), answer(b"late"))[1]
    write(gateway, "t.html", '<!--#include virtual="/up/x" -->' * 3)
    for _ in range(4):
        with gateway.client() as client:
            client.send("GET /t.html HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.02)
    assert gateway.get("/one.html").text == "ONE"
    assert len(gateway.workers()) == 1

"""Static files over a real gateway: paths, types, conditions, ranges, large ones."""

from __future__ import annotations

import os
import random
import time

import pytest
from gateway import Gateway

LETTERS = b"".join(b"X%03dXXXXXX" % n for n in range(100))
LARGE = random.Random(1).randbytes(5_000_000)
CONF = """
    types { text/html html; application/json json; }
    default_type text/plain;
    server {
        listen 127.0.0.1:%%PORT%%;
        root %%DIR%%/site;
        location /named/ { alias %%DIR%%/site/sub/; index none.html also.html; }
        location ~ ^/by/(.+)$ { alias %%DIR%%/site/sub/$1; }
        location /outer/ { alias %%DIR%%/site/; location ~ html { } }
        location /from/ { root $arg_root; }
        location /elsewhere/ { index /letters.txt; }
        location /two { max_ranges 2; }
        location /two/ { alias %%DIR%%/site/; max_ranges 2; }
        location /none/ { alias %%DIR%%/site/; max_ranges 0; }
        location /before/ { alias %%DIR%%/site/; if_modified_since before; }
        location /always/ { alias %%DIR%%/site/; if_modified_since off; etag off; }
        location /quiet/ { log_not_found off; }
        location /try/ { try_files $uri $uri.html $uri/ @none; }
        location /code/ { try_files /absent =410; }
        location /cached/ {
            alias %%DIR%%/site/;
            open_file_cache max=2 inactive=10s;
            open_file_cache_valid 0s;
            open_file_cache_errors on;
        }
        location /charset/ { alias %%DIR%%/site/; charset utf-8; charset_types application/json; }
        location /filename { return 200 "$document_root $request_filename\\n"; }
        location @none { return 200 "nothing at $uri"; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        root site;
        absolute_redirect off;
    }
"""
FILES = {
    "site/letters.txt": LETTERS,
    "site/page.html": b"<p>page",
    "site/data.json": b"{}",
    "site/.html": b"hidden",
    "site/UPPER.HTML": b"<p>upper",
    "site/empty.txt": b"",
    "site/large.bin": LARGE,
    "site/sub/also.html": b"also",
    "site/sub/index.html": b"index",
    "site/bare/": b"",
    "site/a b%/x.txt": b"odd",
    "site/try/page.html": b"tried",
    "site/try/folder/index.html": b"folder",
}


@pytest.fixture(scope="module")
def site(serving) -> Gateway:
    return serving(CONF, FILES)


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/letters.txt", 200, LETTERS),
        ("/empty.txt", 200, b""),
        ("/sub/", 200, b"index"),
        ("/sub/index.html", 200, b"index"),
        ("/named/", 200, b"also"),
        ("/named/also.html", 200, b"also"),
        ("/by/also.html", 200, b"also"),
        ("/outer/page.html", 200, b"<p>page"),
        ("/elsewhere/", 200, LETTERS),
        ("/try/page", 200, b"tried"),
        ("/try/page.html", 200, b"tried"),
        ("/try/folder/", 200, b"folder"),
        ("/try/absent", 200, b"nothing at /try/absent"),
        ("/a%20b%25/x.txt", 200, b"odd"),
        ("/code/x", 410, None),
        ("/bare/", 403, None),
        ("/absent", 404, None),
        ("/absent/", 404, None),
        ("/letters.txt/", 404, None),
        ("/letters.txt/below", 404, None),
        ("/" + "x" * 300, 404, None),
        ("/../letters.txt", 400, None),
        ("/%00", 400, None),
    ],
)
def test_paths(site: Gateway, target: str, status: int, body: bytes | None) -> None:
    answer = site.get(target)
    assert answer.status == status
    if body is not None:
        assert answer.body == body
        assert answer.get("Content-Length") == str(len(body))


@pytest.mark.parametrize(
    ("target", "type"),
    [
        ("/page.html", "text/html"),
        ("/UPPER.HTML", "text/html"),
        ("/data.json", "application/json"),
        ("/letters.txt", "text/plain"),
        ("/.html", "text/plain"),
        ("/sub/", "text/html"),
        ("/charset/page.html", "text/html; charset=utf-8"),
        ("/charset/data.json", "application/json; charset=utf-8"),
        ("/charset/letters.txt", "text/plain"),
    ],
)
def test_types(site: Gateway, target: str, type: str) -> None:
    assert site.get(target).get("Content-Type") == type


def test_a_folder_without_its_slash_is_redirected(site: Gateway) -> None:
    answer = site.get("/sub?a=b")
    assert answer.status == 301
    assert answer.get("Location") == f"http://localhost:{site.port}/sub/?a=b"
    answer = site.get("/a%20b%25")
    assert answer.get("Location") == f"http://localhost:{site.port}/a%20b%25/"
    answer = site.get("/sub", port=site.ports[1])
    assert answer.get("Location") == "/sub/"
    with site.client() as client:
        client.send("GET /sub HTTP/1.0\r\n\r\n")
        assert client.read().get("Location") == f"http://127.0.0.1:{site.port}/sub/"


def test_methods(site: Gateway) -> None:
    answer = site.ask("HEAD", "/letters.txt")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("Content-Length") == "1000"
    assert site.ask("POST", "/letters.txt", b"x").status == 405
    assert site.ask("PUT", "/letters.txt", b"x").status == 405
    assert site.ask("POST", "/absent", b"x").status == 404


def test_a_file_is_told_with_its_time_and_tag(site: Gateway) -> None:
    os.utime(site.prefix / "site/data.json", (1_000_000_000, 1_000_000_000))
    answer = site.get("/data.json")
    assert answer.get("Last-Modified") == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert answer.get("ETag") == '"3b9aca00-2"'
    assert answer.get("Accept-Ranges") == "bytes"
    assert site.get("/always/data.json").get("ETag") is None


SAME, EARLIER, LATER = (f"Sun, 09 Sep 2001 01:46:4{n} GMT" for n in (0, 0, 1))
TAG = '"3b9aca00-2"'


@pytest.mark.parametrize(
    ("place", "headers", "status"),
    [
        ("", {"If_Modified_Since": SAME}, 304),
        ("", {"If_Modified_Since": LATER}, 200),
        ("", {"If_Modified_Since": "nonsense"}, 200),
        ("/before", {"If_Modified_Since": LATER}, 304),
        ("/before", {"If_Modified_Since": "Sun, 09 Sep 2001 01:46:39 GMT"}, 200),
        ("/always", {"If_Modified_Since": SAME}, 200),
        ("", {"If_None_Match": TAG}, 304),
        ("", {"If_None_Match": f'"x", W/{TAG}'}, 304),
        ("", {"If_None_Match": "*"}, 304),
        ("", {"If_None_Match": '"x"'}, 200),
        ("", {"If_None_Match": '"x"', "If_Modified_Since": SAME}, 200),
        ("", {"If_None_Match": TAG, "If_Modified_Since": SAME}, 304),
        ("", {"If_Match": TAG}, 200),
        ("", {"If_Match": "*"}, 200),
        ("", {"If_Match": f"W/{TAG}"}, 412),
        ("", {"If_Match": '"x"'}, 412),
        ("", {"If_Unmodified_Since": SAME}, 200),
        ("", {"If_Unmodified_Since": LATER}, 200),
        ("", {"If_Unmodified_Since": "Sun, 09 Sep 2001 01:46:39 GMT"}, 412),
        ("", {"Range": "bytes=0-0", "If_Range": TAG}, 206),
        ("", {"Range": "bytes=0-0", "If_Range": SAME}, 206),
        ("", {"Range": "bytes=0-0", "If_Range": '"x"'}, 200),
        ("", {"Range": "bytes=0-0", "If_Range": LATER}, 200),
    ],
)
def test_conditions(site: Gateway, place: str, headers: dict[str, str], status: int) -> None:
    os.utime(site.prefix / "site/data.json", (1_000_000_000, 1_000_000_000))
    answer = site.get(f"{place}/data.json", **headers)
    assert answer.status == status
    if status == 304:
        assert answer.body == b""
        assert answer.get("Content-Length") is None
        assert answer.get("Last-Modified") == SAME
    elif status == 412:
        assert answer.get("Last-Modified") is None


def test_one_range(site: Gateway) -> None:
    answer = site.get("/letters.txt", Range="bytes=0-8")
    assert (answer.status, answer.body) == (206, b"X000XXXXX")
    assert answer.get("Content-Range") == "bytes 0-8/1000"
    assert answer.get("Accept-Ranges") is None
    assert site.get("/letters.txt", Range="bytes=-10").body == b"X099XXXXXX"
    answer = site.get("/letters.txt", Range="bytes=1000-")
    assert answer.status == 416
    assert answer.get("Content-Range") == "bytes */1000"
    assert answer.get("ETag") is None
    for unknown in ("lines=0-8", "bytes 0-8", "bytes="):
        assert site.get("/letters.txt", Range=unknown).status == 200


def test_many_ranges(site: Gateway) -> None:
    answer = site.get("/letters.txt", Range="bytes=0-0,10-19,-2")
    assert answer.status == 206
    kind, _, boundary = (answer.get("Content-Type") or "").partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = answer.body.split(b"\r\n--" + boundary.encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    assert [part.partition(b"\r\n\r\n") for part in parts[1:-1]] == [
        (b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/1000", b"\r\n\r\n", b"X"),
        (
            b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 10-19/1000",
            b"\r\n\r\n",
            b"X001XXXXXX",
        ),
        (b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 998-999/1000", b"\r\n\r\n", b"XX"),
    ]
    assert answer.get("Content-Range") is None


def test_max_ranges(site: Gateway) -> None:
    assert site.get("/two/letters.txt", Range="bytes=0-0,2-2").status == 206
    assert site.get("/two/letters.txt", Range="bytes=0-0,2-2,4-4").status == 200
    answer = site.get("/none/letters.txt", Range="bytes=0-0")
    assert answer.status == 200
    assert answer.get("Accept-Ranges") is None


def test_a_large_file_arrives_whole(site: Gateway) -> None:
    with site.client() as client:
        for _ in range(2):
            assert client.get("/large.bin").body == LARGE
        part = client.get("/large.bin", Range="bytes=100000-4200000")
        assert part.body == LARGE[100_000:4_200_001]


def test_a_slow_reader_gets_a_large_file_whole(site: Gateway) -> None:
    with site.client() as slow, site.client() as quick:
        slow.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)
        assert quick.get("/page.html").body == b"<p>page"
        assert slow.read().body == LARGE
        assert slow.get("/page.html").body == b"<p>page"


def test_pipelined_files_come_in_order(site: Gateway) -> None:
    with site.client() as client:
        asked = ("/large.bin", "/page.html", "/letters.txt")
        client.send("".join(f"GET {name} HTTP/1.1\r\nHost: x\r\n\r\n" for name in asked))
        assert [client.read().body for _ in asked] == [LARGE, b"<p>page", LETTERS]


def test_a_client_that_leaves_costs_nothing(site: Gateway) -> None:
    worker = site.workers()[0]
    before = len(os.listdir(f"/proc/{worker}/fd"))
    for _ in range(20):
        with site.client() as client:
            client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n").sock.recv(1000)
    assert site.get("/page.html").status == 200
    limit = time.monotonic() + 5
    while len(os.listdir(f"/proc/{worker}/fd")) > before and time.monotonic() < limit:
        time.sleep(0.02)
    assert len(os.listdir(f"/proc/{worker}/fd")) <= before


def test_a_file_that_shrinks_on_the_way_is_cut_visibly(site: Gateway) -> None:
    path = site.prefix / "site/shrinking.bin"
    path.write_bytes(LARGE * 4)
    with site.client() as client:
        client.send("GET /shrinking.bin HTTP/1.1\r\nHost: x\r\n\r\n").sock.recv(1000)
        os.truncate(path, 10)
        client._data = b""
        got = len(client.read_all())
    assert got < len(LARGE) * 4


def test_the_file_cache_sees_a_change(site: Gateway) -> None:
    path = site.prefix / "site/changing.txt"
    assert site.get("/cached/changing.txt").status == 404
    for body in (b"one", b"three"):
        path.write_bytes(body)
        assert site.get("/cached/changing.txt").body == body
    for number in range(10):  # more than its bound
        name = f"cached{number}.txt"
        (site.prefix / "site" / name).write_bytes(b"%d" % number)
        assert site.get(f"/cached/{name}").body == b"%d" % number
    path.unlink()
    assert site.get("/cached/changing.txt").status == 404


def test_variables(site: Gateway) -> None:
    root = site.prefix / "site"
    assert site.get("/filename?x").text == f"{root} {root}/filename\n"
    assert site.get(f"/from/../from/page.html?root={root}/").status == 404
    (root / "from").mkdir(exist_ok=True)
    (root / "from/x.txt").write_bytes(b"x")
    assert site.get(f"/from/x.txt?root={root}").body == b"x"
    assert site.get("/from/x.txt?root=site").body == b"x"  # below the prefix


def test_what_is_not_found_is_told(site: Gateway) -> None:
    site.get("/absent-and-told")
    site.get("/quiet/absent-and-not-told")
    path = site.prefix / "site/absent-and-told"
    limit = time.monotonic() + 5
    while "absent-and-told" not in site.error_log and time.monotonic() < limit:
        time.sleep(0.01)
    assert f'open() "{path}" failed (2: No such file or directory)' in site.error_log
    assert "not-told" not in site.error_log



"""`sticky` of an upstream: the peer that a client is known to, or names, answers while it can."""

from __future__ import annotations

import hashlib
import re

import pytest
from gateway import run

CONF = """
    access_log off;
    upstream u {
        server 127.0.0.1:%%PORT_1%%; server 127.0.0.1:%%PORT_2%%; server 127.0.0.1:%%PORT_3%%;
        sticky cookie srv expires=1h domain=$arg_d path=/ httponly samesite=lax;
    }
    upstream plain { server 127.0.0.1:%%PORT_1%%; sticky cookie=srv; %(more)s }
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://u; proxy_next_upstream error http_503; }
        location /plain { proxy_pass http://plain; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; return 200 one; }
    server { listen 127.0.0.1:%%PORT_2%%; return 200 two; }
    server { listen 127.0.0.1:%%PORT_3%%; location / { return 200 three; }
             location /busy { return 503; } }
"""


def id_of(gateway, number: int) -> str:
    return hashlib.md5(f"127.0.0.1:{gateway.ports[number]}".encode()).hexdigest()


def test_the_cookie_names_the_peer_and_brings_the_client_back(headrace) -> None:
    gateway = headrace(CONF.replace("%(more)s", ""))
    ids = {name: id_of(gateway, n) for n, name in enumerate(("one", "two", "three"), 1)}
    seen = set()
    for _ in range(6):
        answer = gateway.get("/?d=example.com")
        seen.add(answer.text)
        date = r"expires=\w{3}, \d\d-\w{3}-\d\d [\d:]{8} GMT"
        cookie = re.sub(date, "DATE", answer.get("set-cookie"))
        assert cookie == (
            f"srv={ids[answer.text]}; DATE; max-age=3600; Domain=example.com; Path=/; "
            "SameSite=lax; HttpOnly"
        )
    assert seen == {"one", "two", "three"}
    for name, id in ids.items():
        for _ in range(4):
            answer = gateway.get("/", Cookie=f"a=b; srv={id}")
            assert answer.text == name
            assert id in answer.get("set-cookie")  # as nginx: always
    assert gateway.get("/plain").get("set-cookie") == f"srv={ids['one']}"


@pytest.mark.parametrize("value", ["", "x", "0" * 32, "0" * 33])
def test_a_cookie_that_names_nobody_is_replaced(headrace, value) -> None:
    gateway = headrace(CONF.replace("%(more)s", ""))
    assert "srv=" in gateway.get("/", Cookie=f"srv={value}").get("set-cookie")


def test_who_fails_is_left_and_the_cookie_follows(headrace) -> None:
    gateway = headrace(CONF.replace("%(more)s", ""))
    answer = gateway.get("/busy", Cookie=f"srv={id_of(gateway, 3)}")
    assert answer.text in ("one", "two")
    cookies = answer.get_all("set-cookie")
    assert len(cookies) == 1
    assert id_of(gateway, 1 if answer.text == "one" else 2) in cookies[0]


ROUTES = """
    access_log off;
    upstream u {
        server 127.0.0.1:%%PORT_1%% route=a max_fails=0;
        server 127.0.0.1:%%PORT_2%% route=b weight=5;
        server 127.0.0.1:%%PORT_3%% route=c backup;
        sticky WORDS;
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://u; proxy_next_upstream error http_503; }
    }
    server { listen 127.0.0.1:%%PORT_1%%; location / { return 200 one; }
             location /busy { return 503; } }
    server { listen 127.0.0.1:%%PORT_2%%; location / { return 200 two; } }
    server { listen 127.0.0.1:%%PORT_3%%; location / { return 200 three; } }
"""


def test_a_route_names_the_peer(headrace) -> None:
    gateway = headrace(ROUTES.replace("WORDS", "route $cookie_r $arg_r"))
    for _ in range(4):
        assert gateway.get("/", Cookie="r=a").text == "one"
        assert gateway.get("/?r=b", Cookie="r=a").text == "one"  # the first that is not empty
        assert gateway.get("/?r=a").text == "one"
        assert gateway.get("/?r=c").text == "three"
        assert gateway.get("/busy?r=a").text == "two"  # it cannot answer: as if none was named
    assert gateway.get("/?r=a").get("set-cookie") is None
    found = [gateway.get(f"/?r={name}").text for name in ("", "nobody", "A") * 4]
    assert found.count("two") == 10  # by weight, 5 of 6


@pytest.mark.parametrize(
    ("words", "field"), [("header=X-User", "X-User"), ("variable=$http_x_user", "X-User")]
)
def test_a_value_has_its_peer(headrace, words: str, field: str) -> None:
    gateway = headrace(ROUTES.replace("WORDS", words))
    chosen = {}
    for n in range(120):
        chosen[n] = gateway.get("/", **{field: f"user{n}"}).text
    for n, peer in chosen.items():
        assert gateway.get("/", **{field: f"user{n}"}).text == peer
    share = list(chosen.values()).count("two") / 120
    assert 0.7 < share < 0.95  # 5 of 6, by weight
    assert set(chosen.values()) == {"one", "two"}  # a backup only when nobody else is there
    for n, peer in chosen.items():
        if peer == "one":
            assert gateway.get("/busy", **{field: f"user{n}"}).text == "two"
            break
    assert gateway.get("/").status == 200  # who says nothing is known by nothing


def test_an_address_has_its_peer(headrace) -> None:
    gateway = headrace(ROUTES.replace("WORDS", "address"))
    assert len({gateway.get("/").text for _ in range(8)}) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("cookie=a tag_header=X", 'no versions for a tag to name: see "sticky route" in "sticky"'),
        ("cookie=a samesite=maybe", 'invalid parameter "samesite=maybe"'),
        ("learn create=$a lookup=$b zone=z:1m", '"learn" is known to nginx, not supported by'),
        ("route", '"route" wants variables'),
        ("route $arg_r x", 'invalid parameter "x"'),
        ("route $arg_r", 'no server of upstream "u" has a "route="'),
        ("header=X header=Y", 'invalid parameter "header=Y": another "header" stands before it'),
        ("variable=$nothing_known", 'unknown "nothing_known" variable'),
        ("address httponly", 'invalid parameter "httponly": it is for a cookie'),
        ("by=magic", 'invalid parameter "by=magic"'),
    ],
)
def test_what_it_cannot_mean_is_refused(tmp_path, words, why) -> None:
    (tmp_path / "logs").mkdir()
    conf = tmp_path / "x.conf"
    conf.write_text(f"events {{}} http {{ upstream u {{ server 127.0.0.1:1; sticky {words}; }} }}")
    said = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert said.returncode == 1
    assert why in said.stderr
    assert f"{conf}:1" in said.stderr


def test_a_function_has_the_same_grammar_but_for_routes(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    conf = tmp_path / "x.conf"
    for words, why in (
        ("cookie srv expires=1h", ""),
        ("header=X tag_header=Y", ""),
        ("address", ""),
        ("route $arg_x", 'no routes: see "tag", "tag_header" and "tag_cookie" in "sticky"'),
        ("learn create=$a", '"learn" is known to nginx'),
    ):
        conf.write_text(f"events {{}} http {{ function f {{ command x; sticky {words}; }} }}")
        said = run("-t", "-p", str(tmp_path), "-c", str(conf))
        assert (said.returncode == 0) == (not why), said.stderr
        assert why in said.stderr

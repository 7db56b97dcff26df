"""`sticky cookie` of an upstream: the peer that a cookie names answers while it can."""

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


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("header=X", "by a cookie alone"),
        ("cookie=a tag_header=X", "by a cookie alone"),
        ("cookie=a samesite=maybe", 'invalid parameter "samesite=maybe"'),
        ("learn", 'invalid parameter "learn"'),
    ],
)
def test_what_it_cannot_mean_is_refused(tmp_path, words, why) -> None:
    (tmp_path / "logs").mkdir()
    conf = tmp_path / "x.conf"
    conf.write_text(f"events {{}} http {{ upstream u {{ server 127.0.0.1:1; sticky {words}; }} }}")
    said = run("-t", "-p", str(tmp_path), "-c", str(conf))
    assert said.returncode == 1
    assert why in said.stderr

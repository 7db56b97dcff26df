"""limit_rate: heads and texts of ours count too."""

from __future__ import annotations

from gateway import wait_for

CONF = """
    server {
        listen 127.0.0.1:%%PORT%%;
        keepalive_timeout 5s;
        location /text { limit_rate 500; return 200 %%TEXT%%; }
        location /empty { limit_rate 100; add_header X-Long %%LONG%%; return 204; }
        location /status { stub_status; }
    }
"""


def writing(gateway) -> int:
    """Requests being answered, without the one that asks."""
    return int(gateway.get("/status").text.split("Writing:")[1].split()[0]) - 1


def test_a_text_of_ours_is_paced_and_whole(headrace):
    gateway = headrace(CONF.replace("%%TEXT%%", "t" * 900).replace("%%LONG%%", "a"))
    with gateway.client() as client:
        client.send("GET /text HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: writing(gateway) == 1, what="the rest waits")
        assert client.read().text == "t" * 900
        assert client.get("/status").status == 200


def test_an_answer_without_a_body_is_paced_by_its_head(headrace):
    gateway = headrace(CONF.replace("%%TEXT%%", "t").replace("%%LONG%%", "a" * 100))
    with gateway.client() as client:
        assert client.get("/empty").status == 204
        assert writing(gateway) == 1, "its time is not over"
    wait_for(lambda: writing(gateway) == 0, what="the client that left is forgotten")

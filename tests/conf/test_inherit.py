"""What a block gets from itself, from the blocks around it, or from the default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import vocabulary

from proxy.conf import load_text
from proxy.conf.inherit import Block


@pytest.fixture(autouse=True)
def words() -> Iterator[None]:
    with vocabulary.alone():
        yield


CONF = """
worker_processes 4;
events { }
http {
    root /http;
    proxy_set_header A 1;
    proxy_set_header B 2;
    keepalive_requests 7;
    upstream u { server 127.0.0.1; keepalive 3; }
    server {
        root /server;
        location /plain { }
        location /own {
            root /own;
            proxy_set_header C 3;
            proxy_pass http://u;
            location /own/inner { }
            if ($host) { add_header X y; }
            limit_except GET { deny all; }
        }
    }
    server { }
}
"""


def block(*path: str) -> Block:
    """The block reached by taking the first child of each name, or `name=args`."""
    it = load_text(CONF)
    for step in path:
        name, _, arg = step.partition("=")
        it = next(b for b in it.find(name) if not arg or b.args == [arg])
    return it


PLAIN = ("http", "server", "location=/plain")
OWN = ("http", "server", "location=/own")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (PLAIN, "root", "/server"),
        (OWN, "root", "/own"),
        ((*OWN, "location"), "root", "/own"),
        ((*OWN, "if"), "root", "/own"),
        (("http",), "root", "/http"),
        (PLAIN, "keepalive_requests", 7),
        (PLAIN, "proxy_read_timeout", 60_000),
        (PLAIN, "proxy_buffers", (8, 4096)),
        (PLAIN, "proxy_buffering", True),
        (PLAIN, "proxy_next_upstream", None),
        # What an inner block says replaces the whole list.
        (PLAIN, "proxy_set_header", [("A", "1"), ("B", "2")]),
        (OWN, "proxy_set_header", [("C", "3")]),
        ((*OWN, "location"), "proxy_set_header", [("C", "3")]),
        ((*OWN, "limit_except"), "proxy_set_header", [("C", "3")]),
        (PLAIN, "add_header", []),
        ((*OWN, "if"), "add_header", [("X", "y", None)]),
        # Not inherited at all.
        (OWN, "proxy_pass", "http://u"),
        ((*OWN, "location"), "proxy_pass", None),
        # Asked from far inside, and of a name that has two meanings.
        (OWN, "worker_processes", 4),
        (("http", "upstream"), "keepalive", 3),
    ],
)
def test_get(path: tuple[str, ...], name: str, value: object) -> None:
    it = block(*path)
    assert it.get(name) == value
    assert it.get(name) == value  # and again, when it is remembered


def test_own_is_only_what_the_block_itself_says() -> None:
    assert block(*PLAIN).own("root") is None
    assert block(*OWN).own("root") == "/own"
    assert block(*OWN).own("proxy_set_header") == [("C", "3")]


def test_has_tells_a_set_value_from_a_default() -> None:
    assert block(*PLAIN).has("root")
    assert not block(*PLAIN).has("proxy_read_timeout")


def test_servers_and_upstream_servers_do_not_meet() -> None:
    http = block("http")
    assert len(http.find("server")) == 2
    assert [str(e) for e, _ in http.find("upstream")[0].own("server")] == ["127.0.0.1:80"]


def test_a_name_that_nobody_declared_is_the_programs_fault() -> None:
    with pytest.raises(LookupError, match="nonsense"):
        block("http").get("nonsense")


def test_statements_keep_the_order_of_the_conf() -> None:
    names = [it.name for it in block(*OWN).statements]
    assert names == ["root", "proxy_set_header", "proxy_pass", "location", "if", "limit_except"]


def test_tokens_know_their_place() -> None:
    root = load_text('events { }\nhttp {\n  root\n    "/x";\n}\n', "a.conf")
    statement = root.find("http")[0].statements[0]
    assert (statement.token, statement.file, statement.line, statement.token.column) == (
        "root", "a.conf", 3, 3,
    )  # fmt: skip
    value = statement.value
    assert (value, value.line, value.column, value.quoted) == ("/x", 4, 5, True)


def test_an_error_at_a_block_names_where_it_begins() -> None:
    assert str(block("http", "server").error("no")) == "no in conf:10"
    assert str(load_text(CONF).error("no")) == "no"

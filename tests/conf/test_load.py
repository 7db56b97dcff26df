"""Reading files: dump, notes of what has no effect, text nobody would write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import vocabulary

from proxy.conf import ConfError, load, load_text
from proxy.conf.dump import dump
from proxy.conf.lexer import statements
from proxy.conf.report import emerg, without_effect


@pytest.fixture(autouse=True)
def words() -> Iterator[None]:
    with vocabulary.alone():
        yield


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / f"{name}.conf").write_text(text)


def test_dump_has_every_file_once_in_the_order_met(tmp_path: Path) -> None:
    write(
        tmp_path,
        main="include inc.conf;\ninclude inc.conf;\nevents { }\n"
        "http { map $a $b { include map.conf; include map.conf; } }\n",
        inc="include inc2.conf;",
        inc2="#inc2",
        map="#map;",
    )
    path = str(tmp_path)
    assert dump(load(f"{path}/main.conf")) == (
        f"# configuration file {path}/main.conf:\n{(tmp_path / 'main.conf').read_text()}\n"
        f"# configuration file {path}/inc.conf:\ninclude inc2.conf;\n"
        f"# configuration file {path}/inc2.conf:\n#inc2\n"
        f"# configuration file {path}/map.conf:\n#map;\n"
    )


def test_dump_keeps_bytes_as_they_are(tmp_path: Path) -> None:
    text = b"# \xff\xfe\r\nevents { }\r\n"
    (tmp_path / "a.conf").write_bytes(text)
    shown = dump(load(str(tmp_path / "a.conf"))).encode("utf-8", "surrogateescape")
    assert text in shown


def test_a_conf_that_is_not_there() -> None:
    with pytest.raises(ConfError) as caught:
        load("/nowhere/a.conf")
    assert emerg(caught.value) == (
        '[emerg] open() "/nowhere/a.conf" failed (2: No such file or directory)'
    )


def test_names_are_seen_from_the_prefix_or_the_confs_directory(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    write(tmp_path / "conf", a="events { }\n")
    root = load("conf/a.conf", prefix=str(tmp_path))
    assert root.path("logs/x") == f"{tmp_path}/logs/x"
    assert root.conf_path("x.pem") == f"{tmp_path}/conf/x.pem"
    assert root.path("/abs") == "/abs"


def test_what_has_no_effect_is_listed_with_its_reason() -> None:
    root = load_text("events {\n  use epoll;\n}\nhttp { server { location / {\nsendfile on; } } }")
    assert without_effect(root) == [
        '[notice] "use" has no effect: the event loop is uvloop\'s in conf:2',
        '[notice] "sendfile" has no effect: splice(2) or send(2) is chosen for each message'
        " in conf:5",
    ]


def test_a_warning_names_its_place() -> None:
    root = load_text("events { }\nhttp { }\n")
    root.find("http")[0].warn("odd")
    assert root.notes == [("warn", "odd in conf:2")]


SOUP = ["a", "root", "/x", " ", "\n", ";", "{", "}", '"', "'", "\\", "$", "#", "${", ")", "\r",
        "http", "server", "location", "events", "include", "\udcff", "é", "\0", "on"]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_any_text_is_either_read_or_refused_with_a_place(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        text = "".join(chance.choice(SOUP) for _ in range(chance.randrange(1, 40)))
        try:
            load_text(text)
        except ConfError as error:
            last = text.count("\n") + 1
            assert 0 <= error.line <= last, text  # noqa: PT017
            assert error.message


@pytest.mark.parametrize("seed", range(10))
def test_a_conf_cut_anywhere_is_read_or_refused(seed: int) -> None:
    text = 'events { }\nhttp { server { location ~ "^/a{1,2}" { root "/x\\"y"; } } } # end'
    for size in range(seed, len(text), 10):
        try:
            load_text(text[:size])
        except ConfError as error:
            assert "in conf:" in str(error) or "events" in str(error)  # noqa: PT017


def test_words_know_line_and_column_through_comments_and_quotes() -> None:
    text = "# x\n\n  a 'b\nc' d # y\n  e;f{\n}"
    places = [
        (str(token), token.line, token.column)
        for found, _, _ in statements(text, "f")
        for token in found
    ]
    assert places == [
        ("a", 3, 3), ("b\nc", 3, 5), ("d", 4, 4), ("e", 5, 3), ("f", 5, 5),
    ]  # fmt: skip

"""The store of what came by the API: what is kept, who may write, what a broken file does."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from apihouse import House
from gateway import wait_for

from proxy.functions.store import Held, Store


def test_what_is_written_is_there_again(tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "functions.db")

    async def write() -> None:
        store = Store(path)
        await store.put_function("b.x", {"n": 1})
        await store.put_function("a.x", {"n": 2})
        await store.put_function("b.x", {"n": 3})
        await store.put_function("c.x", {})
        await store.put_split("c.x", {"v1": 1})
        await store.remove_function("c.x")
        await store.put_split("a.x", {"v1": 0, "v2": 5})
        await store.put_namespace("x", {"labels": {}})
        await store.put_namespace("y", {})
        await store.remove_namespace("y")
        store.close()

    asyncio.run(write())
    store = Store(path)
    assert list(store.functions()) == [("b.x", {"n": 3}), ("a.x", {"n": 2})]
    assert store.document("a.x") == {"n": 2}
    assert store.document("c.x") is None
    assert store.splits() == {"a.x": {"v1": 0, "v2": 5}}
    assert store.namespaces() == {"x": {"labels": {}}}
    store.close()
    for name in os.listdir(tmp_path / "sub"):
        assert stat.S_IMODE((tmp_path / "sub" / name).stat().st_mode) & 0o077 == 0, name


def test_one_controller_writes(tmp_path: Path) -> None:
    path = str(tmp_path / "functions.db")

    async def two() -> None:
        one, other = Store(path), Store(path)
        await one.put_function("a.x", {})
        with pytest.raises(Held):
            await other.put_function("b.x", {})
        assert [key for key, _ in other.functions()] == ["a.x"]
        one.close()
        await other.put_function("b.x", {})
        other.close()

    asyncio.run(two())


def test_a_store_of_a_newer_make_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "functions.db")
    Store(path).close()
    with sqlite3.connect(path) as link:
        link.execute("pragma user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="newer"):
        Store(path)


def test_a_broken_store_is_told_and_the_conf_serves_on(house) -> None:
    it: House = house()
    assert it.password
    it.gateway.stop()
    for path in (it.gateway.prefix / "var").glob("functions.db*"):
        path.unlink()
    (it.gateway.prefix / "var" / "functions.db").write_bytes(b"no database at all" * 100)
    it.gateway.start()
    wait_for(lambda: "the API is not served" in it.gateway.error_log, 10)
    wait_for(lambda: it.call("declared", body=b"x").text == "one x", 20)
    assert it.ask("GET", "/system/functions").status == 404


def test_a_function_whose_file_went_is_told_and_the_others_come(house) -> None:
    it: House = house()
    assert it.deploy("f", "one.py").status == 202
    assert it.deploy("g", "two.py").status == 202
    it.gateway.stop()
    (it.gateway.prefix / "images" / "two.py").unlink()
    it.gateway.start()
    wait_for(lambda: it.ask("GET", "/system/function/f").status == 200, 20)
    assert it.ask("GET", "/system/function/g").status == 404
    assert 'image "two.py" cannot be run' in it.gateway.error_log

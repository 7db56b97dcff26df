"""`headrace queue`: what it prints, asks and exits with, against the controller's own server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway import ROOT
from queuehouse import FAST
from test_queue_api import Desk, desk, echo, fail


async def run(it: Desk, *words: str, **more: str) -> tuple[int, str, str]:
    env = {"PYTHONPATH": str(ROOT), "OPENFAAS_URL": f"http://127.0.0.1:{it.port}", "COLUMNS": "80"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "queue", *words,
        env={**os.environ, **env, **more},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, wrong = await process.communicate()
    return process.returncode or 0, out.decode(), wrong.decode()


def test_dead_letters_from_the_command_line(tmp_path: Path) -> None:
    async def main() -> None:
        long = "a-function-with-a-long-name-indeed"
        once = {**FAST, "com.openfaas.retry.attempts": "1"}
        async with desk(tmp_path, fail, {"f": once, long: once}) as it:
            ids = []
            for name in ("f", "f", long):
                accepted = await it.ask("POST", f"/async-function/{name}", b"body")
                ids.append(accepted.header("x-call-id"))
                await it.ends(ids[-1])
            code, out, _ = await run(it, "list")
            lines = [line.split() for line in out.splitlines()]
            assert code == 0
            heads = "FUNCTION QUEUED OLDEST RUNNING DONE DEAD ACCEPTED REFUSED TRIED"
            assert lines[0] == heads.split()
            assert ["f.fn", "0", "-", "0", "0", "2", "2", "0", "2"] in lines
            code, out, _ = await run(it, "dead", "--function", "f")
            assert [line.split() for line in out.splitlines()] == [
                ["ID", "FUNCTION", "TRIED", "WHY"],
                [ids[0], "f.fn", "1", "status", "500"],
                [ids[1], "f.fn", "1", "status", "500"],
            ]
            for words in (("list",), ("list", "--state", "dead"), ("dead",)):
                out = (await run(it, *words))[1]
                assert 60 < max(map(len, out.splitlines())) <= 80, out
            out = (await run(it, "list", COLUMNS="120"))[1]
            assert f"{long}.fn" in out  # there is room for all of it
            code, out, _ = await run(it, "dead", "--json", "--limit", "1")
            assert [row["id"] for row in json.loads(out)] == [ids[0]]
            code, out, _ = await run(it, "dead", ids[2])
            assert json.loads(out)["request"]["body"] == "body"
            it.server.answer = echo
            code, out, wrong = await run(it, "replay", ids[0], "nobody-knows")
            assert (code, out) == (1, "1 queued again\n")
            assert wrong == "headrace queue: no dead letter: nobody-knows\n"
            assert (await it.ends(ids[0])).header("x-call-state") == "done"
            code, out, _ = await run(it, "replay", "--all", "--json")
            assert (code, json.loads(out)) == (0, {"replayed": 2})
            await it.ends(ids[2])
            assert (await run(it, "cancel", ids[2]))[0] == 0
            assert (await run(it, "cancel", ids[2]))[0] == 1

    asyncio.run(main())


def test_words_that_are_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with desk(tmp_path, echo) as it:
            assert (await run(it))[0] == 2
            assert (await run(it, "replay"))[0] == 1
            assert (await run(it, "replay", "x", "--all"))[0] == 1
            assert (await run(it, "list", "--state", "lost"))[0] == 2
            code, _, wrong = await run(it, "list", "-g", "ftp://x")
            assert (code, wrong) == (1, 'headrace queue: "ftp://x" is no URL of a gateway\n')
            code, _, wrong = await run(it, "list", "-g", "http://127.0.0.1:1")
            assert code == 1 and "does not answer" in wrong
            code, _, wrong = await run(it, "list", "--auth", str(tmp_path / "none"))
            assert code == 1 and "No such file" in wrong
            code, _, wrong = await run(it, "dead", "nobody-knows")
            assert code == 1 and "there is no such call" in wrong

    asyncio.run(main())



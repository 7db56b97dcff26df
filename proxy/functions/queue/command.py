"""`headrace queue …`: asynchronous calls from the command line, by the API of a running gateway."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import sys
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from proxy.functions.columns import print_table

URL = "http://127.0.0.1:8080"
AUTH = "var/openfaas-auth"
ANSWER_S = 60
PAGE = 1000
COUNTED = ("queued", "running", "done", "dead", "cancelled")
HEADS = ("FUNCTION", "QUEUED", "OLDEST", "RUNNING", "DONE", "DEAD", "ACCEPTED", "REFUSED", "TRIED")


class Failed(Exception):
    """Told in a sentence; the exit status is 1."""


class Gateway:
    """Whom we ask."""

    def __init__(self, url: str, auth: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failed(f'"{url}" is no URL of a gateway')
        self.url = url
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            self.connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=ANSWER_S)
        except ValueError as error:
            raise Failed(f'"{url}": {error}') from None
        self.headers = {"Authorization": f"Basic {auth}"} if auth else {}

    def ask(self, method: str, target: str, value: Any = None) -> Any:
        """The JSON that is answered, or None. Raises Failed."""
        body = None if value is None else json.dumps(value)
        try:
            self.connection.request(method, target, body, self.headers)
            answer = self.connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.url} does not answer: {error}") from None
        if answer.status == 401:
            raise Failed(f"{self.url} wants a password: --auth FILE, with USER:PASSWORD in it")
        if answer.status >= 300:
            said = data.decode("utf-8", "replace").strip().splitlines()
            raise Failed(said[0] if said else f"status {answer.status}")
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise Failed(f"{self.url} is no gateway of ours: it answers no JSON") from None


def read_auth(path: str) -> str:
    """USER:PASSWORD of a file, in base64; nothing if it is the default one and not there."""
    try:
        with open(path or AUTH, encoding="utf-8") as file:
            words = file.readline().strip()
    except OSError as error:
        if not path:
            return ""
        raise Failed(f"{path}: {error.strerror}") from None
    return base64.b64encode(words.encode()).decode()


def calls(gateway: Gateway, state: str, function: str, limit: int) -> list[dict[str, Any]]:
    """At most `limit` calls, page by page."""
    found: list[dict[str, Any]] = []
    after = 0
    while len(found) < limit:
        words = {"state": state, "function": function, "after": after or ""}
        query = urlencode({key: it for key, it in words.items() if it})
        count = min(limit - len(found), PAGE)
        page = gateway.ask("GET", f"/system/queue/calls?limit={count}&{query}")
        found += page["calls"]
        after = page.get("next", 0)
        if not after:
            break
    return found


def run_list(gateway: Gateway, words: argparse.Namespace) -> Any:
    if words.function or words.state:
        rows = calls(gateway, words.state, words.function, words.limit)
        show(words.json, rows, ("ID", "FUNCTION", "STATE", "TRIED", "AGE"), call_row)
        return
    found = gateway.ask("GET", "/system/queue")["functions"]
    show(words.json, found, HEADS, function_row)


def run_dead(gateway: Gateway, words: argparse.Namespace) -> None:
    if words.id:
        print(json.dumps(gateway.ask("GET", f"/system/queue/calls/{quote(words.id)}"), indent=2))
        return
    rows = calls(gateway, "dead", words.function, words.limit)
    show(words.json, rows, ("ID", "FUNCTION", "TRIED", "WHY"), letter_row)


def run_replay(gateway: Gateway, words: argparse.Namespace) -> None:
    if bool(words.ids) + bool(words.function) + words.all != 1:
        raise Failed("which ones? CALL-ID …, --function NAME or --all")
    order: dict[str, Any] = {"ids": words.ids}
    if not words.ids:
        order = {"all": True} if words.all else {"function": words.function}
    found = gateway.ask("POST", "/system/queue/replay", order)
    if words.json:
        print(json.dumps(found))
    else:
        print(f"{found['replayed']} queued again")
    if found.get("missing"):
        raise Failed(f"no dead letter: {', '.join(found['missing'])}")


def run_cancel(gateway: Gateway, words: argparse.Namespace) -> None:
    for id in words.ids:
        gateway.ask("DELETE", f"/system/queue/calls/{quote(id)}")
        print(f"{id} cancelled or forgotten")


def function_row(it: dict[str, Any]) -> tuple[Any, ...]:
    oldest = age(it["oldestAt"]) if "oldestAt" in it else "-"
    numbers = [it[name] for name in ("running", "done", "dead", "accepted", "refused", "attempts")]
    return it["function"], it["queued"], oldest, *numbers


def call_row(it: dict[str, Any]) -> tuple[Any, ...]:
    return it["id"], it["function"], it["state"], it["attempts"], age(it["acceptedAt"])


def letter_row(it: dict[str, Any]) -> tuple[Any, ...]:
    why = f"status {it['status']}" if it.get("status") else it.get("error", "")
    return it["id"], it["function"], it["attempts"], why


def age(since_s: float) -> str:
    """`12s`, `3m`, `5h`, `2d`."""
    gone_s = max(time.time() - since_s, 0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if gone_s >= size:
            return f"{gone_s / size:.0f}{unit}"
    return f"{gone_s:.0f}s"


def show(is_json: bool, found: list[dict[str, Any]], heads: tuple[str, ...], row_of: Any) -> None:
    """A table, or JSON."""
    if is_json:
        print(json.dumps(found, indent=2))
    else:
        print_table(heads, [tuple(map(str, row_of(it))) for it in found])


def read_words(argv: list[str]) -> argparse.Namespace:
    """Exits with 2 where argparse does."""
    parser = argparse.ArgumentParser(
        prog="headrace queue", description="Asynchronous calls of a running gateway."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-g", "--gateway", metavar="URL", default=os.environ.get("OPENFAAS_URL", URL),
        help=f"the gateway ($OPENFAAS_URL, or {URL})",
    )  # fmt: skip
    common.add_argument(
        "--auth", metavar="FILE", default=os.environ.get("HEADRACE_AUTH", ""),
        help=f"the file with USER:PASSWORD ($HEADRACE_AUTH, or {AUTH})",
    )  # fmt: skip
    common.add_argument("--json", action="store_true", help="print JSON")
    many = argparse.ArgumentParser(add_help=False)
    many.add_argument("--limit", type=int, default=100, metavar="N", help="at most N (100)")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="list|dead|replay|cancel")

    one = kinds.add_parser("list", parents=[common, many], help="what waits, and what became of it")
    one.add_argument("function", nargs="?", default="", metavar="FUNCTION")
    one.add_argument("--state", default="", choices=COUNTED)
    one.set_defaults(run=run_list)
    one = kinds.add_parser("dead", parents=[common, many], help="dead letters, or one, whole")
    one.add_argument("id", nargs="?", default="", metavar="CALL-ID")
    one.add_argument("--function", default="", metavar="NAME")
    one.set_defaults(run=run_dead)
    one = kinds.add_parser("replay", parents=[common], help="dead letters are queued again")
    one.add_argument("ids", nargs="*", metavar="CALL-ID")
    one.add_argument("--function", default="", metavar="NAME")
    one.add_argument("--all", action="store_true")
    one.set_defaults(run=run_replay)
    one = kinds.add_parser("cancel", parents=[common], help="cancel calls, or forget ended ones")
    one.add_argument("ids", nargs="+", metavar="CALL-ID")
    one.set_defaults(run=run_cancel)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit status: 0, 1 for what the gateway refused, 2 for words that are none."""
    words = read_words(argv)
    try:
        words.run(Gateway(words.gateway, read_auth(words.auth)), words)
    except Failed as error:
        print(f"headrace queue: {error}", file=sys.stderr)
        return 1
    return 0

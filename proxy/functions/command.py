"""`headrace fn …`: functions from the command line, over the API of a running gateway."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from proxy.functions.client import GATEWAY, Client, Failed, default_auth, segment
from proxy.functions.columns import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WAIT_S = 60.0
POLL_S = 0.1
HELP = """\
The gateway is --gateway, $OPENFAAS_URL, or http://127.0.0.1:8080. Its password stands in the file
--auth, $HEADRACE_AUTH, or var/openfaas-auth."""


def main(words: Sequence[str]) -> int:
    """Exit status: 0, or 1 with a sentence on stderr."""
    said = parser().parse_args(words)
    try:
        client = Client(said.gateway, said.auth if said.auth is not None else default_auth())
        return int(said.run(client, said) or 0)
    except Failed as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="headrace fn", epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-g", "--gateway", default=os.environ.get("OPENFAAS_URL", GATEWAY))
    common.add_argument("-a", "--auth", metavar="FILE", help="holds USER:PASSWORD")
    common.add_argument("-n", "--namespace", default="")
    common.add_argument("--json", action="store_true", help="JSON instead of a table")
    commands = found.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str, **more: Any) -> argparse.ArgumentParser:
        it = commands.add_parser(name, parents=[common], help=text, description=text, **more)
        it.set_defaults(run=run)
        return it

    it = add("list", run_list, "all functions, or those of a namespace")
    it = add("deploy", run_deploy, "make or replace a function, or one version of it")
    it.add_argument("name")
    it.add_argument("--image", default="", help="file or folder below the conf's root")
    it.add_argument("--command", default="", help="what to run (OpenFaaS' envProcess)")
    it.add_argument("--kind", default="", help="command, fork, python, lambda or openwhisk")
    for word in ("env", "label", "annotation"):
        it.add_argument(f"--{word}", action="append", default=[], metavar="KEY=VALUE")
    it.add_argument("--set", action="append", default=[], metavar="WORD=VALUE",
                    help="a directive of the function block: --set concurrency=10")  # fmt: skip
    it.add_argument("--secret", action="append", default=[], metavar="NAME")
    it.add_argument("--version", default="", help="another version, beside what is there")
    it.add_argument("--weight", type=int, default=None, help="its share of the requests")
    it.add_argument("--tag", default="", help="the word that picks it")
    it.add_argument("--mirror", type=float, default=None, help="percent that is copied to it")
    it.add_argument("--no-wait", action="store_true", help="do not wait until it is ready")
    it = add("describe", run_describe, "one function, its versions and replicas")
    it.add_argument("name")
    it = add("invoke", run_invoke, "call a function")
    it.add_argument("name")
    it.add_argument("-d", "--data", default=None, help="the body; - reads stdin")
    it.add_argument("-X", "--method", default="POST")
    it.add_argument("-H", "--header", action="append", default=[], metavar="NAME: VALUE")
    it.add_argument("--path", default="", help="what stands behind the name, with its query")
    it.add_argument("--async", dest="is_async", action="store_true", help="put it into the queue")
    it.add_argument("-i", "--include", action="store_true", help="show the head of the answer")
    it = add("logs", run_logs, "what a function printed")
    it.add_argument("name")
    it.add_argument("-f", "--follow", action="store_true")
    it.add_argument("--tail", default="", metavar="N", help="the last N lines")
    it.add_argument("--since", default="", help="5m, or a time")
    it = add("scale", run_scale, "so many replicas, now")
    it.add_argument("name")
    it.add_argument("replicas", type=int)
    it.add_argument("--version", default="")
    it = add("split", run_split, "show or change the weights of versions")
    it.add_argument("name")
    it.add_argument("weights", nargs="*", metavar="VERSION=WEIGHT")
    it.add_argument("--rollback", action="store_true", help="back to the weights before")
    it = add("remove", run_remove, "remove a function, or one version of it")
    it.add_argument("name")
    it.add_argument("--version", default="")
    return found


# -- commands -------------------------------------------------------------------------------------
def run_list(client: Client, said: argparse.Namespace) -> None:
    rows = client.ask("GET", "/system/functions", namespace=said.namespace or "*")
    if said.json:
        return tell_json(rows)
    rows.sort(key=lambda it: (it["namespace"], it["name"]))
    print_table(
        ("NAME", "NAMESPACE", "READY", "CALLS", "IMAGE"),
        [
            (it["name"], it["namespace"], f"{it['availableReplicas']}/{it['replicas']}",
             f"{it['invocationCount']:.0f}", it.get("envProcess") or it.get("image", ""))
            for it in rows
        ],
    )  # fmt: skip
    return None


def run_deploy(client: Client, said: argparse.Namespace) -> int:
    annotations = pairs(said.annotation)
    annotations |= {f"headrace.io/{key}": it for key, it in pairs(said.set).items()}
    if said.kind:
        annotations["headrace.io/kind"] = said.kind
    body: dict[str, Any] = {"service": said.name, "image": said.image or said.name}
    given = {
        "namespace": said.namespace, "envProcess": said.command, "envVars": pairs(said.env),
        "labels": pairs(said.label), "annotations": annotations, "secrets": said.secret,
    }  # fmt: skip
    body |= {key: it for key, it in given.items() if it}
    if said.version:
        if not said.image:
            del body["image"]
        for word in ("weight", "tag", "mirror"):
            if getattr(said, word) not in (None, ""):
                body[word] = getattr(said, word)
        path = f"/system/function/{segment(said.name)}/versions/{segment(said.version)}"
        client.ask("PUT", path, body, namespace=said.namespace)
    else:
        try:
            client.ask("PUT", "/system/functions", body)
        except Failed as error:
            if error.status != 404:
                raise
            client.ask("POST", "/system/functions", body)
    if said.no_wait:
        return 0
    return wait_ready(client, said)


def wait_ready(client: Client, said: argparse.Namespace) -> int:
    """Until a replica of what was deployed is ready, or none is wanted."""
    began_s, is_shown = time.monotonic(), sys.stderr.isatty()
    version = said.version or "v1"
    while True:
        row = describe(client, said)
        arm = next((it for it in row["versions"] if it["name"] == version), None)
        took_s = time.monotonic() - began_s
        state = ""
        if arm is None or (arm["replicas"] == 0 and not arm["error"]):
            state = "asleep"
        elif arm["availableReplicas"]:
            state = "ready"
        elif arm["error"] or took_s >= WAIT_S:
            state = "failed"
        if state and is_shown:
            sys.stderr.write("\r\33[K")
        if state == "failed":
            why = arm["error"] if arm and arm["error"] else f"it is not ready after {WAIT_S:.0f} s"
            raise Failed(f"{said.name} is deployed, but {why}")
        if state:
            done = {"name": row["name"], "namespace": row["namespace"], "version": version}
            if said.json:
                tell_json({**done, "state": state})
            else:
                print(f"{row['name']}.{row['namespace']}/{version} is {state} ({took_s:.1f} s)")
            return 0
        if is_shown:
            sys.stderr.write(f"\rwaiting for {said.name} ({took_s:.1f} s) ")
            sys.stderr.flush()
        time.sleep(POLL_S)


def describe(client: Client, said: argparse.Namespace) -> dict[str, Any]:
    path = f"/system/function/{segment(said.name)}"
    found: dict[str, Any] = client.ask("GET", path, namespace=said.namespace, usage="1")
    return found


def run_describe(client: Client, said: argparse.Namespace) -> None:
    row = describe(client, said)
    if said.json:
        return tell_json(row)
    facts = [("Name", row["name"]), ("Namespace", row["namespace"])]
    facts.append(("Declared", "in the conf" if row["isFromConf"] else "by the API"))
    facts += [(name, str(row[key])) for name, key in (
        ("Image", "image"), ("Command", "envProcess"), ("Sticky", "sticky"),
        ("Created", "createdAt"),
    ) if row.get(key)]  # fmt: skip
    for name, key in (("Labels", "labels"), ("Annotations", "annotations")):
        facts += [(name, f"{it}: {text}") for it, text in sorted(row.get(key, {}).items())]
    facts.append(("Calls", f"{row['invocationCount']:.0f}"))
    usage = row["usage"]
    memory = usage["totalMemoryBytes"] / 2**20
    facts.append(("Uses", f"{usage['cpu']:.0f}m CPU, {memory:.1f} MiB"))
    before = ""
    for name, text in facts:
        print(f"{'' if name == before else name + ':':13}{text}")
        before = name
    print()
    print_table(
        ("VERSION", "WEIGHT", "READY", "CALLS", "NOW", "WAIT", "TAG", "RUNS"),
        [
            (it["name"], f"mirror {it['mirror']:g}%" if it["mirror"] else str(it["weight"]),
             f"{it['availableReplicas']}/{it['replicas']}", calls_of(it),
             str(it["inFlight"]), str(it["parked"]), it["tag"],
             runs(it))
            for it in row["versions"]
        ],
    )  # fmt: skip
    for it in row["versions"]:
        for word in ("error", "how"):
            if it[word]:
                print(f"{it['name']}: {it[word]}")
    instances = [(it, version) for version in row["versions"] for it in version["instances"]]
    if instances:
        print()
        print_table(
            ("REPLICA", "STATE", "PID", "AGE", "CPU", "MEMORY"),
            [
                ("/".join(it["instance"].split("/")[1:]), it["state"], str(it["pid"] or ""),
                 f"{it['age_s']:.0f}s", f"{it['usage']['cpu']:.0f}m" if it["usage"] else "",
                 f"{it['usage']['totalMemoryBytes'] / 2**20:.1f}M" if it["usage"] else "")
                for it, _ in instances
            ],
        )  # fmt: skip
    return None


def calls_of(version: dict[str, Any]) -> str:
    """How often it was asked; for a shadow, with copies."""
    copies = version.get("copies", 0)
    return f"{version['invocationCount']}+{copies}" if copies else str(version["invocationCount"])


def runs(version: dict[str, Any]) -> str:
    """What it runs, in few words."""
    kind, words = version["kind"], list(version["words"])
    if kind in ("python", "lambda", "openwhisk") and words:
        words = [":".join([os.path.basename(words[0]), *words[1:]])]
    return " ".join([kind, *words])


def run_invoke(client: Client, said: argparse.Namespace) -> int:
    if said.data == "-" or (said.data is None and not sys.stdin.isatty()):
        body = sys.stdin.buffer.read()
    else:
        body = (said.data or "").encode()
    headers = {"Content-Type": "text/plain"} if body else {}
    for line in said.header:
        name, colon, value = line.partition(":")
        if not colon:
            raise Failed(f'"{line}" is no header, it must be NAME: VALUE')
        headers[name.strip()] = value.strip()
    key = f"{said.name}.{said.namespace}" if said.namespace else said.name
    rest = said.path if said.path[:1] in ("", "/", "?") else f"/{said.path}"
    door = "async-function" if said.is_async else "function"
    answer = client.send(
        said.method, f"/{door}/{segment(key)}{rest}", body, headers, is_system=False, timeout_s=None
    )
    if said.include:
        print(f"{answer.status} {answer.reason}")
        for name, value in answer.getheaders():
            print(f"{name}: {value}")
        print(flush=True)
    last = b""
    while piece := answer.read1(65536):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        last = piece
    if last[-1:] != b"\n" and sys.stdout.isatty():
        print()
    if said.is_async and answer.status == 202:
        print(answer.headers.get("X-Call-Id", ""))
    if answer.status >= 400:
        print(f"headrace: {said.name} answered {answer.status} {answer.reason}", file=sys.stderr)
        return 1
    return 0


def run_logs(client: Client, said: argparse.Namespace) -> None:
    for row in client.lines(
        "/system/logs", name=said.name, namespace=said.namespace, tail=said.tail,
        since=said.since, follow="1" if said.follow else "",
    ):  # fmt: skip
        if said.json:
            print(json.dumps(row), flush=True)
        else:
            instance = "/".join(row["instance"].split("/")[1:])
            print(f"{row['timestamp'][:19]} {instance} {row['text']}", flush=True)


def run_scale(client: Client, said: argparse.Namespace) -> None:
    client.ask(
        "POST", f"/system/scale-function/{segment(said.name)}", {"replicas": said.replicas},
        namespace=said.namespace, version=said.version,
    )  # fmt: skip


def run_split(client: Client, said: argparse.Namespace) -> None:
    path = f"/system/function/{segment(said.name)}"
    if said.rollback:
        client.ask("POST", f"{path}/rollback", {}, namespace=said.namespace)
    elif said.weights:
        weights = pairs(said.weights)
        wrong = [it for it in weights.values() if not it.isdigit()]
        if wrong:
            raise Failed(f'"{wrong[0]}" is no weight')
        numbers = {name: int(text) for name, text in weights.items()}
        client.ask("PUT", f"{path}/split", {"weights": numbers}, namespace=said.namespace)
    rows = client.ask("GET", f"{path}/versions", namespace=said.namespace)["versions"]
    if said.json:
        return tell_json(rows)
    total = sum(it["weight"] for it in rows) or 1
    print_table(
        ("VERSION", "WEIGHT", "SHARE", "READY", "CALLS", "TAG"),
        [
            (it["name"], str(it["weight"]), f"{100 * it['weight'] / total:.4g}%",
             f"{it['availableReplicas']}/{it['replicas']}", str(it["invocationCount"]), it["tag"])
            for it in rows
        ],
    )  # fmt: skip
    return None


def run_remove(client: Client, said: argparse.Namespace) -> None:
    if said.version:
        path = f"/system/function/{segment(said.name)}/versions/{segment(said.version)}"
        client.ask("DELETE", path, namespace=said.namespace)
    else:
        body = {"functionName": said.name, "namespace": said.namespace or "openfaas-fn"}
        client.ask("DELETE", "/system/functions", body)


# -- telling --------------------------------------------------------------------------------------
def pairs(words: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE words. Raises Failed."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise Failed(f'"{word}" is not KEY=VALUE')
        found[key] = value
    return found


def tell_json(value: Any) -> None:
    print(json.dumps(value, indent=2))

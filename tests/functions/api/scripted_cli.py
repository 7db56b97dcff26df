"""Not faas-cli, but the requests it makes: method, path, fields and body as read in its source.

Used where the real one is not at hand (FAAS_CLI names it). `run` takes its words and gives back
what matters of its end: (exit code, text).
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

AGENT = "faas-cli/dev"
DEFAULT = "openfaas-fn"


class ScriptedCli:
    """gateway: a URL."""

    def __init__(self, gateway: str) -> None:
        self.url = urlsplit(gateway)
        self.password = ""

    def run(self, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        command = words[0]
        flags: dict[str, str] = {}
        names = []
        rest = list(words[1:])
        while rest:
            word = rest.pop(0)
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                bare = ("password-stdin", "async", "tail", "replace")
                flags[name] = value if equals or name in bare else rest.pop(0)
            else:
                names.append(word)
        return getattr(self, command)(names, flags, stdin)

    def ask(
        self, method: str, path: str, said: Any = None, has_auth: bool = True, **fields: str
    ) -> tuple[int, str]:
        link = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=30)
        headers = {"User-Agent": AGENT, "Accept-Encoding": "gzip", **fields}
        if has_auth and self.password:
            text = base64.b64encode(f"admin:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {text}"
        body = said if isinstance(said, bytes) else b""
        if said is not None and not isinstance(said, bytes):
            headers["Content-Type"] = "application/json"
            body = json.dumps(said).encode()
        link.request(method, path, body, headers)
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        return answer.status, text

    def login(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        self.password = stdin.decode().strip()
        status, text = self.ask("GET", "/system/functions")
        return int(status != 200), "credentials saved" if status == 200 else text

    def deploy(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        namespace = flags.get("namespace", "")
        said = {
            "service": flags["name"], "image": flags["image"], "namespace": namespace,
            "envProcess": flags.get("fprocess", ""), "labels": {}, "annotations": {},
            "readOnlyRootFilesystem": False,
        }  # fmt: skip
        status, text = self.ask("PUT", "/system/functions", said)
        if status == 404:
            status, text = self.ask("POST", "/system/functions", said)
        return int(status not in (200, 202)), f"{status} {text}"

    def list(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        query = urlencode({"namespace": flags.get("namespace", "")})
        status, text = self.ask("GET", f"/system/functions?{query}")
        rows = json.loads(text)
        lines = [f"{it['name']} {it['invocationCount']:.0f} {it['replicas']}" for it in rows]
        return int(status != 200), "\n".join(lines)

    def describe(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        query = urlencode({"namespace": flags.get("namespace", ""), "usage": "1"})
        status, text = self.ask("GET", f"/system/function/{names[0]}?{query}")
        if status != 200:
            return 1, text
        row = json.loads(text)
        state = "Ready" if row["availableReplicas"] > 0 else "Not Ready"
        row["usage"]["cpu"], row["usage"]["totalMemoryBytes"]
        return 0, f"Status: {state}\nImage: {row['image']}"

    def ready(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        if not names:
            status, text = self.ask("GET", "/healthz")
            return int(status != 200), "OpenFaaS gateway is ready"
        for _ in range(200):
            code, text = self.describe(names, flags, stdin)
            if "Status: Ready" in text:
                return 0, f"Function {names[0]} is ready"
            time.sleep(0.1)
        return 1, text

    def invoke(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        door = "async-function" if "async" in flags else "function"
        path = f"/{door}/{names[0]}.{flags.get('namespace') or DEFAULT}"
        fields = {"Content-Type": "text/plain"}
        status, text = self.ask("POST", path, stdin, has_auth=False, **fields)
        if status == 202:
            text = "Function submitted asynchronously."
        return int(status >= 300), text

    def logs(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        follow = str(flags.get("tail") != "false").lower()
        given = {"follow": follow, "name": names[0], "namespace": "", "tail": "-1"}
        status, text = self.ask("GET", f"/system/logs?{urlencode(given)}")
        rows = [json.loads(line) for line in text.splitlines()]
        return int(status != 200), "\n".join(f"{it['timestamp']} {it['text']}" for it in rows)

    def remove(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        said = {"functionName": names[0], "namespace": flags.get("namespace", "")}
        status, text = self.ask("DELETE", "/system/functions", said)
        return int(status not in (200, 201, 202)), text

    def namespaces(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        status, text = self.ask("GET", "/system/namespaces")
        return int(status != 200), "\n".join(json.loads(text))

    def namespace(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        what, name = names
        said = {"name": name, "labels": {}, "annotations": {}}
        if what == "create":
            status, text = self.ask("POST", "/system/namespace/", said)
        elif what == "get":
            status, text = self.ask("GET", f"/system/namespace/{name}")
            text = f"Name: {json.loads(text)['name']}"
        else:
            status, text = self.ask("DELETE", f"/system/namespace/{name}", said)
        return int(status not in (200, 201, 202)), text

    def secret(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        what, name = names[0], names[-1]
        if what == "list":
            status, text = self.ask("GET", "/system/secrets?namespace=")
            return int(status not in (200, 202)), "\n".join(it["name"] for it in json.loads(text))
        said = {"name": name, "namespace": "", "value": flags.get("from-literal", "")}
        method = {"create": "POST", "update": "PUT", "remove": "DELETE"}[what]
        status, text = self.ask(method, "/system/secrets", said)
        good = (200, 202) if what == "remove" else (200, 201, 202)
        return int(status not in good), text

    def version(self, names: list[str], flags: dict[str, str], stdin: bytes) -> tuple[int, str]:
        status, text = self.ask("GET", "/system/info")
        row = json.loads(text)
        provider, version = row["provider"], row["version"]
        said = [provider["provider"], provider["version"]["release"], version["release"]]
        return int(status != 200), "\n".join(said)

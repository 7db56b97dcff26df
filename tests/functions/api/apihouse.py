"""A gateway with the OpenFaaS API, and a client of it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from gateway import Gateway, wait_for

HANDLER = '''
import os

def handle(event, context):
    if event.path == "/print":
        print("printed", event.query.get("what"))
    if event.path == "/secret":
        with open(os.path.join(os.environ["SECRETS_PATH"], event.query["name"])) as file:
            return file.read()
    if event.path == "/env":
        return os.environ.get(event.query["name"], "")
    return WORD + " " + event.body.decode()
'''
CONF = """
    access_log off;
    functions { root images; store var/functions.db; zygotes 4; %s }
    function declared { python images/one.py:handle; }
    server {
        listen 127.0.0.1:%%%%PORT%%%%;
        openfaas_api on;
        %s
    }
    server { listen 127.0.0.1:%%%%PORT_1%%%%; location / { return 200 other; } }
"""


class Said:
    """An answer, its body as JSON where it is."""

    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status = status
        self.body = body
        self.get = headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode().strip()

    def __repr__(self) -> str:
        return f"{self.status} {self.text[:300]}"


class House:
    """The gateway, asked with its password."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @property
    def password(self) -> str:
        path = self.gateway.prefix / "var" / "openfaas-auth"
        wait_for(lambda: path.exists() and path.read_text(), 15)
        return path.read_text().strip()

    @property
    def field(self) -> str:
        return "Basic " + base64.b64encode(self.password.encode()).decode()

    def ask(self, method: str, path: str, said: Any = None, **headers: str) -> Said:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        body = b"" if said is None else body
        headers.setdefault("Authorization", self.field)
        for _ in range(50):  # the controller may be starting
            answer = self.gateway.ask(method, path, body, **headers)
            if answer.status != 502:
                break
            time.sleep(0.1)
        return Said(answer.status, answer.body, answer.get)

    def deploy(self, name: str, image: str, **more: Any) -> Said:
        return self.ask("POST", "/system/functions", {"service": name, "image": image, **more})

    def describe(self, name: str) -> dict[str, Any]:
        return self.ask("GET", f"/system/function/{name}?usage=1").json

    def wait_ready(self, name: str, count: int = 1) -> None:
        wait_for(lambda: self.describe(name)["availableReplicas"] >= count, 20, f"{name} ready")

    def call(self, name: str, path: str = "", body: bytes = b"") -> Said:
        answer = self.gateway.ask("POST", f"/function/{name}{path}", body)
        return Said(answer.status, answer.body, answer.get)


def write_images(gateway: Gateway) -> None:
    folder = gateway.prefix / "images"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "empty").mkdir(exist_ok=True)
    for word in ("one", "two"):
        (folder / f"{word}.py").write_text(f"WORD = {word!r}\n{HANDLER}")
    (folder / "sub" / "handler.py").write_text(f"WORD = 'sub'\n{HANDLER}")
    (folder / "broken.py").write_text("import nothing_there\n")
    (folder / "plain.txt").write_text("hello")
    (gateway.prefix / "outside.py").write_text(f"WORD = 'outside'\n{HANDLER}")

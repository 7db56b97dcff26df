"""Who makes replicas: fixed addresses, an installed provider, another gateway; and who does not."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gateway import Gateway, wait_for
from recorder import Recorder

from proxy.functions.model import Handler, Version
from proxy.functions.provider import Provider, Refusal, find_provider
from proxy.functions.providers.local import Local
from proxy.functions.providers.openfaas import OpenFaas, place_of
from proxy.functions.providers.static import Static

BOXES = '''
"""A provider of replicas that live in the controller: each answers who it is."""

import asyncio

from proxy.functions.provider import Provider


class Boxes(Provider):
    kinds = ("boxes",)

    def start(self, version, id):
        self.loop.create_task(self.make(version, id))

    async def make(self, version, id):
        word = version.handler.words[0].encode()

        async def answer(reader, writer):
            if not await reader.read(65536):  # is it ready? it connects, it is
                return writer.close()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n" % len(word))
            writer.write(b"Connection: close\\r\\n\\r\\n" + word)
            await writer.drain()
            writer.close()

        self.server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = self.server.sockets[0].getsockname()
        self.events.on_line(id, "a box was made")
        self.events.on_started(id, [f"{host}:{port}"])

    def stop(self, id, is_forced):
        self.server.close()
        self.events.on_exited(id, "was closed")
'''
SERVER = "server { listen 127.0.0.1:%%PORT%%; location / { function_pass f; } }"


def version(*words: str, kind: str = "openfaas") -> Version:
    return Version(function="f.ns", name="v1", handler=Handler(kind, words))


def install(folder: Path, target: str = "boxes:Boxes") -> None:
    """A package with an entry point, as pip would leave it."""
    (folder / "boxes.py").write_text(BOXES)
    (folder / "boxes-1.0.dist-info").mkdir()
    (folder / "boxes-1.0.dist-info" / "METADATA").write_text("Name: boxes\nVersion: 1.0\n")
    text = f"[headrace.providers]\nboxes = {target}\n"
    (folder / "boxes-1.0.dist-info" / "entry_points.txt").write_text(text)


def test_the_provider_of_each_kind() -> None:
    assert find_provider("python") is find_provider("command") is Local
    assert find_provider("static") is Static
    assert find_provider("openfaas") is OpenFaas
    with pytest.raises(Refusal, match='there is no provider "boxes"'):
        find_provider("boxes")


def test_a_provider_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_provider("boxes")
    assert issubclass(found, Provider)
    assert found.kinds == ("boxes",)


@pytest.mark.parametrize("target", ["boxes:none", "none:Boxes", "os:path", "os:PathLike"])
def test_an_entry_point_that_leads_nowhere(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, target)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Refusal):
        find_provider("boxes")


def test_an_installed_provider_serves(headrace) -> None:
    gateway: Gateway = headrace(
        f"function f {{ provider boxes hello; }} {SERVER}", start=False
    )
    install(gateway.prefix)
    gateway.start()
    wait_for(lambda: gateway.get("/").body == b"hello", 15)
    assert "a box was made" in gateway.error_log


def test_a_provider_that_is_not_there_is_told(headrace) -> None:
    gateway: Gateway = headrace(f"function f {{ provider nowhere; }} {SERVER}")
    wait_for(lambda: 'there is no provider "nowhere"' in gateway.error_log, 10)
    assert gateway.get("/").status in (502, 503)


def test_static_addresses_are_all_asked_and_never_sleep(headrace, upstreams) -> None:
    made: list[Recorder] = [upstreams(), upstreams()]
    words = " ".join(f"127.0.0.1:{it.port}" for it in made)
    gateway: Gateway = headrace(f"function f {{ static {words}; initial_scale 0; }} {SERVER}")
    wait_for(lambda: gateway.get("/").status == 200, 15)
    wait_for(lambda: gateway.get("/") and all(it.requests for it in made), 10)


def test_a_static_address_that_comes_late(headrace, upstreams) -> None:
    late: Recorder = upstreams()
    port = late.port
    late.close()
    gateway: Gateway = headrace(
        f"function f {{ static 127.0.0.1:{port}; start_timeout 300ms; }} {SERVER}"
    )
    wait_for(lambda: "was not ready within 300 ms" in gateway.error_log, 10)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        wait_for(lambda: gateway.get("/").status == 200, 20)
    finally:
        server.shutdown()
        server.server_close()


WRONG = [
    ((), "needs http://ADDRESS:PORT"),
    (("https://127.0.0.1:1",), "needs http://ADDRESS:PORT"),
    (("http://name:1",), "needs http://ADDRESS:PORT"),
    (("http://127.0.0.1:1", "x=y"), 'does not know "x=y"'),
    (("http://127.0.0.1:1", "auth=/none/at/all"), "cannot be read"),
]


@pytest.mark.parametrize(("words", "text"), WRONG)
def test_words_of_the_openfaas_provider(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(Refusal, match=text):
        place_of(version(*words))


def test_whom_the_openfaas_provider_means() -> None:
    here = place_of(version("http://127.0.0.1:81"))
    assert (here.address, here.name, here.namespace) == ("127.0.0.1:81", "f", "ns")
    there = place_of(version("http://[::1]:81/", "name=g"))
    assert (there.address, there.name, there.namespace) == ("[::1]:81", "g", "ns")
    assert place_of(version("http://1.2.3.4:5", "name=g.h"))[1:3] == ("g", "h")


REMOTE = """
def handle(event, context):
    words = [event.method, event.path, event.query.get("a", ""), event.body.decode()]
    return " ".join(words)
"""


def test_a_function_of_another_gateway_is_woken_and_called(headrace) -> None:
    there: Gateway = headrace(
        "functions { root .; } function g { python app.py:handle; initial_scale 0; }"
        "server { listen 127.0.0.1:%%PORT%%; openfaas_api on; }",
        start=False,
    )
    (there.prefix / "app.py").write_text(REMOTE)
    there.start()
    wait_for(lambda: (there.prefix / "var" / "openfaas-auth").exists(), 15)
    here: Gateway = headrace(
        "function f { initial_scale 0; start_timeout 20s; provider openfaas"
        f" http://127.0.0.1:{there.port} name=g auth={there.prefix}/var/openfaas-auth; }}"
        "server { listen 127.0.0.1:%%PORT%%; openfaas_api on; openfaas_auth off;"
        " location /x { function_pass f; } }"
    )
    assert here.ask("POST", "/x/y%20z?a=b", b"hi").body == b"POST /x/y z b hi"
    assert here.ask("POST", "/function/f/y?a=b", b"hi").body == b"POST /y b hi"
    assert here.ask("POST", "/function/f", b"hi").body == b"POST /  hi"


def test_a_gateway_that_is_away_is_told(headrace) -> None:
    gateway: Gateway = headrace(
        f"function f {{ provider openfaas http://127.0.0.1:1; initial_scale 0; }} {SERVER}"
    )
    assert gateway.get("/").status == 502
    assert "127.0.0.1:1 does not answer" in gateway.error_log

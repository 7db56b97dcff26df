"""Callbacks: what is sent, signed and tried again, and which addresses are refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import ssl
import subprocess
from pathlib import Path

import pytest
from queuehouse import FAST, Asked, House, Said, Server, call, settings, sqlite_queue, until

from proxy.functions.queue import retry
from proxy.functions.queue.allowed import Allowed, Target
from proxy.functions.queue.callback import Callbacks
from proxy.functions.queue.calls import Refused, Result


async def answer(asked: Asked) -> Said:
    return Said(201, b"the result", [("Content-Type", "text/x"), ("Set-Cookie", "a=b")])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = retry.Retry(min_wait_ms=10, max_wait_ms=20)
    monkeypatch.setattr("proxy.functions.queue.callback.DEFAULT", quick)


def run(tmp_path: Path, hear, check, *, function=answer, attempts: str = "10", **more) -> None:
    """A call with a callback to a server that answers by `hear`; then check(queue, id, heard)."""

    async def main() -> None:
        async with Server(function) as server, Server(hear) as heard:
            house = House(server.address, f={**FAST, "com.openfaas.retry.attempts": attempts})
            queue = sqlite_queue(house, tmp_path / "q.db", **more)
            await queue.open()
            it = call(callback=f"http://{heard.address}/hook?x=1")
            id = await queue.accept(it, is_idempotent=False)
            await check(queue, id, heard)
            await queue.close()

    asyncio.run(main())


async def said(queue, id: str) -> str:
    record = await queue.find(id)
    return record.callback_state


async def is_settled(queue, id: str) -> bool:
    return await said(queue, id) not in ("", "pending")


async def well(asked: Asked) -> Said:
    return Said(204, b"")


def test_the_result_is_posted_with_openfaas_headers(tmp_path: Path) -> None:
    async def check(queue, id, heard) -> None:
        await until(lambda: is_settled(queue, id))
        assert await said(queue, id) == "delivered"
        (asked,) = heard.asked
        assert (asked.method, asked.target, asked.body) == ("POST", "/hook?x=1", b"the result")
        assert asked.headers["content-type"] == "text/x"
        assert asked.headers["host"] == heard.address
        assert asked.id == id
        assert asked.headers["x-function-name"] == "f.fn"
        assert asked.headers["x-function-status"] == "201"
        assert float(asked.headers["x-duration-seconds"]) > 0
        assert "set-cookie" not in asked.headers
        assert "x-hub-signature-256" not in asked.headers

    run(tmp_path, well, check)


def test_it_is_signed_if_there_is_a_secret(tmp_path: Path) -> None:
    async def check(queue, id, heard) -> None:
        await until(lambda: heard.asked)
        mark = hmac.new(b"hush", b"the result", hashlib.sha256).hexdigest()
        assert heard.asked[0].headers["x-hub-signature-256"] == f"sha256={mark}"

    run(tmp_path, well, check, callback_secret=b"hush")


def test_a_dead_letter_calls_back_too(tmp_path: Path) -> None:
    async def fail(asked: Asked) -> Said:
        return Said(0)

    async def check(queue, id, heard) -> None:
        await until(lambda: is_settled(queue, id))
        assert heard.asked[0].headers["x-function-status"] == "503"
        assert (await queue.find(id)).state == "dead"

    run(tmp_path, well, check, function=fail, attempts="2")


def test_it_is_tried_again_while_that_may_help(tmp_path: Path) -> None:
    statuses = iter((500, 0, 429, 200))

    async def hear(asked: Asked) -> Said:
        return Said(next(statuses))

    async def check(queue, id, heard) -> None:
        await until(lambda: is_settled(queue, id))
        assert await said(queue, id) == "delivered"
        assert len(heard.asked) == 4

    run(tmp_path, hear, check)


def test_it_is_given_up_at_last(tmp_path: Path) -> None:
    async def hear(asked: Asked) -> Said:
        return Said(503)

    async def check(queue, id, heard) -> None:
        await until(lambda: is_settled(queue, id))
        assert await said(queue, id) == "given up after 3 attempts: status 503"
        assert len(heard.asked) == 3

    run(tmp_path, hear, check, callback_attempts=3)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410])
def test_redirects_are_not_followed_and_refusals_are_taken(tmp_path: Path, status: int) -> None:
    async def hear(asked: Asked) -> Said:
        return Said(status, headers=[("Location", f"http://{asked.headers['host']}/other")])

    async def check(queue, id, heard) -> None:
        await until(lambda: is_settled(queue, id))
        assert await said(queue, id) == f"given up: status {status}"
        assert len(heard.asked) == 1

    run(tmp_path, hear, check)


def test_what_was_left_is_delivered_after_a_restart(tmp_path: Path) -> None:
    is_well = False

    async def hear(asked: Asked) -> Said:
        return Said(200 if is_well else 500)

    async def main() -> None:
        nonlocal is_well
        async with Server(answer) as server, Server(hear) as heard:
            house = House(server.address, f=FAST)
            queue = sqlite_queue(house, tmp_path / "q.db", callback_attempts=1000)
            await queue.open()
            it = call(callback=f"http://{heard.address}/")
            id = await queue.accept(it, is_idempotent=False)
            await until(lambda: heard.asked)
            await queue.close()
            is_well = True
            queue = sqlite_queue(house, tmp_path / "q.db", callback_attempts=1000)
            await queue.open()
            await until(lambda: is_settled(queue, id))
            assert await said(queue, id) == "delivered"
            await queue.close()

    asyncio.run(main())


REFUSED = [
    "http://127.0.0.1/", "http://127.8.9.10:80/", "http://0.0.0.0/", "http://[::1]/", "http://[::]/",
    "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://[fe80::1]/",
    "http://[fec0::1]/", "http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/",
    "http://[ff02::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2001:0:7f00:1::]/",
    "http://192.0.2.1/", "http://198.18.0.1/", "http://2130706433/", "http://0x7f.1/",
    "http://0177.0.0.1/", "http://127.1/", "http://localhost/", "http://LOCALHOST/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_inside_are_refused(url: str) -> None:
    async def main() -> None:
        callbacks = Callbacks(settings(callback_allow=("public",)))
        with pytest.raises(Refused) as refused:
            await callbacks.check(url)
        assert refused.value.status == 400
        # and once more when it is delivered: the answer of a name may have changed since
        said, _ = await callbacks.deliver(call(callback=url), Result(200), 0)
        assert said.startswith("refused: callback_allow does not have")

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    ["", "x", "/path", "ftp://a.example/", "http://", "http:///p", "//a.example/", "http://a b/",
     "http://user:pw@a.example/", "http://a.example:99999/", "http://a.example:x/",
     "http://a.example/\r\nX: y", "http://a%2eexample/", "javascript:alert(1)", "http://[::1",
     "http://a.example/" + "x" * 2048, "http://ä.example/", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    async def main() -> None:
        with pytest.raises(Refused) as refused:
            await Callbacks(settings(callback_allow=("public",))).check(url)
        assert refused.value.status == 400

    asyncio.run(main())


def test_an_allowed_list_says_what_may_be_called() -> None:
    def has(words: str, address: str) -> bool:
        return Allowed(tuple(words.split())).has_address(ipaddress.ip_address(address))

    assert has("public", "9.9.9.9") and has("public", "2620:fe::fe")
    assert not has("off", "9.9.9.9") and not has("10.0.0.0/8", "9.9.9.9")
    assert has("10.0.0.0/8", "10.1.2.3") and not has("10.0.0.0/8", "11.0.0.1")
    assert has("10.0.0.0/8", "::ffff:10.1.2.3")
    assert has("public 127.0.0.1", "127.0.0.1") and not has("public 127.0.0.1", "127.0.0.2")
    assert has("fd00::/8", "fd00::1") and not has("fd00::/8", "fe80::1")
    names = Allowed(("hooks.example", "*.inside.example"))
    assert names.has_name("hooks.example") and names.has_name("HOOKS.example.")
    assert names.has_name("a.inside.example") and names.has_name("a.b.inside.example")
    assert not names.has_name("inside.example") and not names.has_name("xhooks.example")
    for wrong in ("10.0.0.0/33", "10.0.0.1/8", "a b", "1.2.3", "*", "http://x/"):
        with pytest.raises(ValueError, match="is no network and no name"):
            Allowed((wrong,))


def test_a_name_that_is_allowed_may_lead_inside() -> None:
    async def main() -> None:
        callbacks = Callbacks(settings(callback_allow=("localhost",)))
        await callbacks.check("http://localhost:8080/x")
        with pytest.raises(Refused):
            await callbacks.check("http://127.0.0.1:8080/x")

    asyncio.run(main())


def test_targets() -> None:
    target = Target("https://Hooks.Example:8443/a/b?c=d#e")
    assert (target.host, target.port, target.path) == ("hooks.example", 8443, "/a/b?c=d")
    assert target.authority == "hooks.example:8443" and target.is_tls
    assert Target("http://[::1]:80").authority == "[::1]"
    assert Target("http://a.example?x=1").path == "/?x=1"


def test_tls_is_verified_by_the_name(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=DNS:localhost"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> None:
        server = Server(well)
        listener = await asyncio.start_server(server._on_client, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        callbacks = Callbacks(settings(callback_allow=("127.0.0.1", "localhost"), ))
        there = call(callback=f"https://localhost:{port}/")
        said, wait_ms = await callbacks.deliver(there, Result(200, body=b"x"), 0)
        assert said == "" and wait_ms >= 0 and not server.asked  # nobody vouches for it
        callbacks._tls = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert await callbacks.deliver(there, Result(200, body=b"x"), 0) == ("delivered", 0)
        assert server.asked[0].body == b"x"
        elsewhere = call(callback=f"https://127.0.0.1:{port}/")
        said, _ = await callbacks.deliver(elsewhere, Result(200), 0)
        assert said == ""
        listener.close()

    asyncio.run(main())

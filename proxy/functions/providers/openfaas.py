"""The provider `openfaas`: functions of another faas-provider or gateway, by its REST API.

    provider openfaas http://HOST:PORT [name=NAME[.NAMESPACE]] [auth=FILE];

What is deployed there is scaled from here: to zero, from zero when somebody waits, and between by
load. Requests go to HOST:PORT as /function/NAME.NAMESPACE/…; HOST is an address. auth: a file with
USER:PASSWORD. The function's own name and namespace are asked for where no name is said.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from proxy.functions.provider import Provider, Refusal

if TYPE_CHECKING:

    from proxy.functions.model import Version

URL = re.compile(r"http://(\[[0-9a-fA-F:]+\]|[0-9.]+):([0-9]{1,5})/?")
POLL_S = (0.02, 0.05, 0.1, 0.2, 0.5)
ASK_S = 10.0
ANSWER_BYTES = 1 << 20


class Place(NamedTuple):
    """address: `IP:PORT`. name and namespace: as they are called there."""

    address: str
    name: str
    namespace: str
    credentials: str


def place_of(version: Version) -> Place:
    """From the words of the handler. Raises Refusal."""
    words = version.handler.words
    match = URL.fullmatch(words[0]) if words else None
    if match is None:
        raise Refusal('"provider openfaas" needs http://ADDRESS:PORT')
    name, _, namespace = version.function.rpartition(".")
    credentials = ""
    for word in words[1:]:
        key, _, text = word.partition("=")
        if key == "name" and text:
            name, _, space = text.rpartition(".")
            name, namespace = (name, space) if name else (space, namespace)
        elif key == "auth" and text:
            try:
                with open(text, "rb") as file:
                    credentials = base64.b64encode(file.read(4096).strip()).decode()
            except OSError as error:
                raise Refusal(f'"{text}" cannot be read: {error.strerror}') from None
        else:
            raise Refusal(f'"provider openfaas" does not know "{word}"')
    return Place(f"{match[1]}:{match[2]}", name, namespace, credentials)


def prefix_of(version: Version) -> str:
    """Where it is called. Raises Refusal."""
    place = place_of(version)
    return f"/function/{quote(place.name)}.{quote(place.namespace)}"


class OpenFaas(Provider):
    """One replica stands for all that are there: the service's address."""

    kinds = ("openfaas",)
    counts = True

    def __init__(self, loop: asyncio.AbstractEventLoop, events: Any) -> None:
        super().__init__(loop, events)
        self._tasks: dict[str, asyncio.Task[None]] = {}  # replica or version → what is under way

    def check(self, version: Version) -> None:
        place_of(version)

    def start(self, version: Version, id: str) -> None:
        self._run(id, self._start(version, id))

    async def _start(self, version: Version, id: str) -> None:
        """Wait until a replica of theirs is available."""
        place = place_of(version)
        path = f"/system/function/{quote(place.name)}?namespace={quote(place.namespace)}"
        try:
            async with asyncio.timeout(version.start_timeout_ms / 1000):
                for number in range(1_000_000):
                    status, body = await ask(place, "GET", path)
                    if status != 200:
                        text = body.decode("utf-8", "replace").strip()[:200]
                        why = f"{place.address} answers {status} {text}"
                        return self.events.on_failed(id, why)
                    if json.loads(body).get("availableReplicas", 0) > 0:
                        return self.events.on_started(id, [place.address], is_ready=True)
                    await asyncio.sleep(POLL_S[min(number, len(POLL_S) - 1)])
        except TimeoutError:
            why = f"no replica of it is available within {version.start_timeout_ms} ms"
            self.events.on_failed(id, why)
        except (OSError, EOFError, ValueError) as error:
            self.events.on_failed(id, f"{place.address} does not answer: {error}")
        return None

    def stop(self, id: str, is_forced: bool) -> None:
        task = self._tasks.pop(id, None)
        if task is not None:
            task.cancel()
        self.loop.call_soon(self.events.on_exited, id, "was let go")

    def scale(self, version: Version, count: int) -> None:
        self._run(version.key, self._scale(version, count))

    async def _scale(self, version: Version, count: int) -> None:
        try:
            place = place_of(version)
            path = f"/system/scale-function/{quote(place.name)}?namespace={quote(place.namespace)}"
            said = {"serviceName": place.name, "namespace": place.namespace, "replicas": count}
            await ask(place, "POST", path, json.dumps(said).encode())
        except (OSError, EOFError, ValueError):
            pass  # the start that follows says what is wrong; of a stop they hear again

    def _run(self, name: str, work: Any) -> None:
        """In order, for one name."""
        before = self._tasks.get(name)

        async def run() -> None:
            if before is not None:
                await asyncio.wait([before])
            await work
            if self._tasks.get(name) is task:
                del self._tasks[name]

        task = self._tasks[name] = self.loop.create_task(run())

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()


async def ask(place: Place, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """(status, body). Raises OSError, EOFError, ValueError."""
    import h11

    fields: list[tuple[str, str]] = [
        ("Host", place.address), ("Connection", "close"), ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        *([("Authorization", f"Basic {place.credentials}")] if place.credentials else []),
    ]  # fmt: skip
    host, _, port = place.address.rpartition(":")
    async with asyncio.timeout(ASK_S):
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            http = h11.Connection(h11.CLIENT)
            head = http.send(h11.Request(method=method, target=path, headers=fields))
            writer.write((head or b"") + (http.send(h11.Data(data=body)) or b""))
            http.send(h11.EndOfMessage())
            status, found = 0, b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    found += event.data
                    if len(found) > ANSWER_BYTES:
                        raise ValueError("too long an answer")
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    return status, found
        except h11.ProtocolError as error:
            raise ValueError(f"a broken answer: {error}") from None
        finally:
            writer.close()

"""The door for whoever makes replicas: local processes, fixed addresses, another platform.

A provider is a class; the controller makes one of it when the first function needs it.

    class Boxes(Provider):
        kinds = ("boxes",)                      # `provider boxes ARGUMENT …;` in a function

        def start(self, version, id):           # make one replica, and say what became of it:
            self.loop.create_task(self._start(version, id))

        async def _start(self, version, id):
            address = await make_a_box(version.handler.words)
            self.events.on_started(id, [address])

        def stop(self, id, is_forced):          # it has no request any more
            …; self.events.on_exited(id, "ended")

It is found by its entry point, group `headrace.providers`, under the name of its kind:

    [project.entry-points."headrace.providers"]
    boxes = "my_boxes:Boxes"

**Addresses** are `unix:PATH` or `IP:PORT`; several are tried until one is ready. **Ids** are the
controller's: `NAME.NAMESPACE/VERSION/FINGERPRINT/SERIAL/PORT/SOCKET`; whoever outlives the
controller gives them back from `find_running`, so that a new controller adopts what runs.

Everything is called on the controller's loop and must not block: no waiting, no disk, no network
but through the loop. A provider that counts its replicas itself (Kubernetes, another faas) sets
`counts`: then `scale` is called with each new number, and there is one replica, the address of
the service, started when that number leaves 0 and stopped when it is 0 again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from proxy.functions.model import Version

GROUP = "headrace.providers"


class Refusal(ValueError):
    """Why a version cannot be run, in a sentence."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one replica uses: thousandths of a core (since it was asked last), resident bytes."""

    cpu_milli: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Running:
    """A replica that ran before this controller did. pid 0: it is no process of this machine."""

    id: str
    addresses: Sequence[str]
    pid: int = 0


class Events(Protocol):
    """Whom a provider tells what happens to its replicas."""

    def on_started(
        self, id: str, addresses: Sequence[str], is_ready: bool = False, pid: int = 0
    ) -> None:
        """It is under way. Unless is_ready, the controller asks the addresses until one is."""

    def on_line(self, id: str, text: str) -> None:
        """It printed a line."""

    def on_failed(self, id: str, error: str) -> None:
        """It did not start."""

    def on_exited(self, id: str, how: str) -> None:
        """It is gone, as told to stop or not: `exited with code 1`."""


class Provider(ABC):
    """See above. kinds: of handlers, in the conf and in Handler.kind."""

    kinds: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[bool] = False

    def __init__(self, loop: asyncio.AbstractEventLoop, events: Events) -> None:
        self.loop = loop
        self.events = events

    def check(self, version: Version) -> None:  # noqa: B027 (who has nothing to check is content)
        """Raise Refusal when it can be seen that this can never run."""

    async def find_running(self) -> list[Running]:
        """What runs already, when a controller begins."""
        return []

    def places(self, version: Version) -> int | None:
        """How many replicas there always are, whatever is asked; None: as many as asked."""
        return None

    def place(self, version: Version, stem: str) -> str:
        """The id of a new replica: `stem` (NAME.NAMESPACE/VERSION/FINGERPRINT/SERIAL), a number
        and a text, what `find_running` must know to find it again. Raises OSError."""
        return f"{stem}/0/"

    @abstractmethod
    def start(self, version: Version, id: str) -> None:
        """Begin a replica; then call events.on_started or events.on_failed."""

    @abstractmethod
    def stop(self, id: str, is_forced: bool) -> None:
        """End it, then call events.on_exited. Called again with is_forced when that takes long."""

    def on_answering(self, id: str, address: str) -> None:  # noqa: B027
        """It is ready; that is the address of it that answered."""

    def on_early_exit(self, key: str) -> None:  # noqa: B027
        """A replica of that version ended before it was ready."""

    def scale(self, version: Version, count: int) -> None:  # noqa: B027 (for who counts)
        """Who `counts`: there shall be so many."""

    def forget(self, id: str) -> None:  # noqa: B027
        """The controller is done with this replica."""

    def usage(self, id: str) -> Usage | None:
        """None: not known."""
        return None

    def on_secret(self, namespace: str, name: str) -> None:  # noqa: B027
        """A secret has another value: replicas that have it shall see it."""

    def describe(self, version: Version) -> str:
        """What `fn describe` adds, a sentence or nothing."""
        return ""

    async def close(self) -> None:  # noqa: B027
        """The controller leaves. Replicas go on."""


def find_provider(kind: str) -> type[Provider]:
    """The class for handlers of that kind. Raises Refusal."""
    if kind in ("command", "python", "fork", "openwhisk", "lambda"):
        from proxy.functions.providers.local import Local

        return Local
    if kind == "static":
        from proxy.functions.providers.static import Static

        return Static
    if kind == "openfaas":
        from proxy.functions.providers.openfaas import OpenFaas

        return OpenFaas
    from importlib.metadata import entry_points

    for it in entry_points(group=GROUP, name=kind):
        try:
            found = it.load()
        except Exception as error:
            raise Refusal(
                f'the provider "{kind}" could not be loaded: {type(error).__name__}: {error}'
            ) from error
        if not (isinstance(found, type) and issubclass(found, Provider)):
            raise Refusal(f'"{it.value}" is no provider')
        return found
    raise Refusal(f'there is no provider "{kind}"')

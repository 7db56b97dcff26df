"""The provider `static`: replicas that somebody else runs, at fixed addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.functions.provider import Provider

if TYPE_CHECKING:
    from proxy.functions.model import Version


class Static(Provider):
    """Each address is one replica, there all the time and asked for readiness as any other."""

    kinds = ("static",)

    def __init__(self, loop, events) -> None:  # type: ignore[no-untyped-def]
        super().__init__(loop, events)
        self._taken: dict[str, str] = {}  # id → address

    def places(self, version: Version) -> int | None:
        return len(version.handler.words)

    def start(self, version: Version, id: str) -> None:
        prefix = "/".join(id.split("/", 3)[:3])  # the same version, the same fingerprint
        taken = [at for it, at in self._taken.items() if it.startswith(f"{prefix}/")]
        left = list(version.handler.words)
        for address in taken:
            if address in left:
                left.remove(address)
        if not left:
            self.loop.call_soon(self.events.on_failed, id, "all addresses are taken")
            return
        self._taken[id] = left[0]
        self.loop.call_soon(self.events.on_started, id, [left[0]])

    def stop(self, id: str, is_forced: bool) -> None:
        self.loop.call_soon(self.events.on_exited, id, "was let go")

    def forget(self, id: str) -> None:
        self._taken.pop(id, None)

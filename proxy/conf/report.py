"""How a wrong conf is reported: what is wrong, and in which file and line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from proxy.conf.inherit import Block

    class Place(Protocol):
        """Whatever knows where it stands in the conf: a Token, a Block, a Statement."""

        file: str
        line: int


COMMAND_LINE = "command line"


class ConfError(Exception):
    """A conf refused. `message` says why, without the place; `str(error)` is
    `MESSAGE in FILE:LINE`, as nginx words it. `place` is None when no file is to blame."""

    def __init__(self, place: Place | None, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.file = place.file if place is not None else ""
        self.line = place.line if place is not None else 0

    def __str__(self) -> str:
        return located(self.message, self.file, self.line)


def located(message: str, file: str, line: int) -> str:
    """`message` with its place behind it; -g has no lines, so it is only named."""
    if not file:
        return message
    if file == COMMAND_LINE:
        return f"{message} in {COMMAND_LINE}"
    return f"{message} in {file}:{line}"


def emerg(error: ConfError) -> str:
    """The line for stderr and the error log, less the program name and the time."""
    return f"[emerg] {error}"


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that `name` is most likely a typo of, or None."""
    from difflib import get_close_matches  # only a wrong conf pays for it

    found = get_close_matches(name, known, n=1, cutoff=0.7)
    return found[0] if found else None


def without_effect(root: Block) -> list[str]:
    """The lines -t shows for what was accepted and means nothing here."""
    return [
        f'[notice] "{it.name}" has no effect: ' + located(it.directive.ignored, it.file, it.line)
        for it in root.ignored
    ]

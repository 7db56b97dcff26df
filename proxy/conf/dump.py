"""The whole conf with its files, as -T prints it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block


def dump(root: Block) -> str:
    """Every file that was read, once, in the order first met, each below its name.

    Bytes that are not UTF-8 are surrogates: write it with errors="surrogateescape".
    """
    return "".join(f"# configuration file {path}:\n{text}\n" for path, text in root.files.items())

"""Tables of the command line: columns as wide as they need, lines as long as the terminal."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 80  # where nobody says ($COLUMNS, or the terminal)
NARROWEST = 12  # that a column of words is cut to


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The widest columns are cut until a line fits."""
    wide = shutil.get_terminal_size((WIDTH, 24)).columns
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - wide
    for number in sorted(range(len(widths)), key=lambda it: -widths[it]):
        if over <= 0:
            break
        cut = min(over, max(widths[number] - max(len(heads[number]), NARROWEST), 0))
        widths[number] -= cut
        over -= cut
    for row in (heads, *rows):
        cells = [fit(text, width) for text, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"

"""Turns measurements into a table of at most 100 columns, JSON, and a picture."""

from __future__ import annotations

import json
import time
from pathlib import Path

from meter import machine
from peers import ROOT
from questions import ALL, Question

NAMES = ("headrace", "nginx", "haproxy", "envoy")
Medians = dict[str, dict[str, float]]


def shown(value: float | None) -> str:
    """A number in at most 7 characters."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def verdict(question: Question, values: dict[str, float]) -> str:
    """The figures of a question, each with yes or no."""
    ours = values.get("headrace")
    if ours is None:
        return ""
    parts = []
    for peer, factor in question.at_most.items():
        if values.get(peer):
            ratio = ours / values[peer]
            mark = "ok" if ratio <= factor else "NO"
            parts.append(f"{ratio:.2f}×{peer} ≤{factor:.2f} {mark}")
    if question.limit is not None:
        parts.append(f"≤{question.limit:g} {'ok' if ours <= question.limit else 'NO'}")
    return ", ".join(parts)


def rows(medians: Medians) -> list[list[str]]:
    """The table as cells: work, the four proxies, ratio to the best peer, the figures."""
    table = []
    for question in ALL:
        values = medians.get(question.key)
        if not values:
            continue
        others = [value for name, value in values.items() if name != "headrace"]
        ours = values.get("headrace")
        best = f"{ours / min(others):.2f}" if ours and others and min(others) > 0 else "–"
        cells = [f"{question.title}, {question.unit}"]
        cells += [shown(values.get(name)) for name in NAMES]
        table.append([*cells, best, verdict(question, values)])
    return table


def text(medians: Medians) -> str:
    """The table for a terminal. Figures that do not fit stand on a line of their own."""
    widths = (34, 9, 8, 8, 8, 8)
    titles = ("CPU (or as named)", *NAMES, "to best")

    def line(cells: list[str] | tuple[str, ...]) -> str:
        first = f"{cells[0]:<{widths[0]}}"
        return first + "".join(
            f"{cell:>{width}}" for cell, width in zip(cells[1:6], widths[1:], strict=True)
        )

    lines = [line(titles), "-" * 75]
    for cells in rows(medians):
        lines.append(line(cells[:6]))
        if cells[6]:
            lines.append(f"    figures: {cells[6]}")
    return "\n".join(lines)


def markdown(medians: Medians) -> str:
    """The table for the README."""
    lines = [
        "| work | headrace | nginx | haproxy | envoy | to the best peer |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += ["| " + " | ".join(cells[:6]) + " |" for cells in rows(medians)]
    return "\n".join(lines)


def write(folder: Path, result: dict[str, object]) -> list[Path]:
    """bench/results/: latest.json, latest.md, and latest.png if matplotlib is there."""
    folder.mkdir(parents=True, exist_ok=True)
    medians: Medians = result["medians"]  # type: ignore[assignment]
    data, table = folder / "latest.json", folder / "latest.md"
    data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    table.write_text(markdown(medians) + "\n")
    written = [data, table]
    try:
        written.append(draw(folder / "latest.png", medians))
    except ImportError:
        print("matplotlib is not installed: no picture")
    return written


def into_readme(path: Path, result: dict[str, object]) -> None:
    """Put table, picture and what they were measured on between the README's two marks."""
    versions: dict[str, str] = result["versions"]  # type: ignore[assignment]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    said = f"{measured_on(result)}; {named}; median of {result['rounds']} rounds."
    table = markdown(result["medians"])  # type: ignore[arg-type]
    picture = "![Cost beside the peers](bench/results/latest.png)"
    put(path, "bench: table of bench/results/latest.md", f"{table}\n\n{said}\n\n{picture}")


def write_rows(name: str, asked: dict[str, dict[str, object]], order: list[str]) -> None:
    """A bench that has rows of its own, into bench/results/NAME.json and the README; what was not
    asked now stays as it was."""
    path = ROOT / f"bench/results/{name}.json"
    known = (json.loads(path.read_text())["rows"] if path.exists() else {}) | asked
    result = {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine(),
        "rows": {key: known[key] for key in order if key in known},
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    rows_into_readme(ROOT / "README.md", result, name)


def rows_into_readme(path: Path, result: dict[str, object], name: str) -> None:
    """The same for a bench that has rows of its own, which may come of several runs."""
    rows: dict[str, dict[str, str]] = result["rows"]  # type: ignore[assignment]
    lines = ["| what | measured | must be |", "|---|--:|--:|"]
    lines += [f"| {it['what']} | {it['figure']} | {it['must']} |" for it in rows.values()]
    put(path, f"{name}: bench/results/{name}.json",
        "\n".join([*lines, "", f"{measured_on(result)}."]))  # fmt: skip


def measured_on(result: dict[str, object]) -> str:
    """When and where."""
    machine: dict[str, object] = result["machine"]  # type: ignore[assignment]
    return (
        f"{result['when']}; {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}"
    )


def put(path: Path, mark: str, content: str) -> None:
    """Replace what stands between `<!-- mark -->` and its end."""
    text = path.read_text()
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark.partition(':')[0]} -->"
    if begin in text and end in text:
        head, tail = text.split(begin)[0], text.split(end, 1)[1]
        path.write_text(f"{head}{begin}{content}\n{end}{tail}")


def draw(path: Path, medians: Medians) -> Path:
    """Bars per question and proxy, nginx = 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    asked = [q for q in ALL if medians.get(q.key, {}).get("nginx", 0) > 0]
    colours = ("#1f6fb2", "#3a9d4b", "#8d6cab", "#c9873b")
    figure, axes = pyplot.subplots(figsize=(10, 0.55 * max(4, len(asked)) + 1.2))
    for place, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        heights = [medians[q.key].get(name, 0) / medians[q.key]["nginx"] for q in asked]
        at = [number + 0.2 * (place - 1.5) for number in range(len(asked))]
        axes.barh(at, heights, 0.2, label=name, color=colour)
    axes.set_yticks(range(len(asked)), [f"{q.title}" for q in asked])
    axes.invert_yaxis()
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.set_xlim(0, 4)
    axes.set_xlabel("cost, nginx = 1 (shorter is better; cut at 4)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=4, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path

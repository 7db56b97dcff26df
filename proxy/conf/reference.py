"""The directive reference in Markdown, written from the declarations: `make docs`."""

from __future__ import annotations

from proxy.conf.directive import ANYWHERE, DIRECTIVES, PLACES, Directive
from proxy.conf.values import Value

ROOMS = {
    "conf": "Structure of a conf",
    "process": "Processes",
    "engine": "Listeners, connections, TLS",
    "variables": "Variables",
    "routing": "Routing",
    "limits": "Limits",
    "filters": "Filters",
    "content": "Own answers",
    "bodies": "Bodies",
    "upstream": "Upstreams",
    "stream": "Streams",
    "mqtt": "MQTT",
    "functions": "Functions",
    "observe": "Telling",
}


def syntax(it: Directive) -> str:
    """`name argument …;` as the reference writes it."""
    shape = it.syntax or " ".join(_argument(kind, len(it.args)) for kind in it.args)
    return f"{it.name} {shape}".strip() + (" { … }" if it.block else ";")


def _argument(kind: Value, count: int) -> str:
    shape = kind.syntax()
    return f"({shape})" if count > 1 and " | " in shape and shape[0] not in "[(" else shape


def places(where: int) -> str:
    """The places a declaration holds in, by name."""
    if where == ANYWHERE:
        return "anywhere"
    return ", ".join(name for flag, name in PLACES.items() if where & flag)


def default(it: Directive) -> str:
    """The default as conf text; a dash where there is none."""
    if it.default is None or it.default == []:
        return "–"
    if isinstance(it.default, bool):
        return f"`{it.name} {'on' if it.default else 'off'};`"
    if isinstance(it.default, str):
        return f"`{it.name} {it.default or chr(34) * 2};`"
    return f"`{it.default}`"


def entry(it: Directive) -> str:
    """One directive."""
    lines = [
        f"### {it.name}",
        "",
        it.doc or "(not described yet)",
        "",
        f"- syntax: `{syntax(it)}`",
        f"- default: {default(it)}",
        f"- in: {places(it.where)}",
    ]
    if it.many and not it.block:
        lines.append("- may stand more than once in a block")
    if not it.inherit:
        lines.append("- not inherited by inner blocks")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The whole reference: one chapter a room, then what is accepted and means nothing."""
    chapters: dict[str, list[Directive]] = {room: [] for room in ROOMS}
    without_effect: list[Directive] = []
    for declared in DIRECTIVES.values():
        for it in declared:
            if it.ignored:
                without_effect.append(it)
            else:
                room = it.room.removeprefix("proxy.").partition(".")[0]
                chapters.setdefault(room, []).append(it)
    parts = [
        "# Directives",
        "",
        "Written from the declarations in the code by `make docs`; do not edit.",
        "",
    ]
    for room, chapter in chapters.items():
        if chapter:
            parts += [f"## {ROOMS.get(room, room.capitalize())}", ""]
            parts += [entry(it) for it in sorted(chapter, key=lambda it: (it.name, it.where))]
    parts += [
        "## Accepted, without effect",
        "",
        "| directive | why |",
        "|---|---|",
        *(
            f"| `{it.name}` | {it.ignored} |"
            for it in sorted(without_effect, key=lambda it: it.name)
        ),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    from proxy import order
    from proxy.conf.reference import reference as written  # this file runs as __main__

    order.declare_all()
    print(written(), end="")

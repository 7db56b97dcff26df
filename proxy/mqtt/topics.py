"""Topics and filters as texts: which are good, what a filter's wildcards stand for."""

from __future__ import annotations

WORDS = ("%c", "%u", "%%")


def is_filter(text: str) -> bool:
    """Each wildcard alone in its level, # in the last one (MQTT 5 §4.7.1)."""
    if not text or "\0" in text or len(text.encode()) > 65535:
        return False
    levels = text.split("/")
    return all(
        it in ("+", "#") or not ("+" in it or "#" in it) for it in levels
    ) and "#" not in levels[:-1]


def is_topic(text: str) -> bool:
    """A name that may be published to."""
    return is_filter(text) and "+" not in text and "#" not in text


def is_pattern(text: str) -> bool:
    """A filter in which % begins %c, %u or %%."""
    at = text.find("%")
    while at >= 0:
        if text[at : at + 2] not in WORDS:
            return False
        at = text.find("%", at + 2)
    return is_filter(text)


def expand(pattern: str, client_id: str, user: str) -> str:
    """The pattern with the client's names; "" where one of them would reach beyond its place."""
    out = []
    at = 0
    while at < len(pattern):
        if pattern[at] != "%":
            out.append(pattern[at])
            at += 1
            continue
        word = pattern[at + 1]
        name = "%" if word == "%" else client_id if word == "c" else user
        if not name or name[0] == "$" or any(it in name for it in "+#/"):
            return ""
        out.append(name)
        at += 2
    return "".join(out)


def captures(filter: str, topic: str) -> list[str] | None:
    """What + and # of the filter stand for, or None: the topic is not one of its."""
    want, got = filter.split("/"), topic.split("/")
    if topic.startswith("$") and want[0] in ("+", "#"):  # MQTT-4.7.2-1
        return None
    found = []
    for number, level in enumerate(want):
        if level == "#":
            rest = got[number:]
            found.append("/".join(rest))
            return found
        if number >= len(got) or level not in ("+", got[number]):
            return None
        if level == "+":
            found.append(got[number])
    return found if len(got) == len(want) else None

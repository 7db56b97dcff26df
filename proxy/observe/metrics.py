"""The counters as text: Prometheus exposition for `metrics`, nginx's page for `stub_status`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.observe._counters import BOUNDS, Snapshot

Counted = tuple[list[tuple[str, str]], list[int], float]  # labels, counts by bucket, seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("active", "reading", "writing", "waiting")
CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
HELP = {
    "headrace_limit_req_requests_total": "Requests by zone and decision of limit_req.",
    "headrace_limit_conn_requests_total": "Requests by zone and decision of limit_conn.",
    "headrace_upstream_peer_requests_total": "Requests sent to a peer.",
    "headrace_upstream_peer_fails_total": "Requests that a peer failed.",
    "headrace_websockets": "WebSockets that are open and inspected.",
    "headrace_websocket_messages_total": "Messages that passed, by who sent them.",
    "headrace_websocket_bytes_total": "Bytes of messages, as they are sent, by who sent them.",
    "headrace_websocket_closes_total": "Ends by the code of the first Close; 1006: without one.",
    "headrace_mqtt_connects_total": "Clients of MQTT that were let in.",
    "headrace_mqtt_refused_total": "Clients of MQTT whose CONNECT was refused.",
    "headrace_mqtt_published_total": "PUBLISHes of clients.",
    "headrace_mqtt_forbidden_total": "PUBLISHes and SUBSCRIBEs that mqtt_allow does not allow.",
    "headrace_mqtt_throttled_total": "How often a client had to wait for its rate.",
    "headrace_mqtt_failovers_total": "Brokers that failed a client, or refused it as busy.",
    "headrace_mqtt_calls_total": "Messages that went to functions, of clients or of a bridge.",
    "headrace_mqtt_answers_total": "Answers of functions that were published.",
    "headrace_mqtt_bridge_connected": "Whether a broker has our client now.",
    "headrace_mqtt_failed_total": "Messages that a function did not take, and nobody keeps.",
    "headrace_mqtt_dead_letters_total": "Messages that a function did not take, and that are kept.",
    "headrace_function_refused_total": "Requests that a limit of their function refused.",
}
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def labelled(name: str, labels: Iterable[tuple[str, str]]) -> str:
    inside = inner(labels)
    return f"{name}{{{inside}}}" if inside else name


def inner(labels: Iterable[tuple[str, str]]) -> str:
    """What stands between the braces."""
    return ",".join([f'{label}="{value.translate(ESCAPES)}"' for label, value in labels])


def number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def write_metrics(
    snapshot: Snapshot,
    peers: Iterable[tuple[str, str, bool, int]] = (),
    more: Iterable[tuple[str, str, str, Iterable[tuple[Any, int]]]] = (),
) -> bytes:
    """The exposition text (format 0.0.4) of one moment.

    peers: (upstream, peer, is_up, requests in flight) of every peer that is known. more: (metric,
    type, help, [(labels, value)]) of what others count.
    """
    lines: list[str] = []
    lines += connections(snapshot.connections)
    lines += series(snapshot)
    lines += plain(snapshot)
    lines += peer_states(list(peers))
    for name, kind, text, rows in more:
        lines += head(name, kind, text)
        lines += [f"{labelled(name, labels)} {value}" for labels, value in rows]
    lines.append("")
    return "\n".join(lines).encode()


def connections(now: Mapping[str, int]) -> Iterator[str]:
    for word in ("accepted", "handled"):
        name = f"headrace_connections_{word}_total"
        yield from head(name, "counter", f"Client connections {word}.")
        yield f"{name} {now[word]}"
    yield from head("headrace_connections", "gauge", "Client connections by state.")
    for state in STATES:
        yield f'headrace_connections{{state="{state}"}} {now[state]}'


def series(snapshot: Snapshot) -> Iterator[str]:
    at_locations: list[Counted] = []
    of_versions: list[Counted] = []
    copies: list[Counted] = []
    for (server, location, function), k, counts, sum_s in snapshot.series:
        status = ("status", CLASSES[k])
        if function and not server:  # NAME.NAMESPACE/VERSION
            key, _, version = function.rpartition("/")
            labels = [("function", key), ("version", version), status]
            (copies if location == "copies" else of_versions).append((labels, counts, sum_s))
        else:
            labels = [("server", server), ("location", location), ("function", function), status]
            at_locations.append((labels, counts, sum_s))
    yield from durations("headrace_http_request", "Requests", at_locations)
    if of_versions:
        yield from durations("headrace_function_request", "Requests of functions", of_versions)
    if copies:
        yield from durations("headrace_function_mirrored_request", "Copies for shadows", copies)


def durations(prefix: str, what: str, rows: list[Counted]) -> Iterator[str]:
    """rows: (labels, counts by bucket, seconds); none without labels."""
    found = [(inner(labels), counts, sum_s) for labels, counts, sum_s in rows]
    name = f"{prefix}s_total"
    yield from head(name, "counter", f"{what} answered.")
    for labels, counts, _ in found:
        yield f"{name}{{{labels}}} {sum(counts)}"
    name = f"{prefix}_duration_seconds"
    yield from head(name, "histogram", f"{what}: from the first byte to the answer's last.")
    ends = [f',le="{bound}"}} ' for bound in (*map(number, BOUNDS), "+Inf")]
    for labels, counts, sum_s in found:
        total = 0
        start = f"{name}_bucket{{{labels}"
        for end, n in zip(ends, counts, strict=True):
            total += n
            yield f"{start}{end}{total}"
        yield f"{name}_sum{{{labels}}} {sum_s!r}"
        yield f"{name}_count{{{labels}}} {total}"


def plain(snapshot: Snapshot) -> Iterator[str]:
    found = sorted(snapshot.plain, key=lambda it: it[0])  # a metric's lines stand together
    before = ""
    for name, labels, is_gauge, value in found:
        if name != before:
            yield from head(name, "gauge" if is_gauge else "counter", HELP.get(name, name))
            before = name
        yield f"{labelled(name, labels)} {value}"


def peer_states(peers: list[tuple[str, str, bool, int]]) -> Iterator[str]:
    if not peers:
        return
    yield from head("headrace_upstream_peer_up", "gauge", "1 while a peer may be chosen.")
    for upstream, peer, is_up, _ in peers:
        labels = [("upstream", upstream), ("peer", peer)]
        yield f"{labelled('headrace_upstream_peer_up', labels)} {int(is_up)}"
    yield from head("headrace_upstream_peer_active", "gauge", "Requests in flight at a peer.")
    for upstream, peer, _, active in peers:
        labels = [("upstream", upstream), ("peer", peer)]
        yield f"{labelled('headrace_upstream_peer_active', labels)} {active}"


def write_stub_status(snapshot: Snapshot) -> bytes:
    """The body of nginx's stub_status page, byte for byte its shape."""
    now = snapshot.connections
    return (
        f"Active connections: {now['active']} \n"
        "server accepts handled requests\n"
        f" {now['accepted']} {now['handled']} {now['requests']} \n"
        f"Reading: {now['reading']} Writing: {now['writing']} Waiting: {now['waiting']} \n"
    ).encode()

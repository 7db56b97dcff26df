"""In a plan: the functions of the conf, which table.py fills, and function_pass as settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.base._shm import Zone
from proxy.conf.report import ConfError
from proxy.conf.values import Endpoint
from proxy.functions._counts import Counts
from proxy.functions._function import Functions
from proxy.functions._target import FunctionTarget
from proxy.functions.directory import read_labels
from proxy.functions.peers import peer_of
from proxy.functions.zones import ZONE
from proxy.upstream._balance import Upstream
from proxy.upstream.directives import DEFAULT_FIELDS
from proxy.upstream.proxy_pass import Target
from proxy.variables._variables import compile as compile_text

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.functions.directory import Directory
    from proxy.upstream._settings import ProxySettings
    from proxy.upstream.freeze import Upstreams

# What a function is told beyond the client's own fields; proxy_set_header overrides.
FIELDS = {
    "Host": "$host$is_request_port$request_port",
    "Connection": "",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host$is_request_port$request_port",
    "X-Call-Id": "$call_id",
    "X-Request-Id": "$function_request_id",
    "X-Start-Time": "$function_start_time",
}
# Knative's own words between its parts: a function would believe what a client made up.
KNATIVE_INTERNAL = (
    "K-Network-Hash", "K-Network-Probe", "K-Kubelet-Probe", "K-Proxy-Request", "K-Original-Host",
    "K-Passthrough-Lb", "Knative-Serving-Default-Route", "Knative-Serving-Namespace",
    "Knative-Serving-Revision",
)  # fmt: skip
LABELS = "label:"
BY_PATH = "path:"  # the name stands in the path, behind that of the location
BY_ROUTES = "routes:"  # the location of function_routes
NOBODY = Upstream(b"function")


def declare_functions(model: Block, seat: Any = None) -> Functions:
    """All functions of a conf, without replicas; the table tells more. In a worker, which has a
    seat, they are counted together with those of all workers."""
    counts = None
    if seat is not None and ZONE in seat.shared:
        counts = Counts(Zone.attach(seat.shared[ZONE]), seat.ledger, seat.bells)
    functions = Functions(peer_of, counts)
    for http in model.find("http"):
        for block in http.find("function"):
            for arm in (block, *block.find("version")):  # here, so that errors have a place
                compile_text(arm.get("balance").key, arm)
    if any(http.find("function") for http in model.find("http")):
        from proxy.functions.declared import read_functions  # not on the way of confs without
        from proxy.functions.links import row_of

        for it in read_functions(model).values():
            functions.declare({"function": it.key, **row_of(it, {})})
    return functions


def freeze_pass(
    directory: Directory, block: Block, name: str, upstreams: Upstreams
) -> tuple[FunctionTarget, ProxySettings]:
    """What function_pass means in this location: bodies stream both ways, upgrades pass.

    Raises ConfError for a function that nobody declared, where the API cannot bring it later.
    """
    handler = target_of(directory, block, name)
    target = Target(f"http://{name}", False, Endpoint(name, 80), False, "", name, "80")
    s = upstreams.freeze_proxy(block, target, NOBODY)
    s.is_buffered = block.get("proxy_buffering") if block.has("proxy_buffering") else False
    if not block.has("proxy_request_buffering"):
        s.is_request_buffered = False
    if not block.has("proxy_read_timeout"):
        s.read_ms = 0  # derived from the version's timeout
    s.version = 11  # what a replica speaks its version says
    s.passes_upgrade = True
    s.tells_timing = block.get("server_timing")
    s.set_fields(fields(block))
    return handler, s


def target_of(directory: Directory, block: Block, name: str) -> FunctionTarget:
    """Whom `function_pass name` means. Raises ConfError."""
    functions, text = directory.functions, str(name)
    if text.startswith(LABELS):
        try:
            labels = read_labels(text.removeprefix(LABELS))
        except ValueError as error:
            raise ConfError(name, f'{error} in "function_pass"') from None  # type: ignore[arg-type]
        return FunctionTarget("labels", text, functions, selection=directory.select(labels))
    if text == BY_PATH:
        key = block.value if block.name == "location" else None
        if key is None or key.is_regex or key.modifier == "@":
            raise ConfError(name, f'"{BY_PATH}" wants a location that is a prefix')  # type: ignore[arg-type]
        return FunctionTarget("path", text, functions, prefix_n=len(key.pattern.encode()))
    if text == BY_ROUTES:
        return FunctionTarget("routes", text, functions)
    if "$" in text:
        return FunctionTarget("text", text, functions, template=compile_text(text, block))
    if functions.find_name(text) is None and not directory.is_open:
        raise ConfError(name, f'function "{name}" is not declared')  # type: ignore[arg-type]
    return FunctionTarget("name", text, functions)


def fields(block: Block) -> list[tuple[bytes, Any]]:
    """(name, compiled value) of the request's fields that are ours."""
    pairs = [(str(name), text) for name, text in block.get("proxy_set_header") or []]
    given = {name.lower() for name, _ in pairs}
    pairs += [it for it in FIELDS.items() if it[0].lower() not in given]
    given |= {name.lower() for name in FIELDS}
    removed = (*DEFAULT_FIELDS, *KNATIVE_INTERNAL)
    pairs += [(name, "") for name in removed if name.lower() not in given]
    return [(name.encode(), compile_text(text, block)) for name, text in pairs]

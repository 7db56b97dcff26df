"""In a plan: the functions of the conf, which table.py fills, and function_pass as settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.conf.report import ConfError
from proxy.conf.values import Endpoint
from proxy.functions._function import Functions
from proxy.functions._handler import FunctionHandler
from proxy.functions.declared import read_functions
from proxy.functions.links import row_of
from proxy.functions.table import peer_of
from proxy.upstream.directives import DEFAULT_FIELDS
from proxy.upstream.proxy_pass import Target
from proxy.variables._variables import compile as compile_text

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
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
}


def declare_functions(model: Block) -> Functions:
    """All functions of a conf, without replicas; the table tells more."""
    functions = Functions(peer_of)
    for it in read_functions(model).values():
        functions.declare({"function": it.key, **row_of(it, [])})
    return functions


def freeze_pass(
    functions: Functions, block: Block, name: str, upstreams: Upstreams
) -> tuple[FunctionHandler, ProxySettings]:
    """What function_pass means in this location: bodies stream both ways, upgrades pass.

    Raises ConfError for a function that nobody declared.
    """
    function = functions.find_name(str(name))
    if function is None:
        raise ConfError(name, f'function "{name}" is not declared')  # type: ignore[arg-type]
    target = Target(f"http://{name}", False, Endpoint(name, 80), False, "", name, "80")
    s = upstreams.freeze_proxy(block, target, function.versions[0].upstream)
    s.is_buffered = block.get("proxy_buffering") if block.has("proxy_buffering") else False
    if not block.has("proxy_request_buffering"):
        s.is_request_buffered = False
    s.passes_upgrade = True
    s.set_fields(fields(block))
    return FunctionHandler(function), s


def fields(block: Block) -> list[tuple[bytes, Any]]:
    """(name, compiled value) of the request's fields that are ours."""
    pairs = [(str(name), text) for name, text in block.get("proxy_set_header") or []]
    given = {name.lower() for name, _ in pairs}
    pairs += [it for it in FIELDS.items() if it[0].lower() not in given]
    given |= {name.lower() for name in FIELDS}
    pairs += [(name, "") for name in DEFAULT_FIELDS if name.lower() not in given]
    return [(name.encode(), compile_text(text, block)) for name, text in pairs]

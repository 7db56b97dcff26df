"""The one list of what exists: the modules whose import declares their room's directives."""

from importlib import import_module
from importlib.util import find_spec

DECLARING = (
    "proxy.conf.structure",
    "proxy.conf.meaningless",
    "proxy.process.directives",
    "proxy.engine.listen",
    "proxy.engine.directives",
    "proxy.variables.directives",
    "proxy.routing.directives",
    "proxy.routing.rewrite",
    "proxy.limits.directives",
    "proxy.filters.directives",
    "proxy.content.directives",
    "proxy.bodies.directives",
    "proxy.upstream.directives",
    "proxy.functions.directives",
    "proxy.observe.error_log",
    "proxy.observe.directives",
    "proxy.observe.error_log",
)


def declare_all() -> None:
    """Declare every directive there is; call it before `proxy.conf.load`. Again is harmless."""
    for name in DECLARING:
        room = name.rpartition(".")[0]
        if find_spec(room) is not None and find_spec(name) is not None:
            import_module(name)

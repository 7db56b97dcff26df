"""The one list of what exists: the modules whose import declares their room's directives."""

from importlib import import_module

DECLARING = (
    "proxy.conf.structure",
    "proxy.conf.meaningless",
    "proxy.process.directives",
    "proxy.engine.listen",
    "proxy.engine.directives",
    "proxy.engine.tls",
    "proxy.engine.certificates",
    "proxy.quic.directives",
    "proxy.variables.directives",
    "proxy.routing.directives",
    "proxy.routing.rewrite",
    "proxy.limits.directives",
    "proxy.filters.directives",
    "proxy.content.directives",
    "proxy.content.ssi",
    "proxy.bodies.directives",
    "proxy.upstream.directives",
    "proxy.upstream.grpc",
    "proxy.upstream.websocket",
    "proxy.stream.directives",
    "proxy.mqtt.directives",
    "proxy.functions.directives",
    "proxy.functions.queue.directives",
    "proxy.observe.error_log",
    "proxy.observe.directives",
)


def declare_all() -> None:
    """Declare every directive there is; call it before `proxy.conf.load`. Again is harmless."""
    for name in DECLARING:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            # A room that is not built yet; what a room itself cannot find is its fault.
            if error.name not in (name, name.rpartition(".")[0]):
                raise

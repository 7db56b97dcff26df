"""Modules that are imported when first needed. A child that gives up root imports them before:
afterwards it may not be able to read the folder of its interpreter."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING

from proxy.process.generation import has_functions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.process.generation import Generation

# Python's own, which it looks for by name, or which libraries look for when first used.
PYTHON = (
    "encodings.ascii", "encodings.latin_1", "encodings.idna", "stringprep", "unicodedata",
    "concurrent.futures.thread", "difflib", "glob", "grp", "pwd", "traceback", "uuid", "_strptime",
)  # fmt: skip
OURS = ("proxy.conf.known", "proxy.upstream.follow", "proxy.upstream.tls", "proxy.filters._crypt")
NAMES = (
    "proxy.engine.resolver", "dns.exception", "dns.flags", "dns.message", "dns.name", "dns.rcode",
    "dns.rdatatype", "dns.rdtypes.IN.A", "dns.rdtypes.IN.AAAA", "dns.rdtypes.IN.SRV",
    "dns.rdtypes.ANY.CNAME", "dns.rdtypes.ANY.SOA", "dns.rdtypes.ANY.OPT",
)  # fmt: skip
HEALTH = ("proxy.upstream.asking", "proxy.upstream.health", "proxy.wire.h2_door", "ssl")
QUIC = (
    "proxy.quic.endpoint", "proxy.quic.ids", "proxy.quic.mailbox", "proxy.quic.tickets",
    "proxy.quic.transport", "proxy.quic.with_aioquic",
)  # fmt: skip
MQTT = (
    "proxy.mqtt", "proxy.mqtt.freeze", "proxy.functions.bridge", "proxy.functions.call",
    "proxy.functions.messages", "aiomqtt", "h11", "paho.mqtt.packettypes", "paho.mqtt.properties",
    "joserfc", "joserfc.errors", "joserfc.jwk", "joserfc.jwt",
)  # fmt: skip
FUNCTIONS = (
    "proxy.functions.declared", "proxy.functions.links", "proxy.functions.model",
    "proxy.functions.orders", "proxy.functions.provider", "proxy.functions.providers.local",
    "proxy.functions.providers.openfaas", "proxy.functions.providers.static",
    "proxy.functions.queue.allowed", "proxy.functions.queue.streams", "proxy.functions.schedule",
    "cronsim", "h11", "importlib.metadata", "ssl",
)  # fmt: skip
CONTROLLER = (
    "proxy.functions.api.functions", "proxy.functions.api.logs", "proxy.functions.api.namespaces",
    "proxy.functions.api.page", "proxy.functions.api.secrets", "proxy.functions.api.service",
    "proxy.functions.api.system", "proxy.functions.api.versions", "proxy.functions.call",
    "proxy.functions.http", "proxy.functions.queue.api", "proxy.functions.queue.callback",
    "proxy.functions.queue.runner", "proxy.functions.queue.sqlite", "sqlite3",
)  # fmt: skip
JETSTREAM = ("proxy.functions.queue.jetstream", "nats.js.api", "nats.js.errors")


def import_late(generation: Generation, is_controller: bool) -> None:
    """What a worker, or the controller, of that generation may import later."""
    for name in names(generation, is_controller):
        with contextlib.suppress(ImportError):  # whoever needs it says so
            import_module(name)


def names(generation: Generation, is_controller: bool) -> Iterator[str]:
    """Its modules: none that is dear and that this conf does not need."""
    yield from PYTHON
    yield from OURS
    blocks = list(generation.model.below())
    if any(it.own("resolver") for it in blocks):
        yield from NAMES
    if is_controller or any(it.own("health_check") for it in blocks):
        yield from HEALTH
    if not is_controller and any(it.is_quic for it in generation.addresses):
        yield from QUIC
    if generation.model.find("mqtt"):
        yield from MQTT
    if has_functions(generation.model):
        yield from FUNCTIONS
    if is_controller:
        yield from CONTROLLER
        if any(str(it.own("queue")).startswith("nats:") for it in blocks):
            yield from JETSTREAM

"""The conf of variables: map, split_clients, geo. Importing it also declares the core names."""

from __future__ import annotations

import proxy.variables._core
import proxy.variables._lines
import proxy.variables._proxy_tlvs  # noqa: F401  (their import declares $host and the rest)
from proxy.conf.directive import GEO, HTTP, MAP, MQTT, SPLIT_CLIENTS, STREAM, directive
from proxy.conf.values import Rest, Text, Word

directive(
    "map",
    HTTP | STREAM | MQTT,
    Text(),
    Word(),
    block=MAP,
    rows=True,
    many=True,
    syntax="string $variable { … }",
    doc="Makes a variable whose value depends on another's: exact, by wildcard or regex.",
)
directive(
    "split_clients",
    HTTP | STREAM | MQTT,
    Text(),
    Word(),
    block=SPLIT_CLIENTS,
    rows=True,
    many=True,
    syntax="string $variable { … }",
    doc="Makes a variable that parts requests by percentages of a hash, for A/B tests.",
)
directive(
    "geo",
    HTTP | STREAM | MQTT,
    Rest(Word()),
    most=2,
    block=GEO,
    rows=True,
    many=True,
    syntax="[$address] $variable { … }",
    doc="Makes a variable whose value depends on the network of an address.",
)

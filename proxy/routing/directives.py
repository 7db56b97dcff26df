"""The directives that say where a request belongs."""

from __future__ import annotations

from proxy.conf.directive import HTTP, LOCATION, MAIN, SERVER, STREAM_SERVER, directive
from proxy.conf.values import Flag, Int
from proxy.routing.server_name import read_server_name

directive(
    "server_name",
    SERVER | STREAM_SERVER,
    read=read_server_name,
    many=True,
    inherit=False,
    syntax="name …",
    doc="The hosts a server answers, in stream those that TLS asks for: a name,"
    " *.name, .name, name.*, ~regex, $hostname or empty.",
)
directive(
    "merge_slashes",
    HTTP | SERVER,
    Flag(),
    default="on",
    doc="Takes several slashes in a row in a path for one.",
)
directive(
    "internal",
    LOCATION,
    read=lambda args, block: True,
    least=0,
    most=0,
    default=False,
    doc="Answers 404 to requests that come from outside; only internal redirects get in.",
)
directive(
    "pcre_match_limit",
    MAIN,
    Int(),
    default="1000000",
    doc="Steps that one match of a regex may take; a match that needs more is answered with 500.",
)

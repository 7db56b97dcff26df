"""The ssi directives, and how a block of the conf freezes them."""

from __future__ import annotations

from proxy.conf.directive import HTTP, LOCATION, LOCATION_IF, SERVER, directive, ignored
from proxy.conf.values import Flag, Rest, Size, Word
from proxy.content._ssi import SsiSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proxy.conf.inherit import Block

EVERY = HTTP | SERVER | LOCATION

directive("ssi", EVERY | LOCATION_IF, Flag(), default="off",
          doc="Reads answers for server-side include commands.")
directive("ssi_types", EVERY, Rest(Word(), least=1), default="text/html",
          doc="Types of answers that are read for commands, besides text/html; *: all.")
directive("ssi_last_modified", EVERY, Flag(), default="off",
          doc="Keeps the Last-Modified of an answer that was read for commands.")
directive("ssi_silent_errors", EVERY, Flag(), default="off",
          doc="Says nothing in the page about a command that failed.")
directive("subrequest_output_buffer_size", EVERY, Size(), default="8k",
          doc="Bytes of an answer that an include may set a variable to.")
for _name in ("ssi_min_file_chunk", "ssi_value_length", "ssi_ignore_recycled_buffers"):
    ignored(_name, EVERY, "commands are read from copies that are bounded otherwise")


def freeze_ssi(block: Block) -> SsiSettings | None:
    """The settings of a location, or None without ssi."""
    if not block.get("ssi"):
        return None
    s = SsiSettings()
    types = [name.lower() for name in block.get("ssi_types")]
    s.types = None if "*" in types else frozenset(
        [b"text/html", *(name.encode("utf-8", "surrogateescape") for name in types)])
    s.keeps_modified = block.get("ssi_last_modified")
    s.is_silent = block.get("ssi_silent_errors")
    s.most_set = block.get("subrequest_output_buffer_size")
    return s

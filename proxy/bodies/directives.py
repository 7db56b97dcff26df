"""The directives about request bodies; defaults of nginx 1.31."""

from __future__ import annotations

import proxy.bodies._variables  # noqa: F401  (declares $request_body)
from proxy.conf.directive import HTTP, LOCATION, SERVER, directive
from proxy.conf.values import Duration, Enum, Size, read_temp_path

EVERY = HTTP | SERVER | LOCATION

# fmt: off
directive("client_max_body_size", EVERY, Size(), default="1m",
          doc="How large the body of a request may be, counted on the way; 0 is no bound.")
directive("client_body_buffer_size", EVERY, Size(), default="16k",
          doc="How much of a body stays in memory; a larger one goes to a temporary file.")
directive("client_body_timeout", EVERY, Duration(), default="60s",
          doc="How long a client may send nothing of a body.")
directive("client_body_temp_path", EVERY, read=read_temp_path, most=4, default="client_body_temp",
          syntax="path [level [level [level]]]",
          doc="Where the temporary files of request bodies are.")
directive("client_body_in_file_only", EVERY, Enum("off", "clean", "on"), default="off",
          doc="Puts every body into a file: clean removes it afterwards, on leaves it.")

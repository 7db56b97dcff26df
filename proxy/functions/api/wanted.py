"""What a conf says of the API, for who needs no more: is it there, whose password holds."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

OFF = "off"


def is_wanted(model: Block) -> bool:
    """A server says `openfaas_api on`, or `functions` names a store."""
    for http in model.find("http"):
        if any(it.own("store") is not None for it in http.find("functions")):
            return True
        if any(server.get("openfaas_api") for server in http.find("server")):
            return True
    return False


def mark_of(path: str) -> str:
    """What a worker says of a server whose file this is; `off` for none."""
    return OFF if path == OFF else hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def auth_path(server: Block) -> str:
    """The file of `openfaas_auth`, absolute, or `off`."""
    word = str(server.get("openfaas_auth"))
    return OFF if word == OFF else os.path.abspath(server.path(word))

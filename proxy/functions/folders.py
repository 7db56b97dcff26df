"""The folders that functions' own files lie in: where the gateway gives up root, it makes them
before and gives them away, because its controller cannot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from proxy.functions.api.wanted import OFF, auth_path, is_wanted
from proxy.functions.queue.words import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.conf.inherit import Block


def folders(model: Block) -> list[str]:
    """Of the store, the queue, secrets and passwords that this conf needs; absolute."""
    return sorted(set(_folders(model)))


def _folders(model: Block) -> Iterator[str]:
    for http in model.find("http"):
        block = (http.find("functions") or [http])[0]
        named = block is not http
        queue = str(block.get("queue")) if named else URL
        if queue.startswith("sqlite:") and (named or http.find("function") or is_wanted(model)):
            yield _of(block, queue.removeprefix("sqlite:"))
        if is_wanted(model):
            yield _of(block, str(block.get("store")))
            yield os.path.abspath(block.path(str(block.get("secrets_path"))))
        for server in http.find("server"):
            if server.get("openfaas_api") and auth_path(server) != OFF:
                yield os.path.dirname(auth_path(server))


def _of(block: Block, path: str) -> str:
    return os.path.dirname(os.path.abspath(block.path(path)))

"""From OpenFaaS' FunctionDeployment (JSON) to a function, and what is refused on the way.

`envProcess` is the command. It is run for each request (`fork`, as OpenFaaS' classic watchdog
does); with `mode: http` in envVars, as of-watchdog has it, it is a server on $PORT. Without one,
`image` names a file or folder below `functions { root … }`: FILE.py or FILE.py:CALLABLE, an
executable, or a folder with handler.py. With both, the image's folder is where the command runs.

Annotations `headrace.io/WORD` are directives of the block: headrace.io/concurrency: "10". With
headrace.io/kind (command, fork, python, lambda, openwhisk) the file is told what it is where that
cannot be seen. Of envVars, max_inflight is the concurrency and exec_timeout the timeout.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import FUNCTION, VERSION, find
from proxy.conf.parser import read_inside
from proxy.conf.report import ConfError
from proxy.functions.annotations import read_go_ms, read_scale, read_version_words
from proxy.functions.declared import read_version
from proxy.functions.directives import HANDLERS
from proxy.functions.grammar import ENV_NAME, SECRET_NAME, VERSION_NAME, read_cpu_milli
from proxy.functions.http import Refused
from proxy.functions.model import NAMESPACE, Function, Handler
from proxy.functions.model import VERSION as FIRST
from proxy.functions.routes import is_route, read_route
from proxy.functions.values import NAME, SPACE, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.conf.inherit import Block
    from proxy.functions.model import Version

OURS = "headrace.io/"
KINDS = ("command", "fork", "python", "lambda", "openwhisk")
# Words of the block that a deployment says in its own fields, or that are the operator's alone.
NOT_HERE = frozenset(
    (*HANDLERS, "user", "interpreter", "venv", "working_directory", "env", "secrets", "limits",
     "labels", "annotation", "namespace", "version", "mirror", "weight", "tag")
) - {"static", "provider"}  # fmt: skip
HANDLER_FILES = ("handler.py", "function/handler.py", "index.py", "main.py", "__main__.py")
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([EPTGMk]?i?|m)")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
         "ki": 1 << 10, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
         "Ei": 1 << 60, "m": 1 << 20}  # fmt: skip
MOST_KNOWN = 4096
MOST_TEXT = 128 * 1024  # of all labels, annotations and variables of a function


def refuse(text: str) -> Refused:
    return Refused(400, text)


class Reader:
    """Reads deployments. block: the conf's `http`, whose defaults hold; root: "" without one."""

    def __init__(self, block: Block, root: str) -> None:
        self.block = block
        self.root = os.path.realpath(root) if root else ""
        self._plain: Version | None = None
        self._known: dict[Any, Any] = {}
        self._texts: dict[Any, Mapping[str, str]] = {}

    def read(self, document: Mapping[str, Any]) -> Function:
        """A document of the store: {"deployment", "created_at", "versions": {NAME: {"deployment",
        "weight", "tag", "mirror"}}}. Raises Refused with a sentence."""
        base = document["deployment"]
        name, namespace = names_of(base)
        arms = document.get("versions") or {}
        weight = 100 - sum(int(it.get("weight") or 0) for it in arms.values())
        if weight < 0:
            raise refuse("the weights are more than 100 together")
        first, block = self.read_version(base, f"{name}.{namespace}", FIRST)
        versions = [replace(first, weight=weight) if weight != 100 else first]
        for arm, said in arms.items():
            it, _ = self.read_version({**base, **said["deployment"]}, first.function, arm)
            mirror = float(said.get("mirror") or 0)
            part = 0 if mirror else int(said.get("weight") or 0)
            tag = str(said.get("tag") or "")
            versions.append(replace(it, weight=part, tag=tag, mirror=mirror))
        return Function(
            name=name,
            namespace=namespace,
            versions=tuple(versions),
            labels=self._same_texts(texts_of(base, "labels")),
            annotations=self._same_texts(texts_of(base, "annotations")),
            sticky=block.own("sticky") if block is not None else None,
            is_async=bool(block.own("async")) if block is not None else False,
            schedule=tuple(map(str, block.own("schedule") or ())) if block is not None else (),
            created_at=str(document.get("created_at", "")),
        )

    def read_version(
        self, said: Mapping[str, Any], function: str, name: str
    ) -> tuple[Version, Block | None]:
        """One arm, and the block that its annotations make, if any."""
        if VERSION_NAME.fullmatch(name) is None:
            raise refuse(f'invalid version name "{name}"')
        labels, annotations = texts_of(said, "labels"), texts_of(said, "annotations")
        env = texts_of(said, "envVars")
        check_size(labels, annotations, env)
        words = {key[len(OURS) :]: it for key, it in annotations.items() if key.startswith(OURS)}
        kind = words.pop("kind", "")
        if kind and kind not in KINDS:
            raise refuse(f'{OURS}kind: "{kind}" is none of {", ".join(KINDS)}')
        block = self._block(words)
        changes: dict[str, Any] = {"function": function, "name": name}
        try:
            if block is not None:
                it = read_version(block, function, name, 100, labels, annotations)
            else:
                it = self._default()
                changes["scale"] = self._same(read_scale(labels, annotations))
                changes["ready"] = read_version_words(labels, annotations).get("ready")
        except (ValueError, ConfError) as error:
            raise refuse(getattr(error, "message", "") or str(error)) from None
        if not words.keys() & {"static", "provider"}:
            handler, cwd = self.handler_of(said, kind or mode_of(env))
            changes |= {"handler": self._same(handler), "cwd": self._same(cwd)}
        if env.get("max_inflight", "").isdigit() and "concurrency" not in words:
            changes["concurrency"] = int(env["max_inflight"])
        if "exec_timeout" in env and "timeout" not in words:
            try:
                changes["timeout_ms"] = read_go_ms(env["exec_timeout"])
            except ValueError as error:
                raise refuse(f"exec_timeout: {error}") from None
        changes["env"] = self._same(tuple(env.items()))
        changes["limits"] = self._same(limits_of(said))
        changes["secrets"] = self._same(secrets_of(said))
        return replace(it, **changes), block

    def _same(self, value: Any) -> Any:
        """Ten thousand functions differ in little: what is equal is kept once."""
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        return self._known.setdefault(value, value)

    def _same_texts(self, texts: Mapping[str, str]) -> Mapping[str, str]:
        """The same for a map, which nobody changes; one of few others shares its words at least."""
        words = {sys.intern(key): sys.intern(text) for key, text in texts.items()}
        if len(self._texts) > MOST_KNOWN:
            self._texts.clear()
        return self._texts.setdefault(tuple(words.items()), words)

    def _default(self) -> Version:
        """A version about which nothing is said."""
        if self._plain is None:
            block = read_inside(self.block, "function x { static 127.0.0.1:1; }", "default")
            self._plain = read_version(block.blocks[-1], "x.x", FIRST, 100, {}, {})
        return self._plain

    def _block(self, words: Mapping[str, str]) -> Block | None:
        """The function block that annotations stand for. Raises Refused."""
        lines = []
        for word, text in words.items():
            if is_route(OURS + word):
                try:
                    read_route(text)
                except ValueError as error:
                    raise refuse(f"{OURS}{word}: {error}") from None
                continue
            is_known = any(find(word, place) for place in (FUNCTION, VERSION))
            if not is_known and word.startswith("async-"):
                continue  # queue/words.py's
            if not is_known or word in NOT_HERE:
                raise refuse(f'unknown setting "{OURS}{word}"')
            try:
                args = shlex.split(text)
            except ValueError as error:
                raise refuse(f"{OURS}{word}: {error}") from None
            if any(not it.isprintable() or '"' in it or "\\" in it for it in args):
                raise refuse(f'{OURS}{word}: invalid value "{text[:100]}"')
            lines.append(" ".join([word, *(f'"{it}"' for it in args)]) + ";")
        if not lines:
            return None
        if not words.keys() & {"static", "provider"}:
            lines.append("static 127.0.0.1:1;")
        try:
            text = "function x {\n" + "\n".join(lines) + "\n}"
            return read_inside(self.block, text, "annotations").blocks[-1]
        except ConfError as error:
            raise refuse(f"{OURS}…: {error.message}") from None

    # -- what runs --------------------------------------------------------------------------------
    def handler_of(self, said: Mapping[str, Any], kind: str) -> tuple[Handler, str]:
        """(handler, where it runs). Raises Refused: it cannot be run, and why."""
        image, process = str(said.get("image") or ""), str(said.get("envProcess") or "")
        path, name = self.path_of(image)
        if process:
            try:
                words = tuple(shlex.split(process))
            except ValueError as error:
                raise refuse(f"envProcess: {error}") from None
            if not words:
                raise refuse("envProcess names no program")
            folder = path if os.path.isdir(path) else os.path.dirname(path)
            home = folder or self.root or self.block.prefix
            return Handler("command" if kind == "command" else "fork", words), home
        if not path:
            raise refuse(self._why_not(image))
        if os.path.isdir(path):
            home = path
            found = [os.path.join(path, it) for it in HANDLER_FILES]
            file = next((it for it in found if os.path.isfile(it)), "")
            if not file:
                raise refuse(
                    f'image "{image}" cannot be run: the folder has no handler.py, and no '
                    "envProcess says what to run in it"
                )
        else:
            home, file = os.path.dirname(path), path
        if file.endswith(".py") and kind in ("", "python", "lambda", "openwhisk"):
            if kind == "openwhisk":
                return Handler(kind, (file,)), home
            if kind == "lambda":
                return Handler(kind, (file, name or "handler")), home
            return Handler("python", (file, name or "handle")), home
        if kind == "openwhisk":
            return Handler(kind, (file,)), home
        if not os.access(file, os.X_OK):
            raise refuse(f'image "{image}" cannot be run: the file is not executable')
        return Handler("command" if kind == "command" else "fork", (file,)), home

    def path_of(self, image: str) -> tuple[str, str]:
        """(path below the root, callable) of an image; "" when nothing is there."""
        if not self.root or not image or "\0" in image:
            return "", ""
        file, colon, name = image.rpartition(":")
        if not colon or "/" in name:
            file, name = image, ""
        path = os.path.realpath(os.path.join(self.root, file))
        if path != self.root and not path.startswith(f"{self.root}/"):
            raise refuse(f'image "{image}" lies outside the folder that images may be in')
        if not os.path.exists(path) or path == self.root:
            return "", ""
        if not name.isidentifier() or name == "latest":
            name = ""
        return path, name

    def _why_not(self, image: str) -> str:
        why = f'image "{image}" cannot be run: functions are processes here, not containers; '
        if not self.root:
            return why + 'say what to run as envProcess, or set "functions { root … }" in the conf'
        return why + "there is no such file or folder below the root, and no envProcess"


def names_of(said: Mapping[str, Any]) -> tuple[str, str]:
    """(name, namespace) of a deployment. Raises Refused."""
    name, namespace = str(said.get("service") or ""), str(said.get("namespace") or NAMESPACE)
    if NAME.fullmatch(name) is None:
        raise refuse(f'invalid function name "{name[:100]}"')
    if SPACE.fullmatch(namespace) is None:
        raise refuse(f'invalid namespace "{namespace[:100]}"')
    return name, namespace


def texts_of(said: Mapping[str, Any], name: str) -> dict[str, str]:
    """A map of text to text. Raises Refused."""
    found = said.get(name) or {}
    if not isinstance(found, dict) or not all(isinstance(it, str) for it in found.values()):
        raise refuse(f'"{name}" must be an object of strings')
    if name == "envVars":
        for key, text in found.items():
            if ENV_NAME.fullmatch(key) is None or "\0" in text:
                raise refuse(f'invalid environment variable "{key[:100]}"')
            if key in ("PORT", "SOCKET", "SECRETS_PATH"):
                raise refuse(f'environment variable "{key}" is set by Headrace')
    return found


def check_size(*maps: Mapping[str, str]) -> None:
    if sum(len(key) + len(text) for it in maps for key, text in it.items()) > MOST_TEXT:
        raise refuse(f"labels, annotations and variables are over {MOST_TEXT} bytes together")


def mode_of(env: Mapping[str, str]) -> str:
    """of-watchdog's `mode`: `http` is a server, all else a process for each request."""
    return "command" if env.get("mode") == "http" else ""


def secrets_of(said: Mapping[str, Any]) -> tuple[str, ...]:
    found = said.get("secrets") or []
    if not isinstance(found, list) or not all(isinstance(it, str) for it in found):
        raise refuse('"secrets" must be a list of names')
    for name in found:
        if SECRET_NAME.fullmatch(name) is None:
            raise refuse(f'invalid name of a secret "{name[:100]}"')
    return tuple(found)


def limits_of(said: Mapping[str, Any]) -> Limits:
    """`limits` {"memory": "128Mi", "cpu": "500m"}; `requests` mean nothing on one machine."""
    found = said.get("limits") or {}
    if not isinstance(found, dict):
        raise refuse('"limits" must be an object')
    memory, cpu = str(found.get("memory") or ""), str(found.get("cpu") or "")
    size, milli = 0, 0
    if memory:
        match = QUANTITY.fullmatch(memory)
        if match is None:
            raise refuse(f'invalid memory limit "{memory[:100]}"')
        size = round(float(match[1]) * UNITS[match[2]])
    if cpu:
        number = read_cpu_milli(cpu)
        if not number:
            raise refuse(f'invalid cpu limit "{cpu[:100]}"')
        milli = number
    return Limits(memory_bytes=size, cpu_milli=milli)

"""Secrets: files that only the gateway may read, a folder for each namespace.

A replica gets copies of those that its function names, in a folder of its own. When a secret is
updated the copies of replicas that run are, too, each whole at any moment, as a pod's are in
Kubernetes: who reads the file at each call needs no restart. One that is removed stays with those
that have it, to their end.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from proxy.functions.grammar import SECRET_NAME

if TYPE_CHECKING:
    from proxy.conf.inherit import Block

COPIES = "secrets"  # of a replica, in its folder
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Secrets:
    """The files below `folder`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, namespace: str, name: str) -> str:
        """Where it is or would be. Raises ValueError for what is no name."""
        if SECRET_NAME.fullmatch(name) is None or "/" in namespace or namespace[:1] in ("", "."):
            raise ValueError(f'invalid name of a secret "{name}"')
        return os.path.join(self.folder, namespace, name)

    def has(self, namespace: str, name: str) -> bool:
        return os.path.isfile(self.path(namespace, name))

    def names(self, namespace: str) -> list[str]:
        with contextlib.suppress(OSError):
            found = os.listdir(os.path.join(self.folder, namespace))
            return sorted(it for it in found if SECRET_NAME.fullmatch(it))
        return []

    def read(self, namespace: str, name: str) -> bytes:
        """Raises OSError."""
        with open(self.path(namespace, name), "rb") as file:
            return file.read()

    def write(self, namespace: str, name: str, value: bytes) -> None:
        """Whole or not at all. Raises OSError."""
        path = self.path(namespace, name)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        part = os.path.join(os.path.dirname(path), f".{name}.new")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(value)
        os.replace(part, path)

    def remove(self, namespace: str, name: str) -> None:
        """Raises FileNotFoundError."""
        os.unlink(self.path(namespace, name))


def renew_copy(folder: str, name: str, value: bytes) -> None:
    """Replace a copy in COPIES of a replica's folder, if it is there. Raises OSError.

    The folder belongs to the replica's user, who is not trusted: nothing that is a link is
    followed, and nothing is written where another owner's files are.
    """
    top = os.open(folder, FOLDER_FLAGS)
    try:
        at = os.open(COPIES, FOLDER_FLAGS, dir_fd=top)
    except OSError:
        os.close(top)
        raise
    try:
        owner = os.fstat(top)
        found = os.fstat(at), os.stat(name, dir_fd=at, follow_symlinks=False)
        if any(it.st_uid != owner.st_uid for it in found):
            raise PermissionError(f"{folder} has files of others")
        part = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=at)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
        with os.fdopen(fd, "wb") as file:
            file.write(value)
            if owner.st_uid != os.geteuid():
                os.fchown(fd, owner.st_uid, owner.st_gid)
        os.rename(part, name, src_dir_fd=at, dst_dir_fd=at)
    finally:
        os.close(at)
        os.close(top)


def secrets_of(model: Block) -> Secrets:
    """As the conf has them."""
    for http in model.find("http"):
        block = (http.find("functions") or [http])[0]
        return Secrets(os.path.abspath(http.path(block.get("secrets_path"))))
    return Secrets(os.path.abspath(model.path("var/secrets")))  # a reload may bring functions

"""Files of users and password hashes (htpasswd): read once, and again when they change."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error
from hashlib import sha1
from hmac import compare_digest

MOST_FILES = 256  # kept; a path made of variables may name many


class UserFiles:
    """What the user files that were asked for say."""

    def __init__(self) -> None:
        self.files: dict[bytes, tuple[tuple[int, int, int], dict[bytes, bytes]]] = {}

    def find(self, path: bytes, user: bytes) -> bytes | None:
        """The hash of a user's password, or None. Raises OSError when the file cannot be read."""
        status = os.stat(path)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        kept = self.files.get(path)
        if kept is None or kept[0] != stamp:
            with open(path, "rb") as file:
                kept = (stamp, read_users(file.read()))
            if len(self.files) >= MOST_FILES:
                self.files.clear()
            self.files[path] = kept
        return kept[1].get(user)


def read_users(text: bytes) -> dict[bytes, bytes]:
    """`user:hash` or `user:hash:comment` a line, `#` begins a comment; the first one counts."""
    users: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        if line.startswith(b"#"):
            continue
        user, colon, rest = line.partition(b":")
        if colon:
            users.setdefault(user, rest.partition(b":")[0].rstrip(b"\r"))
    return users


def check_fast(stored: bytes, password: bytes) -> bool | None:
    """Whether the password is right, for hashes that take no time; None for all others."""
    if stored.startswith(b"{PLAIN}"):
        return compare_digest(stored[7:], password)
    if stored.startswith(b"{SHA}"):
        return compare_digest(stored[5:], b64encode(sha1(password).digest()))
    if stored.startswith(b"{SSHA}"):
        try:
            raw = b64decode(stored[6:], validate=True)
        except Error:
            return False
        return len(raw) >= 20 and compare_digest(raw[:20], sha1(password + raw[20:]).digest())
    return None

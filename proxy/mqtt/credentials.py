"""Who a client of MQTT is: by password file, by a token as its password, or by certificate."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GOOD, BAD, SLOW, BROKEN = range(4)
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA", "Ed25519", "HS256", "HS384", "HS512"]  # fmt: skip
TOKEN_BYTES = 16 * 1024  # of a token: nobody's is longer who did not mean harm
LEEWAY_S = 30  # between the clocks of who made a token and ours


class Keeper:
    """The checks of one server. user_file and key_file are paths, or empty; find_user, check_fast
    and check_slow are of the room that reads password files."""

    def __init__(
        self,
        user_file: str,
        key_file: str,
        find_user: Callable[[bytes, bytes], bytes | None],
        check_fast: Callable[[bytes, bytes], bool | None],
        check_slow: Callable[[bytes, bytes], bool],
    ) -> None:
        self.user_file = os.fsencode(user_file)
        self.tokens = Tokens(key_file) if key_file else None
        self.find_user = find_user
        self.check_fast = check_fast
        self.check_slow = check_slow

    def judge(self, user: bytes | None, password: bytes | None) -> tuple[int, Any]:
        """(GOOD, who it is), (BAD, why), (BROKEN, why we cannot tell), or (SLOW, a function for a
        thread that answers whether the password is right)."""
        if password is None:
            return BAD, "no password"
        if self.tokens is not None and password.count(b".") == 2:
            try:
                name = self.tokens.name_of(password)
            except OSError as error:
                return BROKEN, f"keys cannot be read: {error}"
            if name is not None and (not user or user == name):
                return GOOD, name
            return BAD, "token refused"
        if not self.user_file or not user:
            return BAD, "no such user"
        try:
            stored = self.find_user(self.user_file, user)
        except OSError as error:
            return BROKEN, f'open() "{os.fsdecode(self.user_file)}" failed: {error.strerror}'
        if stored is None:
            return BAD, "no such user"
        is_right = self.check_fast(stored, password)
        if is_right is None:
            return SLOW, lambda: self.check_slow(stored, password)
        return (GOOD, user) if is_right else (BAD, "password mismatch")


class Tokens:
    """The keys of a JWKS file, read again when it changes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp: tuple[int, int, int] | None = None
        self.keys: Any = None

    def name_of(self, token: bytes) -> bytes | None:
        """The claim `sub` of a token that is good now, else None. Raises OSError."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > TOKEN_BYTES:
            return None
        self._read()
        try:
            text = token.decode("ascii")
            found = jwt.decode(text, self.keys, algorithms=ALGORITHMS)
            rules = jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S, exp={"essential": True}, sub={"essential": True}
            )
            rules.validate(found.claims)
        except (JoseError, ValueError, TypeError, KeyError):
            return None
        name = found.claims["sub"]
        if not isinstance(name, str) or not name or "\0" in name:
            return None
        return name.encode("utf-8", "replace")

    def _read(self) -> None:
        from joserfc.jwk import KeySet

        status = os.stat(self.path)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self.stamp:
            with open(self.path, "rb") as file:
                try:
                    self.keys = KeySet.import_key_set(json.loads(file.read()))
                except Exception as error:  # whatever a JSON that is no key set makes it raise
                    raise OSError(f"{self.path}: {error}") from None
            self.stamp = stamp


def common_name(subject: bytes) -> bytes:
    """CN of a certificate's subject as RFC 2253 writes it; b"" if there is none, or one that would
    have to be read with care."""
    for part in subject.split(b","):
        name, _, value = part.strip().partition(b"=")
        if name == b"CN":
            return b"" if b"\\" in value or b'"' in value else value
    return b""

"""allow, deny, auth_basic, auth_request and limit_except: declared, and frozen for a location."""

from __future__ import annotations

from collections import namedtuple
from functools import partial

from proxy.conf.directive import (
    HTTP,
    IN_MQTT,
    LIMIT_EXCEPT,
    LOCATION,
    SERVER,
    STREAM,
    STREAM_SERVER,
    directive,
)
from proxy.conf.report import ConfError
from proxy.conf.values import Duration, Text
from proxy.filters._access import AccessSettings
from proxy.filters.realip import freeze_realip
from proxy.filters.users import UserFiles, check_fast
from proxy.variables._variables import compile as compile_text
from proxy.variables._variables import define_stored
from proxy.variables.networks import read_network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.base._request import Location
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

EVERY = HTTP | SERVER | LOCATION
CHECK_ACCESS, CHECK_BASIC, CHECK_REQUEST, CHECK_METHOD = 4, 8, 16, 32
# by the numbers of base/head.pxd
METHODS = {name: number for number, name in enumerate(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND",
     "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"), 1)}  # fmt: skip


class AddressRule(namedtuple("AddressRule", ("is_allow", "kind", "net", "mask"))):
    """One allow or deny: kind 0 everybody, 1 Unix sockets, 4 or 16 bytes of an address."""


def read_rule(is_allow: bool, args: list[Token], block: Block) -> AddressRule:
    """`all`, `unix:`, an address or a network. Raises ConfError."""
    word = args[0]
    if word == "all":
        return AddressRule(is_allow, 0, b"", b"")
    if word == "unix:":
        return AddressRule(is_allow, 1, b"", b"")
    try:
        found = read_network(word)
    except ConfError:
        found = None
    if found is None:
        raise ConfError(word, f'invalid parameter "{word}"')
    first, prefix, bits = found
    mask = ((1 << prefix) - 1) << (bits - prefix)
    size = bits // 8
    return AddressRule(is_allow, size, (first & mask).to_bytes(size, "big"),
                       mask.to_bytes(size, "big"))


def read_request(args: list[Token], block: Block) -> Token | None:
    """`off` or the path of the sub-request."""
    return None if args[0] == "off" else args[0]


def read_set(args: list[Token], block: Block) -> tuple[str, Token]:
    """`$name value`. Raises ConfError."""
    if len(args[0]) < 2 or args[0][0] != "$":
        raise ConfError(args[0], f'invalid variable name "{args[0]}"')
    return args[0][1:], args[1]


def read_methods(args: list[Token], block: Block) -> int:
    """The methods that are let through, 1 << number each; GET means HEAD too."""
    mask = 0
    for word in args:
        number = METHODS.get(word.upper())
        if number is None:
            raise ConfError(word, f'invalid method "{word}"')
        mask |= 1 << number
    return mask | 1 << METHODS["HEAD"] if mask & 1 << METHODS["GET"] else mask


ADDRESSES = EVERY | LIMIT_EXCEPT | STREAM | STREAM_SERVER | IN_MQTT
RULE = "address | network | unix: | all"
directive("allow", ADDRESSES, read=partial(read_rule, True), least=1, most=1, many=True,
          syntax=RULE, doc="Lets clients of these addresses in; the first match counts.")
directive("deny", ADDRESSES, read=partial(read_rule, False), least=1, most=1, many=True,
          syntax=RULE, doc="Refuses clients of these addresses; the first match counts.")
directive("auth_basic", EVERY | LIMIT_EXCEPT, Text(), default="off",
          doc="Asks for a user name and password (RFC 7617); the text is the realm, off: nothing.")
directive("auth_basic_user_file", EVERY | LIMIT_EXCEPT | IN_MQTT, Text(),
          doc="The file of users and their password hashes, relative to the conf's directory.")
directive("auth_delay", EVERY, Duration(), default="0s",
          doc="Holds a 401 back for so long, against guessing.")
directive("auth_request", EVERY, read=read_request, least=1, most=1, syntax="uri | off",
          doc="Lets a request in when a sub-request to this path is answered by 2xx.")
directive("auth_request_set", EVERY, read=read_set, least=2, most=2, many=True,
          syntax="$variable value",
          doc="Sets a variable when the authorization sub-request is over.")
directive("limit_except", LOCATION, block=LIMIT_EXCEPT, read=read_methods, syntax="method … { … }",
          inherit=False, doc="What holds for all methods but these.")

files = UserFiles()


def rules_of(block: Block) -> list[AddressRule]:
    """allow and deny of the nearest level that has any, in the order of the conf."""
    at: Block | None = block
    while at is not None:
        if at.own("allow") or at.own("deny"):    # a server may have 10,000 statements
            return [it.value for it in at.statements if it.name in ("allow", "deny")]
        at = at.parent
    return []


def freeze_access(
    block: Block, inner: Callable[[Block], Location]
) -> AccessSettings | None:
    """The checks of a location, or None when everybody may come in as who he is.

    `inner` makes the Location of a limit_except block.
    """
    s = AccessSettings()
    rules = rules_of(block)
    for rule in rules:
        s.add_rule(*rule)
    if rules:
        s.checks |= CHECK_ACCESS
    realm, user_file = block.get("auth_basic"), block.get("auth_basic_user_file")
    if realm != "off" and user_file is not None:
        freeze_basic(s, block, realm, user_file)
    uri = block.get("auth_request")
    for name, text in block.get("auth_request_set"):
        s.sets = [*(s.sets or ()), (define_stored(name, name), compile_text(text))]
    if uri is not None:
        path, _, args = uri.encode("utf-8", "surrogateescape").partition(b"?")
        s.ask_uri, s.ask_args = path, args
        s.checks |= CHECK_REQUEST
    s.delay_ms = block.get("auth_delay")
    for found in block.find("limit_except"):
        s.checks |= CHECK_METHOD
        s.except_methods = found.value
        s.except_location = inner(found)
    s.realip = freeze_realip(block)
    return s if s.checks or s.realip else None


def freeze_basic(s: AccessSettings, block: Block, realm: Token, user_file: Token) -> None:
    s.checks |= CHECK_BASIC
    s.realm = compile_text(realm)
    s.user_file = compile_text(user_file)
    s.prefix = block.conf_prefix.encode("utf-8", "surrogateescape").rstrip(b"/") + b"/"
    s.find_user = files.find
    s.check_fast = check_fast
    s.check_slow = check_slow


def check_slow(stored: bytes, password: bytes) -> bool:
    """For a thread: milliseconds and more. The library is loaded by the first to ask."""
    from proxy.filters._crypt import is_right

    return is_right(stored, password)

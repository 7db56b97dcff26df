"""What the upstream says about itself, seen from outside: Location, Refresh and Set-Cookie.

proxy_redirect, proxy_cookie_domain, proxy_cookie_path and proxy_cookie_flags: read from the
conf into rules, compiled by the plan, applied as pure functions (bytes → bytes, or None: as is).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.conf.report import ConfError
from proxy.upstream.proxy_pass import default_redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

FLAGS = (
    "secure", "nosecure", "httponly", "nohttponly",
    "samesite=strict", "samesite=lax", "samesite=none", "nosamesite",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of proxy_redirect, proxy_cookie_domain or proxy_cookie_path.

    kind: `off`, `default`, `prefix`, `domain`, or `regex` (is_caseless with it). pattern and
    replacement: text that may hold $variables (in a regex's replacement: its captures).
    """

    kind: str
    pattern: str = ""
    replacement: str = ""
    is_caseless: bool = False


@dataclass(frozen=True, slots=True)
class FlagRule:
    """One line of proxy_cookie_flags. kind: `off`, `name` or `regex`; pattern: the cookie's
    name, with $variables, or a caseless regex; flags: texts with $variables."""

    kind: str
    pattern: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Rule or FlagRule made ready: pattern(request) → bytes, or matches(request, value) →
    bool for a regex; replacement(request) → bytes after a match; flags likewise."""

    kind: str
    pattern: Callable[[Any], bytes] | None = None
    matches: Callable[[Any, bytes], bool] | None = None
    replacement: Callable[[Any], bytes] | None = None
    flags: tuple[Callable[[Any], bytes], ...] = ()


def read_redirect(args: list[Token], block: Block) -> Rule:
    """`proxy_redirect off | default | FROM TO`. Raises ConfError."""
    _refuse_beside_off(args, block, "proxy_redirect")
    if len(args) == 1:
        if args[0] == "default":
            try:
                default_redirect(block.own("proxy_pass"))
            except ValueError as error:
                raise ConfError(args[0], str(error)) from None
        if args[0] not in ("off", "default"):
            raise ConfError(args[0], f'invalid parameter "{args[0]}"')
        return Rule(str(args[0]))
    return _read_pattern(args)


def read_cookie_domain(args: list[Token], block: Block) -> Rule:
    """`proxy_cookie_domain off | DOMAIN REPLACEMENT`; a leading dot says nothing."""
    _refuse_beside_off(args, block, "proxy_cookie_domain")
    if len(args) == 1:
        return _off(args)
    if args[0].startswith("~"):
        return Rule("regex", args[0][1:], args[1], True)
    return Rule("domain", args[0].removeprefix("."), args[1].removeprefix("."))


def read_cookie_path(args: list[Token], block: Block) -> Rule:
    """`proxy_cookie_path off | PATH REPLACEMENT`."""
    _refuse_beside_off(args, block, "proxy_cookie_path")
    return _off(args) if len(args) == 1 else _read_pattern(args)


def read_cookie_flags(args: list[Token], block: Block) -> FlagRule:
    """`proxy_cookie_flags off | COOKIE [FLAG …]`."""
    _refuse_beside_off(args, block, "proxy_cookie_flags")
    if len(args) == 1:
        _off(args)
        return FlagRule("off")
    if args[0].startswith("~"):
        return FlagRule("regex", args[0][1:], tuple(args[1:]))
    return FlagRule("name", args[0], tuple(args[1:]))


def _read_pattern(args: list[Token]) -> Rule:
    if args[0].startswith("~*"):
        return Rule("regex", args[0][2:], args[1], True)
    if args[0].startswith("~"):
        return Rule("regex", args[0][1:], args[1])
    return Rule("prefix", args[0], args[1])


def _off(args: list[Token]) -> Rule:
    if args[0] != "off":
        raise ConfError(args[0], f'invalid parameter "{args[0]}"')
    return Rule("off")


def _refuse_beside_off(args: list[Token], block: Block, name: str) -> None:
    others = block.own(name) or []
    if others and (args[0] == "off" and len(args) == 1 or others[0].kind == "off"):
        raise ConfError(args[0], f'"{name}" directive is duplicate')


def compile_rules(
    rules: Sequence[Rule | FlagRule],
    compile_text: Callable[[str], Callable[[Any], bytes]],
    compile_regex: Callable[[str, bool], Callable[[Any, bytes], bool]],
    default: tuple[str, str] | None = None,
) -> tuple[Compiled, ...]:
    """Make rules ready; empty when they are off. default: what `proxy_redirect default` stands
    for (proxy_pass.default_redirect), plain text. compile_regex(pattern, is_caseless)."""
    ready = []
    for rule in rules:
        if rule.kind == "off":
            return ()
        if isinstance(rule, FlagRule):
            flags = tuple(compile_text(flag) for flag in rule.flags)
            if rule.kind == "regex":
                matches = compile_regex(rule.pattern, True)
                ready.append(Compiled("regex", matches=matches, flags=flags))
            else:
                ready.append(Compiled("name", pattern=compile_text(rule.pattern), flags=flags))
        elif rule.kind == "default":
            if default is not None:
                pattern, text = (_constant(part.encode()) for part in default)
                ready.append(Compiled("prefix", pattern=pattern, replacement=text))
        elif rule.kind == "regex":
            matches = compile_regex(rule.pattern, rule.is_caseless)
            text = compile_text(rule.replacement)
            ready.append(Compiled("regex", matches=matches, replacement=text))
        else:
            pattern, text = compile_text(rule.pattern), compile_text(rule.replacement)
            ready.append(Compiled(rule.kind, pattern=pattern, replacement=text))
    return tuple(ready)


def _constant(value: bytes) -> Callable[[Any], bytes]:
    return lambda _request: value


def rewrite_location(value: bytes, rules: Sequence[Compiled], request: Any) -> bytes | None:
    """A Location value after the first rule that matches, or None: none does."""
    for rule in rules:
        found = _apply(value, rule, request)
        if found is not None:
            return found
    return None


def rewrite_refresh(value: bytes, rules: Sequence[Compiled], request: Any) -> bytes | None:
    """The same for the URL of a Refresh value (`5; url=…`)."""
    at = value.lower().find(b"url=")
    if at < 0:
        return None
    url = rewrite_location(value[at + 4 :], rules, request)
    return None if url is None else value[: at + 4] + url


def _apply(value: bytes, rule: Compiled, request: Any) -> bytes | None:
    if rule.kind == "regex":
        assert rule.matches is not None and rule.replacement is not None
        return rule.replacement(request) if rule.matches(request, value) else None
    assert rule.pattern is not None and rule.replacement is not None
    pattern = rule.pattern(request)
    if rule.kind == "domain":
        dot = b"." if value.startswith(b".") else b""
        if value[len(dot) :].lower() != pattern.lower():
            return None
        return dot + rule.replacement(request)
    if not value.startswith(pattern):
        return None
    return rule.replacement(request) + value[len(pattern) :]


def rewrite_cookie(
    value: bytes,
    domains: Sequence[Compiled],
    paths: Sequence[Compiled],
    flags: Sequence[Compiled],
    request: Any,
) -> bytes | None:
    """A Set-Cookie value with its Domain, Path and flags changed, or None: leave it.

    What is no name=value pair at its beginning is left alone (RFC 6265 §5.2).
    """
    attributes = [_split_attribute(part) for part in value.split(b";")]
    if attributes[0][1] is None:
        return None
    is_changed = False
    for number in range(1, len(attributes)):
        name, text = attributes[number]
        rules = {b"domain": domains, b"path": paths}.get(name.lower(), ())
        if text is None or not rules:
            continue
        new = rewrite_location(text, rules, request)
        if new is not None:
            attributes[number] = (name, new)
            is_changed = True
    wanted = _wanted_flags(attributes[0][0], flags, request)
    if wanted:
        attributes = _edit_flags(attributes, wanted)
        is_changed = True
    if not is_changed:
        return None
    return b"; ".join(name if text is None else name + b"=" + text for name, text in attributes)


def _split_attribute(part: bytes) -> tuple[bytes, bytes | None]:
    name, equals, text = part.partition(b"=")
    return name.strip(b" "), text.strip(b" ") if equals else None


def _wanted_flags(cookie: bytes, rules: Sequence[Compiled], request: Any) -> set[str]:
    for rule in rules:
        if rule.matches is not None:
            is_match = rule.matches(request, cookie)
        else:
            assert rule.pattern is not None
            is_match = rule.pattern(request).lower() == cookie.lower()
        if is_match:
            words = (flag(request).decode("latin-1").lower() for flag in rule.flags)
            return {word for word in words if word in FLAGS}
    return set()


def _edit_flags(
    attributes: list[tuple[bytes, bytes | None]], wanted: set[str]
) -> list[tuple[bytes, bytes | None]]:
    same_site = next((word for word in FLAGS[4:7] if word in wanted), "").partition("=")[2]
    missing = {word for word in ("secure", "httponly") if word in wanted}
    is_same_site_missing = bool(same_site)
    after = attributes[:1]
    for name, text in attributes[1:]:
        word = name.lower().decode("latin-1")
        if word in ("secure", "httponly"):
            if word not in wanted and "no" + word in wanted:
                continue
            missing.discard(word)
        elif word == "samesite":
            if is_same_site_missing:
                is_same_site_missing = False
                if (text or b"").lower() != same_site.encode():
                    name, text = b"SameSite", same_site.capitalize().encode()
            elif not same_site and "nosamesite" in wanted:
                continue
        after.append((name, text))
    if "secure" in missing:
        after.append((b"Secure", None))
    if "httponly" in missing:
        after.append((b"HttpOnly", None))
    if is_same_site_missing:
        after.append((b"SameSite", same_site.capitalize().encode()))
    return after

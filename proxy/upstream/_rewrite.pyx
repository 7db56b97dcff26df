"""Rules of rewrite_reply bound to the request's variables: what ProxySettings calls per answer."""

from proxy.base._request cimport Request
from proxy.base.span cimport Str, of_bytes, to_bytes
from proxy.variables._variables cimport Regex, Template, evaluate, keep, match_regex

from proxy.upstream.proxy_pass import VariableTarget, default_redirect
from proxy.upstream.rewrite_reply import (
    Rule,
    compile_rules,
    rewrite_cookie,
    rewrite_location,
    rewrite_refresh,
)
from proxy.variables._variables import compile as compile_text


cdef class TextOf:
    """A Template as a callable: request → bytes. RuntimeError: a variable failed."""

    cdef Template template

    def __cinit__(self, Template template not None):
        self.template = template

    def __call__(self, Request request not None):
        cdef Str value
        if evaluate(self.template, request, &value) < 0:
            raise RuntimeError("a variable has no value")
        return to_bytes(value)


cdef class MatchOf:
    """A Regex as a callable: request, bytes → bool; a match sets the request's captures."""

    cdef Regex regex

    def __cinit__(self, Regex regex not None):
        self.regex = regex

    def __call__(self, Request request not None, bytes value not None):
        # captures point into the subject, so that goes where it lives as long as the request
        cdef Str subject = keep(request, of_bytes(value))
        cdef int found
        if subject.p == NULL:
            if value:
                raise MemoryError
            subject.p = b""
        found = match_regex(self.regex, request, subject)
        if found < 0:
            raise RuntimeError("a pattern did not come to an end")
        return found > 0


def bind_rules(rules, block, default=None):
    """compile_rules with the variables and patterns of this plan. Raises ConfError."""
    return compile_rules(
        rules,
        lambda text: TextOf(compile_text(text, block)),
        lambda pattern, is_caseless: MatchOf(Regex(pattern, is_caseless, block)),
        default,
    )


def freeze_redirects(block, target):
    """The callable (request, value, is_refresh) → bytes or None of proxy_redirect; None: off.

    block: the location; target: its proxy_pass (Target or VariableTarget).
    """
    default = None if isinstance(target, VariableTarget) else default_redirect(target)
    rules = bind_rules(block.get("proxy_redirect") or [Rule("default")], block, default)
    if not rules:
        return None

    def rewrite(request, value, is_refresh=False):
        return (rewrite_refresh if is_refresh else rewrite_location)(value, rules, request)

    return rewrite


def freeze_cookies(block):
    """The callable (request, value, _) → bytes or None of proxy_cookie_…; None: all off."""
    domains = bind_rules(block.get("proxy_cookie_domain"), block)
    paths = bind_rules(block.get("proxy_cookie_path"), block)
    flags = bind_rules(block.get("proxy_cookie_flags"), block)
    if not (domains or paths or flags):
        return None

    def rewrite(request, value, _is_refresh=False):
        return rewrite_cookie(value, domains, paths, flags, request)

    return rewrite

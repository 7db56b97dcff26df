# Who may come in, as one location says it: addresses, passwords, a sub-request's answer.

from cython cimport final
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from proxy.base._client cimport Address
from proxy.base._request cimport Location, Request
from proxy.variables._variables cimport Template


cdef enum RuleKind:
    RULE_ALL = 0
    RULE_UNIX = 1
    RULE_IPV4 = 4
    RULE_IPV6 = 16


cdef struct Rule:             # one allow or deny
    uint8_t kind              # RuleKind
    uint8_t is_allow
    uint8_t net[16]
    uint8_t mask[16]


cdef enum Judged:             # what one check says; else a status that refuses
    DECLINED = 0              # nothing
    LET_IN = 200


@final
cdef class AccessSettings:
    cdef Rule* rules
    cdef readonly uint32_t n_rules
    cdef public uint32_t checks           # Check bits that this location has
    cdef public Template realm            # auth_basic
    cdef public Template user_file        # auth_basic_user_file
    cdef public bytes prefix              # what a user file's path begins with
    cdef public object find_user          # callable(path, user) → hash or None; OSError
    cdef public object check_fast         # callable(hash, password) → bool, None: it takes long
    cdef public object check_slow         # the same for a thread
    cdef public uint32_t delay_ms         # auth_delay
    cdef public bytes ask_uri             # auth_request
    cdef public bytes ask_args
    cdef public list sets                 # auth_request_set: (variable number, Template)
    cdef public uint32_t except_methods   # limit_except: 1 << Method each
    cdef public Location except_location  # what holds for all the others
    cdef public object realip             # whose word about the address counts, or None


# The first rule that speaks of this address, or NULL.
cdef const Rule* match_rule(AccessSettings s, const Address* a) noexcept


# allow and deny, first match. DECLINED, LET_IN or 403.
cdef int judge_address(AccessSettings s, Request r) noexcept

# auth_basic. DECLINED, LET_IN, 401 (its WWW-Authenticate is among r.out), 403, 500; or -1: it
# takes long, then `slow` gets what check_slow(hash, password) is to be asked.
cdef int judge_password(AccessSettings s, Request r, list slow) noexcept
# 401 with its challenge, or 500.
cdef int ask_password(AccessSettings s, Request r) noexcept

# auth_request: what the sub-request's answer means, fields and variables taken over.
cdef int judge_answer(AccessSettings s, Request r, Request sub) noexcept

# satisfy any: somebody let it in after all.
cdef void forget_challenge(Request r) noexcept

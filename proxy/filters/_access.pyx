# The checks of the access phase, each asked once per location that a request comes to.
#
# nginx: ngx_http_access_module, ngx_http_auth_basic_module, ngx_http_auth_request_module. Their
# order and `satisfy` are the conductor's; nothing here waits.

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from proxy.base._arena cimport copy, take
from proxy.base._client cimport Address
from proxy.base._report cimport R_CRIT, R_ERROR, report, report_about, report_text
from proxy.base._told cimport R_ALERT, tell_error
from proxy.base.head cimport *
from proxy.base.span cimport Str, is_same_word, of_bytes, text, to_bytes
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._variables cimport evaluate, keep, put_value

from binascii import a2b_base64
from errno import ENOENT


cdef class AccessSettings:
    def __dealloc__(self):
        free(self.rules)

    def add_rule(self, bint is_allow, int kind, bytes net=b"", bytes mask=b""):
        """kind 0 all, 1 unix:, 4 or 16: bytes of an address; net and mask in network order."""
        cdef Rule* grown = <Rule*>realloc(self.rules, (self.n_rules + 1) * sizeof(Rule))
        if grown == NULL:
            raise MemoryError
        self.rules = grown
        memset(&grown[self.n_rules], 0, sizeof(Rule))
        grown[self.n_rules].is_allow = is_allow
        grown[self.n_rules].kind = <uint8_t>kind
        memcpy(grown[self.n_rules].net, <const char*>net, <size_t>min(len(net), 16))
        memcpy(grown[self.n_rules].mask, <const char*>mask, <size_t>min(len(mask), 16))
        self.n_rules += 1


cdef bint is_within(const uint8_t* address, const Rule* rule, int n) noexcept:
    cdef int i
    for i in range(n):
        if address[i] & rule.mask[i] != rule.net[i]:
            return False
    return True


cdef const Rule* match_rule(AccessSettings s, const Address* a) noexcept:
    cdef const Rule* rule
    cdef uint32_t i
    cdef const uint8_t* mapped = NULL
    cdef bint matches
    if a.binary_n == 16 and is_mapped(a.binary):
        mapped = &a.binary[12]               # an IPv4 client on an IPv6 socket
    for i in range(s.n_rules):
        rule = &s.rules[i]
        if rule.kind == RULE_ALL:
            matches = True
        elif rule.kind == RULE_UNIX:
            matches = a.binary_n == 0
        elif rule.kind == RULE_IPV4:
            matches = (a.binary_n == 4 and is_within(a.binary, rule, 4)
                       or mapped != NULL and is_within(mapped, rule, 4))
        else:
            matches = a.binary_n == 16 and mapped == NULL and is_within(a.binary, rule, 16)
        if matches:
            return rule
    return NULL


cdef int judge_address(AccessSettings s, Request r) noexcept:
    cdef const Rule* rule
    if r.client is None:
        return DECLINED
    rule = match_rule(s, &r.client.address)
    if rule == NULL:
        return DECLINED
    if not rule.is_allow:
        report_text(R_ERROR, r, b"access forbidden by rule")
    return LET_IN if rule.is_allow else 403


cdef bint is_mapped(const uint8_t* p) noexcept:
    """::ffff:a.b.c.d (RFC 4291 §2.5.5.2)."""
    cdef int i
    for i in range(10):
        if p[i]:
            return False
    return p[10] == 0xFF and p[11] == 0xFF


# -- passwords ---------------------------------------------------------------------------

cdef int ask_password(AccessSettings s, Request r) noexcept:
    """401 with a challenge (RFC 7617 §2)."""
    cdef Str realm
    cdef Str value
    cdef char* p
    cdef int rc = evaluate(s.realm, r, &realm)
    if rc < 0:
        return 500
    p = <char*>take(&r.arena, realm.n + 16)
    if p == NULL:
        return 500
    memcpy(p, b'Basic realm="', 13)
    if realm.n:
        memcpy(p + 13, realm.p, realm.n)
    p[13 + realm.n] = c'"'
    value = text(p, realm.n + 14)
    if r.add_field(text(b"WWW-Authenticate", 16), value, F_WWW_AUTHENTICATE) == NULL:
        return 500
    return 401


cdef bytes credentials(Request r):
    """`user:password` of the client, or None."""
    cdef const Field* f
    cdef Str value
    if r.head.fields == NULL:
        return None
    f = find_field(&r.head, F_AUTHORIZATION)
    if f == NULL:
        return None
    value = value_of(&r.head, f)
    if value.n < 7 or not is_same_word(value.p, b"Basic ", 6):
        return None
    try:
        return a2b_base64(to_bytes(text(value.p + 6, value.n - 6)).strip(), strict_mode=True)
    except ValueError:
        return None


cdef int judge_password(AccessSettings s, Request r, list slow) noexcept:
    cdef Str value
    cdef bytes given
    cdef bytes told
    cdef bytes path = b""
    if evaluate(s.realm, r, &value) < 0:
        return 500
    if value.n == 3 and is_same_word(value.p, b"off", 3):
        return DECLINED
    try:
        given = credentials(r)
        if given is None or b":" not in given:
            return ask_password(s, r)
        user, _, password = given.partition(b":")
        if not user:
            return ask_password(s, r)
        if evaluate(s.user_file, r, &value) < 0:
            return 500
        path = to_bytes(value)
        if not path.startswith(b"/"):
            path = s.prefix + path
        stored = s.find_user(path, user)
        if stored is None:
            tell_user(r, user, b'" was not found')
            return ask_password(s, r)
        is_right = s.check_fast(stored, password)
        if is_right is None:
            slow.append(stored)
            slow.append(password)
            return -1
        if not is_right:
            tell_user(r, user, b'": password mismatch')
        return LET_IN if is_right else ask_password(s, r)
    except OSError as error:
        told = f'open() "{shown(path)}" failed ({error.errno}: {error.strerror})'.encode()
        report(R_ERROR if error.errno == ENOENT else R_CRIT, r, of_bytes(told))
        return 403 if error.errno == ENOENT else 500
    except Exception as error:
        tell_error(R_ALERT, r, "checking a password", error)
        return 500


cdef str shown(bytes name):
    return name.decode("utf-8", "backslashreplace")


cdef void tell_user(Request r, bytes user, const char* behind) noexcept:
    cdef bytes told
    try:
        told = "".join([c if c.isprintable() else "?" for c in shown(user)[:256]]).encode()
    except Exception:
        return
    report_about(R_ERROR, r, b'user "', of_bytes(told), behind)


cdef void forget_challenge(Request r) noexcept:
    cdef uint16_t i
    for i in range(r.n_out):
        if r.out[i].id == F_WWW_AUTHENTICATE:
            r.out[i].name.n = 0
            r.out[i].id = 0


# -- a sub-request's answer --------------------------------------------------------------

cdef int take_challenge(Request r, Str name, Str value) noexcept:
    name = copy(&r.arena, name)
    value = copy(&r.arena, value)
    return 0 if r.add_field(name, value, F_WWW_AUTHENTICATE) != NULL else NO_MEMORY


cdef int judge_answer(AccessSettings s, Request r, Request sub) noexcept:
    cdef Str value
    cdef bytes told
    cdef uint16_t i
    cdef Field* f
    cdef uint32_t number
    if s.sets is not None:
        for pair in s.sets:
            if evaluate(<Template>pair[1], sub, &value) < 0:
                return 500
            number = pair[0]
            if put_value(r, number, keep(r, value)) < 0:
                return 500
    if 200 <= sub.status < 300:
        return LET_IN
    if sub.status == 403:
        return 403
    if sub.status != 401:
        told = f"auth request unexpected status: {sub.status}".encode()
        report(R_ERROR, r, of_bytes(told))
        return 500
    if sub.answer.fields != NULL and not sub.is_answer_ours:
        for i in range(sub.answer.n_fields):
            f = &sub.answer.fields[i]
            if f.id == F_WWW_AUTHENTICATE and take_challenge(
                    r, name_of(&sub.answer, f), value_of(&sub.answer, f)) < 0:
                return 500
    for i in range(sub.n_out):
        if sub.out[i].id == F_WWW_AUTHENTICATE and take_challenge(
                r, sub.out[i].name, sub.out[i].value) < 0:
            return 500
    return 401

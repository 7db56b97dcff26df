# limit_conn and limit_req of one request. Both count a request once, whatever it is
# redirected to inside (nginx: the main request's status is looked at).

from libc.stdint cimport uint32_t

from libc.stdio cimport snprintf

from proxy.base._clock cimport clock
from proxy.base._report cimport report_text
from proxy.base.span cimport Str
from proxy.base.verdict cimport GO, LIMITED
from proxy.limits._conn cimport (
    CONN_LIMITS_MAX, CONN_NONE, CONN_NO_ROOM, CONN_PASSED, CONN_REJECTED, CONN_REJECTED_DRY_RUN,
    limit_conn_give_all, limit_conn_take_all,
)
from proxy.limits._req cimport (
    REQ_DELAYED, REQ_LIMITS_MAX, REQ_NO_ROOM, REQ_REJECTED, dry_run_of, limit_req_check_all,
)
from proxy.variables._variables cimport Template, evaluate


cdef class LimitSettings:
    pass


cdef int evaluate_keys(list templates, Request r, Str* keys) noexcept:
    cdef Py_ssize_t i
    cdef int rc
    for i in range(len(templates)):
        rc = evaluate(<Template>templates[i], r, &keys[i])
        if rc < 0:
            return rc
    return 0


cdef int take_conns(LimitSettings s, Request r) noexcept:
    cdef Str keys[CONN_LIMITS_MAX]
    cdef uint32_t which = 0
    cdef int rc
    if r.main.limit_conn_status != CONN_NONE:
        return GO
    rc = evaluate_keys(s.conn_keys, r, keys)
    if rc < 0:
        return rc
    rc = limit_conn_take_all(<ConnLimits>s.conns, keys, s.worker, r.main.conns, &which)
    if rc == CONN_REJECTED or rc == CONN_NO_ROOM:
        r.main.limit_conn_status = CONN_REJECTED_DRY_RUN if s.conn_dry_run else CONN_REJECTED
        report_conn(s, r, which)
        if s.conn_dry_run:
            return GO
        r.status = <unsigned short>s.conn_status
        return LIMITED
    r.main.limit_conn_status = <unsigned char>rc
    if rc == CONN_PASSED:
        r.main.conn_limits = s
    return GO


cdef void give_conns(Request r) noexcept:
    cdef LimitSettings s
    if r.conn_limits is not None:
        s = <LimitSettings>r.conn_limits
        limit_conn_give_all(<ConnLimits>s.conns, r.conns, s.worker)
        r.conn_limits = None


cdef int check_reqs(LimitSettings s, Request r, uint64_t* delay_ms) noexcept:
    cdef Str keys[REQ_LIMITS_MAX]
    cdef uint32_t which = 0
    cdef uint32_t excess = 0
    cdef int rc
    delay_ms[0] = 0
    if r.main.limit_req_status:
        return GO
    rc = evaluate_keys(s.req_keys, r, keys)
    if rc < 0:
        return rc
    rc = limit_req_check_all(<ReqLimits>s.reqs, keys, clock.now_ms, delay_ms, &excess, &which)
    if rc == REQ_REJECTED or rc == REQ_NO_ROOM or rc == REQ_DELAYED:
        report_req(s, r, rc == REQ_DELAYED, excess, which)
    if s.req_dry_run:
        delay_ms[0] = 0
        r.main.limit_req_status = <unsigned char>dry_run_of(rc)
        return GO
    r.main.limit_req_status = REQ_REJECTED if rc == REQ_NO_ROOM else <unsigned char>rc
    if rc == REQ_REJECTED or rc == REQ_NO_ROOM:
        r.status = <unsigned short>s.req_status
        return LIMITED
    return GO


# What is refused or held back is told, at the level that limit_…_log_level says; a delay
# one level lower (nginx: ngx_http_limit_req_module, ngx_http_limit_conn_module).

cdef enum:
    WORDS = 384           # a zone's name takes 255 bytes of it at most


cdef void report_req(LimitSettings s, Request r, bint is_delay, uint32_t excess,
                     uint32_t which) noexcept:
    cdef char[WORDS] words
    cdef bytes zone
    try:
        zone = s.req_zones[which]
    except Exception:
        return
    snprintf(words, WORDS, "%s%s, excess: %u.%03u%s by zone \"%.255s\"",
             <const char*>(b"delaying request" if is_delay else b"limiting requests"),
             <const char*>(b", dry run" if s.req_dry_run else b""), excess // 1000,
             excess % 1000, <const char*>(b"," if is_delay else b""), <const char*>zone)
    report_text(s.req_level + is_delay, r, words)


cdef void report_conn(LimitSettings s, Request r, uint32_t which) noexcept:
    cdef char[WORDS] words
    cdef bytes zone
    try:
        zone = s.conn_zones[which]
    except Exception:
        return
    snprintf(words, WORDS, "limiting connections%s by zone \"%.255s\"",
             <const char*>(b", dry run" if s.conn_dry_run else b""), <const char*>zone)
    report_text(s.conn_level, r, words)

# May a request that failed at one peer be sent to the next? (proxy_next_upstream)
#
# Inline and pure. The numbers are those of next_upstream.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base.head cimport M_LOCK, M_PATCH, M_POST
from proxy.base.verdict cimport (
    UPSTREAM_BAD_HEAD,
    UPSTREAM_CLOSED,
    UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_HEAD_TOO_LARGE,
    UPSTREAM_READ_TIMEOUT,
    UPSTREAM_REFUSED,
    UPSTREAM_SEND_TIMEOUT,
    UPSTREAM_STATUS,
)


cdef enum NextCondition:
    NEXT_ERROR = 1
    NEXT_TIMEOUT = 2
    NEXT_INVALID_HEADER = 4
    NEXT_500 = 8
    NEXT_502 = 16
    NEXT_503 = 32
    NEXT_504 = 64
    NEXT_403 = 128
    NEXT_404 = 256
    NEXT_429 = 512
    NEXT_NON_IDEMPOTENT = 1024
    NEXT_OFF = 2048


cdef inline uint32_t condition_of(int fault, int status) noexcept nogil:
    """The condition that a fault, or with UPSTREAM_STATUS a status, is; 0: never retried."""
    if fault == UPSTREAM_REFUSED or fault == UPSTREAM_CLOSED:
        return NEXT_ERROR
    if (fault == UPSTREAM_CONNECT_TIMEOUT or fault == UPSTREAM_READ_TIMEOUT
            or fault == UPSTREAM_SEND_TIMEOUT):
        return NEXT_TIMEOUT
    if fault == UPSTREAM_BAD_HEAD or fault == UPSTREAM_HEAD_TOO_LARGE:
        return NEXT_INVALID_HEADER
    if fault != UPSTREAM_STATUS:
        return 0
    if status == 500:
        return NEXT_500
    if status == 502:
        return NEXT_502
    if status == 503:
        return NEXT_503
    if status == 504:
        return NEXT_504
    if status == 403:
        return NEXT_403
    if status == 404:
        return NEXT_404
    if status == 429:
        return NEXT_429
    return 0


# Whether the request may go to another peer.
#
# conditions: the location's bits. condition: condition_of(). tries: attempts left after
# this one (Tried.tries once on_released has counted, and refund_try after a kept
# connection broke). bytes_written: of the request, to this peer. is_body_held: all of
# the body that was read is still in memory or in its file. is_answered: a byte of an
# answer has gone to the client. deadline_ms: start + proxy_next_upstream_timeout, or 0.
cdef inline bint may_retry(uint32_t conditions, uint32_t condition, uint32_t tries,
                           uint8_t method, uint64_t bytes_written, bint is_body_held,
                           bint is_answered, uint64_t now_ms, uint64_t deadline_ms) noexcept nogil:
    if is_answered or not is_body_held or condition == 0 or conditions & NEXT_OFF or tries == 0:
        return False
    # what may have been acted on is sent twice only if the conf says so
    if bytes_written and (method == M_POST or method == M_LOCK or method == M_PATCH):
        condition |= NEXT_NON_IDEMPOTENT
    if conditions & condition != condition:
        return False
    return not (deadline_ms and now_ms >= deadline_ms)

"""The decision of proxy_next_upstream for callers in Python; compiled code cimports it inline."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.upstream.next_upstream cimport condition_of, may_retry


def condition(int fault, int status=0):
    """The bit of next_upstream.CONDITIONS that a FaultCode (and status) is; 0: never retried."""
    return condition_of(fault, status)


def decide(uint32_t conditions, int fault, *, int status=0, uint32_t tries=1, uint8_t method=1,
           uint64_t bytes_written=0, bint is_body_held=True, bint is_answered=False,
           uint64_t now_ms=0, uint64_t deadline_ms=0):
    """May the request go to the next peer? Arguments as may_retry in next_upstream.pxd."""
    return may_retry(conditions, condition_of(fault, status), tries, method, bytes_written,
                     is_body_held, is_answered, now_ms, deadline_ms)

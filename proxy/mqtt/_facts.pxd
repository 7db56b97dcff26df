# What is known of a client of MQTT, for the $mqtt_… variables.

from cython cimport final
from libc.stdint cimport uint8_t, uint64_t

from proxy.base.span cimport Str


@final
cdef class MqttFacts:
    """Hangs on Request.call of a session. The texts point into `kept`."""
    cdef object kept              # bytes, or None
    cdef Str client_id
    cdef Str user
    cdef uint8_t version          # 4 or 5; 0: not known
    cdef uint8_t reason           # why we ended it, 0: we did not
    cdef uint64_t published       # PUBLISHes of the client
    cdef uint64_t refused         # … that were not let through
    cdef uint64_t throttled       # how often it had to wait for its rate

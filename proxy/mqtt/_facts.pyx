# The variables that sessions of mqtt { } have beside those of a stream.

from libc.stdint cimport uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.variables._variables cimport NO_CACHE, declare
from proxy.variables._write cimport tell, tell_number

from proxy.variables._variables import tell_stream


cdef class MqttFacts:
    pass


cdef int get_text(Request r, uint64_t which, Str* out) noexcept:
    cdef MqttFacts f
    if type(r.call) is not MqttFacts:
        return 0
    f = <MqttFacts>r.call
    out[0] = f.client_id if which == 0 else f.user
    return 1 if out.n else 0


cdef int get_version(Request r, uint64_t data, Str* out) noexcept:
    cdef MqttFacts f
    if type(r.call) is not MqttFacts:
        return 0
    f = <MqttFacts>r.call
    if f.version == 4:
        return tell(out, "3.1.1", 5)
    return tell(out, "5", 1) if f.version == 5 else 0


cdef int get_number(Request r, uint64_t which, Str* out) noexcept:
    cdef MqttFacts f
    if type(r.call) is not MqttFacts:
        return 0
    f = <MqttFacts>r.call
    if which == 0:
        return tell_number(r, f.published, out)
    if which == 1:
        return tell_number(r, f.refused, out)
    if which == 2:
        return tell_number(r, f.throttled, out)
    return tell_number(r, f.reason, out)


# No name in a conf has a colon: http { } cannot reach these.
for _name, _which in ((b"mqtt_client_id", 0), (b"mqtt_user", 1)):
    declare(b"mqtt:" + _name, get_text, _which, NO_CACHE)
    tell_stream(_name, b"mqtt:" + _name)
declare(b"mqtt:mqtt_version", get_version, 0, NO_CACHE)
tell_stream(b"mqtt_version", b"mqtt:mqtt_version")
for _name, _which in ((b"mqtt_published", 0), (b"mqtt_refused", 1), (b"mqtt_throttled", 2),
                      (b"mqtt_reason", 3)):
    declare(b"mqtt:" + _name, get_number, _which, NO_CACHE)
    tell_stream(_name, b"mqtt:" + _name)

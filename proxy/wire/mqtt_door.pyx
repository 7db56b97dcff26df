"""MQTT packets as Python sees them: for what is no hot path, for tests and fuzz targets."""

from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from proxy.base.span cimport Str, of_bytes
from proxy.wire._mqtt cimport *


cdef object told(Str s):
    return None if s.p == NULL else s.p[:s.n]


cdef dict told_properties(MqttProperties* it):
    """Those that are kept, by their names in the standard, and the User Properties."""
    cdef Str rest = it.all
    cdef Str name
    cdef Str value
    found: dict = {"seen": it.seen, "user": []}
    while next_user_property(&rest, &name, &value):
        found["user"].append((name.p[:name.n], value.p[:value.n]))
    found["content_type"] = told(it.content_type)
    found["answer_topic"] = told(it.answer_topic)
    found["correlation"] = told(it.correlation)
    found["alias"] = it.alias
    return found


def read_packet(data: bytes, version: int = 5):
    """The first packet of a client: None (more must come), a reason code with a minus, or
    (its bytes, type, what it says)."""
    # an allocation without one spare byte, so that a sanitizer sees what is read behind it
    cdef size_t n = <size_t>len(data)
    cdef char* exact = <char*>malloc(n or 1)
    if exact == NULL:
        raise MemoryError
    memcpy(exact, <const char*>data, n)
    try:
        return read_exact(exact, n, version)
    finally:
        free(exact)


cdef object read_exact(const char* p, size_t n, int version):
    cdef MqttHead h
    cdef MqttConnect c
    cdef MqttPublish m
    cdef MqttFilters f
    cdef Str rest
    cdef Str text
    cdef uint8_t options
    cdef uint16_t number
    cdef int rc = read_mqtt_head(p, n, &h)
    if rc == 0:
        return None
    if rc > 0:
        rc = check_mqtt_head(&h, <uint8_t>version)
    if rc < 0:
        return rc
    p += h.n
    n -= h.n
    size = h.n + h.body_n
    if h.kind == T_PUBLISH:
        rc = read_mqtt_publish(p, n, &h, <uint8_t>version, &m)
        if rc <= 0:
            return rc or None
        if n < h.body_n:
            return None
        return size, "publish", {
            "topic": told(m.topic), "qos": m.qos, "id": m.id, "again": bool(m.is_again),
            "retained": bool(m.is_retained), "payload": p[rc:h.body_n],
            "properties": told_properties(&m.properties)}
    if n < h.body_n:
        return None
    n = h.body_n
    if h.kind == T_CONNECT:
        rc = read_mqtt_connect(p, n, &c)
        if rc < 0:
            return rc
        return size, "connect", {
            "version": c.version, "clean": bool(c.is_clean), "keepalive": c.keepalive_s,
            "id": told(c.client_id), "user": told(c.user) if c.has_user else None,
            "password": told(c.password) if c.has_password else None,
            "will": (told(c.will_topic), told(c.will_payload), c.will_qos, bool(c.will_retain))
            if c.has_will else None,
            "properties": told_properties(&c.properties)}
    if h.kind == T_SUBSCRIBE or h.kind == T_UNSUBSCRIBE:
        rc = read_mqtt_filters(p, n, &h, <uint8_t>version, &f)
        if rc < 0:
            return rc
        rest = f.list
        found = []
        while next_filter(&rest, h.kind == T_SUBSCRIBE, &text, &options):
            found.append((told(text), options))
        return size, "subscribe" if h.kind == T_SUBSCRIBE else "unsubscribe", {
            "id": f.id, "filters": found, "properties": told_properties(&f.properties)}
    rc = check_mqtt_packet(p, n, &h, <uint8_t>version, &number)
    if rc < 0:
        return rc
    return size, ("puback", "pubrec", "pubrel", "pubcomp", "", "", "", "", "pingreq", "",
                  "disconnect", "auth")[h.kind - 4], {"number": number}


cdef class Follower:
    """Where one direction of a connection stands between its packets."""

    cdef Boundary boundary

    def __cinit__(self):
        memset(&self.boundary, 0, sizeof(Boundary))

    def follow(self, data: bytes):
        """Is it between two packets after these bytes? None: it was no MQTT."""
        if follow_packets(&self.boundary, <const char*>data, <size_t>len(data)) < 0:
            return None
        return bool(is_between(&self.boundary))


def is_good_filter(text: bytes) -> bool:
    return is_mqtt_text(text, <size_t>len(text)) and is_filter(of_bytes(text))


def is_good_topic(text: bytes) -> bool:
    return is_mqtt_text(text, <size_t>len(text)) and is_topic(of_bytes(text))

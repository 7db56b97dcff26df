# Reads packets of MQTT 3.1.1 and 5 in place. Sections are those of the MQTT 5 standard (OASIS).

from libc.string cimport memchr, memcmp, memset

cdef enum PropertyKind:
    NO_PROPERTY = 0
    P_BYTE
    P_BIT                         # a byte, 0 or 1
    P_16
    P_16_NOT_0
    P_32
    P_32_NOT_0
    P_LENGTH                      # Variable Byte Integer, not 0
    P_BINARY
    P_TEXT
    P_TOPIC                       # a text without wildcards
    P_PAIR

cdef enum:
    LAST_PROPERTY = 0x2A
    LENGTH_BAD = -2
    LENGTH_MORE = -1
    ANY_ACK = 1 << T_PUBACK | 1 << T_PUBREC | 1 << T_PUBREL | 1 << T_PUBCOMP
    REPEATS = 1 << 16             # with a place: it may stand there more than once

cdef struct Property:
    uint8_t kind
    uint32_t where

cdef Property[LAST_PROPERTY + 1] PROPERTIES


cdef void put(int number, int kind, uint32_t where) noexcept:
    PROPERTIES[number].kind = <uint8_t>kind
    PROPERTIES[number].where = where


# Table 2-4. The Subscription Identifier of a PUBLISH comes from servers only (MQTT-3.3.4-6).
memset(PROPERTIES, 0, sizeof(PROPERTIES))
put(0x01, P_BIT, 1 << T_PUBLISH | IN_WILL)
put(0x02, P_32, 1 << T_PUBLISH | IN_WILL)
put(0x03, P_TEXT, 1 << T_PUBLISH | IN_WILL)
put(0x08, P_TOPIC, 1 << T_PUBLISH | IN_WILL)
put(0x09, P_BINARY, 1 << T_PUBLISH | IN_WILL)
put(0x0B, P_LENGTH, 1 << T_SUBSCRIBE)
put(0x11, P_32, IN_CONNECT | 1 << T_CONNACK | 1 << T_DISCONNECT)
put(0x12, P_TEXT, 1 << T_CONNACK)
put(0x13, P_16, 1 << T_CONNACK)
put(0x15, P_TEXT, IN_CONNECT | 1 << T_CONNACK | 1 << T_AUTH)
put(0x16, P_BINARY, IN_CONNECT | 1 << T_CONNACK | 1 << T_AUTH)
put(0x17, P_BIT, IN_CONNECT)
put(0x18, P_32, IN_WILL)
put(0x19, P_BIT, IN_CONNECT)
put(0x1A, P_TEXT, 1 << T_CONNACK)
put(0x1C, P_TEXT, 1 << T_CONNACK)
put(0x1F, P_TEXT, 1 << T_CONNACK | ANY_ACK | 1 << T_DISCONNECT | 1 << T_AUTH)
put(0x21, P_16_NOT_0, IN_CONNECT | 1 << T_CONNACK)
put(0x22, P_16, IN_CONNECT | 1 << T_CONNACK)
put(0x23, P_16_NOT_0, 1 << T_PUBLISH)
put(0x24, P_BIT, 1 << T_CONNACK)
put(0x25, P_BIT, 1 << T_CONNACK)
put(0x26, P_PAIR, 0xFFFF | REPEATS)
put(0x27, P_32_NOT_0, IN_CONNECT | 1 << T_CONNACK)
put(0x28, P_BIT, 1 << T_CONNACK)
put(0x29, P_BIT, 1 << T_CONNACK)
put(0x2A, P_BIT, 1 << T_CONNACK)


# Bytes that are read one after the other; `error` once they are not what they must be.
cdef struct Reader:
    const uint8_t* p
    const uint8_t* end
    int error


cdef inline uint32_t take_8(Reader* r) noexcept nogil:
    if r.p >= r.end:
        r.error = -R_MALFORMED
        return 0
    r.p += 1
    return r.p[-1]


cdef inline uint32_t take_16(Reader* r) noexcept nogil:
    cdef uint32_t high = take_8(r)
    return high << 8 | take_8(r)


cdef inline uint32_t take_32(Reader* r) noexcept nogil:
    cdef uint32_t high = take_16(r)
    return high << 16 | take_16(r)


cdef uint32_t take_length(Reader* r) noexcept nogil:
    """A Variable Byte Integer, no longer than it must be (MQTT-1.5.5-1)."""
    cdef uint32_t n = 0
    cdef uint32_t byte
    cdef int shift
    for shift in range(0, 28, 7):
        byte = take_8(r)
        n |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                r.error = -R_MALFORMED
            return n
    r.error = -R_MALFORMED
    return 0


cdef Str take_binary(Reader* r) noexcept nogil:
    cdef Str s
    s.n = take_16(r)
    s.p = <const char*>r.p
    if s.n > <size_t>(r.end - r.p):
        r.error = -R_MALFORMED
        s.n = 0
    r.p += s.n
    return s


cdef inline Str take_text(Reader* r) noexcept nogil:
    cdef Str s = take_binary(r)
    if not is_mqtt_text(s.p, s.n):
        r.error = -R_MALFORMED
    return s


cdef bint is_mqtt_text(const char* p, size_t n) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>p
    cdef const uint8_t* end = at + n
    cdef uint8_t c
    cdef uint8_t low
    cdef uint8_t high
    cdef int more
    while at < end:
        c = at[0]
        at += 1
        if c < 0x80:
            if c == 0:
                return False
            continue
        low = 0x80                               # what the second byte may be (Unicode, table 3-7)
        high = 0xBF
        if c < 0xC2 or c > 0xF4:
            return False
        if c < 0xE0:
            more = 1
        elif c < 0xF0:
            more = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F                      # no surrogates (MQTT-1.5.4-1)
        else:
            more = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        if end - at < more or at[0] < low or at[0] > high:
            return False
        at += 1
        more -= 1
        while more:
            if at[0] & 0xC0 != 0x80:
                return False
            at += 1
            more -= 1
    return True


cdef bint is_topic(Str s) noexcept nogil:
    """A name that may be published to: not empty, no wildcards (§4.7)."""
    return s.n > 0 and memchr(s.p, c"+", s.n) == NULL and memchr(s.p, c"#", s.n) == NULL


cdef bint is_shared(Str s) noexcept nogil:
    return s.n >= 7 and memcmp(s.p, b"$share/", 7) == 0


cdef Str bare_filter(Str s) noexcept nogil:
    cdef const char* slash
    cdef Str bare
    if not is_shared(s):
        return s
    slash = <const char*>memchr(s.p + 7, c"/", s.n - 7)
    bare.p = s.p + s.n if slash == NULL else slash + 1
    bare.n = <uint32_t>(s.p + s.n - bare.p)
    return bare


cdef bint is_filter(Str s) noexcept nogil:
    """Each wildcard alone in its level, # in the last; $share/NAME/ before a filter (§4.8.2)."""
    cdef Str bare = bare_filter(s)
    cdef uint32_t i
    cdef char c
    if bare.n == 0:
        return False
    if bare.p != s.p:
        for i in range(7, <uint32_t>(bare.p - s.p) - 1):
            if s.p[i] == c"+" or s.p[i] == c"#":
                return False
        if bare.p - s.p < 9:                     # a share's name has a character
            return False
    for i in range(bare.n):
        c = bare.p[i]
        if c != c"+" and c != c"#":
            continue
        if i and bare.p[i - 1] != c"/":
            return False
        if i + 1 < bare.n and (c == c"#" or bare.p[i + 1] != c"/"):
            return False
    return True


# -- properties --------------------------------------------------------------------------

cdef void take_properties(Reader* r, uint32_t place, MqttProperties* out) noexcept nogil:
    """A property list of the packet `place` is the bit of; what is wrong stands in r.error."""
    cdef uint32_t n = take_length(r)
    cdef const uint8_t* behind = r.end
    cdef uint32_t number
    cdef uint32_t value
    cdef Property* kind
    cdef Str s
    memset(out, 0, sizeof(MqttProperties))
    out.receive_most = 65535
    if r.error or n > <size_t>(r.end - r.p):
        r.error = -R_MALFORMED
        return
    out.all.p = <const char*>r.p
    out.all.n = n
    r.end = r.p + n
    while r.p < r.end and not r.error:
        number = take_length(r)
        if number > LAST_PROPERTY or r.error:
            r.error = -R_MALFORMED
            break
        kind = &PROPERTIES[number]
        if kind.kind == NO_PROPERTY:
            r.error = -R_MALFORMED
            break
        if kind.where & place == 0 or (
                out.seen >> number & 1 and kind.where & REPEATS == 0):
            r.error = -R_PROTOCOL
            break
        out.seen |= <uint64_t>1 << number
        value = 0
        s.p = NULL
        s.n = 0
        if kind.kind == P_BYTE or kind.kind == P_BIT:
            value = take_8(r)
            if kind.kind == P_BIT and value > 1:
                r.error = -R_PROTOCOL
        elif kind.kind == P_16 or kind.kind == P_16_NOT_0:
            value = take_16(r)
            if value == 0 and kind.kind == P_16_NOT_0 and not r.error:
                r.error = -R_ALIAS if number == 0x23 else -R_PROTOCOL
        elif kind.kind == P_32 or kind.kind == P_32_NOT_0:
            value = take_32(r)
            if value == 0 and kind.kind == P_32_NOT_0 and not r.error:
                r.error = -R_PROTOCOL
        elif kind.kind == P_LENGTH:
            value = take_length(r)
            if value == 0 and not r.error:
                r.error = -R_PROTOCOL
        elif kind.kind == P_BINARY:
            s = take_binary(r)
        else:
            s = take_text(r)
            if kind.kind == P_PAIR:
                take_text(r)
            elif kind.kind == P_TOPIC and not is_topic(s) and not r.error:
                r.error = -R_PROTOCOL            # MQTT-3.3.2-14
        keep_property(out, number, value, s)
    if not r.error and out.seen >> 0x16 & 1 and out.seen >> 0x15 & 1 == 0:
        r.error = -R_PROTOCOL                    # data without a method (§3.1.2.11.10)
    r.end = behind


cdef inline void keep_property(MqttProperties* out, uint32_t number, uint32_t value,
                               Str s) noexcept nogil:
    if number == 0x01:
        out.is_text = value == 1
    elif number == 0x03:
        out.content_type = s
    elif number == 0x08:
        out.answer_topic = s
    elif number == 0x09:
        out.correlation = s
    elif number == 0x11:
        out.expiry_s = value
    elif number == 0x13:
        out.keepalive_s = <uint16_t>value
    elif number == 0x15:
        out.method = s
    elif number == 0x21:
        out.receive_most = <uint16_t>value
    elif number == 0x22:
        out.alias_most = <uint16_t>value
    elif number == 0x23:
        out.alias = <uint16_t>value
    elif number == 0x27:
        out.packet_most = value


cdef bint next_user_property(Str* rest, Str* name, Str* value) noexcept nogil:
    cdef Reader r
    cdef int kind
    cdef uint32_t number
    r.p = <const uint8_t*>rest.p
    r.end = r.p + rest.n
    r.error = 0
    while r.p < r.end:
        number = take_length(&r)
        kind = PROPERTIES[number].kind if number <= LAST_PROPERTY else NO_PROPERTY
        if kind == P_BYTE or kind == P_BIT:
            r.p += 1
        elif kind == P_16 or kind == P_16_NOT_0:
            r.p += 2
        elif kind == P_32 or kind == P_32_NOT_0:
            r.p += 4
        elif kind == P_LENGTH:
            take_length(&r)
        elif kind == P_PAIR:
            name[0] = take_binary(&r)
            value[0] = take_binary(&r)
        else:
            take_binary(&r)
        if r.error or kind == NO_PROPERTY:
            break
        if kind == P_PAIR:
            rest.p = <const char*>r.p
            rest.n = <uint32_t>(r.end - r.p)
            return True
    rest.n = 0
    return False


# -- packets -----------------------------------------------------------------------------

cdef int read_mqtt_head(const char* p, size_t n, MqttHead* out) noexcept nogil:
    cdef uint32_t length = 0
    cdef uint32_t byte
    cdef uint32_t i
    if n == 0:
        return 0
    out.kind = <uint8_t>p[0] >> 4
    out.flags = <uint8_t>p[0] & 15
    if out.kind == 0:
        return -R_MALFORMED
    for i in range(1, HEAD_MOST):
        if i >= n:
            return 0
        byte = <uint8_t>p[i]
        length |= (byte & 127) << (7 * (i - 1))
        if byte < 128:
            if byte == 0 and i > 1:
                return -R_MALFORMED
            out.body_n = length
            out.n = <uint8_t>(i + 1)
            return out.n
    return -R_MALFORMED


cdef int check_mqtt_head(const MqttHead* h, uint8_t version) noexcept nogil:
    cdef int kind = h.kind
    cdef uint32_t n = h.body_n
    if kind == T_PUBLISH:
        if h.flags >> 1 & 3 == 3 or h.flags & 14 == 8:     # QoS 3; DUP with QoS 0 (§3.3.1)
            return -R_MALFORMED
        return 0 if n >= 3 else -R_MALFORMED
    if h.flags != (2 if kind == T_PUBREL or kind == T_SUBSCRIBE or kind == T_UNSUBSCRIBE else 0):
        return -R_MALFORMED
    if kind == T_CONNECT:
        return 0 if n >= 12 else -R_MALFORMED
    if kind == T_PUBACK or kind == T_PUBREC or kind == T_PUBREL or kind == T_PUBCOMP:
        return 0 if n == 2 or (version == 5 and n > 2) else -R_MALFORMED
    if kind == T_SUBSCRIBE or kind == T_UNSUBSCRIBE:
        return 0 if n >= 5 else -R_MALFORMED
    if kind == T_PINGREQ:
        return 0 if n == 0 else -R_MALFORMED
    if kind == T_DISCONNECT:
        return 0 if n == 0 or version == 5 else -R_MALFORMED
    if kind == T_AUTH and version == 5:
        return 0
    return -R_PROTOCOL                           # only a server sends it


cdef int read_mqtt_connect(const char* p, size_t n, MqttConnect* out) noexcept nogil:
    cdef Reader r
    cdef uint32_t flags
    cdef Str name
    memset(out, 0, sizeof(MqttConnect))
    r.p = <const uint8_t*>p
    r.end = r.p + n
    r.error = 0
    name = take_text(&r)
    out.version = <uint8_t>take_8(&r)
    if r.error:
        return r.error
    if name.n == 6 and memcmp(name.p, b"MQIsdp", 6) == 0:
        return -R_VERSION                        # 3.1
    if name.n != 4 or memcmp(name.p, b"MQTT", 4):
        return -R_PROTOCOL
    if out.version != 4 and out.version != 5:
        return -R_VERSION
    flags = take_8(&r)
    out.is_clean = flags >> 1 & 1
    out.has_will = flags >> 2 & 1
    out.will_qos = flags >> 3 & 3
    out.will_retain = flags >> 5 & 1
    out.has_password = flags >> 6 & 1
    out.has_user = flags >> 7
    out.keepalive_s = <uint16_t>take_16(&r)
    if r.error or flags & 1 or out.will_qos == 3 or (
            not out.has_will and (out.will_qos or out.will_retain)):
        return -R_MALFORMED
    if out.version == 4 and out.has_password and not out.has_user:
        return -R_MALFORMED                      # MQTT-3.1.2-22 of 3.1.1; 5 lets it be
    if out.version == 5:
        take_properties(&r, IN_CONNECT, &out.properties)
        if r.error:
            return r.error
    out.client_id = take_text(&r)
    if out.has_will and not r.error:
        if out.version == 5:
            take_properties(&r, IN_WILL, &out.will)
        if not r.error:
            out.will_topic = take_text(&r)
            out.will_payload = take_binary(&r)
    if out.has_user and not r.error:
        out.user = take_text(&r)
    if out.has_password and not r.error:
        out.password = take_binary(&r)
    if r.error:
        return r.error
    if r.p != r.end:
        return -R_MALFORMED
    if out.has_will and not is_topic(out.will_topic):
        return -R_TOPIC
    if out.version == 4 and out.client_id.n == 0 and not out.is_clean:
        return -R_CLIENT_ID                      # MQTT-3.1.3-8 of 3.1.1
    return 0


cdef int read_mqtt_publish(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           MqttPublish* out) noexcept nogil:
    cdef Reader r
    cdef const uint8_t* begin = <const uint8_t*>p
    cdef bint is_whole = n >= h.body_n
    cdef size_t most = h.body_n if is_whole else n
    cdef size_t want
    cdef uint32_t length = 0
    out.qos = h.flags >> 1 & 3
    out.is_again = h.flags >> 3
    out.is_retained = h.flags & 1
    out.id = 0
    if not is_whole:                             # is what comes before the payload there?
        if most < 2:
            return 0
        want = 2 + (<size_t>begin[0] << 8 | begin[1]) + (2 if out.qos else 0)
        if want <= h.body_n:
            if version == 5:
                r.p = begin + (want if want < most else most)
                r.end = begin + most
                r.error = 0
                if want >= most:
                    return 0
                length = take_length(&r)
                if r.error and r.p == r.end and r.p - (begin + want) < 4:
                    return 0                     # it may go on
                if not r.error:                  # else what comes before it is judged first
                    want = <size_t>(r.p - begin) + length
            if want <= h.body_n and want > most:
                return 0
    r.p = begin
    r.end = begin + most
    r.error = 0
    out.topic = take_text(&r)
    if out.qos and not r.error:
        out.id = <uint16_t>take_16(&r)
        if out.id == 0 and not r.error:
            return -R_PROTOCOL                   # MQTT-2.2.1-3
    if version == 5 and not r.error:
        take_properties(&r, 1 << T_PUBLISH, &out.properties)
    elif version != 5:
        memset(&out.properties, 0, sizeof(MqttProperties))
    if r.error:
        return r.error
    if out.topic.n == 0:
        if version != 5:
            return -R_TOPIC
        if out.properties.alias == 0:
            return -R_PROTOCOL                   # §3.3.2.1
    elif not is_topic(out.topic):
        return -R_TOPIC
    return <int>(r.p - begin)


cdef int read_mqtt_filters(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           MqttFilters* out) noexcept nogil:
    cdef bint has_options = h.kind == T_SUBSCRIBE
    cdef Reader r
    cdef Str s
    cdef uint32_t options
    r.p = <const uint8_t*>p
    r.end = r.p + n
    r.error = 0
    memset(out, 0, sizeof(MqttFilters))
    out.id = <uint16_t>take_16(&r)
    if out.id == 0:
        return -R_PROTOCOL
    if version == 5:
        take_properties(&r, 1 << h.kind, &out.properties)
    out.list.p = <const char*>r.p
    out.list.n = <uint32_t>(r.end - r.p)
    while r.p < r.end and not r.error:
        s = take_text(&r)
        if r.error:
            break
        if not is_filter(s):
            return -R_FILTER
        out.count += 1
        if has_options:
            options = take_8(&r)
            if options & 3 == 3 or (version == 4 and options >> 2) or options >> 6 or (
                    options >> 4 & 3 == 3):
                return -R_MALFORMED              # §3.8.3.1
            if options & 4 and is_shared(s):
                return -R_PROTOCOL               # MQTT-3.8.3-4
    if r.error:
        return r.error
    return 0 if out.count else -R_PROTOCOL       # MQTT-3.8.3-2


cdef bint next_filter(Str* rest, bint has_options, Str* out, uint8_t* options) noexcept nogil:
    cdef Reader r
    if rest.n == 0:
        return False
    r.p = <const uint8_t*>rest.p
    r.end = r.p + rest.n
    r.error = 0
    out[0] = take_binary(&r)
    options[0] = <uint8_t>take_8(&r) if has_options else 0
    rest.p = <const char*>r.p
    rest.n = <uint32_t>(r.end - r.p)
    return r.error == 0


cdef bint is_reason(int kind, uint32_t code) noexcept nogil:
    """May a client say this? (table 2-6)"""
    if kind == T_PUBACK or kind == T_PUBREC:
        return code in (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
    if kind == T_PUBREL or kind == T_PUBCOMP:
        return code in (0x00, 0x92)
    if kind == T_AUTH:
        return code in (0x18, 0x19)
    # a client's DISCONNECT (table 3-10)
    return code in (0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
                    0x99)


cdef int check_mqtt_packet(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           uint16_t* out) noexcept nogil:
    cdef MqttProperties properties
    cdef Reader r
    cdef uint32_t reason = 0
    cdef int kind = h.kind
    out[0] = 0
    if n == 0:
        return 0 if kind != T_AUTH else -R_PROTOCOL        # no reason means 0, which servers say
    r.p = <const uint8_t*>p
    r.end = r.p + n
    r.error = 0
    if kind != T_DISCONNECT and kind != T_AUTH:
        out[0] = <uint16_t>take_16(&r)
        if out[0] == 0:
            return -R_PROTOCOL
    if version == 5 and r.p < r.end:
        reason = take_8(&r)
        if not is_reason(kind, reason):
            return -R_PROTOCOL
        if r.p < r.end:
            take_properties(&r, 1 << kind, &properties)
        if not r.error and kind == T_AUTH and (
                r.end - <const uint8_t*>p < 2 or properties.method.p == NULL):
            return -R_PROTOCOL                   # §3.15.2.2.2
    if r.error:
        return r.error
    if kind == T_DISCONNECT or kind == T_AUTH:
        out[0] = <uint16_t>reason
    return 0 if r.p == r.end else -R_MALFORMED


cdef int read_mqtt_connack(const char* p, size_t n, uint8_t version, uint8_t* flags,
                           MqttProperties* out) noexcept nogil:
    cdef Reader r
    cdef uint32_t code
    r.p = <const uint8_t*>p
    r.end = r.p + n
    r.error = 0
    memset(out, 0, sizeof(MqttProperties))
    flags[0] = <uint8_t>take_8(&r)
    code = take_8(&r)
    if version == 5 and r.p < r.end:             # a 3.1.1 broker refuses with two bytes
        take_properties(&r, 1 << T_CONNACK, out)
    if r.error:
        return r.error
    return <int>code if r.p == r.end and flags[0] < 2 else -R_MALFORMED


cdef int follow_packets(Boundary* b, const char* p, size_t n) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>p
    cdef const uint8_t* end = at + n
    cdef uint32_t k
    while at < end:
        if b.left:
            k = b.left if b.left < <size_t>(end - at) else <uint32_t>(end - at)
            b.left -= k
            at += k
            continue
        if b.held_n == 0:
            b.kind = at[0] >> 4
            b.held_n = 1
            b.length = 0
            b.shift = 0
            at += 1
            continue
        b.length |= <uint32_t>(at[0] & 127) << b.shift
        b.shift += 7
        b.held_n += 1
        if at[0] < 128:
            b.left = b.length
            b.held_n = 0
        elif b.held_n == HEAD_MOST:
            return -1
        at += 1
    return 0

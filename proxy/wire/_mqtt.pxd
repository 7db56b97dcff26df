# Packets of MQTT 3.1.1 and 5 as a server reads them: what they say, and whether they may be sent.
#
# Nothing is kept or copied: texts point into the bytes that were given. A function answers 0 or
# more, or a reason code of MQTT 5 (§2.4) with a minus: why the connection must end.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base.span cimport Str


cdef enum MqttType:
    T_CONNECT = 1
    T_CONNACK = 2
    T_PUBLISH = 3
    T_PUBACK = 4
    T_PUBREC = 5
    T_PUBREL = 6
    T_PUBCOMP = 7
    T_SUBSCRIBE = 8
    T_SUBACK = 9
    T_UNSUBSCRIBE = 10
    T_UNSUBACK = 11
    T_PINGREQ = 12
    T_PINGRESP = 13
    T_DISCONNECT = 14
    T_AUTH = 15

cdef enum MqttReason:
    R_MALFORMED = 0x81
    R_PROTOCOL = 0x82
    R_REJECTED = 0x83             # "Implementation specific error"
    R_VERSION = 0x84
    R_CLIENT_ID = 0x85
    R_PASSWORD = 0x86
    R_FORBIDDEN = 0x87
    R_UNAVAILABLE = 0x88
    R_BUSY = 0x89
    R_LEAVING = 0x8B
    R_KEEPALIVE = 0x8D
    R_TAKEN_OVER = 0x8E
    R_FILTER = 0x8F
    R_TOPIC = 0x90
    R_RECEIVE_MOST = 0x93
    R_ALIAS = 0x94
    R_TOO_LARGE = 0x95
    R_QUOTA = 0x97
    R_QOS = 0x9B
    R_MOVED = 0x9D
    R_RATE = 0x9F

cdef enum:
    HEAD_MOST = 5                 # bytes of a fixed header
    IN_CONNECT = 1 << 1           # where properties stand: 1 << the packet's type
    IN_WILL = 1                   # … and those of the will in a CONNECT


cdef struct MqttHead:             # a fixed header (§2.1)
    uint8_t kind
    uint8_t flags
    uint8_t n                     # its own bytes
    uint32_t body_n               # Remaining Length


cdef struct MqttProperties:       # those that somebody asks for; texts have p NULL if not there
    uint64_t seen                 # 1 << identifier
    uint16_t keepalive_s          # Server Keep Alive
    uint16_t receive_most
    uint16_t alias_most
    uint16_t alias                # 0: none
    uint32_t packet_most          # 0: not there
    uint32_t expiry_s             # Session Expiry Interval
    uint8_t is_text               # Payload Format Indicator
    Str content_type
    Str answer_topic              # Response Topic
    Str correlation
    Str method                    # Authentication Method
    Str all                       # the whole list, for next_user_property


cdef struct MqttConnect:
    uint8_t version               # 4: 3.1.1, 5: 5
    uint8_t is_clean
    uint8_t has_will
    uint8_t will_qos
    uint8_t will_retain
    uint8_t has_user
    uint8_t has_password
    uint16_t keepalive_s
    Str client_id
    Str will_topic
    Str will_payload
    Str user
    Str password
    MqttProperties properties
    MqttProperties will


cdef struct MqttPublish:
    uint8_t qos
    uint8_t is_again              # DUP
    uint8_t is_retained
    uint16_t id                   # 0 with QoS 0
    Str topic
    MqttProperties properties


cdef struct MqttFilters:          # of SUBSCRIBE or UNSUBSCRIBE
    uint16_t id
    uint32_t count
    Str list                      # for next_filter
    MqttProperties properties


# The fixed header: its bytes, 0: more must come.
cdef int read_mqtt_head(const char* p, size_t n, MqttHead* out) noexcept nogil
# May a client send this packet, seen from its fixed header? Also those that come before CONNECT.
cdef int check_mqtt_head(const MqttHead* h, uint8_t version) noexcept nogil
# A CONNECT's body, whole.
cdef int read_mqtt_connect(const char* p, size_t n, MqttConnect* out) noexcept nogil
# A PUBLISH's body of which n bytes are there: the place of the payload, at least 3; 0: more must
# come; NEVER more than body_n bytes of it are looked at.
cdef int read_mqtt_publish(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           MqttPublish* out) noexcept nogil
# SUBSCRIBE or UNSUBSCRIBE, whole.
cdef int read_mqtt_filters(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           MqttFilters* out) noexcept nogil
# The next one of a list that was read: False at its end. options: of a subscription.
cdef bint next_filter(Str* rest, bint has_options, Str* out, uint8_t* options) noexcept nogil
# Any other packet of a client, whole. out: its packet id, and of DISCONNECT or AUTH the reason.
cdef int check_mqtt_packet(const char* p, size_t n, const MqttHead* h, uint8_t version,
                           uint16_t* out) noexcept nogil
# A CONNACK's body, whole: its code; flags: session present.
cdef int read_mqtt_connack(const char* p, size_t n, uint8_t version, uint8_t* flags,
                           MqttProperties* out) noexcept nogil
# The next User Property (§2.2.2.2) of a list that was read: False at its end.
cdef bint next_user_property(Str* rest, Str* name, Str* value) noexcept nogil
# UTF-8 as MQTT wants it (§1.5.4): no NUL, no surrogates, nothing overlong.
cdef bint is_mqtt_text(const char* p, size_t n) noexcept nogil
cdef bint is_topic(Str s) noexcept nogil
cdef bint is_filter(Str s) noexcept nogil
# $share/NAME/FILTER: the FILTER; any other text itself.
cdef Str bare_filter(Str s) noexcept nogil


cdef inline uint32_t put_length(char* out, uint32_t n) noexcept nogil:
    """A Variable Byte Integer (§1.5.5), 4 bytes at most; answers how many."""
    cdef uint32_t at = 0
    while n >= 128:
        out[at] = <char>(n & 127 | 128)
        n >>= 7
        at += 1
    out[at] = <char>n
    return at + 1


cdef inline char* put_16(char* out, uint32_t n) noexcept nogil:
    out[0] = <char>(n >> 8)
    out[1] = <char>n
    return out + 2


# Where one direction of a connection stands between its packets: what is ours may only be written
# when left is 0 and held_n is 0.
cdef struct Boundary:
    uint32_t left                 # bytes of the packet that begun
    uint8_t held_n                # bytes of a fixed header that has not ended
    uint8_t kind                  # of the packet that begun last
    uint32_t length
    uint8_t shift


cdef inline bint is_between(const Boundary* b) noexcept nogil:
    return b.left == 0 and b.held_n == 0


# Goes over n bytes that come one after the other. -1: no length that MQTT has.
cdef int follow_packets(Boundary* b, const char* p, size_t n) noexcept nogil

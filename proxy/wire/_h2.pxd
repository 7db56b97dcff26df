# HTTP/2 (RFC 9113) on one connection, of a server or of a client: frames, the states of streams.
# No sockets, no clock: bytes come in, events come out, and what must be sent waits in `out`.
#
#     while n:
#         event = read_frames(&c, p, n, &used, &room)
#         p += used; n -= used
#         H2_MORE: the rest of a frame is needed, show what is left again with more behind it;
#         H2_HEAD: a request begins on stream c.id, room.head says what it asks (c.fault: what
#                  is wrong with it): call open_stream or reset_id at once;
#         H2_BODY: c.piece is a piece of the body of c.s; c.is_end: it was the last;
#         H2_WRONG: the body of c.s is not what its head said: answer with 400 (or reset_stream);
#         H2_RESET: the stream c.s is over (c.code), by the client's word or by ours;
#         H2_ROOM: more may be sent, on c.s, or on all streams when it is NULL;
#         H2_PARTING: the peer begins nothing more; H2_BROKEN: close when `out` is written.
#
# In the client's role (is_client) `ask_stream` opens a stream, and
#         H2_HEAD: the head of an answer of c.s, 1xx included; c.is_end: nothing follows;
#         H2_TRAILERS: room.head holds the trailer section of c.s, which is its end;
#         H2_PARTING: of our streams none behind c.id was, or will be, looked at (§6.8).
#
# Stream errors are answered here; except that a malformed request (c.fault is BAD_REQUEST then) may
# have an answer first, behind whose end RST_STREAM goes out (RFC 9113 §8.1.1). Numbers that the
# owner bounds are counted here and end the connection here (ENHANCE_YOUR_CALM); the owner sets
# them back as time goes by.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from proxy.base.span cimport Str
from proxy.wire._h2head cimport HeadRoom
from proxy.wire._hpack cimport HpackTable


cdef enum:
    FRAME_BYTES = 16384       # SETTINGS_MAX_FRAME_SIZE where none is said
    WIDEST_FRAME = 0xffffff
    FRAME_HEAD = 9
    FIRST_WINDOW = 65535
    MAX_WINDOW = 0x7fffffff
    PREFACE_BYTES = 24
    BUCKETS = 32
    REMEMBERED = 64           # streams that are over, so that late frames are told from wrong ones
    HEARD_OUT = 8             # answered early: what still comes on them is read, and dropped
    UPDATES_FOR_FRAME = 4     # WINDOW_UPDATEs that a DATA frame of ours may be answered with


cdef enum H2Event:
    H2_MORE = 0
    H2_HEAD = 1
    H2_BODY = 2
    H2_RESET = 3
    H2_ROOM = 4
    H2_PARTING = 5
    H2_BROKEN = 6
    H2_DONE = 7               # all bytes are used, nothing more happened
    H2_TRAILERS = 8
    H2_WRONG = 9


cdef enum H2Code:             # RFC 9113 §7
    H2_NO_ERROR = 0
    H2_PROTOCOL_ERROR = 1
    H2_INTERNAL_ERROR = 2
    H2_FLOW_CONTROL_ERROR = 3
    H2_SETTINGS_TIMEOUT = 4
    H2_STREAM_CLOSED = 5
    H2_FRAME_SIZE_ERROR = 6
    H2_REFUSED_STREAM = 7
    H2_CANCEL = 8
    H2_COMPRESSION_ERROR = 9
    H2_CONNECT_ERROR = 10
    H2_ENHANCE_YOUR_CALM = 11
    H2_INADEQUATE_SECURITY = 12
    H2_HTTP_1_1_REQUIRED = 13


cdef struct H2State:          # one open stream; its owner's memory
    H2State* next             # of its bucket
    void* owner
    uint32_t id
    uint8_t is_ended          # the peer's END_STREAM came
    uint8_t is_answered       # ours went out
    uint8_t is_wrong          # malformed: what comes is dropped, PROTOCOL_ERROR follows the answer
    uint8_t is_headed         # as a client: the final head came …
    uint8_t is_bare           # … and no body belongs to it whatever it says: HEAD was asked
    uint8_t urgency
    uint8_t is_incremental    # it shares by turns with others of its urgency (RFC 9218 §4.2)
    uint32_t window           # as wide as it was told to be
    uint32_t due              # bytes that the owner took, and no WINDOW_UPDATE gave back yet
    int64_t send_window
    int64_t recv_window
    int64_t left              # of content-length; -1: none given


cdef struct H2Past:           # a stream that is over
    uint32_t id
    uint8_t how               # Past, in the .pyx


cdef struct H2Unwanted:       # a stream that was answered before the client's side of it ended
    uint32_t id               # 0: none
    int64_t send_window
    int64_t left              # of content-length; -1: none given


cdef struct Http2:
    # what the owner sets before `begin_h2`
    bint is_client            # we ask; what else is said of a client below is the peer then
    uint32_t max_streams      # http2_max_concurrent_streams
    uint32_t window           # http2_body_preread_size: SETTINGS_INITIAL_WINDOW_SIZE
    uint32_t max_block        # bytes of a header block
    uint32_t max_frame        # SETTINGS_MAX_FRAME_SIZE: DATA, and blocks; 0: what all take
    uint32_t max_parts        # http2_max_continuations
    uint32_t max_resets       # … and what the owner sets back:
    uint32_t max_control
    uint32_t n_resets         # streams that were cancelled, or ended by an error of the client
    uint32_t n_control        # frames that ask for work and carry none
    # what is said to the owner
    uint32_t id
    H2State* s
    uint32_t code
    bint is_ours              # H2_RESET: the peer broke a rule, it did not say so itself
    uint32_t block_bytes      # of the head that was read last, as it came
    int fault
    Str piece
    bint is_end
    bint is_wrong             # of H2_HEAD: the request is malformed
    bint is_acknowledged      # our SETTINGS were
    # streams
    uint32_t n_open
    uint32_t last_id          # the highest that the client opened, or we as one
    uint32_t last_taken       # GOAWAY said so: none behind it is begun
    H2State* buckets[BUCKETS]
    H2Past past[REMEMBERED]
    uint32_t n_past
    H2Unwanted unwanted[HEARD_OUT]
    uint32_t n_unwanted
    int64_t send_window
    int64_t recv_window
    uint32_t peer_window      # SETTINGS_INITIAL_WINDOW_SIZE of the client
    uint32_t peer_frame       # SETTINGS_MAX_FRAME_SIZE
    uint32_t peer_streams     # SETTINGS_MAX_CONCURRENT_STREAMS
    uint32_t n_updates        # WINDOW_UPDATEs that may come before they count as a flood
    # reading
    HpackTable table
    uint8_t state
    uint8_t data_is_end
    uint8_t pad_left
    uint32_t data_left        # of the DATA frame that is being read
    H2State* data_of          # NULL: it is dropped
    char* block               # of a header block in parts
    uint32_t block_n
    uint32_t block_cap
    uint32_t block_id         # 0: none is under way
    uint32_t n_parts
    bint block_is_end
    bint block_is_wrong       # it depends on itself
    # out
    char* out
    size_t out_n
    size_t out_cap
    size_t tail_at            # where the last frame of tail_id begins, if it is the last of all
    uint32_t tail_id
    bint is_resized           # our encoder said that it uses no dynamic table


cdef void begin_h2(Http2* c) noexcept nogil           # writes our SETTINGS
cdef void free_h2(Http2* c) noexcept nogil
cdef H2Event read_frames(
    Http2* c, char* p, uint32_t n, uint32_t* used, HeadRoom* room
) noexcept nogil

# After H2_HEAD: c.id lives in `s` from now on, until H2_RESET, reset_stream, or both ends are said.
cdef void open_stream(Http2* c, H2State* s, void* owner, int64_t length) noexcept nogil
# As a client: the next id lives in `s` from now on, until H2_RESET, reset_stream, or both ends
# are said. Its request's head is what must be written next.
cdef void ask_stream(Http2* c, H2State* s, void* owner) noexcept nogil
cdef void reset_stream(Http2* c, H2State* s, H2Code code) noexcept nogil
cdef void reset_id(Http2* c, uint32_t id, H2Code code) noexcept nogil
# The head that begins in p (what is left of the bytes) or is under way took too long: its stream
# is refused, what still comes of it is read for the table's sake. False: it is none.
cdef bint refuse_late(Http2* c, const char* p, uint32_t n) noexcept nogil
# What the client did is answered, and PROTOCOL_ERROR follows; what still comes is dropped.
cdef inline void blame(H2State* s) noexcept nogil:
    s.is_wrong = s.is_ended = True


cdef bint is_open(const Http2* c, const H2State* s) noexcept nogil

# n bytes of a body were taken: the client may send as many more.
cdef void give_window(Http2* c, H2State* s, uint32_t n) noexcept nogil

# The client may have n bytes of a body on their way from now on, where that is more.
cdef void widen_window(Http2* c, H2State* s, uint32_t n) noexcept nogil

cdef void break_off(Http2* c, H2Code code) noexcept nogil
cdef bint is_preface(const char* p, uint32_t n) noexcept nogil    # do n bytes begin as it does?

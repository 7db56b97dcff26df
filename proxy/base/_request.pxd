# What travels through the eight stages: Request, and the two tables it is held against
# (Server, Location). Stream is the waist between stages and protocols.
#
# Contract: stages see a client only through Stream; a Request belongs to a Stream,
# never to a connection. Requests are pooled: `begin` makes one fresh, `end` lets go of
# everything it held. Settings objects of the rooms hang on the Location under the name
# of their room and are cast by that room alone.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base._arena cimport Arena
from proxy.base._client cimport Client
from proxy.base._pcre cimport Captures
from proxy.base.head cimport Head
from proxy.base.span cimport Str


cdef enum Stage:
    S_READ = 0
    S_ROUTE = 1
    S_ADMIT = 2
    S_SHAPE = 3
    S_PICK = 4
    S_SEND = 5
    S_RELAY = 6
    S_TELL = 7


cdef enum:
    BLOCKED = 1               # Stream.send_body: taken, but wait for on_writable
    MAX_REDIRECTS = 10        # internal redirects of one request (house rule, nginx too)


cdef struct OutField:         # a field of the answer that we made ourselves
    Str name
    Str value
    uint8_t id


cdef struct Attempt:          # one peer that was tried: $upstream_*
    Str peer
    uint16_t status           # 0: none came
    uint64_t start_ms
    int64_t connect_ms        # -1: did not happen
    int64_t header_ms
    int64_t response_ms
    int64_t bytes_sent
    int64_t bytes_received
    int64_t length            # body bytes
    uint8_t is_redirect       # a new group of attempts begins (internal redirect): " : "


cdef class Stream:
    """The client's side of one request: head, body, trailers, end, abort, and credit back."""
    cdef int send_head(self, Request r) noexcept
    cdef int send_interim(self, Request r, int status) noexcept
    cdef int send_body(self, Request r, const char* p, size_t n) noexcept
    # n bytes of a file from *offset on, which it moves on by what was taken; 0, BLOCKED or a
    # fault: NOT_IMPLEMENTED when bytes cannot go there without being read first
    cdef int send_file(self, Request r, int fd, int64_t* offset, int64_t n) noexcept
    cdef int send_end(self, Request r) noexcept
    cdef int flush(self, Request r) noexcept
    cdef void abort(self, Request r) noexcept
    cdef void want_body(self, Request r, bint is_wanted) noexcept
    cdef bint is_blocked(self) noexcept
    cdef int64_t allowance(self, Request r) noexcept


cdef class Source:
    """Makes the body of an answer, as much at a time as the stream takes."""
    # DONE, BLOCKED, a fault, or GO: there is more, but others come first
    cdef int feed(self, Request r) noexcept


cdef class SubWaiter:
    """Who asked for a sub-request hears of its end."""
    # a piece of its answer's body: 0; BLOCKED: taken, but wait for Conductor.go_on(sub)
    cdef int on_sub_body(self, Request sub, const char* p, size_t n) noexcept
    # it is over, its answer can be read until this returns; never told of one that was dropped
    cdef void on_sub(self, Request sub) noexcept


cdef class BodyFilter(SubWaiter):
    """Changes the body of an answer on its way to the stream: Request.filters, else None.

    It holds back what it cannot send yet: body and end answer BLOCKED while it does, and
    whoever sends stops until the conductor goes on (Conductor.go_on, or the client drained).
    """
    cdef BodyFilter next
    cdef bint is_ended                 # end was called
    cdef int body(self, Request r, const char* p, size_t n) noexcept   # 0, BLOCKED or a fault
    cdef int end(self, Request r) noexcept     # GO when all is sent, BLOCKED or a fault
    cdef int pump(self, Request r) noexcept    # send what was held back; the same


cdef class Conductor:
    """Who drives requests; rooms that parked one call resume."""
    cdef void resume(self, Request r, int verdict) noexcept
    # Who took the body of r has room again (a filter of r, or the waiter of a sub-request).
    cdef void go_on(self, Request r) noexcept
    # GET `uri` (a path as in r.uri) on the parent's server; `waiter` is told, perhaps before
    # this returns. `tag` becomes its sub_tag. 0, or a fault: too many, too deep, no memory.
    cdef int ask_sub(self, Request parent, Str uri, Str args, SubWaiter waiter,
                     object tag) noexcept


cdef class Server:
    """One server block, frozen."""
    cdef public object name            # bytes, the first server_name
    cdef Str name_s
    cdef public object locations       # routing tree
    cdef public object settings        # Location of the server level: before one is found
    cdef public object rewrite         # routing: ops of the server level, or None
    cdef public bint merge_slashes
    cdef public bint ignore_invalid
    cdef public bint underscores
    cdef public uint32_t max_fields
    cdef public uint32_t line_bytes    # one of large_client_header_buffers
    cdef public uint32_t head_bytes    # all of them
    cdef public uint32_t head_timeout_ms
    cdef public uint32_t number        # for counters
    cdef public object tls             # engine: context settings, or None
    cdef public object block           # its conf Block


cdef class Location:
    """One location (or the server level itself), frozen: settings that many rooms read."""
    cdef public object name            # bytes as written
    cdef public object server          # Server
    cdef public object handler         # pick's answer maker: object of a room, or None for files
    cdef public int handler_kind       # Handler
    cdef public uint32_t checks        # Check bits: which admit tests there are
    cdef public uint32_t number        # for counters
    cdef public bint is_internal
    cdef public bint is_named
    cdef public bint is_exact
    # client side
    cdef public int64_t max_body       # client_max_body_size; 0: no limit
    cdef public uint32_t body_buffer   # client_body_buffer_size
    cdef public uint32_t body_timeout_ms
    cdef public uint32_t send_timeout_ms
    cdef public uint32_t keepalive_timeout_ms
    cdef public uint32_t keepalive_header_s
    cdef public uint32_t keepalive_requests
    cdef public uint32_t keepalive_time_ms
    cdef public uint8_t keepalive_disable  # bits: 1 msie6, 2 safari
    cdef public uint32_t lingering_time_ms
    cdef public uint32_t lingering_timeout_ms
    cdef public uint8_t lingering_close  # 0 off, 1 on, 2 always
    cdef public uint32_t h2_chunk      # http2_chunk_size
    cdef public bint chunked_ok        # chunked_transfer_encoding
    cdef public bint absolute_redirect
    cdef public bint server_name_in_redirect
    cdef public bint port_in_redirect
    cdef public bint server_tokens
    cdef public bint reset_timedout
    cdef public bint satisfy_any
    cdef public uint32_t body_in_file  # client_body_in_file_only: 0 off, 1 clean, 2 on
    cdef public uint64_t limit_rate    # bytes/s, 0 off
    cdef public uint64_t limit_rate_after
    cdef public object limit_rate_text    # variables: Template of a text with variables, or None
    cdef public object limit_rate_after_text
    # rooms: each casts its own
    cdef public object rewrite         # routing: list of ops, or None
    cdef public object limits
    cdef public object access
    cdef public object proxy           # upstream: ProxySettings
    cdef public object content         # root, alias, index, try_files, types …
    cdef public object headers         # add_header, add_trailer, expires
    cdef public object errors          # error_page
    cdef public object logs            # observe
    cdef public object filters         # body filters: ssi, charset
    cdef public object block           # its conf Block


cdef enum HandlerKind:
    HANDLE_FILES = 0
    HANDLE_PROXY = 1          # proxy_pass and function_pass
    HANDLE_RETURN = 2         # handler: ready Answer
    HANDLE_PYTHON = 3         # handler: callable(request door) -> (status, fields, body)


cdef enum Check:
    CHECK_CONN = 1            # limit_conn
    CHECK_REQ = 2             # limit_req
    CHECK_ACCESS = 4          # allow / deny
    CHECK_BASIC = 8           # auth_basic
    CHECK_REQUEST = 16        # auth_request
    CHECK_METHOD = 32         # limit_except


cdef class Request:
    cdef Stream stream
    cdef Conductor conductor
    cdef Request parent                # of a sub-request
    cdef Request main                  # self, or the outermost parent
    cdef Server server
    cdef Location location
    cdef Client client                 # the connection: $remote_addr, $ssl_*, …
    cdef Arena arena
    cdef Head head                     # the client's
    cdef uint8_t stage
    cdef uint8_t method                # head.method, unless error_page changed it to GET
    cdef uint8_t is_internal           # reached by redirect, error_page, sub-request
    cdef uint8_t redirects             # left of MAX_REDIRECTS (counted up)
    cdef uint8_t is_rewritten          # uri no longer what the client sent
    cdef uint8_t is_complex            # target had to be normalised
    cdef uint8_t is_parked
    cdef uint8_t is_done               # answered whole; only tell is left
    cdef uint8_t is_head_sent
    cdef uint8_t is_answer_ours        # made here, not by an upstream
    cdef uint8_t keep_alive
    cdef uint8_t is_error_page         # an error_page was used: no second one follows
    cdef uint8_t alias_takes_uri       # content: try_files made uri the rest of a regex alias
    cdef uint16_t error_status         # what the error_page's answer is sent with; 0: its own
    cdef uint8_t rewrite_done          # bits: server ops ran
    cdef uint8_t is_limited            # limit_req / limit_conn were counted once already
    cdef uint8_t is_head_kept          # head moved to the arena
    cdef uint8_t buffer_answer         # X-Accel-Buffering: 0 as configured, 1 no, 2 yes
    cdef uint8_t uri_in_proxy          # break in rewrite: send uri as rewritten
    cdef uint8_t is_upgraded           # opaque tunnel from here on
    cdef uint8_t is_counted            # among those being answered
    cdef uint8_t is_pipelined          # it was here before the one before it was answered
    cdef int fault                     # last FaultCode
    # target
    cdef Str target                    # as sent: $request_uri
    cdef Str uri                       # normalised path: $uri
    cdef Str args                      # $args
    cdef Str host                      # lower case, without port; empty: none given
    cdef Str server_name               # what matched, for $server_name with a regex
    cdef Captures captures
    cdef uint64_t start_ms
    cdef int64_t start_wall_s
    cdef uint32_t start_wall_ms
    # the client's body
    cdef uint8_t body_kind             # BodyKind
    cdef uint8_t is_body_done
    cdef uint8_t is_body_read          # somebody asked for it
    cdef int64_t body_n                # bytes that came
    cdef object body                   # bodies.Spool, or None
    # the answer
    cdef uint16_t status
    cdef uint16_t told_status          # status for the log where it differs (444, 499 …), else 0
    cdef Str reason                    # upstream's words; empty: ours
    cdef Head answer                   # the upstream's head, fields NULL without one
    cdef OutField* out
    cdef uint16_t n_out
    cdef uint16_t cap_out
    cdef Str content_type              # of our own answer
    cdef int64_t length                # of the answer's body, -1 unknown
    cdef int64_t last_modified         # seconds, -1 none
    cdef uint8_t out_kind              # BodyKind that goes to the client
    cdef uint8_t is_header_only        # HEAD, 204, 304
    cdef OutField* trailers            # sent after a chunked body
    cdef uint16_t n_trailers
    cdef uint16_t cap_trailers
    cdef int64_t sent_body             # $body_bytes_sent
    cdef int64_t sent_head
    cdef int64_t received_head         # $request_length is this + body as received
    cdef Str text                      # the whole body of an answer of ours, when it is short
    cdef Source source                 # what feeds the body when the stream can take more
    cdef object filters                # body filters of this answer, or None
    cdef object waiting                # bodies.Spool: read from the upstream, not yet taken
    cdef uint8_t is_answer_read        # the upstream's answer came whole
    # upstream
    cdef object call                   # the upstream connection that serves it
    cdef object upstream               # Upstream chosen
    cdef object found                  # upstream: where a proxy_pass with variables goes
    cdef Str proxy_uri                 # its URI, whole; empty: the request's own
    cdef Attempt* attempts
    cdef uint16_t n_attempts
    cdef uint16_t cap_attempts
    cdef void* tried                   # upstream: which peers were asked, in the arena
    cdef object version                # functions: Version that is asked, or None
    cdef void* asked                   # functions: what it waited for and holds, in the arena
    # variables
    cdef Str* values                   # by variable number; p NULL and n 1: not found
    cdef uint8_t* value_states         # 0 not asked yet, 1 found, 2 not found
    # limits
    cdef uint8_t limit_req_status      # 0 none, 1 passed, 2 delayed, 3 rejected, 4/5 dry run
    cdef uint8_t limit_conn_status
    cdef uint8_t n_conns               # counters taken, given back in tell
    cdef uint64_t conns[8]             # handles of what limit_conn took
    cdef object conn_limits            # limits: what they were taken from
    cdef uint64_t limit_rate           # bytes/s of the answer, 0: as fast as it goes
    cdef uint64_t limit_rate_after     # bytes that go at full speed first
    cdef object pacer                  # holds the answer back while it is ahead of limit_rate
    cdef object waiter                 # Python policy's own state
    # access and sub-requests
    cdef uint8_t checked               # Check bits: which of access, basic, request were made
    cdef uint16_t access_status        # satisfy any: who refuses if nobody lets it in
    cdef uint8_t depth                 # of a sub-request: how many parents
    cdef uint16_t n_subs               # made so far, counted in main
    cdef object subs                   # list of those under way, or None
    cdef object sub_tag                # of a sub-request: what its waiter knows it by
    cdef uint64_t id                   # connection serial, for the error log
    cdef uint32_t connection_requests
    cdef object variables              # dict for Python policy, or None

    cdef void begin(self, Conductor conductor, Stream stream) noexcept
    cdef void end(self) noexcept
    cdef int keep_head(self) noexcept
    cdef int keep_answer(self) noexcept
    cdef OutField* add_field(self, Str name, Str value, uint8_t id) noexcept
    cdef OutField* add_trailer(self, Str name, Str value) noexcept
    cdef Attempt* add_attempt(self, Str peer) noexcept


cdef inline int put_body(Request r, const char* p, size_t n) noexcept:
    """A piece of an answer's body, through its filters. 0, BLOCKED or a fault."""
    if r.filters is None:
        return r.stream.send_body(r, p, n)
    return (<BodyFilter>r.filters).body(r, p, n)

# Requests come and go; what they hold is let go in one place.

from libc.string cimport memcpy, memset

from proxy.base._arena cimport arena_clear, copy, take
from proxy.base._clock cimport clock
from proxy.base.head cimport Field
from proxy.base.verdict cimport NOT_IMPLEMENTED


cdef class Stream:
    cdef int send_head(self, Request r) noexcept:
        return -1

    cdef int send_interim(self, Request r, int status) noexcept:
        return 0

    cdef int send_body(self, Request r, const char* p, size_t n) noexcept:
        return -1

    cdef int send_file(self, Request r, int fd, int64_t* offset, int64_t n) noexcept:
        return NOT_IMPLEMENTED

    cdef int send_end(self, Request r) noexcept:
        return -1

    cdef int flush(self, Request r) noexcept:
        return 0

    cdef void abort(self, Request r) noexcept:
        pass

    cdef void want_body(self, Request r, bint is_wanted) noexcept:
        pass

    cdef bint is_blocked(self) noexcept:
        return False

    cdef int64_t allowance(self, Request r) noexcept:
        """Bytes of body that may go now (limit_rate); 0: on_client_drained comes."""
        return 1 << 62


cdef class Source:
    cdef int feed(self, Request r) noexcept:
        return -1


cdef class SubWaiter:
    cdef int on_sub_body(self, Request sub, const char* p, size_t n) noexcept:
        return 0

    cdef void on_sub(self, Request sub) noexcept:
        pass


cdef class BodyFilter(SubWaiter):
    cdef int body(self, Request r, const char* p, size_t n) noexcept:
        return -1

    cdef int end(self, Request r) noexcept:
        return -1

    cdef int pump(self, Request r) noexcept:
        return 0


cdef class Conductor:
    cdef void resume(self, Request r, int verdict) noexcept:
        pass

    cdef void go_on(self, Request r) noexcept:
        pass

    cdef int ask_sub(self, Request parent, Str uri, Str args, SubWaiter waiter,
                     object tag) noexcept:
        return -1


cdef class Server:
    def __init__(self, bytes name):
        self.name = name
        self.name_s.p = name
        self.name_s.n = <uint32_t>len(name)
        self.merge_slashes = True
        self.ignore_invalid = True
        self.max_fields = 1000
        self.line_bytes = 8192
        self.head_bytes = 4 * 8192
        self.head_timeout_ms = 60000


cdef class Location:
    def __init__(self, bytes name):
        self.name = name
        self.max_body = 1 << 20
        self.body_buffer = 16384
        self.body_timeout_ms = self.send_timeout_ms = 60000
        self.keepalive_timeout_ms = 75000
        self.keepalive_requests = 1000
        self.keepalive_time_ms = 3600000
        self.h2_chunk = 8192
        self.lingering_close = 1
        self.lingering_time_ms = 30000
        self.lingering_timeout_ms = 5000
        self.chunked_ok = self.absolute_redirect = self.port_in_redirect = True
        self.server_tokens = True


cdef class Request:
    def __cinit__(self):
        self.main = self          # also one that was never begun has a main request

    cdef void begin(self, Conductor conductor, Stream stream) noexcept:
        self.conductor = conductor
        self.stream = stream
        self.main = self
        self.stage = 0
        self.method = 0
        self.is_internal = self.redirects = self.is_rewritten = self.is_complex = 0
        self.is_parked = self.is_done = self.is_head_sent = self.is_answer_ours = 0
        self.keep_alive = self.is_error_page = self.rewrite_done = self.is_limited = 0
        self.is_head_kept = self.buffer_answer = self.uri_in_proxy = self.is_upgraded = 0
        self.is_counted = self.is_pipelined = 0
        self.alias_takes_uri = 0
        self.error_status = 0
        self.fault = 0
        self.target.n = self.uri.n = self.args.n = self.host.n = self.server_name.n = 0
        self.captures.n = 0
        self.captures.p = NULL
        self.start_ms = clock.now_ms
        self.start_wall_s = clock.wall_s
        self.start_wall_ms = clock.wall_ms
        self.body_kind = self.is_body_done = self.is_body_read = 0
        self.body_n = 0
        self.status = self.told_status = 0
        self.reason.n = 0
        self.answer.fields = NULL
        self.answer.n_fields = 0
        self.out = NULL
        self.n_out = self.cap_out = 0
        self.content_type.n = 0
        self.length = self.last_modified = -1
        self.out_kind = self.is_header_only = 0
        self.trailers = NULL
        self.text.n = self.proxy_uri.n = 0
        self.is_answer_read = 0
        self.n_trailers = self.cap_trailers = 0
        self.sent_body = self.sent_head = self.received_head = 0
        self.attempts = NULL
        self.n_attempts = self.cap_attempts = 0
        self.tried = self.asked = NULL
        self.values = NULL
        self.value_states = NULL
        self.limit_req_status = self.limit_conn_status = self.n_conns = 0
        self.limit_rate = self.limit_rate_after = 0
        self.checked = self.depth = 0
        self.access_status = self.n_subs = 0

    cdef void end(self) noexcept:
        """Let go of memory and of every object; the Request may be begun again."""
        arena_clear(&self.arena)
        memset(&self.head, 0, sizeof(Head))
        self.answer.fields = NULL
        self.parent = None
        self.main = None
        self.server = None
        self.location = None
        self.client = None
        self.body = None
        self.source = None
        self.waiting = None
        self.filters = None
        self.call = None
        self.upstream = None
        self.found = None
        self.version = None
        self.waiter = None
        self.pacer = None
        self.conn_limits = None
        self.subs = None
        self.sub_tag = None
        self.variables = None

    cdef int keep_head(self) noexcept:
        """Move the head out of the read buffer, with the Strs that point into it. 0, or -1."""
        cdef char* old = self.head.base
        cdef char* new
        cdef Field* fields
        cdef uint32_t n = self.head.size
        if self.is_head_kept:
            return 0
        new = <char*>take(&self.arena, n)
        fields = <Field*>take(&self.arena, self.head.n_fields * sizeof(Field))
        if new == NULL or fields == NULL:
            return -1
        memcpy(new, old, n)
        memcpy(fields, self.head.fields, self.head.n_fields * sizeof(Field))
        self.head.base = new
        self.head.fields = fields
        self.head.cap_fields = self.head.n_fields
        move(&self.target, old, new, n)
        move(&self.uri, old, new, n)
        move(&self.args, old, new, n)
        move(&self.host, old, new, n)
        if old <= self.captures.p < old + n:
            self.captures.p = new + (self.captures.p - old)
        self.is_head_kept = 1
        return 0

    cdef int keep_answer(self) noexcept:
        """Move the upstream's head out of the read buffer. 0, or -1."""
        cdef char* new
        cdef Field* fields
        cdef char* old = self.answer.base
        if self.answer.fields == NULL:
            return 0
        new = <char*>take(&self.arena, self.answer.size)
        fields = <Field*>take(&self.arena, self.answer.n_fields * sizeof(Field))
        if new == NULL or fields == NULL:
            return -1
        memcpy(new, old, self.answer.size)
        memcpy(fields, self.answer.fields, self.answer.n_fields * sizeof(Field))
        move(&self.reason, old, new, self.answer.size)
        self.answer.base = new
        self.answer.fields = fields
        return 0

    cdef OutField* add_field(self, Str name, Str value, uint8_t id) noexcept:
        """Append a field to the answer; name and value must outlive it. NULL: no room."""
        cdef OutField* grown
        if self.n_out == self.cap_out:
            if self.cap_out >= 4096:
                return NULL
            grown = <OutField*>take(&self.arena, (self.cap_out * 2 + 8) * sizeof(OutField))
            if grown == NULL:
                return NULL
            if self.n_out:
                memcpy(grown, self.out, self.n_out * sizeof(OutField))
            self.out = grown
            self.cap_out = self.cap_out * 2 + 8
        grown = &self.out[self.n_out]
        grown.name = name
        grown.value = value
        grown.id = id
        self.n_out += 1
        return grown

    cdef OutField* add_trailer(self, Str name, Str value) noexcept:
        """The same behind a chunked body."""
        cdef OutField* grown
        if self.n_trailers == self.cap_trailers:
            if self.cap_trailers >= 256:
                return NULL
            grown = <OutField*>take(&self.arena, (self.cap_trailers * 2 + 2) * sizeof(OutField))
            if grown == NULL:
                return NULL
            if self.n_trailers:
                memcpy(grown, self.trailers, self.n_trailers * sizeof(OutField))
            self.trailers = grown
            self.cap_trailers = self.cap_trailers * 2 + 2
        grown = &self.trailers[self.n_trailers]
        grown.name = name
        grown.value = value
        grown.id = 0
        self.n_trailers += 1
        return grown

    cdef Attempt* add_attempt(self, Str peer) noexcept:
        cdef Attempt* grown
        if self.n_attempts == self.cap_attempts:
            grown = <Attempt*>take(&self.arena, (self.cap_attempts * 2 + 1) * sizeof(Attempt))
            if grown == NULL:
                return NULL
            if self.n_attempts:
                memcpy(grown, self.attempts, self.n_attempts * sizeof(Attempt))
            self.attempts = grown
            self.cap_attempts = self.cap_attempts * 2 + 1
        grown = &self.attempts[self.n_attempts]
        memset(grown, 0, sizeof(Attempt))
        grown.peer = copy(&self.arena, peer)
        grown.start_ms = clock.now_ms
        grown.connect_ms = grown.header_ms = grown.response_ms = -1
        self.n_attempts += 1
        return grown


cdef inline void move(Str* s, const char* old, const char* new, uint32_t n) noexcept nogil:
    if s.n and old <= s.p < old + n:
        s.p = new + (s.p - old)

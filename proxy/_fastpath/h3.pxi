# The client's side over HTTP/3: a QUIC engine (proxy/quic) tells ClientH3 of heads and bodies,
# and takes answers; each request has a Stream of its own here.
#
# QUIC is Python, so this side makes objects as it pleases. What comes of a body that nobody takes
# waits with its stream and counts against the stream's window; what goes out waits in the engine,
# which tells when there is room again.

cdef enum:
    H3_HIGH = 64 * 1024           # of an answer may wait in the engine: then its source pauses
    H3_VERSION = 30
    H3_LITERAL = 24               # bytes of HPACK beside name and value: two lengths, a tag
    H3_MOST_BLOCK = 1024 * 1024   # a head that is larger is refused unread

cdef enum H3Code:                 # RFC 9114 §8.1
    H3_NO_ERROR = 0x100
    H3_INTERNAL_ERROR = 0x102
    H3_FRAME_UNEXPECTED = 0x105
    H3_EXCESSIVE_LOAD = 0x107
    H3_REQUEST_REJECTED = 0x10b
    H3_REQUEST_CANCELLED = 0x10c
    H3_MESSAGE_ERROR = 0x10e

cdef int64_t H3_LAST_ID = (1 << 62) - 4


cdef char* put_length(char* at, uint32_t n) noexcept:
    """An HPACK string's length, without Huffman (RFC 7541 §5.1, §5.2)."""
    if n < 127:
        at[0] = <char>n
        return at + 1
    at[0] = 127
    at += 1
    n -= 127
    while n >= 128:
        at[0] = <char>(n & 127 | 128)
        n >>= 7
        at += 1
    at[0] = <char>n
    return at + 1


cdef bytes block_of(list fields):
    """Fields as a block of HPACK literals: heads of HTTP/3 are checked by HTTP/2's reader."""
    cdef size_t n = 0
    cdef bytes name
    cdef bytes value
    cdef bytes block
    cdef char* at
    cdef char* begin
    for name, value in fields:
        n += <size_t>(len(name) + len(value)) + H3_LITERAL
    if n > H3_MOST_BLOCK:
        return None
    begin = at = <char*>malloc(n + 1)
    if at == NULL:
        raise MemoryError
    for name, value in fields:
        at[0] = 0
        at = put_length(at + 1, <uint32_t>len(name))
        memcpy(at, <char*>name, <size_t>len(name))
        at = put_length(at + len(name), <uint32_t>len(value))
        memcpy(at, <char*>value, <size_t>len(value))
        at += len(value)
    try:
        return begin[:at - begin]
    finally:
        free(begin)


cdef list fields_of(const uint8_t* p, uint32_t n):
    """A block that HTTP/2's writer made, as fields."""
    cdef HpackTable table
    cdef HpackField f
    cdef const uint8_t* end = p + n
    cdef size_t size = grown(n)
    cdef char* room = <char*>malloc(size)
    cdef list found = []
    if room == NULL:
        raise MemoryError
    memset(&table, 0, sizeof(table))
    begin_table(&table)
    begin_block(&table)
    while read_field(&table, &p, end, room, room + size, &f) == HPACK_FIELD:
        found.append((f.name[:f.name_n], f.value[:f.value_n]))
    free_table(&table)
    free(room)
    return found


@final
cdef class H3Timer(Timed):
    """The time limit of one stream: that of the side that is waited for."""
    cdef PyObject* stream         # borrowed: the stream holds us

    cdef void on_deadline(self) noexcept:
        (<H3Stream>self.stream).on_deadline()


@final
cdef class H3Stream(ClientStream):
    """The Stream of one request of a ClientH3; lives and is pooled together with its Request."""
    cdef ClientH3 h3
    cdef Request r                # while it is open
    cdef Client client            # its own: realip may put another address there
    cdef H3Timer timer
    cdef int64_t id
    cdef list held                # of the body: came, and nobody took it
    cdef uint32_t held_n
    cdef uint32_t owed            # taken while paused: the window is given when it goes on
    cdef int64_t left             # of content-length; -1: none was said
    cdef int64_t sent             # by the engine, when the timer was set
    cdef uint8_t is_paused
    cdef uint8_t is_end_come      # the client said its last word
    cdef uint8_t is_end_held      # the body's end came behind what is held
    cdef uint8_t is_waiting       # the engine has too much of the answer
    cdef uint8_t is_aborted
    cdef uint8_t is_wrong         # malformed: what comes is dropped
    cdef uint8_t is_interim_sent
    cdef uint8_t is_connect       # an extended CONNECT: what comes are bytes of a tunnel
    cdef uint8_t is_shut          # of the tunnel: our side of it is ended
    cdef uint8_t is_over          # … both are
    cdef UpstreamH1 tunnel

    cdef void begin(self, ClientH3 h, Request r, int64_t id) noexcept:
        cdef Client c = self.client
        cdef Client from_ = h.client
        self.is_multiplexed = True
        self.h3 = h
        self.r = r
        self.id = id
        self.held = []
        self.held_n = self.owed = 0
        self.left = -1
        self.is_paused = self.is_end_come = self.is_end_held = self.is_waiting = False
        self.is_aborted = self.is_interim_sent = self.is_wrong = False
        self.is_connect = self.is_shut = self.is_over = False
        c.fd = from_.fd
        c.address = c.peer = from_.peer
        c.local = from_.local
        c.has_local = from_.has_local
        c.is_tls = True
        c.tls = from_.tls
        c.serial = from_.serial
        c.requests = from_.requests
        c.accepted_ms = from_.accepted_ms

    cdef void give_back(self, Worker w, Request r) noexcept:
        """Its request was freed: let go of everything."""
        cdef ClientH3 h = self.h3
        self.timer.forget_deadline()
        self.detach()
        self.held = None
        self.client.tls = None
        self.h3 = None
        self.r = None
        if h is not None:
            h.on_closed_stream(self)
            Py_DECREF(r)
        if len(w.free_requests_h3) < MAX_POOLED:
            w.free_requests_h3.append(r)

    cdef Listener came_to(self) noexcept:
        return self.h3.listener

    cdef Worker worker(self) noexcept:
        return self.h3.w if self.h3 is not None else None

    cdef uint32_t held_bytes(self) noexcept:
        return self.held_n

    # ---------------------------------------------------------------- the answer goes out

    cdef int send_head(self, Request r) noexcept:
        cdef ClientH3 h = self.h3
        cdef char* block
        cdef int n
        if h is None or h.is_over:
            return CLIENT_GONE
        if r.location is not None and r.location.headers is not None:
            expect_trailers(r)
        frame_on_stream(r, self.is_connect)
        block = <char*>malloc(room_for_answer(r))
        if block == NULL:
            return NO_MEMORY
        n = write_answer_block(r, block)
        r.is_head_sent = True
        r.sent_head = n
        try:
            if not h.engine.send_head(self.id, fields_of(<uint8_t*>block, <uint32_t>n), False):
                return CLIENT_GONE
        except Exception as error:
            return h.report(r, error)
        finally:
            free(block)
        return 0

    cdef int send_interim(self, Request r, int status) noexcept:
        cdef ClientH3 h = self.h3
        cdef char* block = NULL
        cdef int n
        if h is None or h.is_over or status != 103 and (status != 100 or self.is_interim_sent):
            return 0
        try:
            if status == 100:
                self.is_interim_sent = True
                h.engine.send_head(self.id, [(b":status", b"100")], False)
                return 0
            block = <char*>malloc(room_for_hints(r))
            n = write_hint_block(r, block) if block != NULL else 0
            if n:
                h.engine.send_head(self.id, fields_of(<uint8_t*>block, <uint32_t>n), False)
        except Exception as error:
            return h.report(r, error)
        finally:
            free(block)
        return 0

    cdef int send_body(self, Request r, const char* p, size_t n) noexcept:
        cdef ClientH3 h = self.h3
        if n == 0 or r.is_header_only:
            return 0
        if h is None or h.is_over:
            return CLIENT_GONE
        r.sent_body += <int64_t>n
        try:
            if not h.engine.send_body(self.id, p[:n], False):
                return CLIENT_GONE
            if self.is_waiting:
                return BLOCKED
            if h.engine.unsent(self.id) < H3_HIGH:
                return 0
            self.is_waiting = True
            h.engine.tell_when_writable(self.id)
        except Exception as error:
            return h.report(r, error)
        self.time_sending(r)
        return BLOCKED

    cdef int send_end(self, Request r) noexcept:
        cdef ClientH3 h = self.h3
        cdef char* block = NULL
        cdef int n
        if h is None or h.is_over:
            return CLIENT_GONE
        try:
            if r.n_trailers and not r.is_header_only:
                block = <char*>malloc(room_for_trailers(r))
                if block == NULL:
                    return NO_MEMORY
                n = write_trailer_block(r, block)
                h.engine.send_head(self.id, fields_of(<uint8_t*>block, <uint32_t>n), True)
            else:
                h.engine.send_body(self.id, b"", True)
        except Exception as error:
            return h.report(r, error)
        finally:
            free(block)
        return 0

    cdef bint is_blocked(self) noexcept:
        return self.is_waiting

    cdef size_t unsent(self) noexcept:
        if self.h3 is None or self.h3.is_over:
            return 0
        return self.h3.engine.unsent(self.id)

    cdef void on_writable(self) noexcept:
        cdef Request r = self.r
        if r is None or not self.is_waiting:
            return
        self.is_waiting = False
        if self.tunnel is not None:
            self.tunnel.unpause()
        elif not self.is_over:
            self.stop_time()
            self.h3.w.on_client_drained(r)

    cdef void abort(self, Request r) noexcept:
        """The answer cannot be completed; its caller is still busy with the request."""
        if self.h3 is None or self.is_aborted:
            return
        self.is_aborted = True
        self.h3.reset(self, H3_INTERNAL_ERROR)
        self.do_later()

    # ---------------------------------------------------------------- the body comes

    cdef void start(self, Request r, int fault, bint is_end) noexcept:
        cdef Worker w = self.h3.w
        r.method = r.head.method
        r.keep_alive = True
        self.is_end_come = is_end
        self.is_end_held = is_end and self.is_connect
        if is_end or r.head.content_length == 0 or self.is_connect:
            r.body_kind = BODY_NONE
        else:
            r.body_kind = BODY_LENGTH if r.head.content_length > 0 else BODY_CHUNKED
        r.is_body_done = r.body_kind == BODY_NONE
        w.begin_writing(r)
        if fault < 0:
            r.is_body_done = True
            if r.keep_head() < 0:
                r.head.n_fields = 0
            w.refuse(r, self.h3.listener.default_server, fault)
            return
        w.drive(r, GO)
        if self.r is r and r.location is not None and not r.is_head_kept and r.keep_head() < 0:
            w.fail(r, NO_MEMORY)

    cdef void take_body(self, bytes data, bint is_end) noexcept:
        """A piece came. Bytes that nobody wants are dropped."""
        cdef Request r = self.r
        cdef int64_t n = len(data)
        self.is_end_come |= is_end
        if self.left >= 0 and not self.is_wrong:
            self.left -= n
            if self.left < 0 or is_end and self.left:
                self.be_malformed(r)
                return
        if self.is_aborted or r.is_body_done and not self.is_connect:
            return
        if self.tunnel is not None and not self.is_paused and self.held_n == 0:
            self.to_tunnel(data, is_end)
            return
        if r.is_body_read and not self.is_paused and self.held_n == 0:
            self.give(data, is_end)
            return
        self.is_end_held = is_end
        if n:
            self.held.append(data)
            self.held_n += <uint32_t>n
            self.tell_held()

    cdef void be_malformed(self, Request r) noexcept:
        """Not what its head promised (RFC 9114 §4.1.2): answered, if it is not yet, as by nginx."""
        cdef ClientH3 h = self.h3
        if self.is_aborted or self.is_wrong:
            return
        h.count_reset()
        if h.is_over:
            return
        self.is_wrong = True
        self.held = []
        self.held_n = self.is_end_held = 0
        if r.is_body_done or self.is_connect or r.is_head_sent or (
                not r.is_body_read and r.call is None):  # parked by who would not hear of it
            h.reset(self, H3_MESSAGE_ERROR)
            h.w.on_client_gone(r)
            return
        self.stop_time()
        r.is_body_done = True
        h.w.fail(r, BAD_REQUEST)

    cdef void tell_held(self) noexcept:
        """What the window must not be given back for."""
        self.h3.engine.hold(self.id, self.held_n + self.owed)

    cdef void give(self, bytes data, bint is_end) noexcept:
        cdef Request r = self.r
        if len(data):
            self.h3.w.on_body(r, <const char*>data, <uint32_t>len(data))
            if self.r is not r:
                return
            if self.is_paused:
                self.owed += <uint32_t>len(data)
                self.tell_held()
        if is_end and not r.is_body_done:
            r.is_body_done = True
            if not self.is_waiting:
                self.stop_time()
            self.h3.w.on_body_end(r)

    cdef void do_later(self) noexcept:
        """When all others are done: what its doing ends is no surprise to anybody then."""
        self.h3.w.later.append(self)
        self.h3.wake()

    cdef void go_on(self) noexcept:
        """Its body was asked for, or its answer was cut."""
        cdef Request r = self.r
        cdef bytes data
        if r is None:
            return
        if self.is_aborted:
            self.end_aborted(r)
            return
        if self.is_over:
            self.h3.w.complete(r)
            return
        if self.is_paused or self.held_n == 0 and not self.is_end_held or (
                self.tunnel is None and (not r.is_body_read or r.is_body_done)):
            return
        data = b"".join(self.held)
        self.held = []
        self.held_n = 0
        self.tell_held()
        if self.tunnel is not None:
            self.to_tunnel(data, self.is_end_held)
        else:
            self.give(data, self.is_end_held)

    cdef void end_aborted(self, Request r) noexcept:
        cdef Worker w = self.h3.w
        cdef UpstreamCall u
        if r.call is not None:
            u = <UpstreamCall>r.call
            r.call = None
            u.leave()
        if r.asked != NULL:
            leave(w.waiting, r)
        if r.stage != S_TELL and r.location is not None:
            w.tell(r)
        free_request(w, r)

    cdef void ask_body(self, Request r) noexcept:
        if r.is_body_read:
            return
        r.is_body_read = True
        if r.head.flags & H_EXPECT_CONTINUE and self.held_n == 0 and not self.is_end_held:
            self.send_interim(r, 100)
        set_deadline(self.h3.w.wheel, self.timer, clock.now_ms + r.location.body_timeout_ms)
        self.want_body(r, True)

    cdef void want_body(self, Request r, bint is_wanted) noexcept:
        self.is_paused = not is_wanted
        if not is_wanted or self.h3 is None:
            return
        if self.owed:
            self.owed = 0
            self.tell_held()
        if self.held_n or self.is_end_held:
            self.do_later()

    cdef void go_on_reading(self, Request r) noexcept:
        self.want_body(r, True)
        if not self.is_waiting and not r.is_body_done:
            set_deadline(self.h3.w.wheel, self.timer, clock.now_ms + r.location.body_timeout_ms)

    # ---------------------------------------------------------------- time, and the end

    cdef void time_body(self, Request r) noexcept:
        if self.timer.node.deadline_ms and not self.is_waiting:
            self.timer.node.deadline_ms = clock.now_ms + r.location.body_timeout_ms

    cdef void stop_time(self) noexcept:
        self.timer.node.deadline_ms = 0

    cdef void time_sending(self, Request r) noexcept:
        self.sent = self.h3.engine.sent(self.id)
        set_deadline(self.h3.w.wheel, self.timer, clock.now_ms + (
            r.location.send_timeout_ms if r.location is not None else CLOSE_MS))

    cdef void on_deadline(self) noexcept:
        cdef Request r = self.r
        cdef ClientH3 h = self.h3
        if r is None:
            return
        if self.is_waiting and h.engine.sent(self.id) > self.sent:
            self.time_sending(r)                 # slowly, but it takes something
        elif self.is_waiting:
            r.fault = SEND_TIMEOUT
            h.reset(self, H3_REQUEST_CANCELLED)
            h.w.on_client_gone(r)
        elif not r.is_body_done and not r.is_head_sent:
            h.w.fail(r, BODY_TIMEOUT)
        elif not r.is_body_done:
            h.reset(self, H3_REQUEST_CANCELLED)
            h.w.on_client_gone(r)
        h.w.settle()

    cdef void on_answered(self, Request r) noexcept:
        """Told. What is left of a body is not wanted (RFC 9114 §4.1)."""
        cdef ClientH3 h = self.h3
        if not r.is_done or not r.is_head_sent or r.is_upgraded and not self.is_shut:
            # closed without a word
            h.reset(self, H3_REQUEST_CANCELLED)
        elif not self.is_end_come:
            h.engine.stop(self.id, <int>(H3_MESSAGE_ERROR if self.is_wrong else H3_NO_ERROR))
        free_request(h.w, r)

    # ---------------------------------------------------------------- a tunnel (RFC 9220)

    cdef bint may_tunnel(self, Request r) noexcept:
        return self.is_connect and is_begun(&r.head, &r.answer)

    cdef void open_tunnel(self, Request r, UpstreamH1 u) noexcept:
        self.tunnel = u
        self.stop_time()
        if self.held_n or self.is_end_held:
            self.do_later()

    cdef void to_tunnel(self, bytes data, bint is_end) noexcept:
        cdef UpstreamH1 u = self.tunnel
        cdef Request r = self.r
        cdef uint32_t n = <uint32_t>len(data)
        self.is_end_held = False
        if n and u.websocket is not None:
            u.websocket.on_client()
            u.websocket.carry(FROM_CLIENT, <const char*>data, n)
        elif n:
            u.on_tunnel_traffic()
            if u.write(<const char*>data, n, NULL, 0) == 1:
                self.is_paused = True
        if self.r is not r:                      # it ended there
            return
        if self.is_paused:
            self.owed += n
            self.tell_held()
        if is_end and self.tunnel is not None:
            u.shut_after_client()
            if u.is_ended:
                self.end_tunnel()

    cdef int write_tunnel(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        cdef ClientH3 h = self.h3
        if h is None or h.is_over or self.is_shut or self.is_aborted:
            return -1
        try:
            if not h.engine.send_body(self.id, p[:n] + q[:m] if m else p[:n], False):
                return -1
            if not self.is_waiting:
                if h.engine.unsent(self.id) < H3_HIGH:
                    return 0
                self.is_waiting = True
                h.engine.tell_when_writable(self.id)
        except Exception as error:
            h.report(self.r, error)
            return -1
        return 1

    cdef void want_tunnel(self, bint is_wanted) noexcept:
        self.want_body(self.r, is_wanted)

    cdef void shut_tunnel(self) noexcept:
        if not self.is_shut and self.r is not None:
            self.is_shut = True
            self.send_end(self.r)

    cdef void end_tunnel(self) noexcept:
        self.detach()
        if self.r is not None and not self.is_over:
            self.is_over = True
            self.do_later()                      # who ends it is still busy with it

    cdef void part_tunnel(self) noexcept:
        self.shut_tunnel()
        self.end_tunnel()

    cdef void give_up_tunnel(self) noexcept:
        self.detach()
        if self.r is not None:
            self.h3.w.on_client_gone(self.r)

    cdef bint is_tunnel_ended(self) noexcept:
        return self.is_end_come or self.h3 is None or self.h3.is_over

    cdef bint has_tunnel_moved(self) noexcept:
        cdef int64_t before = self.sent
        if self.h3 is None or self.h3.is_over:
            return False
        self.sent = self.h3.engine.sent(self.id)
        return self.is_waiting and self.sent > before

    cdef void detach(self) noexcept:
        if self.tunnel is not None:
            self.tunnel.tunnel = None
            self.tunnel = None

    cdef void forget(self, Request r) noexcept:
        if self.h3 is not None and not self.h3.is_over:
            self.h3.reset(self, H3_REQUEST_CANCELLED)


@final
cdef class ClientH3(Timed):
    """HTTP/3 with one client: `Client` of proxy/quic/engine.py, which says when what comes.

    engine: its Connection. host, port: where the client is; fd: our socket; local: our address,
    where the socket does not tell it.
    """
    cdef public object engine
    cdef readonly Listener listener
    cdef Worker w
    cdef Client client
    cdef dict streams             # id → H3Stream, of requests under way
    cdef int64_t last_id
    cdef uint64_t counted_ms      # when resets were last set back
    cdef uint64_t idle_since_ms
    cdef uint32_t n_resets
    cdef bint is_over             # closed, or gone: nothing goes out any more
    cdef bint is_parting          # nothing more is begun: close when the last stream is over
    cdef bint is_warned           # GOAWAY was sent that still takes what is on its way
    cdef bint is_waking

    def __init__(self, Worker w not None, Listener listener not None, engine, str host, int port,
                 int fd, str local):
        cdef bytes here
        self.w = w
        self.listener = listener
        self.engine = engine
        self.streams = {}
        self.last_id = -4
        tick()
        self.client = Client.__new__(Client)
        self.client.fd = fd
        self.client.is_tls = True
        self.client.tls = engine.facts()
        self.client.accepted_ms = self.counted_ms = self.idle_since_ms = clock.now_ms
        self.on_moved(host, port)
        if local:
            self.client.local_address()          # its port
            here = local.encode()
            port = self.client.local.port
            self.client.local = self.client.peer
            read_address(of_bytes(here), &self.client.local)
            self.client.local.port = <uint16_t>port
        self.client.serial = w.count_guests(1)
        w.stats.waiting += 1
        w.clients_h3.add(self)
        if w.is_quitting:
            self.warn()
        else:
            self.time_idle()

    def on_moved(self, str host, int port):
        """The client's address, at first and when it migrated (RFC 9000 §9)."""
        cdef bytes there = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()
        self.client.put_address(of_bytes(there))
        self.client.peer = self.client.address

    # ---------------------------------------------------------------- in

    def on_head(self, int64_t id, list fields, bint is_end):
        cdef Worker w = self.w
        cdef Request r
        cdef H3Stream st
        cdef int fault
        cdef bint is_wrong
        tick()
        if self.is_over:
            return
        if self.is_parting:
            self.engine.reset(id, H3_REQUEST_REJECTED)
            return
        fault = self.read_head(fields)
        self.last_id = max(self.last_id, id)
        is_wrong = fault > 0 or fault == 0 and is_end and w.head.content_length > 0
        if fault == BLOCK_WRONG or fault == BLOCK_CUT:
            self.engine.reset(id, H3_MESSAGE_ERROR)
        if is_wrong:
            self.count_reset()
            if self.is_over or fault == BLOCK_WRONG or fault == BLOCK_CUT:
                return
            fault = NOT_ALLOWED if fault == BLOCK_NO_CONNECT else BAD_REQUEST
        r = new_request_h3(w)
        st = <H3Stream>r.stream
        self.client.requests += 1
        st.begin(self, r, id)
        st.is_wrong = is_wrong
        Py_INCREF(r)
        self.streams[id] = st
        if len(self.streams) == 1:
            w.stats.waiting -= 1
            self.node.deadline_ms = 0
        st.is_connect = w.head_room.is_connect
        if st.is_connect and fault == 0 and put_key(w.head.base + w.head_room.key) < 0:
            fault = INTERNAL
        r.head = w.head
        r.received_head = sum([len(name) + len(value) for name, value in fields])
        r.client = st.client
        r.id = self.client.serial
        st.left = r.head.content_length if not is_wrong else -1
        w.stats.requests += 1
        w.stats.reading += 1
        if self.is_worn():
            self.part()
        st.start(r, fault, is_end)

    cdef int read_head(self, list fields):
        """w.head says what the fields do. 0, a BlockResult, or a fault that is answered."""
        cdef Worker w = self.w
        cdef Server s = self.listener.default_server
        cdef HeadRoom* room = &w.head_room
        cdef HpackTable table
        cdef bytes block = block_of(fields)
        cdef int rc
        if block is None or not open_head_room(w, s, <size_t>len(block)):
            return BLOCK_WRONG
        room.lim.max_line = self.listener.h2_field
        room.lim.max_head = self.listener.h2_head
        memset(&table, 0, sizeof(table))
        begin_table(&table)
        rc = read_request_block(&table, <const uint8_t*><const char*>block, <uint32_t>len(block),
                                room)
        free_table(&table)
        if rc == BLOCK_WRONG or rc == BLOCK_CUT:
            return rc
        w.head.version = H3_VERSION              # the line was written for HTTP/2.0
        w.head.base[w.head.line_off + w.head.line_n - 3] = c"3"
        return rc

    cdef inline bint is_worn(self) noexcept:
        """keepalive_requests, keepalive_time: is this request the connection's last?"""
        cdef Location here = <Location>self.listener.default_server.settings
        return self.client.requests >= here.keepalive_requests or (
            clock.now_ms - self.client.accepted_ms > here.keepalive_time_ms)

    def on_body(self, int64_t id, bytes data, bint is_end):
        cdef H3Stream st = self.streams.get(id)
        tick()
        if st is not None:
            st.take_body(data, is_end)

    def on_trailers(self, int64_t id, list fields, bint is_end):
        """The fields behind a body are checked and dropped."""
        cdef H3Stream st = self.streams.get(id)
        cdef HpackTable table
        cdef bytes block
        cdef int rc = BLOCK_MALFORMED
        tick()
        if st is None:
            return
        if st.is_connect:                        # RFC 9114 §4.4
            self.break_down(H3_FRAME_UNEXPECTED)
            return
        block = block_of(fields)
        if block is not None:
            open_head_room(self.w, self.listener.default_server, <size_t>len(block))
            memset(&table, 0, sizeof(table))
            begin_table(&table)
            rc = skip_block(&table, <const uint8_t*><const char*>block, <uint32_t>len(block),
                            &self.w.head_room, True)
            free_table(&table)
        if rc != 0:
            st.be_malformed(st.r)
        elif is_end:
            st.take_body(b"", True)

    def on_reset(self, int64_t id):
        """The client takes back its request, or wants no answer."""
        cdef H3Stream st = self.streams.get(id)
        tick()
        if st is None:                           # it was answered already
            return
        self.count_reset()
        if st.r is not None and not st.is_aborted:
            self.w.on_client_gone(st.r)

    cdef void count_reset(self) noexcept:
        if clock.now_ms - self.counted_ms >= COUNTED_MS:
            self.counted_ms = clock.now_ms
            self.n_resets = 0
        self.n_resets += 1
        if self.n_resets > self.listener.h3_resets:
            self.break_down(H3_EXCESSIVE_LOAD)

    def on_writable(self, int64_t id):
        cdef H3Stream st = self.streams.get(id)
        tick()
        if st is not None:
            st.on_writable()

    def on_closed(self):
        """The connection is no more."""
        tick()
        self.drop_streams()
        self.forget_deadline()
        self.engine = None
        self.w.stats.waiting -= 1
        self.w.clients_h3.discard(self)
        self.w.count_guests(-1)

    def on_confirmed(self):
        """The handshake is over: what comes from here on was sent by the client, now."""
        self.client.tls = self.engine.facts()

    def settle(self):
        self.w.settle()

    # ---------------------------------------------------------------- out

    cdef void reset(self, H3Stream st, H3Code code) noexcept:
        if not self.is_over:
            self.engine.reset(st.id, <int>code)

    cdef int report(self, Request r, error) noexcept:
        tell_error(R_ALERT, r, "speaking HTTP/3", error)
        return INTERNAL

    cdef void wake(self) noexcept:
        """`later` is looked at when whoever is at work is done, at the latest in the next turn."""
        if not self.is_waking:
            self.is_waking = True
            self.w.loop.call_soon(self.on_wake)

    def on_wake(self):
        self.is_waking = False
        tick()
        self.w.settle()

    # ---------------------------------------------------------------- the end

    cdef void on_closed_stream(self, H3Stream st) noexcept:
        """A request is over."""
        self.streams.pop(st.id, None)
        if not self.is_over:
            self.engine.forget(st.id)
        if len(self.streams):
            return
        self.w.stats.waiting += 1
        if self.is_over:
            return
        self.idle_since_ms = clock.now_ms
        if self.is_parting:
            self.leave()
        else:
            self.time_idle()

    cdef void time_idle(self) noexcept:
        """Nobody waits for anything but the next request: keepalive_timeout."""
        set_deadline(self.w.wheel, self, self.idle_since_ms + (
            PARTING_MS if self.w.is_quitting
            else (<Location>self.listener.default_server.settings).keepalive_timeout_ms))

    cdef void drop_streams(self) noexcept:
        """Nobody is there to be answered."""
        cdef H3Stream st
        self.is_over = True
        for st in list(self.streams.values()):
            if st.r is not None and st.is_aborted:
                st.end_aborted(st.r)
            elif st.r is not None:
                self.w.on_client_gone(st.r)

    cdef void leave_tunnels(self, uint16_t code) noexcept:
        """The worker leaves: see leave_tunnel."""
        cdef H3Stream st
        for st in list(self.streams.values()):
            leave_tunnel(st.tunnel, code)

    cdef void break_down(self, H3Code code) noexcept:
        """The client asks for too much: all its requests are over."""
        if self.is_over:
            return
        self.drop_streams()
        self.engine.close(<int>code, is_sent_first=False)

    cdef void warn(self) noexcept:
        """A leaving worker: nothing new, but what is on its way is still taken (RFC 9114 §5.2)."""
        if self.is_over or self.is_parting or self.is_warned:
            return
        tick()
        self.is_warned = True
        self.engine.go_away(H3_LAST_ID)
        set_deadline(self.w.wheel, self, clock.now_ms + PARTING_MS)

    cdef void part(self) noexcept:
        """Nothing is begun from now on; the connection ends with its last stream."""
        if self.is_over or self.is_parting:
            return
        self.is_parting = True
        self.engine.go_away(self.last_id + 4)
        if len(self.streams) == 0:
            self.leave()

    cdef void leave(self) noexcept:
        """Close when what was answered has arrived, or the client had its time for it."""
        self.engine.close(H3_NO_ERROR, is_sent_first=True)
        set_deadline(self.w.wheel, self, clock.now_ms + CLOSE_MS)

    cdef void on_deadline(self) noexcept:
        if self.is_over:
            return
        if not self.is_parting:
            if self.is_warned or len(self.streams) == 0:
                self.part()
        elif len(self.streams) == 0:
            self.is_over = True
            self.engine.close(H3_NO_ERROR, is_sent_first=False)

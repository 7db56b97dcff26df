# The client's side over HTTP/1.1: one connection, one request at a time on it.
#
# What a read brings is fed in a loop: head, body, the next head. Bytes that nobody can
# take yet are held in the connection's own memory, and reading pauses.

cdef enum ClientState:
    C_IDLE = 0            # waits for the first or the rest of a head
    C_BUSY = 1            # a request is under way; its body may still be coming
    C_DISCARD = 2         # answered; the rest of the body is read and dropped
    C_LINGER = 3          # closing: FIN was sent, what still comes is dropped
    C_TUNNEL = 4          # upgraded: opaque bytes
    C_H2 = 5              # HTTP/2 is spoken: `h2` has the streams


@final
cdef class ClientH1(Link):
    cdef Worker w
    cdef Listener listener
    cdef Client client
    cdef Request r
    cdef PyObject* next           # all clients of the worker
    cdef PyObject* prev
    cdef uint8_t state
    cdef uint8_t is_feeding
    cdef uint8_t is_misled        # plain HTTP where TLS is spoken
    cdef uint8_t is_unannounced   # its PROXY header did not come whole yet
    cdef uint8_t was_silent       # cut by a timeout: close without lingering
    cdef uint8_t is_interim_sent
    cdef uint8_t is_pipelined     # the next request was here before the last was answered
    cdef const char* behind       # while a head is acted on: what came in the same read
    cdef uint32_t behind_n
    cdef char* held
    cdef uint32_t held_n
    cdef uint32_t held_cap
    cdef int64_t body_left
    cdef Chunked* chunked         # the decoder while a body comes in chunks, else NULL
    cdef Chunked decoder          # ours: what is dropped of a body outlives its request
    cdef uint64_t linger_end_ms
    cdef uint32_t linger_ms
    cdef uint64_t idle_since_ms
    cdef uint32_t keepalive_ms    # of the location that answered last
    cdef UpstreamH1 tunnel
    cdef ClientH2 h2              # None: HTTP/1.1

    def __dealloc__(self):
        free(self.held)

    cdef void begin(self, const void* address) noexcept:
        cdef Worker w = self.w
        w.n_accepted += 1
        w.stats.accepted += 1
        w.stats.handled += 1
        w.stats.active += 1
        w.stats.waiting += 1
        self.client = Client.__new__(Client)
        self.client.serial = w.next_serial()
        self.client.is_tls = not self.is_plain
        self.client.accepted_ms = clock.now_ms
        self.client.open(self.fd, address)
        self.client.tls = self.tls
        if self.tls is not None:
            self.tls.who = <PyObject*>self.client
        self.is_unannounced = self.listener.is_proxied
        w.add_client(self)
        set_deadline(w.wheel, self, clock.now_ms + self.listener.default_server.head_timeout_ms)

    # ---------------------------------------------------------------- bytes in

    cdef void on_bytes(self, uint32_t n) noexcept:
        tick()
        if self.is_unannounced:
            self.take_announced(read_buffer, n)
        elif self.tls is None:
            self.take(read_buffer, n)
        else:
            self.take_sealed(read_buffer, n)
        self.w.settle()
        poison(read_buffer, n)

    cdef void take_announced(self, char* p, uint32_t n) noexcept:
        """The PROXY header first, whole, then what came behind it."""
        cdef ProxyHeader h
        cdef char* all_of_it = NULL
        cdef int used
        if self.held_n:
            if not self.hold(p, n):
                self.cut()
                return
            p = all_of_it = self.held
            n = self.held_n
        used = read_proxy_header(p, n, &h)
        if used == 0 and n < PROXY_HEADER_MAX:
            if all_of_it == NULL and not self.hold(p, n):
                self.cut()
            return
        if used <= 0:
            self.report_unannounced(p, n)
            self.cut()
            return
        self.held = NULL
        self.held_n = self.held_cap = 0
        self.is_unannounced = False
        if h.has_addresses and not keep_proxy_header(self.client, &h):
            self.cut()
        elif n > <uint32_t>used:
            if self.tls is None:
                self.take(p + used, n - <uint32_t>used)
            else:
                self.take_sealed(p + used, n - <uint32_t>used)
        free(all_of_it)

    cdef report_unannounced(self, const char* p, uint32_t n):
        cdef bytes line = p[:n if n < 64 else 64].split(b"\n")[0]
        shown = "".join([c if c.isprintable() else "?" for c in line.decode("latin-1").strip()])
        cdef bytes words = b'broken header: "%s" while reading PROXY protocol, client: %s' % (
            shown.encode(), to_bytes(address_text(&self.client.peer)))
        report(R_ERROR, None, of_bytes(words))

    cdef void take_sealed(self, char* p, uint32_t n) noexcept:
        """Through TLS; a client that speaks plain HTTP here is understood, and told so (497)."""
        cdef Py_ssize_t got
        cdef bint was_ready = self.tls.is_ready
        if not self.tls.is_begun and p[0] != 0x16 and not p[0] & 0x80:
            self.tls = None
            self.client.tls = None
            self.client.is_tls = False
            self.is_plain = self.is_misled = True
            self.take(p, n)
            return
        got = self.unseal(p, n)
        if got < 0:
            if not self.tls.is_ready:
                self.report_handshake()
            self.cut()
            return
        if self.tls.is_ready and not was_ready:
            set_deadline(self.w.wheel, self,
                         clock.now_ms + self.listener.default_server.head_timeout_ms)
        if got:
            self.take(plain, <uint32_t>got)
        if self.is_closing:
            return
        if self.tls.is_broken:
            self.cut()
        elif self.tls.is_ended and not self.is_ended:
            self.is_ended = True
            self.on_ended()

    cdef report_handshake(self):
        cdef bytes words = b"SSL_do_handshake() failed (%s) while SSL handshaking, client: %s" % (
            self.tls.reason, to_bytes(address_text(&self.client.address)))
        report(R_INFO, None, of_bytes(words))

    cdef void take(self, char* p, uint32_t n) noexcept:
        cdef uint32_t used
        if self.state == C_LINGER:
            self.linger_on()
            return
        if self.state == C_H2:
            self.h2.take(p, n)
            return
        if self.state == C_IDLE and self.r is None:
            if self.listener.is_h2 and self.client.requests == 0 and not self.is_misled and (
                    self.begin_h2(p, n)):
                return
            self.is_pipelined = False
        if self.state == C_TUNNEL:
            self.to_tunnel(p, n)
            return
        if self.held_n:
            if not self.hold(p, n):
                self.cut()
                return
            self.run_held()
            return
        used = self.feed(p, n)
        if used < n and not self.is_closing and self.state != C_LINGER:
            if not self.hold(p + used, n - used):
                self.cut()

    cdef bint begin_h2(self, char* p, uint32_t n) noexcept:
        """Does it speak HTTP/2, as ALPN said or as its first bytes say (RFC 9113 §3.3)? Their
        beginning may be too short to tell: it is held, then."""
        cdef char* all_of_it = NULL
        cdef const char* end
        if self.tls is not None and not self.tls.is_h2:
            return False
        if self.tls is None:
            if self.held_n and not self.hold(p, n):
                self.cut()
                return True
            if self.held_n:
                p = all_of_it = self.held
                n = self.held_n
            # a line that no HTTP/1 begins with is a preface that is wrong
            end = <const char*>memchr(p, 10, n)
            if not is_preface(p, n) and (
                    end == NULL or memmem(p, <size_t>(end - p), b"HTTP/", 5) != NULL):
                if all_of_it != NULL:
                    self.run_held()
                return all_of_it != NULL
            if n < PREFACE_BYTES and is_preface(p, n):
                if all_of_it == NULL and not self.hold(p, n):
                    self.cut()
                return True
        self.held = NULL
        self.held_n = self.held_cap = 0
        self.h2 = ClientH2.__new__(ClientH2)
        self.state = C_H2
        self.h2.begin(self)
        self.h2.take(p, n)
        free(all_of_it)
        return True

    cdef void run_held(self) noexcept:
        """Feed what was held; what is still not taken stays."""
        cdef uint32_t used
        if self.held_n == 0 or self.is_feeding:
            return
        used = self.feed(self.held, self.held_n)
        if used == self.held_n or self.is_closing or self.state == C_LINGER:
            free(self.held)
            self.held = NULL
            self.held_n = self.held_cap = 0
        elif used:
            self.held_n -= used
            memmove(self.held, self.held + used, self.held_n)

    cdef bint hold(self, const char* p, uint32_t n) noexcept:
        cdef char* grown
        cdef uint32_t cap
        if self.held_n + n > self.held_cap:
            cap = self.held_n + n
            if self.state == C_IDLE and cap < 1024:
                cap = 1024
            grown = <char*>realloc(self.held, cap)
            if grown == NULL:
                return False
            self.held = grown
            self.held_cap = cap
        memcpy(self.held + self.held_n, p, n)
        self.held_n += n
        return True

    cdef uint32_t feed(self, char* p, uint32_t n) noexcept:
        """Bytes taken; the rest must be held."""
        cdef uint32_t used = 0
        cdef int got
        self.is_feeding = True
        while used < n and not self.is_closing:
            if self.state == C_IDLE:
                got = self.read_head(p + used, n - used)
                if got <= 0:
                    break
                used += <uint32_t>got
            elif self.state == C_BUSY and self.r is not None and not self.r.is_body_done:
                if not self.r.is_body_read:      # nobody asked yet: it stays outside
                    self.pause()
                    break
                got = self.read_body(p + used, n - used)
                if got <= 0:
                    break
                used += <uint32_t>got
            elif self.state == C_DISCARD:
                got = self.read_body(p + used, n - used)
                if self.state == C_DISCARD:
                    self.linger_on()
                if got <= 0:
                    break
                used += <uint32_t>got
            elif self.state == C_TUNNEL:
                self.to_tunnel(p + used, n - used)
                used = n
            elif self.state == C_LINGER:
                used = n
            else:                                # pipelined: its turn comes later
                self.pause()
                break
        self.is_feeding = False
        return used

    cdef int read_head(self, char* p, uint32_t n) noexcept:
        """> 0: bytes of the head, and the request is under way; 0: need more, or refused."""
        cdef Worker w = self.w
        cdef Server s = self.listener.default_server
        cdef Request r
        cdef Limits lim
        cdef int size
        # a head is read again only when a line came whole: dribbling stays cheap
        if n < s.line_bytes and memchr(p, 10, n) == NULL and (
                class_of(p[0]) & IS_METHOD or p[0] == c"\r"):  # else it is no head: say so now
            self.begin_wait()
            return 0
        r = self.r
        if r is None:
            r = self.begin_request()
        begin_head(&r.head, w.fields, w.cap_fields)
        lim.max_line = s.line_bytes
        lim.max_head = s.head_bytes
        lim.max_fields = <uint16_t>s.max_fields
        lim.ignore_invalid = s.ignore_invalid
        lim.underscores_allowed = s.underscores
        size = read_request_head(&r.head, p, n, &lim)
        if size == 0:
            self.begin_wait()
            return 0
        if size < 0:
            r.head.base = p
            r.head.size = n
            self.client.requests += 1
            self.refuse(r, size)
            return 0
        r.head.base = p
        r.received_head = size
        self.client.requests += 1
        self.behind = p + size
        self.behind_n = n - <uint32_t>size
        self.start(r)
        self.behind_n = 0
        return size

    cdef void begin_wait(self) noexcept:
        """The first bytes of a head came without the rest: its own time limit starts."""
        if self.r is None:
            self.begin_request()
            set_deadline(self.w.wheel, self,
                         clock.now_ms + self.listener.default_server.head_timeout_ms)

    cdef Request begin_request(self):
        cdef Request r = new_request(self.w)
        (<H1Stream>r.stream).conn = self
        r.client = self.client
        self.client.address = self.client.peer   # realip's held for one request
        r.id = self.client.serial
        r.is_pipelined = self.is_pipelined
        self.w.stats.requests += 1
        self.w.stats.waiting -= 1
        self.w.stats.reading += 1
        self.r = r
        return r

    cdef void start(self, Request r) noexcept:
        cdef BodyKind kind = body_kind(&r.head, False)
        self.state = C_BUSY
        self.is_interim_sent = False
        r.method = r.head.method
        r.body_kind = kind
        r.is_body_done = kind == BODY_NONE
        r.keep_alive = r.head.flags & H_KEEP_ALIVE and not self.w.is_quitting
        if kind == BODY_LENGTH:
            self.body_left = r.head.content_length
        elif kind == BODY_CHUNKED:
            self.chunked = &self.decoder
            begin_chunked(self.chunked, NULL, TRAILER_BYTES)
        self.node.deadline_ms = 0
        self.w.begin_writing(r)
        self.w.drive(r, GO)
        if self.r is r and r.location is not None and not r.is_head_kept:
            if r.keep_head() < 0:
                self.w.fail(r, NO_MEMORY)

    cdef void refuse(self, Request r, int fault) noexcept:
        """A head that cannot be understood: answer, then close."""
        self.state = C_BUSY
        r.is_body_done = True
        r.keep_alive = False
        r.head.version = 11 if r.head.version != 10 else 10
        if r.head.has_start_line == 0:
            r.head.n_fields = 0
            r.head.flags = 0
        if r.keep_head() < 0:                    # it is logged when the client took the answer
            r.head.n_fields = 0
        self.w.begin_writing(r)
        self.w.refuse(r, self.listener.default_server, fault)

    # ---------------------------------------------------------------- the body

    cdef int read_body(self, char* p, uint32_t n) noexcept:
        """Bytes taken; 0: stop (refused, or not wanted now)."""
        cdef Request r = self.r
        cdef uint32_t used = 0
        cdef uint32_t got
        cdef Str piece
        cdef int found
        if self.is_paused and self.state == C_BUSY:
            return 0
        if r is None and self.state != C_DISCARD:
            return 0
        if self.chunked == NULL:
            used = n if <int64_t>n <= self.body_left else <uint32_t>self.body_left
            self.body_left -= used
            if self.state == C_BUSY:
                self.w.on_body(r, p, used)
            if self.body_left == 0:
                self.end_body()
            elif self.body_left >= SPLICE_LEAST and used == n and self.r is r and (
                    r is not None and r.call is not None and not self.is_paused
                    and not (<UpstreamCall>r.call).is_shared):
                splice_body(self.w, r, <UpstreamH1>r.call)
            return <int>used
        while used < n:
            found = read_chunked(self.chunked, p + used, n - used, &got, &piece)
            used += got
            if found == CHUNK_PIECE:
                if self.state == C_BUSY and self.r is r:
                    self.w.on_body(r, piece.p, piece.n)
                    if self.is_paused:
                        break
            elif found == CHUNK_END:
                self.end_body()
                break
            elif found < 0:
                if self.state == C_BUSY and self.r is r and not r.is_head_sent:
                    r.is_body_done = True
                    r.keep_alive = False
                    self.w.fail(r, BAD_CHUNK)
                else:
                    self.cut()
                break
            else:
                break
            if self.is_closing:
                break
        return <int>used

    cdef bint has_bad_chunk(self) noexcept:
        """Is what is here of a body that nobody wants chunked wrongly? It is looked at, not
        taken."""
        cdef Chunked probe = self.chunked[0]
        cdef const char* p = self.behind if self.is_feeding else self.held
        cdef uint32_t n = self.behind_n if self.is_feeding else self.held_n
        cdef uint32_t got
        cdef Str piece
        cdef int found
        while n:
            found = read_chunked(&probe, p, n, &got, &piece)
            if found < 0:
                return True
            if found != CHUNK_PIECE:
                break
            p += got
            n -= got
        return False

    cdef void end_body(self) noexcept:
        cdef Request r = self.r
        self.chunked = NULL
        if self.state == C_DISCARD:
            self.go_idle()
        elif r is not None:
            r.is_body_done = True
            self.node.deadline_ms = 0
            self.w.on_body_end(r)

    cdef void ask_body(self, Request r) noexcept:
        """Somebody wants the body now: 100 Continue, time limit, and what is held of it."""
        if r.is_body_read:
            return
        r.is_body_read = True
        if r.head.flags & H_EXPECT_CONTINUE and not self.is_interim_sent and r.body_n == 0:
            self.is_interim_sent = True
            if self.held_n == 0:
                r.stream.send_interim(r, 100)
        set_deadline(self.w.wheel, self, clock.now_ms + r.location.body_timeout_ms)
        self.unpause()
        if self.held_n and not self.is_feeding:
            # not now: what it brings may end the request that its caller is still busy with
            if self.w.held_of is None:
                self.w.held_of = self            # `settle` is soon enough: one write with the head
            else:
                self.w.loop.call_soon(self.run_later)

    cdef void go_on_reading(self, Request r) noexcept:
        """The upstream has room again: on with the body, and its time limit."""
        self.unpause()
        if not self.is_blocked:
            set_deadline(self.w.wheel, self, clock.now_ms + r.location.body_timeout_ms)

    cdef void unpause(self) noexcept:
        """Read on, and first what is held: its sender may have nothing more to say."""
        if self.is_paused and self.held_n and not self.is_feeding:
            self.w.loop.call_soon(self.run_later)
        Link.unpause(self)

    def run_later(self):
        tick()
        if not self.is_closing:
            self.run_held()
        self.w.settle()

    # ---------------------------------------------------------------- after the answer

    cdef void on_answered(self, Request r) noexcept:
        """The request was told; go on with the connection."""
        cdef Location here = r.location
        cdef bint keep = r.keep_alive and not self.is_closing
        cdef bint is_body_done = r.is_body_done
        cdef uint32_t linger_ms = here.lingering_timeout_ms if here is not None else 5000
        cdef uint8_t lingering = here.lingering_close if here is not None else 1
        cdef uint32_t linger_time_ms = here.lingering_time_ms if here is not None else 30000
        cdef bint is_reset = (here is not None and here.reset_timedout and r.status == 444
                              and not r.is_head_sent)
        free_request(self.w, r)
        self.r = None
        if self.is_closing:
            return
        if is_reset:                             # nginx: reset_timedout_connection is for 444 too
            self.abort()
            return
        if self.is_ended and self.held_n == 0:
            keep = False
        if here is not None:
            self.keepalive_ms = here.keepalive_timeout_ms
        if keep and is_body_done:
            self.go_idle()
            return
        self.linger_ms = linger_ms
        self.linger_end_ms = clock.now_ms + linger_time_ms
        if keep:
            self.state = C_DISCARD
            self.linger_on()
            self.unpause()
            self.run_held()
            return
        if lingering and not self.is_ended and not self.was_silent and (
                not is_body_done or self.held_n or self.is_paused or lingering == 2
                or self.is_feeding):
            # close(2) with bytes unread would reset the answer away (RFC 9112 §9.6)
            self.state = C_LINGER
            self.shut()
            self.linger_on()
            self.unpause()
            return
        self.close()

    cdef void linger_on(self) noexcept:
        """lingering_timeout from each read to the next, lingering_time for all of it."""
        cdef uint64_t until_ms = clock.now_ms + self.linger_ms
        if until_ms > self.linger_end_ms:
            until_ms = self.linger_end_ms
        set_deadline(self.w.wheel, self, until_ms)

    cdef void go_idle(self) noexcept:
        """Wait for the next request, or go on with one that is here already."""
        self.state = C_IDLE
        self.is_pipelined = self.is_feeding or self.held_n
        self.chunked = NULL
        self.idle_since_ms = clock.now_ms
        set_deadline(self.w.wheel, self, clock.now_ms + (
            PARTING_MS if self.w.is_quitting else self.keepalive_ms))
        self.unpause()
        if not self.is_feeding:
            self.run_held()

    cdef void idle_until(self, uint64_t ms) noexcept:
        """Part when it has been idle for ms, at once if it has been already."""
        cdef uint64_t since = self.idle_since_ms
        if clock.now_ms >= since + ms:
            self.part()
        else:
            set_deadline(self.w.wheel, self, since + ms)

    cdef void part(self) noexcept:
        """A FIN, then what crosses it is read and dropped: close(2) would answer it with a reset,
        which takes along what the client has not read yet (RFC 9112 §9.6)."""
        self.state = C_LINGER
        self.linger_ms = PARTING_MS
        self.linger_end_ms = clock.now_ms + PARTING_MS
        self.shut()
        self.linger_on()

    cdef void close(self) noexcept:
        """What was written still goes out, if the client takes it in time."""
        Link.close(self)
        if self.rest != NULL and self.fd >= 0:
            set_deadline(self.w.wheel, self, clock.now_ms + CLOSE_MS)

    cdef void cut(self) noexcept:
        """End the connection now; a request on it is told as it stands."""
        if self.is_blocked:
            self.abort()
        else:
            self.close()

    cdef void end_timedout(self, bint is_reset) noexcept:
        """It timed out. What the kernel holds still goes out, unless the conf wants a reset."""
        if is_reset:
            self.abort()
        elif self.is_blocked:
            self.let_go()
        else:
            self.close()

    # ---------------------------------------------------------------- tunnel

    cdef void to_tunnel(self, const char* p, uint32_t n) noexcept:
        cdef UpstreamH1 u = self.tunnel
        if u is None or u.is_closing:
            return
        if u.websocket is not None:
            u.websocket.on_client()
            u.websocket.carry(FROM_CLIENT, p, n)
            return
        if u.write(p, n, NULL, 0) == 1:
            self.pause()
        u.on_tunnel_traffic()

    cdef void part_tunnel(self) noexcept:
        """The upstream is lost while the client has its Close still to read."""
        if self.r is not None:
            self.w.on_client_gone(self.r)
        self.part()

    cdef void end_tunnel_timedout(self) noexcept:
        self.end_timedout(self.r is not None and self.r.location.reset_timedout)

    # ---------------------------------------------------------------- what the loop tells

    cdef void on_drained(self) noexcept:
        tick()
        if self.state == C_H2:
            self.h2.on_drained()
        elif self.state == C_TUNNEL:
            if self.tunnel is not None:
                self.tunnel.unpause()
        elif self.r is not None:
            self.w.on_client_drained(self.r)
        self.w.settle()

    cdef void on_ended(self) noexcept:
        """FIN: nothing more comes. After dispatch the request is still answered."""
        cdef Request r = self.r
        tick()
        if self.state == C_TUNNEL:
            if self.tunnel is not None:
                self.tunnel.shut_after_client()
                if self.tunnel.is_ended:
                    self.close()
            return
        if self.state == C_BUSY and r is not None:
            if not r.is_body_done:
                r.told_status = 400
                r.keep_alive = False
                self.w.on_client_gone(r)
                self.close()
            elif self.has_left(r):
                self.w.on_client_gone(r)
                self.close()
            else:
                r.keep_alive = False
        else:
            if r is not None:
                self.tell_unread(r, 400, "client prematurely closed connection")
            self.close()
        self.w.settle()

    cdef bint has_left(self, Request r) noexcept:
        """A FIN behind a whole request: left while nothing was sent for it, half-closed after
        dispatch. HTTP/1.0 clients do not half-close: there it is an end, as for nginx."""
        if r.is_head_sent or r.is_done:
            return False
        if r.call is None:
            return True
        return r.head.version < 11 and not (
            r.location.proxy is not None and (<ProxySettings>r.location.proxy).ignores_abort)

    cdef void on_lost(self) noexcept:
        cdef Request r = self.r
        cdef UpstreamH1 u
        cdef ClientH2 h = self.h2
        tick()
        self.w.remove_client(self)
        if h is not None:
            h.on_lost()
        if self.state == C_TUNNEL and self.tunnel is not None:
            u = self.tunnel
            self.tunnel = None
            u.end_tunnel()
        if r is not None and self.state == C_IDLE:
            self.tell_unread(r, 400, "client prematurely closed connection")
        elif r is not None:
            self.w.on_client_gone(r)
            if self.r is r:
                free_request(self.w, r)
                self.r = None
        self.w.settle()

    cdef void time_sending(self, Request r) noexcept:
        """send_timeout begins: something waits for the socket."""
        self.look_unsent()
        set_deadline(self.w.wheel, self, clock.now_ms + r.location.send_timeout_ms)

    cdef bint is_spliced_full(self, Request r) noexcept:
        cdef Splice s = None if r.call is None else (<UpstreamCall>r.call).splice
        return s is not None and s.is_answer and s.is_full

    cdef void on_deadline(self) noexcept:
        cdef Request r = self.r
        cdef bint is_reset = r is not None and r.location is not None and r.location.reset_timedout
        cdef bint is_stuck
        if self.is_closing:                      # what was written is still not taken
            self.abort()
        elif self.state == C_BUSY and r is not None:
            is_stuck = self.is_blocked or self.is_spliced_full(r)
            if is_stuck and self.has_moved():
                # slowly, but it takes something: the limit is for taking nothing
                self.time_sending(r)
                return
            self.was_silent = True
            if is_stuck:
                r.fault = SEND_TIMEOUT
                # a FIN would complete a body that ends with the connection
                is_reset |= r.is_head_sent and r.out_kind == BODY_UNTIL_CLOSE
                self.w.on_client_gone(r)
                self.end_timedout(is_reset)
            elif not r.is_body_done and not r.is_head_sent and not is_reset:
                r.keep_alive = False
                self.w.fail(r, BODY_TIMEOUT)
            elif not r.is_body_done:
                if not r.is_head_sent:
                    report_fault(r, BODY_TIMEOUT)
                    r.told_status = 408
                self.w.on_client_gone(r)
                self.end_timedout(is_reset)
        elif self.state == C_LINGER or self.state == C_DISCARD:
            self.close()
        elif self.state == C_TUNNEL:
            self.close()
        elif self.state == C_H2:
            self.h2.on_deadline()
        else:
            if r is not None and self.held_n:
                self.was_silent = True
                is_reset = (<Location>self.listener.default_server.settings).reset_timedout
                self.refuse_silently(r)
            if self.w.is_quitting and self.r is None and self.client.requests and not is_reset:
                self.part()
            else:
                self.end_timedout(is_reset)
        self.w.settle()

    cdef void refuse_silently(self, Request r) noexcept:
        """client_header_timeout: 408 in the log, the connection just closes (nginx)."""
        self.tell_unread(r, 408, "client timed out (110: Connection timed out)")

    cdef void tell_unread(self, Request r, int status, const char* words) noexcept:
        """A head that never came whole is logged all the same."""
        memset(&r.head, 0, sizeof(Head))
        r.server = self.listener.default_server
        r.location = <Location>r.server.settings
        r.told_status = <uint16_t>status
        report_text(R_INFO, r, words)
        self.w.begin_writing(r)
        self.w.tell(r)
        free_request(self.w, r)
        self.r = None

# Who accepts sessions, and the two connections of one.

@final
cdef class Sessions:
    """What all sessions of a worker share."""
    cdef object worker            # counts their connections among its own
    cdef Wheel wheel
    cdef list free_requests

    def __init__(self, worker, Wheel wheel not None):
        self.worker = worker
        self.wheel = wheel
        self.free_requests = []

    def accept(self, StreamListener listener not None, int fd):
        """Accept on `fd`, which is ours from now on. Raises OSError."""
        listener.house = self
        listener.open(fd, self.wheel)


@final
cdef class StreamListener(Acceptor):
    """One listen address of stream { }."""
    cdef Sessions house
    cdef public object key            # as process/ names it
    cdef public Server address        # named by the key, for the error log
    cdef public StreamServer server
    cdef public Door tls              # None: plain
    cdef public bint is_proxied       # proxy_protocol: a PROXY header comes first
    cdef public Names names           # by which TLS chooses a server

    cdef void on_accepted(self, int fd, const void* address) noexcept:
        cdef Session s = Session.__new__(Session)
        cdef Side c = Side.__new__(Side)
        if self.tls is not None:
            try:
                c.tls = begin_server(self.tls)
            except MemoryError:
                c_close(fd)
                return
        c.is_client = True
        c.house = self.house
        c.session = s
        if c.open(fd) == 0:
            s.begin(self, c, address)


@final
cdef class Side(Link):
    """One of the two connections of a session."""
    cdef Session session          # None: it only writes what is left, and closes
    cdef Sessions house
    cdef bint is_client
    cdef bint is_counted
    cdef uint8_t burst            # whole pieces in a row
    cdef int[2] ends              # of the pipe that its bytes lie in, while in_pipe
    cdef size_t in_pipe

    cdef void on_ready(self, int events) noexcept:
        cdef Session s = self.session
        cdef Side other
        cdef int error
        if self.is_dialing or s is None or s.state != S_PIPING:
            Link.on_ready(self, events)
            return
        tick()
        if events & FAILED and (self.is_paused or self.is_ended or self.in_pipe):
            error = error_of(self.fd)            # nobody reads, so nobody would meet it
            if error:
                s.lose(self, error)
                return
        other = s.upstream if self.is_client else s.client
        if events & WRITABLE and other.in_pipe:
            events &= ~WRITABLE
            s.splice(other, self)
            if self.fd < 0 or self.session is None:
                return
        if events:
            Link.on_ready(self, events)

    cdef void receive(self) noexcept:
        cdef Session s = self.session
        cdef ssize_t n
        cdef size_t want
        if s is None or self.is_paused or self.is_ended or self.is_closing or self.in_pipe:
            self.watch(self.mask & ~READABLE)
            return
        tick()
        if self.burst >= BURST and s.may_splice(self):
            s.splice(self, s.upstream if self.is_client else s.client)
            return
        want = PIECE_BYTES if self.most_bytes == 0 else self.most_bytes
        if s.state == S_PIPING and (s.up if self.is_client else s.down) is not None:
            want = allowance(s, self, want)
            if want == 0:
                return
        n = recv(self.fd, read_buffer, want, 0)
        if n > 0:
            self.burst = self.burst + 1 if n == PIECE_BYTES and self.burst < BURST else (
                self.burst if n == PIECE_BYTES else 0)
            if self.tls is not None and s.state != S_HEADER:
                s.take_sealed(self, <size_t>n)
            else:
                s.take(self, read_buffer, <size_t>n)
        elif n == 0:
            self.is_ended = True
            self.watch(self.mask & ~READABLE)
            s.on_ended(self)
        elif errno != EAGAIN and errno != EINTR:
            s.lose(self, errno)

    cdef void on_dialed(self, int error) noexcept:
        tick()
        if self.session is not None:
            self.session.on_dialed(error)

    cdef void on_drained(self) noexcept:
        if self.session is not None:
            self.session.on_drained(self)

    cdef void on_deadline(self) noexcept:
        if self.session is not None:
            self.session.on_deadline()
        else:
            self.abort()                         # nobody takes what is left

    cdef void on_lost(self) noexcept:
        cdef Session s = self.session
        if s is not None:
            s.lose(self, EPIPE)
        if self.is_counted:
            self.is_counted = False
            self.house.worker.count_guests(-1)

    cdef void leave(self, uint32_t limit_ms) noexcept:
        """The session is over: what was written may still go out, for so long."""
        self.session = None
        if self.in_pipe:
            self.in_pipe = 0
            give_pipe(self.ends, False)
        if self.is_dialing:
            self.let_go()
        else:
            self.close()
        if self.fd >= 0:
            set_deadline(self.house.wheel, self, clock.now_ms + limit_ms)
        else:
            self.forget_deadline()


cdef int error_of(int fd) noexcept:
    cdef int error = 0
    cdef socklen_t n = sizeof(int)
    return error if getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 else errno


cdef void forgive(Peer p) noexcept:
    """A peer that failed took a connection again: it need not wait for a session's end to get
    others (nginx: the notice of NGX_STREAM_UPSTREAM_NOTIFY_CONNECT)."""
    cdef PeerState* s = p.core.state
    cdef bint is_locked = p.zone_head != NULL and lock_peers(p.zone_head)
    if s.accessed_ms < s.checked_ms:
        s.fails = 0
    if is_locked:
        unlock_peers(p.zone_head)

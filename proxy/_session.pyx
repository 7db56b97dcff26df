# The conductor of stream { }: a session is a client's connection, the upstream's, and the bytes
# between them, in C from the first to the last.
#
# Bytes are copied through the worker's one read buffer; what the other side does not take at
# once waits in its Link while the source is not read. A source that fills the buffer several
# times in a row is spliced instead, until it pauses. One deadline serves a session in each of its
# states; it hangs on the client's Link. nginx: ngx_stream_handler.c, ngx_stream_proxy_module.c.

from cpython.object cimport PyObject
from cython cimport final
from libc.errno cimport (
    EAGAIN, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EINPROGRESS, EINTR, ENETUNREACH, EPIPE,
    ETIMEDOUT, errno,
)
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset, strerror, strlen
from posix.unistd cimport close as c_close

from proxy.base._arena cimport take as take_room
from proxy.base._client cimport Client
from proxy.base._clock cimport clock, tick
from proxy.base._report cimport R_CRIT, R_ERROR, R_INFO, report, report_text
from proxy.base._request cimport Attempt, Request, Server
from proxy.base.span cimport Str, of_bytes, text, to_bytes
from proxy.base.verdict cimport LIMITED
from proxy.engine._accept cimport Acceptor
from proxy.engine._link cimport Link, read_buffer
from proxy.engine._pipe cimport PIPE_BYTES, give_pipe, move_bytes, take_pipe
from proxy.engine._tls cimport Door, begin_server, plain
from proxy.engine._way cimport Way, asked_name, begin_way, wrong_peer
from proxy.engine._watch cimport FAILED, READABLE, WRITABLE
from proxy.engine._wheel cimport Timed, Wheel, set_deadline
from proxy.filters._access cimport AccessSettings, judge_address
from proxy.filters._realip cimport put_real_address
from proxy.limits._admit cimport LimitSettings, give_conns, take_conns
from proxy.observe._log cimport write_logs
from proxy.routing._names cimport Names, find_server, read_host
from proxy.stream._preread cimport Preread
from proxy.stream._settings cimport StreamServer
from proxy.upstream._balance cimport (
    PEER_FAILED, PEER_OK, Peer, Tried, Upstream, on_released, pick, start_tries,
)
from proxy.upstream._shared cimport PeerState, lock_peers, unlock_peers
from proxy.variables._variables cimport Template, evaluate, put_groups, put_value
from proxy.wire._client_hello cimport HELLO_MORE, HELLO_READ, read_client_hello
from proxy.wire._proxy_protocol cimport (
    PROXY_HEADER_MAX, PROXY_WRITE_MAX, ProxyHeader, keep_proxy_header, read_proxy_header,
    write_proxy_header,
)

from _socket import socket as borrow_socket

from proxy.conf.values import read_size
from proxy.upstream.dynamic import TargetError

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        SO_ERROR
        SO_KEEPALIVE
        SO_REUSEADDR
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM
        SOL_SOCKET
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    int connect(int, const sockaddr*, unsigned int)
    int c_socket "socket"(int, int, int)
    int getsockopt(int, int, int, void*, socklen_t*)
    int setsockopt(int, int, int, const void*, unsigned int)
    ssize_t recv(int, void*, size_t, int)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef enum:
    PIECE_BYTES = 64 * 1024       # read at once, and so the most that waits in a Link
    BURST = 3                     # whole pieces in a row: from then on it is spliced
    HOST_MOST = 256               # bytes of a name that TLS asks for
    TURN_BYTES = 8 << 20          # spliced in one turn of the loop, then others have theirs
    WORDS = 640                   # of a line for the error log
    KEPT_REQUESTS = 256


cdef enum SessionState:
    S_HEADER = 0          # waits for the client's PROXY header
    S_HANDSHAKE = 1
    S_PREREAD = 2
    S_RESOLVING = 3
    S_DIALING = 4
    S_SECURING = 5        # the upstream's TLS handshake
    S_PIPING = 6
    S_OVER = 7


include "_session/sides.pxi"
include "_session/pacing.pxi"


@final
cdef class Session:
    cdef Sessions house
    cdef StreamListener listener
    cdef StreamServer server
    cdef Request r                # its log, its limits, its variables
    cdef Client who
    cdef Side client
    cdef Side upstream            # None: not dialed yet
    cdef Upstream group
    cdef Peer peer                # None: none is held
    cdef Tried tried
    cdef uint8_t state
    cdef uint64_t dialed_ms       # when the first peer was asked
    cdef Pacer up                 # holds a side that is ahead of its rate, or None
    cdef Pacer down
    cdef uint64_t piped_ms        # when bytes began to go both ways
    cdef bytes tls_name           # whom the upstream's certificate must name
    cdef char* held               # read of the client, and not sent on yet
    cdef size_t held_n

    def __dealloc__(self):
        free(self.held)

    # ---------------------------------------------------------------- the beginning

    cdef void begin(self, StreamListener listener, Side client, const void* address) noexcept:
        cdef Sessions house = listener.house
        cdef Request r
        cdef char[WORDS] words
        self.house = house
        self.listener = listener
        self.server = listener.server
        self.client = client
        self.who = Client.__new__(Client)
        self.who.serial = <uint64_t>house.worker.count_guests(1)
        client.is_counted = True
        self.who.open(client.fd, address)
        self.who.is_tls = client.tls is not None
        self.who.tls = client.tls
        if client.tls is not None:
            client.tls.who = <PyObject*>self.who
        r = house.free_requests.pop() if house.free_requests else Request.__new__(Request)
        r.begin(None, None)
        r.client = self.who
        r.server = listener.address
        r.location = self.server.location
        r.id = self.who.serial
        r.server_name = of_bytes(self.server.name)
        self.r = r
        snprintf(words, WORDS, "*%llu client %.*s:%u connected to %.*s",
                 <unsigned long long>r.id, <int>self.who.peer.text_n, self.who.peer.text,
                 <unsigned int>self.who.peer.port, <int>r.server.name_s.n, r.server.name_s.p)
        report_text(R_INFO, None, words)
        if listener.is_proxied:
            self.state = S_HEADER
            client.most_bytes = PROXY_HEADER_MAX
            self.wait(self.server.header_ms)
        else:
            self.admit()

    cdef void wait(self, uint32_t ms) noexcept:
        set_deadline(self.house.wheel, self.client, clock.now_ms + ms)

    cdef bint hold(self, const char* p, size_t n) noexcept:
        """Behind what is held; how much that can be is bounded by who reads."""
        cdef char* grown = <char*>realloc(self.held, self.held_n + n)
        if grown == NULL:
            self.finish(500)
            return False
        memcpy(grown + self.held_n, p, n)
        self.held = grown
        self.held_n += n
        return True

    cdef void drop_held(self) noexcept:
        free(self.held)
        self.held = NULL
        self.held_n = 0

    cdef void read_header(self) noexcept:
        """The PROXY header first, whole."""
        cdef ProxyHeader h
        cdef int used = read_proxy_header(self.held, <uint32_t>self.held_n, &h)
        if used == 0 and self.held_n < PROXY_HEADER_MAX:
            return
        if used <= 0:
            report_text(R_ERROR, self.r, b"broken header while reading PROXY protocol")
            self.finish(400)
            return
        if h.has_addresses and not keep_proxy_header(self.who, &h):
            self.finish(500)
            return
        self.held_n -= <size_t>used
        memmove(self.held, self.held + used, self.held_n)
        if self.client.tls is None:
            self.r.body_n += self.held_n
        self.client.most_bytes = 0
        self.admit()

    cdef void admit(self) noexcept:
        """Counted and let in, or not; then TLS, where the address has it."""
        cdef LimitSettings limits = self.server.location.limits
        cdef AccessSettings access = self.server.location.access
        cdef char* sealed
        cdef size_t n
        cdef int rc
        if access is not None and access.realip is not None:
            put_real_address(access, self.r)     # nginx: the phase before all others
        if limits is not None:
            rc = take_conns(limits, self.r)
            if rc == LIMITED or rc < 0:
                self.finish(503 if rc == LIMITED else 500)
                return
        if access is not None and judge_address(access, self.r) == 403:
            self.finish(403)
            return
        if self.client.tls is None:
            self.preread()
            return
        self.state = S_HANDSHAKE
        self.wait(self.server.handshake_ms)
        if self.held_n:                          # came behind the PROXY header
            sealed = self.held
            n = self.held_n
            self.held = NULL
            self.held_n = 0
            self.unseal(self.client, sealed, n)
            free(sealed)

    # ---------------------------------------------------------------- what comes in

    cdef void take_sealed(self, Side side, size_t n) noexcept:
        self.unseal(side, read_buffer, n)

    cdef void unseal(self, Side side, const char* p, size_t n) noexcept:
        cdef Py_ssize_t got = side.unseal(p, n)
        if not side.is_client and side.tls.session is not None:
            self.peer.tls_session = side.tls.session
            side.tls.session = None
        if self.state == S_SECURING and not side.is_client:
            if got < 0 or side.tls.is_broken:
                self.tell_upstream_tls(b"SSL_do_handshake() failed (%s)" % (
                    side.tls.reason or b"closed"))
                self.peer.tls_session = None
                self.try_next()
                return
            if side.tls.is_ready and not self.is_secured():
                return
        if self.state == S_HANDSHAKE:
            if got < 0 or side.tls.is_broken:
                self.report_handshake()
                self.finish(500)
                return
            if not side.tls.is_ready:
                return
            if side.tls.client_fault(self.server.tls):
                report_text(R_INFO, self.r,
                            b"client SSL certificate verify error while SSL handshaking")
                self.finish(500)
                return
            if side.tls.server is not None and not self.choose_server():
                return
            self.state = S_PREREAD
            if got and not self.hold(plain, <size_t>got):
                return
            self.r.body_n += got
            self.preread()
        elif got > 0:
            self.take(side, plain, <size_t>got)
        if self.state == S_OVER or side.session is None or side is self.upstream and (
                self.state != S_PIPING):
            return
        if got < 0 or side.tls.is_broken:
            self.lose(side, ECONNRESET)
        elif side.tls.is_ended and not side.is_ended:
            side.is_ended = True
            self.on_ended(side)

    cdef report_handshake(self):
        cdef bytes words = b"SSL_do_handshake() failed (%s) while SSL handshaking" % (
            self.client.tls.reason or b"")
        report(R_INFO, self.r, of_bytes(words))

    cdef void take(self, Side side, const char* p, size_t n) noexcept:
        if self.state == S_PIPING:
            self.forward(side, p, n)
        elif self.hold(p, n):
            if self.state == S_HEADER:
                self.read_header()
            else:
                self.r.body_n += n
                if self.state == S_PREREAD:
                    self.look()

    cdef bint choose_server(self) noexcept:
        """TLS asked for a name. False: the session is over."""
        cdef const char* name = asked_name(self.client.tls)
        return name == NULL or self.go_to_server(name, strlen(name))

    cdef bint go_to_server(self, const char* name, size_t n) noexcept:
        """The server of this name takes the session over (nginx: ngx_stream_core_module.c, since
        1.25.5). A name that is none leaves it where it is. False: the session is over."""
        cdef Request r = self.r
        cdef uint32_t port
        cdef uint32_t length = 0
        cdef PyObject* found
        cdef char* host = <char*>take_room(&r.arena, HOST_MOST)
        if host == NULL:
            self.finish(500)
            return False
        if self.listener.names is None or n > HOST_MOST or (
                read_host(name, <uint32_t>n, host, &length, &port) < 0):
            return True
        found = find_server(self.listener.names, host, length, &r.captures)
        if found == NULL or r.captures.n and put_groups(r) < 0:
            self.finish(500)
            return False
        self.server = <StreamServer>found
        r.location = self.server.location
        r.server_name = of_bytes(self.server.name)
        return True

    cdef void preread(self) noexcept:
        if not self.server.prereads:
            self.choose()
            return
        self.state = S_PREREAD
        self.wait(self.server.preread_ms)
        self.look()

    cdef void look(self) noexcept:
        """Is it a ClientHello, and is it whole?"""
        cdef Preread found = Preread.__new__(Preread)
        cdef int verdict = read_client_hello(self.held, <uint32_t>self.held_n, &found.hello)
        if verdict == HELLO_MORE:
            if self.held_n >= self.server.preread_bytes:
                report_text(R_ERROR, self.r,
                            b"preread buffer full while prereading client data")
                self.finish(400)
            elif self.client.tls is None:
                self.client.most_bytes = self.server.preread_bytes - <uint32_t>self.held_n
            return
        if verdict == HELLO_READ:
            self.r.call = found
            if found.hello.name_n and not self.go_to_server(found.hello.name, found.hello.name_n):
                return
        self.choose()

    # ---------------------------------------------------------------- whom to ask

    cdef void choose(self) noexcept:
        cdef StreamServer server = self.server
        cdef Str value
        self.client.most_bytes = 0
        self.client.node.deadline_ms = 0
        self.client.pause()                      # nobody takes what comes, until somebody is there
        if server.sets is not None and not self.put_values():
            self.finish(500)
            return
        if server.text is not None:
            if evaluate(server.text, self.r, &value) < 0:
                self.finish(500)
                return
            if value.n and self.client.write(value.p, value.n, NULL, 0) >= 0:
                self.r.sent_body += value.n
            self.finish(200)
        elif server.url is not None:
            if evaluate(server.url, self.r, &value) < 0:
                self.finish(500)
            else:
                self.find_target(to_bytes(value))
        elif server.upstream is not None:
            self.group = <Upstream>server.upstream
            self.ask()
        else:
            self.finish(500)

    cdef bint put_values(self) noexcept:
        """`set`, in the order of the conf (nginx: ngx_stream_set_module.c)."""
        cdef Str value
        cdef tuple it
        for it in self.server.sets:
            if evaluate(<Template>it[1], self.r, &value) < 0 or (
                    put_value(self.r, <uint32_t>it[0], value) < 0):
                return False
        return True

    cdef void find_target(self, bytes url) noexcept:
        try:
            found = self.server.targets.find(url)
            if found is None:
                self.state = S_RESOLVING
                task = self.house.wheel.loop.create_task(self.server.targets.look_up(url))
                task.add_done_callback(self.on_looked_up)
                return
        except TargetError as error:
            self.refuse(str(error).encode("utf-8", "surrogateescape"))
            return
        self.group = <Upstream?>found.upstream
        self.ask()

    def on_looked_up(self, task):
        tick()
        if self.state != S_RESOLVING:
            return
        try:
            found = task.result()
        except Exception as error:
            self.refuse(str(error).encode("utf-8", "surrogateescape"))
            return
        self.group = <Upstream?>found.upstream
        self.ask()

    cdef void refuse(self, bytes words) noexcept:
        report(R_ERROR, self.r, of_bytes(words))
        self.finish(500)

    cdef void ask(self) noexcept:
        """Ask one peer after the other until one is dialed, or nobody is left."""
        cdef Str key
        cdef bint is_first = self.dialed_ms == 0
        key.p = NULL
        key.n = 0
        if is_first:
            self.dialed_ms = clock.now_ms
            memset(&self.tried, 0, sizeof(Tried))
            start_tries(self.group, &self.tried, self.server.next_tries)
        if self.group.compiled_key is not None and evaluate(
                self.group.compiled_key, self.r, &key) < 0:
            self.finish(500)
            return
        self.state = S_DIALING
        while True:
            self.peer = pick(self.group, &self.tried, key.p, key.n, clock.now_ms)
            if self.peer is None:
                self.r.add_attempt(of_bytes(self.group.name))
                report_text(R_ERROR, self.r, b"no live upstreams while connecting to upstream")
                self.finish(502)
                return
            if self.r.add_attempt(of_bytes(self.peer.name)) == NULL:
                self.finish(500)
                return
            if self.dial():
                self.wait(self.server.connect_ms)
                return
            if not self.may_try_next():
                return

    cdef bint may_try_next(self) noexcept:
        """The peer failed. Is there time and leave for another? Else the session ends."""
        cdef StreamServer server = self.server
        on_released(self.group, self.peer, &self.tried, PEER_FAILED, clock.now_ms)
        self.peer = None
        if self.tried.tries and server.tries_next and not (
                server.next_timeout_ms
                and clock.now_ms - self.dialed_ms >= server.next_timeout_ms):
            return True
        self.finish(502)
        return False

    cdef bint dial(self) noexcept:
        cdef bytes address = self.peer.sockaddr
        cdef Side u
        cdef int on = 1
        cdef int fd = c_socket(self.peer.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            self.report_connect(errno)
            return False
        if self.peer.family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
        if self.server.so_keepalive:
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(int))
        if self.server.bind is not None:
            try:
                self.bind_to(fd)
            except (OSError, ValueError):
                self.report_connect(errno)
                c_close(fd)
                return False
        # EAGAIN: a Unix socket with a full backlog
        if connect(fd, <const sockaddr*><const char*>address, <unsigned int>len(address)) != 0 and (
                errno != EINPROGRESS):
            self.report_connect(errno)
            c_close(fd)
            return False
        u = Side.__new__(Side)
        u.house = self.house
        u.session = self
        if u.open_dialing(fd) != 0:
            return False
        u.is_counted = True
        self.house.worker.count_guests(1)
        self.upstream = u
        return True

    cdef bind_to(self, int fd):
        """proxy_bind: ADDRESS or ADDRESS:PORT. Raises OSError, ValueError."""
        cdef Str value
        if evaluate(self.server.bind, self.r, &value) < 0:
            raise ValueError
        where = to_bytes(value).decode("latin-1")
        host, _, port = where.rpartition(":") if where.count(":") == 1 else (where, "", "0")
        sock = borrow_socket(fileno=fd)
        try:
            if host:
                sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
                sock.bind((host.strip("[]"), int(port or 0)))
        finally:
            sock.detach()

    cdef void report_connect(self, int number) noexcept:
        cdef char[WORDS] words
        snprintf(words, WORDS, "connect() failed (%d: %s) while connecting to upstream", number,
                 strerror(number))
        report_text(R_ERROR if number == ECONNREFUSED or number == ECONNRESET or number == EAGAIN
                    or number == ETIMEDOUT or number == EHOSTUNREACH or number == ENETUNREACH
                    else R_CRIT, self.r, words)

    cdef void on_dialed(self, int error) noexcept:
        if self.state != S_DIALING:
            return
        if error:
            self.report_connect(error)
            self.try_next()
        elif self.server.way is None:
            self.pipe()
        else:
            self.secure()

    cdef void secure(self) noexcept:
        """TLS towards the peer, behind our PROXY header (nginx: ngx_stream_proxy_module.c). It has
        as long as connecting had."""
        cdef char[PROXY_WRITE_MAX] header
        cdef uint32_t n = self.proxy_header(header)
        cdef Side u = self.upstream
        self.state = S_SECURING
        try:
            u.tls, self.tls_name = begin_way(
                <Way>self.server.way, self.r, of_bytes(self.group.name), self.peer.tls_session)
        except Exception as error:
            self.tell_upstream_tls(f"{error}".encode())
            self.finish(500)
            return
        if n and u.write_plain(header, n, NULL, 0) < 0:
            self.lose(u, errno)
            return
        self.r.attempts[self.r.n_attempts - 1].bytes_sent += n
        u.is_plain = False
        self.wait(self.server.connect_ms)
        u.unseal(NULL, 0)                        # ClientHello

    cdef bint is_secured(self) noexcept:
        """Its handshake is done. Is it who it should be?"""
        cdef bytes wrong
        try:
            wrong = wrong_peer(<Way>self.server.way, self.upstream.tls, self.tls_name)
        except MemoryError:
            wrong = b"no memory"
        if wrong is not None:
            self.tell_upstream_tls(wrong)
            self.try_next()
            return False
        self.pipe()
        return self.state == S_PIPING

    cdef tell_upstream_tls(self, bytes what):
        cdef bytes words = what + b" while SSL handshaking to upstream"
        report(R_ERROR, self.r, of_bytes(words))

    cdef uint32_t proxy_header(self, char* out) noexcept:
        if self.server.proxy_version == 0:
            return 0
        return write_proxy_header(self.server.proxy_version, &self.who.address,
                                  self.who.local_address(), out)

    cdef void try_next(self) noexcept:
        self.upstream.leave(0)
        self.upstream = None
        if self.may_try_next():
            self.ask()

    # ---------------------------------------------------------------- the bytes between

    cdef void pipe(self) noexcept:
        """Connected: what came of the client goes out, behind our PROXY header."""
        cdef char[PROXY_WRITE_MAX] header
        cdef Attempt* a = &self.r.attempts[self.r.n_attempts - 1]
        cdef uint32_t n = 0
        cdef int rc = 0
        a.connect_ms = <long long>(clock.now_ms - a.start_ms)
        self.state = S_PIPING
        self.piped_ms = clock.now_ms
        self.up = pacer_of(self, self.server.upload_rate, self.server.upload_rate_text, True)
        self.down = pacer_of(self, self.server.download_rate, self.server.download_rate_text,
                             False)
        forgive(self.peer)
        if self.server.way is None:              # else it went before TLS
            n = self.proxy_header(header)
        if n or self.held_n:
            rc = self.upstream.write(header, n, self.held, self.held_n) if n else (
                self.upstream.write(self.held, self.held_n, NULL, 0))
            a.bytes_sent += n + self.held_n
            self.drop_held()
        if rc < 0:
            self.lose(self.upstream, errno)
            return
        self.wait(self.server.silence_ms)
        if rc == 0:
            self.client.unpause()
        if self.client.is_ended:
            self.on_ended(self.client)

    cdef void count(self, Side source, size_t n) noexcept:
        """n bytes of `source` were read, and taken for the other side."""
        cdef Attempt* a = &self.r.attempts[self.r.n_attempts - 1]
        if source.is_client:
            self.r.body_n += n
            a.bytes_sent += n
        else:
            if a.header_ms < 0:
                a.header_ms = <long long>(clock.now_ms - a.start_ms)
            a.bytes_received += n
            self.r.sent_body += n
        self.client.node.deadline_ms = clock.now_ms + self.server.silence_ms

    cdef void forward(self, Side source, const char* p, size_t n) noexcept:
        cdef Side sink = self.upstream if source.is_client else self.client
        cdef int rc
        self.count(source, n)
        rc = sink.write(p, n, NULL, 0)
        if rc == 1:
            source.pause()                       # until on_drained
        elif rc < 0:
            self.lose(sink, errno)

    cdef void on_drained(self, Side sink) noexcept:
        cdef Side source = self.upstream if sink.is_client else self.client
        if self.state != S_PIPING:
            return
        self.client.node.deadline_ms = clock.now_ms + self.server.silence_ms
        source.unpause()
        if source.is_ended:
            self.on_ended(source)

    cdef bint may_splice(self, Side source) noexcept:
        cdef Side sink
        if self.state != S_PIPING or (self.up if source.is_client else self.down) is not None:
            return False
        sink = self.upstream if source.is_client else self.client
        if not source.is_plain or not sink.is_plain or sink.is_blocked or (
                not take_pipe(source.ends)):
            source.burst = 0                     # ask again after the next burst
            return False
        return True

    cdef void splice(self, Side source, Side sink) noexcept:
        """Move until somebody would block, or the turn is over. The pipe is the source's while
        bytes lie in it; then `sink` is waited for, else the source."""
        cdef ssize_t n
        cdef size_t moved = 0
        cdef int error = 0
        cdef bint is_dry = False
        cdef bint is_full = False
        while moved < TURN_BYTES and not is_full:
            if not is_dry and not source.is_ended and source.in_pipe < PIPE_BYTES // 2:
                n = move_bytes(source.fd, source.ends[1], PIPE_BYTES - source.in_pipe, False)
                if n > 0:
                    source.in_pipe += <size_t>n
                    self.count(source, <size_t>n)
                elif n == 0:
                    source.is_ended = True
                elif n == -EAGAIN:
                    is_dry = True
                elif n != -EINTR:
                    error = <int>-n
                    break
            if source.in_pipe:
                n = move_bytes(source.ends[0], sink.fd, source.in_pipe, not is_dry)
                if n > 0:
                    source.in_pipe -= <size_t>n
                    moved += <size_t>n
                elif n == -EAGAIN:
                    is_full = True
                elif n != -EINTR:
                    source.in_pipe = 0
                    give_pipe(source.ends, False)
                    self.lose(sink, <int>-n if n < 0 else EPIPE)
                    return
            elif is_dry or source.is_ended:
                break
        if moved:
            self.client.node.deadline_ms = clock.now_ms + self.server.silence_ms
        if error:
            if source.in_pipe:
                source.in_pipe = 0
                give_pipe(source.ends, False)
            else:
                give_pipe(source.ends, True)
            self.lose(source, error)
            return
        if source.in_pipe:
            source.watch(source.mask & ~READABLE)
            sink.watch(sink.mask | WRITABLE)
            return
        give_pipe(source.ends, True)
        sink.watch(sink.mask & ~WRITABLE)
        if moved < PIECE_BYTES:
            source.burst = 0                     # it trickles: copying is cheaper
        if source.is_ended:
            source.watch(source.mask & ~READABLE)
            self.on_ended(source)
        else:
            source.watch(source.mask | READABLE)

    # ---------------------------------------------------------------- the end

    cdef void on_ended(self, Side side) noexcept:
        """A side sent all that it had (nginx: ngx_stream_proxy_test_finalize)."""
        cdef Side other
        if self.state != S_PIPING:
            if side is self.upstream and self.state == S_SECURING:
                self.tell_upstream_tls(b"peer closed connection in SSL handshake")
                self.try_next()
            elif side is self.client and self.state < S_RESOLVING:
                # it left before anybody was asked, perhaps amid its PROXY header
                self.finish(400 if self.state == S_HEADER and self.held_n else 200)
            return
        other = self.upstream if side.is_client else self.client
        if other.is_blocked or side.in_pipe:
            return                               # on_drained, or the splice, comes back
        if not self.server.half_closes:
            self.tell_end(side)
            self.finish(200)
            return
        other.shut()
        if other.is_ended and not side.is_blocked and not other.in_pipe:
            self.tell_end(side)
            self.finish(200)

    cdef void tell_end(self, Side side) noexcept:
        cdef char[WORDS] words
        cdef Request r = self.r
        cdef Attempt* a = &r.attempts[r.n_attempts - 1]
        snprintf(words, WORDS, "*%llu %s disconnected, bytes from/to client:%lld/%lld, "
                 "bytes from/to upstream:%lld/%lld", <unsigned long long>r.id,
                 <const char*>(b"client" if side.is_client else b"upstream"),
                 <long long>r.body_n, <long long>r.sent_body,
                 <long long>a.bytes_received, <long long>a.bytes_sent)
        report_text(R_INFO, None, words)

    cdef void lose(self, Side side, int error) noexcept:
        """A side broke: it was reset, so the other one is reset too."""
        cdef char[WORDS] words
        cdef Side other
        if self.state == S_OVER:
            return
        if side is self.upstream and (self.state == S_DIALING or self.state == S_SECURING):
            self.try_next()
            return
        snprintf(words, WORDS, "%s connection failed (%d: %s) while %s",
                 <const char*>(b"client" if side.is_client else b"upstream"), error,
                 strerror(error), <const char*>(
                     b"proxying connection" if self.state == S_PIPING else b"reading from client"))
        report_text(R_INFO if side.is_client else R_ERROR, self.r, words)
        other = self.upstream if side.is_client else self.client
        if other is not None and not other.is_dialing:
            other.abort()
        side.let_go()
        self.finish(200)

    cdef void on_deadline(self) noexcept:
        cdef const char* doing = b"proxying connection"
        cdef char[WORDS] words
        tick()
        if self.state == S_DIALING or self.state == S_SECURING:
            report_text(R_ERROR, self.r,
                        b"upstream timed out (110: Connection timed out) "
                        b"while connecting to upstream" if self.state == S_DIALING else
                        b"upstream timed out (110: Connection timed out) "
                        b"while SSL handshaking to upstream")
            self.try_next()
            return
        if self.state == S_PIPING and (
                self.client.is_blocked and self.client.has_moved()
                or self.upstream.is_blocked and self.upstream.has_moved()):
            self.wait(self.server.silence_ms)    # slow, but it takes what is written
            return
        if self.state == S_HEADER:
            doing = b"reading PROXY protocol"
        elif self.state == S_HANDSHAKE:
            doing = b"SSL handshaking"
        elif self.state == S_PREREAD:
            doing = b"prereading client data"
        snprintf(words, WORDS, "%s timed out (110: Connection timed out) while %s",
                 <const char*>(b"connection" if self.state == S_PIPING else b"client"), doing)
        report_text(R_INFO, self.r, words)
        self.finish(200)

    cdef void finish(self, int status) noexcept:
        """The session is over: told, given back, closed. Once."""
        cdef Request r = self.r
        cdef Side c = self.client
        cdef Side u = self.upstream
        cdef Attempt* a
        if self.state == S_OVER:
            return
        self.state = S_OVER
        r.status = <unsigned short>status
        if c.rest != NULL:
            r.sent_body -= <long long>c.rest.n
        if r.n_attempts:
            a = &r.attempts[r.n_attempts - 1]
            a.response_ms = <long long>(clock.now_ms - a.start_ms)
        if self.peer is not None:
            on_released(self.group, self.peer, NULL, PEER_OK, clock.now_ms)
            self.peer = None
        write_logs(r)
        give_conns(r)
        self.r = None
        r.end()
        if len(self.house.free_requests) < KEPT_REQUESTS:
            self.house.free_requests.append(r)
        self.drop_held()
        self.up = self.down = drop_pacers(self)
        self.client = self.upstream = None
        c.leave(self.server.silence_ms)
        if u is not None:
            u.leave(self.server.silence_ms)

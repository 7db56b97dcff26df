# Reads, writes, pauses and ends one connection; subclasses say what its bytes mean.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from proxy.engine._tls cimport sealed, take_sealed
from proxy.engine._watch cimport FAILED, READABLE, WRITABLE

cdef enum:
    SEAL_BYTES = 128 * 1024   # sealed at a time
    LEAST_MOVED = 4096        # bytes that count as progress of a slow reader


cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int, unsigned long, ...)

cdef extern from "<linux/sockios.h>" nogil:
    enum:
        SIOCOUTQ

read_buffer = <char*>malloc(READ_BYTES)      # pages nobody touches cost nothing
if read_buffer == NULL:
    raise MemoryError


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
        SOL_SOCKET
        SO_LINGER
        SO_ERROR
        SHUT_WR
    ctypedef unsigned int socklen_t
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    struct linger:
        int l_onoff
        int l_linger
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    ssize_t sendmsg(int, const msghdr*, int)
    int shutdown(int, int)
    int getsockopt(int, int, int, void*, socklen_t*)
    int setsockopt(int, int, int, const void*, unsigned int)


cdef class Diversion:
    cdef int on_event(self, Link link, int events) noexcept:
        return events


cdef class Link(Watched):
    def __dealloc__(self):
        drop_rest(self)

    # ---------------------------------------------------------------- the beginning

    cdef int open(self, int fd) noexcept:
        """A connection; fd is ours from now on. 0, or -errno."""
        cdef int rc = self.open_watch(fd)
        self.is_plain = self.tls is None
        if rc == 0:
            self.watch(READABLE)
        return rc

    cdef int open_dialing(self, int fd) noexcept:
        """connect(2) was called on it: on_dialed tells how that ended."""
        cdef int rc = self.open_watch(fd)
        self.is_dialing = True
        if rc == 0:
            self.watch(WRITABLE)
        return rc

    # ---------------------------------------------------------------- out

    cdef int write(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        """p then q. 0: the kernel took all; 1: a rest waits (on_drained comes); -1: gone."""
        if self.tls is not None:
            return self.write_sealed(p, n, q, m)
        return self.write_plain(p, n, q, m)

    cdef int write_plain(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        cdef ssize_t sent
        cdef iovec parts[2]
        cdef msghdr message
        if self.is_closing or self.fd < 0:
            return -1
        if self.is_blocked:
            return self.keep_rest(p, n, q, m)
        while True:
            if m == 0:
                sent = send(self.fd, p, n, MSG_NOSIGNAL)
            else:
                parts[0].iov_base = <void*>p
                parts[0].iov_len = n
                parts[1].iov_base = <void*>q
                parts[1].iov_len = m
                memset(&message, 0, sizeof(msghdr))
                message.msg_iov = parts
                message.msg_iovlen = 2
                sent = sendmsg(self.fd, &message, MSG_NOSIGNAL)
            if sent >= 0:
                if <size_t>sent == n + m:
                    return 0
                break
            if errno == EAGAIN:
                sent = 0
                break
            if errno != EINTR:
                return -1
        if <size_t>sent >= n:
            return self.keep_rest(q + (<size_t>sent - n), m - (<size_t>sent - n), NULL, 0)
        return self.keep_rest(p + sent, n - <size_t>sent, q, m)

    cdef int write_sealed(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        cdef size_t k
        cdef int rc = 0
        if self.is_closing or self.fd < 0:
            return -1
        if n > SEAL_BYTES or n + m > SEAL_BYTES:
            while n:
                k = n if n < SEAL_BYTES else SEAL_BYTES
                if self.tls.seal(p, k, NULL, 0) < 0 or self.send_sealed() < 0:
                    return -1
                p += k
                n -= k
            while m:
                k = m if m < SEAL_BYTES else SEAL_BYTES
                if self.tls.seal(q, k, NULL, 0) < 0 or self.send_sealed() < 0:
                    return -1
                q += k
                m -= k
            return self.is_blocked
        rc = self.tls.seal(p, n, q, m)
        if self.send_sealed() < 0:
            return -1
        return rc if rc < 0 else self.is_blocked

    cdef int send_sealed(self) noexcept:
        """What TLS wants to be sent. 0, 1 blocked, -1 gone."""
        cdef size_t n = take_sealed()
        if n == 0:
            return self.is_blocked
        return self.write_plain(sealed, n, NULL, 0)

    cdef Py_ssize_t unseal(self, const char* p, size_t n) noexcept:
        """What came over the wire; bytes in _tls.plain, -1: TLS is broken (alerts are sent)."""
        cdef Py_ssize_t got = self.tls.read(p, n)
        self.send_sealed()
        return got

    cdef int keep_rest(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        """Behind what waits already. 1, or -1: no memory."""
        cdef Rest* rest = self.rest
        cdef char* grown
        if rest == NULL:
            rest = <Rest*>malloc(sizeof(Rest))
            if rest == NULL:
                return -1
            memset(rest, 0, sizeof(Rest))
            self.rest = rest
        if rest.at + rest.n + n + m > rest.cap:
            if rest.at:
                memmove(rest.bytes, rest.bytes + rest.at, rest.n)
                rest.at = 0
            if rest.n + n + m > rest.cap:
                grown = <char*>realloc(rest.bytes, rest.n + n + m)
                if grown == NULL:
                    return -1
                rest.bytes = grown
                rest.cap = rest.n + n + m
        memcpy(rest.bytes + rest.at + rest.n, p, n)
        if m:
            memcpy(rest.bytes + rest.at + rest.n + n, q, m)
        rest.n += n + m
        self.is_blocked = True
        self.watch(self.mask | WRITABLE)
        self.look_unsent()
        return 1

    cdef int send_rest(self) noexcept:
        """The socket takes bytes again. 0: all is out, 1: not yet, -1: gone."""
        cdef Rest* rest = self.rest
        cdef ssize_t sent
        while rest != NULL and rest.n:
            sent = send(self.fd, rest.bytes + rest.at, rest.n, MSG_NOSIGNAL)
            if sent >= 0:
                rest.at += <size_t>sent
                rest.n -= <size_t>sent
            elif errno == EAGAIN:
                return 1
            elif errno != EINTR:
                return -1
        drop_rest(self)
        self.is_blocked = False
        self.watch(self.mask & ~WRITABLE)
        return 0

    cdef void await_room(self) noexcept:
        """The socket is full, and the owner keeps what it could not take: on_drained tells."""
        self.is_blocked = True
        self.watch(self.mask | WRITABLE)

    cdef size_t look_unsent(self) noexcept:
        """Bytes that wait in `rest` and in the kernel; kept in `unsent`."""
        cdef int queued = 0
        if self.fd >= 0:
            ioctl(self.fd, SIOCOUTQ, &queued)
        self.unsent = <size_t>queued + (self.rest.n if self.rest != NULL else 0)
        return self.unsent

    cdef bint has_moved(self) noexcept:
        """Did the peer take anything worth while since `unsent` was looked at? One write may
        wait long for a slow reader; one that reads byte by byte only to stay is no reader."""
        cdef size_t before = self.unsent
        return self.look_unsent() + LEAST_MOVED <= before

    # ---------------------------------------------------------------- in

    cdef void on_ready(self, int events) noexcept:
        cdef int error = 0
        cdef socklen_t n = sizeof(int)
        cdef int rc = 0
        if self.is_dialing:
            self.is_dialing = False
            if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0:
                error = errno
            self.is_plain = self.tls is None
            if error == 0:
                self.watch(READABLE)
            self.on_dialed(error)
            return
        if self.diversion is not None:
            events = self.diversion.on_event(self, events)
            if self.fd < 0:
                return
        if events & WRITABLE and self.is_blocked:
            rc = self.send_rest()
            if rc < 0:
                self.is_closing = True
                self.close_watch()
                return
            if rc == 0:
                if self.is_closing:              # close waited for this
                    self.close_watch()
                    return
                if self.is_shut:
                    shutdown(self.fd, SHUT_WR)
                self.on_drained()
        if self.fd >= 0 and events & (READABLE | FAILED):
            self.receive()
        if events & FAILED and self.fd >= 0:
            # libuv looked away, but what came before the error is still to be read
            self.watch(self.mask | (0 if self.is_paused or self.is_ended else READABLE)
                       | (WRITABLE if self.is_blocked else 0))

    cdef void receive(self) noexcept:
        cdef ssize_t n
        if self.is_paused or self.is_ended or self.is_closing:
            self.watch(self.mask & ~READABLE)
            return
        n = recv(self.fd, read_buffer, READ_BYTES if self.most_bytes == 0 else self.most_bytes, 0)
        if n > 0:
            self.on_bytes(<uint32_t>n)
        elif n == 0:
            self.is_ended = True
            self.watch(self.mask & ~READABLE)
            self.on_ended()
        elif errno != EAGAIN and errno != EINTR:
            self.is_closing = True
            self.close_watch()

    cdef void pause(self) noexcept:
        self.is_paused = True                    # the watch goes when something comes

    cdef void unpause(self) noexcept:
        if self.is_paused:
            self.is_paused = False
            if self.fd >= 0 and not self.is_closing and not self.is_ended and not self.is_dialing:
                self.watch(self.mask | READABLE)

    # ---------------------------------------------------------------- the end

    cdef void close(self) noexcept:
        """What was written still goes out."""
        if self.is_closing:
            return
        if self.tls is not None:
            self.tls.finish()
            self.send_sealed()
        self.is_closing = True
        if self.rest == NULL:
            self.close_watch()
        else:
            self.watch(WRITABLE)

    cdef void abort(self) noexcept:
        """At once, with a reset."""
        cdef linger hard
        self.is_closing = True
        if self.fd >= 0:
            hard.l_onoff = 1
            hard.l_linger = 0
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(linger))
            self.let_go()

    cdef void let_go(self) noexcept:
        """At once, but what the kernel took already still goes out."""
        self.is_closing = True
        if self.fd >= 0:
            self.close_watch()

    cdef void shut(self) noexcept:
        """FIN after what was written; reading goes on."""
        if not self.is_shut and not self.is_closing and self.fd >= 0:
            if self.tls is not None:
                self.tls.finish()
                self.send_sealed()
            self.is_shut = True
            if self.rest == NULL:
                shutdown(self.fd, SHUT_WR)

    cdef void on_closed(self) noexcept:
        drop_rest(self)
        self.on_lost()
        self.forget_deadline()

    # ---------------------------------------------------------------- what subclasses hear

    cdef void on_bytes(self, uint32_t n) noexcept:
        """n bytes lie in read_buffer."""

    cdef void on_dialed(self, int error) noexcept:
        """Connected (0), or why not (errno)."""

    cdef void on_ended(self) noexcept:
        pass

    cdef void on_lost(self) noexcept:
        """It is closed, by whomsoever; the last that is heard of it."""

    cdef void on_drained(self) noexcept:
        pass


cdef void drop_rest(Link link) noexcept:
    if link.rest != NULL:
        free(link.rest.bytes)
        free(link.rest)
        link.rest = NULL

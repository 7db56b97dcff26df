# Writes, pauses and ends one connection; subclasses read from it.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, memset

from proxy.engine._tls cimport sealed, take_sealed

cdef enum:
    SEAL_BYTES = 128 * 1024   # sealed at a time


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
        SOL_SOCKET
        SO_LINGER
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    struct linger:
        int l_onoff
        int l_linger
    ssize_t send(int, const void*, size_t, int)
    ssize_t sendmsg(int, const msghdr*, int)
    int setsockopt(int, int, int, const void*, unsigned int)


cdef class Link(Timed):
    def __cinit__(self):
        self.fd = -1

    # ---------------------------------------------------------------- out

    cdef int write(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        """p then q. 0: the kernel took all; 1: the rest waits (on_drained comes); -1: gone."""
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
            return self.hand_over(p, n, q, m)
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
            return self.hand_over(q + (<size_t>sent - n), m - (<size_t>sent - n), NULL, 0)
        return self.hand_over(p + sent, n - <size_t>sent, q, m)

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

    cdef int hand_over(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        cdef bytes b = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(n + m))
        memcpy(PyBytes_AS_STRING(b), p, n)
        if m:
            memcpy(PyBytes_AS_STRING(b) + n, q, m)
        try:
            self.transport.write(b)          # may call pause_writing before it returns
        except Exception:                    # the transport is closing: a loss we will be told of
            return -1
        return self.is_blocked

    # ---------------------------------------------------------------- in

    cdef void pause(self) noexcept:
        if not self.is_paused and self.transport is not None and not self.is_closing:
            self.is_paused = True
            self.transport.pause_reading()

    cdef void unpause(self) noexcept:
        if self.is_paused and self.transport is not None and not self.is_closing:
            self.is_paused = False
            self.transport.resume_reading()

    # ---------------------------------------------------------------- the end

    cdef void close(self) noexcept:
        """What was written still goes out."""
        if not self.is_closing:
            if self.tls is not None:
                self.tls.finish()
                self.send_sealed()
            self.is_closing = True
            self.fd = -1
            if self.transport is not None:
                self.transport.close()

    cdef void abort(self) noexcept:
        """At once, with a reset."""
        cdef linger hard
        if self.is_closing and self.transport is None:
            return
        if self.fd >= 0:
            hard.l_onoff = 1
            hard.l_linger = 0
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(linger))
        self.is_closing = True
        self.fd = -1
        if self.transport is not None:
            self.transport.abort()

    cdef void shut(self) noexcept:
        """FIN after what was written; reading goes on."""
        if not self.is_shut and not self.is_closing and self.transport is not None:
            self.is_shut = True
            if self.tls is not None:
                self.tls.finish()
                self.send_sealed()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    # ---------------------------------------------------------------- what the loop calls

    cdef void on_made(self) noexcept:
        pass

    cdef void on_ended(self) noexcept:
        pass

    cdef void on_lost(self) noexcept:
        pass

    cdef void on_drained(self) noexcept:
        pass

    def connection_made(self, transport):
        self.transport = transport
        self.is_plain = self.tls is None
        self.fd = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(0)
        self.on_made()

    def get_buffer(self, hint):
        return self.view

    def eof_received(self):
        if not self.is_ended:
            self.is_ended = True
            self.on_ended()
        return not self.is_closing

    def connection_lost(self, error):
        self.is_closing = True
        self.fd = -1
        self.on_lost()
        self.forget_deadline()
        self.transport = None

    def pause_writing(self):
        self.is_blocked = True

    def resume_writing(self):
        self.is_blocked = False
        self.on_drained()

# accept4(2) until nobody waits, with a rest when the process is out of descriptors.

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno,
)
from libc.stdio cimport snprintf
from libc.string cimport strerror, strlen

from proxy.base._clock cimport clock, tick
from proxy.base._report cimport R_ALERT, R_CRIT, report
from proxy.base.span cimport text
from proxy.engine._watch cimport READABLE
from proxy.engine._wheel cimport set_deadline


cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        SOCK_NONBLOCK
        SOCK_CLOEXEC
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    int accept4(int, sockaddr*, socklen_t*, int)
    int getsockname(int, sockaddr*, socklen_t*)
    int setsockopt(int, int, int, const void*, socklen_t)


cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef enum:
    A_TURN = 64               # accepted in one turn of the loop; then others have theirs
    A_LAST = 65536            # before we leave: a whole queue, however long the kernel lets it be
    REST_MS = 500             # out of descriptors or memory: nginx's accept_mutex_delay


cdef class Acceptor(Watched):
    """Subclasses make a connection of what on_accepted brings."""

    def open(self, int fd, Wheel wheel not None):
        """Accept on `fd`, a listening socket that is ours from now on. Raises OSError."""
        cdef sockaddr_storage own
        cdef socklen_t n = sizeof(own)
        cdef int on = 1
        cdef int rc
        self.wheel = wheel
        if getsockname(fd, <sockaddr*>&own, &n) == 0 and own.ss_family != AF_UNIX:
            # accepted sockets inherit it: one call less for each
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
        rc = self.open_watch(fd)
        if rc < 0:
            raise OSError(-rc, strerror(-rc).decode())
        self.watch(READABLE)

    def close(self):
        """Accept no more; who waits in the socket's queue goes on waiting there."""
        self.forget_deadline()
        self.close_watch()

    def empty(self):
        """Accept who waits in the queue, then no more: once the socket is gone they were reset."""
        if self.fd >= 0:
            self.accept(A_LAST)
            self.close()

    cdef void on_ready(self, int events) noexcept:
        self.accept(A_TURN)

    cdef void accept(self, int most) noexcept:
        cdef sockaddr_storage address
        cdef socklen_t n
        cdef int fd
        cdef int _turn
        tick()
        for _turn in range(most):
            if self.fd < 0:                      # the worker is full
                return
            n = sizeof(address)
            address.ss_family = 0
            fd = accept4(self.fd, <sockaddr*>&address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                self.on_accepted(fd, &address)
            elif errno == EINTR or errno == ECONNABORTED:
                continue
            elif errno == EINVAL:                # the master shut it: it listens no more
                self.watch(0)
                return
            else:
                if errno != EAGAIN:
                    self.rest(errno)
                return

    cdef void rest(self, int error) noexcept:
        cdef char[128] words
        snprintf(words, sizeof(words), "accept4() failed (%d: %s)", error, strerror(error))
        report(R_CRIT if error == EMFILE or error == ENFILE or error == ENOMEM
               or error == ENOBUFS else R_ALERT, None, text(words, <unsigned int>strlen(words)))
        self.watch(0)
        set_deadline(self.wheel, self, clock.now_ms + REST_MS)

    cdef void on_deadline(self) noexcept:
        self.node.deadline_ms = 0
        self.watch(READABLE)

    cdef void on_accepted(self, int fd, const void* address) noexcept:
        """A connection came from `address` (a sockaddr_storage)."""

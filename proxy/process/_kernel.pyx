# What Python does not offer of Linux: signalfd, prctl, the reuseport filter, the process title.
#
# Called by the master and by children at birth, never per request. Errors are OSError.

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strdup

import os


cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigemptyset(sigset_t *set)
    int sigaddset(sigset_t *set, int signo)
    int sigprocmask(int how, const sigset_t *set, sigset_t *old)
    int SIG_BLOCK

cdef extern from "<sys/signalfd.h>" nogil:
    struct signalfd_siginfo:
        uint32_t ssi_signo
        uint32_t ssi_pid
    int signalfd(int fd, const sigset_t *mask, int flags)
    int SFD_NONBLOCK
    int SFD_CLOEXEC

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, ...)
    int PR_SET_CHILD_SUBREAPER
    int PR_SET_DUMPABLE
    int PR_SET_NAME

cdef extern from "<sys/socket.h>" nogil:
    int setsockopt(int fd, int level, int name, const void *value, uint32_t size)
    int SOL_SOCKET

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        uint16_t code
        uint8_t jt
        uint8_t jf
        uint32_t k
    struct sock_fprog:
        unsigned short len
        sock_filter *filter
    int BPF_LD
    int BPF_W
    int BPF_H
    int BPF_B
    int BPF_ABS
    int BPF_JMP
    int BPF_JA
    int BPF_JEQ
    int BPF_JSET
    int BPF_ALU
    int BPF_MOD
    int BPF_K
    int BPF_RET
    int BPF_A
    int SKF_AD_OFF
    int SKF_AD_RANDOM

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buf, size_t count)
    char **environ

cdef int ATTACH_FILTER = 51  # SO_ATTACH_REUSEPORT_CBPF
cdef int DETACH_FILTER = 68  # SO_DETACH_REUSEPORT_BPF


def open_signals(signals):
    """Block `signals` and return a descriptor that `read_signals` gives them from."""
    cdef sigset_t mask
    sigemptyset(&mask)
    for signo in signals:
        sigaddset(&mask, signo)
    if sigprocmask(SIG_BLOCK, &mask, NULL) < 0:
        raise OSError(errno, os.strerror(errno))
    cdef int fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)
    if fd < 0:
        raise OSError(errno, os.strerror(errno))
    return fd


def read_signals(int fd):
    """Those that came since: a list of (signal number, pid of the sender or 0)."""
    cdef signalfd_siginfo info
    found = []
    while len(found) < 64:
        if read(fd, &info, sizeof(info)) != sizeof(info):
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                raise OSError(errno, os.strerror(errno))
            break
        found.append((info.ssi_signo, info.ssi_pid))
    return found


def become_subreaper():
    """Orphans among our descendants become our children instead of init's."""
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        raise OSError(errno, os.strerror(errno))


def allow_core_dump():
    """A process that changed its user may dump core again, as nginx's workers may."""
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def choose_first(int fd, uint32_t count):
    """New connections go to the first `count` sockets of fd's SO_REUSEPORT group alone.

    A classic BPF program draws a random number; the kernel takes it as the place of the socket in
    the group, which is the order of listen().
    """
    cdef sock_filter code[3]
    cdef sock_fprog prog
    memset(code, 0, sizeof(code))
    code[0].code = BPF_LD | BPF_W | BPF_ABS
    code[0].k = <uint32_t> (SKF_AD_OFF + SKF_AD_RANDOM)
    code[1].code = BPF_ALU | BPF_MOD | BPF_K
    code[1].k = count
    code[2].code = BPF_RET | BPF_A
    prog.len = 3
    prog.filter = code
    if setsockopt(fd, SOL_SOCKET, ATTACH_FILTER, &prog, sizeof(prog)) < 0:
        raise OSError(errno, os.strerror(errno))


def choose_any(int fd):
    """Take the program of `choose_first` off again; none there is no error."""
    cdef int nothing = 0
    setsockopt(fd, SOL_SOCKET, DETACH_FILTER, &nothing, sizeof(nothing))


cdef enum:
    MOST_OWNERS = 1000        # of QUIC connections that a program knows: two instructions each


cdef inline void put_code(sock_filter *at, int code, uint32_t k, uint8_t jt, uint8_t jf) noexcept:
    at.code = <uint16_t> code
    at.k = k
    at.jt = jt
    at.jf = jf


def steer(int fd, owners, uint32_t count):
    """QUIC datagrams go to the socket of the worker that has their connection: `owners` are
    (number at the beginning of its connection ids, place of the socket in fd's group).

    Who begins a connection falls to one of the first `count` sockets by the bytes that he chose.
    A classic BPF program reads the datagram (RFC 8999: the id stands at 6 behind a long header,
    at 1 behind a short one); a place that does not exist leaves the choice to the kernel.
    """
    cdef sock_filter code[2 * MOST_OWNERS + 8]
    cdef sock_fprog prog
    cdef unsigned short n = 5
    memset(code, 0, sizeof(code))
    put_code(&code[0], BPF_LD | BPF_B | BPF_ABS, 0, 0, 0)
    put_code(&code[1], BPF_JMP | BPF_JSET | BPF_K, 0x80, 0, 2)
    put_code(&code[2], BPF_LD | BPF_H | BPF_ABS, 6, 0, 0)
    put_code(&code[3], BPF_JMP | BPF_JA, 1, 0, 0)
    put_code(&code[4], BPF_LD | BPF_H | BPF_ABS, 1, 0, 0)
    for owner, place in list(owners)[:MOST_OWNERS]:
        put_code(&code[n], BPF_JMP | BPF_JEQ | BPF_K, owner, 0, 1)
        put_code(&code[n + 1], BPF_RET | BPF_K, place, 0, 0)
        n += 2
    put_code(&code[n], BPF_ALU | BPF_MOD | BPF_K, count, 0, 0)
    put_code(&code[n + 1], BPF_RET | BPF_A, 0, 0, 0)
    prog.len = <unsigned short> (n + 2)
    prog.filter = code
    if setsockopt(fd, SOL_SOCKET, ATTACH_FILTER, &prog, sizeof(prog)) < 0:
        raise OSError(errno, os.strerror(errno))


cdef char *title_start = NULL
cdef size_t title_room = 0
cdef bint is_searched = False


cdef void find_title_room() noexcept:
    """The argv strings and the environment after them lie in one piece; take it over.

    proc(5): fields 48 to 51 of /proc/self/stat are arg_start, arg_end, env_start, env_end.
    """
    global title_start, title_room, is_searched
    cdef uint64_t start, end
    cdef char **entry
    cdef char *copy
    is_searched = True
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if int(fields[47]) == end:
            end = int(fields[48])
    except (OSError, ValueError, IndexError):
        return
    if start == 0 or end <= start:
        return
    # getenv() must not find what we are about to overwrite.
    entry = environ
    while entry != NULL and entry[0] != NULL:
        copy = strdup(entry[0])
        if copy == NULL:
            return
        entry[0] = copy
        entry += 1
    title_start = <char *> start
    title_room = end - start


def set_title(str title, str name="headrace"):
    """What ps shows as the command line, and as the short name (15 bytes)."""
    cdef bytes text = title.encode()
    cdef bytes short = name.encode()[:15]
    cdef size_t n
    prctl(PR_SET_NAME, <const char *> short, 0, 0, 0)
    if not is_searched:
        find_title_room()
    if title_start == NULL:
        return
    n = min(<size_t> len(text), title_room - 1)
    memset(title_start, 0, title_room)
    memcpy(title_start, <const char *> text, n)

# Who may be asked now, who must wait, and who is next.
#
# A request that finds no ready replica, or no free slot, is PARKed: it takes a ticket and stands
# in its version's queue, which all workers share. Whoever gives a slot back takes it for the
# first in the queue, whosever that is, and rings its worker's bell. Without a bound on
# concurrency nobody takes slots, and each worker lets its own go when a replica is ready.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.functions._counts cimport TICKETS, Counts
from proxy.functions._function cimport Functions, Replica, Version
from proxy.upstream._balance cimport Outcome, Peer, Tried


cdef enum Refusal:            # the words are in _waiting.pyx: WORDS
    R_NOTHING = 0
    R_QUEUE_SIZE = 1
    R_QUEUE_BYTES = 2
    R_QUEUE_WAIT = 3
    R_QUEUE_TICKETS = 4       # TICKETS of this worker are taken
    R_START_FAILED = 5
    R_TIMEOUT = 6
    N_REFUSALS = 7


cdef enum Taken:              # what a connection to a replica holds of it
    TAKEN_NOTHING = 0
    TAKEN_SLOT = 1
    TAKEN_STREAM = 2          # its slot was given back, the stream goes on


cdef struct Asked:            # Request.asked, in its arena
    uint64_t parked_ms        # since when it waits
    uint64_t first_ms         # when it began to wait for the first time, 0: never
    uint64_t given_up_ms      # when its client gives it up (grpc-timeout), 0: never
    uint64_t asked_ms         # when it went to a replica
    uint64_t start_ms         # of its waiting, until somebody was ready
    uint64_t queue_ms         # how long it waited in all
    uint32_t ticket           # of this worker, 0: none
    uint8_t is_cold           # nobody was ready
    uint8_t is_new_round      # all replicas may be tried again
    uint8_t refusal
    PyObject* granted         # Peer whose slot was taken for it, borrowed
    Str replica               # id of the one that was asked last


@final
cdef class Waiting:
    """What one worker has parked."""
    cdef Functions functions
    cdef Counts counts
    cdef readonly uint32_t n
    cdef uint32_t first               # tickets in the order of parking
    cdef uint32_t last
    cdef uint32_t n_free
    cdef uint32_t free[4096]
    cdef uint32_t next[4096]
    cdef uint32_t prev[4096]
    cdef PyObject* requests[4096]     # borrowed: a request leaves before it goes
    cdef int fds[4096]                # of the client, -1: none to ask
    cdef uint32_t due[4096]
    cdef uint32_t serial
    cdef uint64_t next_ms
    cdef uint64_t look_ms             # when to look again, 0: nobody waits
    cdef object sleep                 # callable(ms): look shall be called then

    cdef void put(self, uint32_t k, Request r, int fd) noexcept
    cdef void remove(self, uint32_t k) noexcept
    cdef void unpark(self, Request r) noexcept
    cdef bint find_granted(self, uint32_t k, Request r) noexcept
    cdef void plan_look(self, uint64_t ms) noexcept
    # Resume whoever may go on: told by the bell, the table and the timer.
    cdef void go_on(self) noexcept
    cdef void end(self, uint32_t n, int verdict, Refusal why) noexcept


# The Asked of a request for v, made at the first call; NULL: no memory.
cdef Asked* asked_of(Request r, Version v) noexcept
# A replica that may be asked now, its slot taken; None: wait.
cdef Peer take_replica(Waiting w, Version v, Asked* a, Tried* t, const char* key, uint32_t n)
# Given back, once for each take_replica. `taken` is the connection's.
cdef void give_replica(Replica it, Tried* t, Outcome outcome, uint8_t* taken) noexcept
# The answer is a stream that does not count: its slot is free, the replica is not idle.
cdef void begin_stream(Replica it, uint8_t* taken) noexcept
# PARK, or a fault whose limit is in a.refusal. fd: of the client, -1: none.
cdef int park(Waiting w, Request r, Version v, Asked* a, int fd, uint32_t n_bytes) noexcept
# The request is over, or goes elsewhere: out of the queue, and what was taken for it given back.
cdef void leave(Waiting w, Request r) noexcept
# Tickets whose clients hung up; how many stand in w.due.
cdef uint32_t find_gone(Waiting w) noexcept

# What a worker knows of functions: each with its versions, each version with its replicas.
#
# Everything here is changed between requests, by what the table says (table.py); a request
# keeps the Version that it asked (Request.version) and, through its connection, the Replica.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport uint32_t, uint64_t

from proxy.functions._counts cimport Cell, Counts, entry_at
from proxy.upstream._balance cimport Peer, Upstream


cdef class Function
cdef class Version


@final
cdef class Replica:
    """One running copy, ready to be asked."""
    cdef readonly str id
    cdef readonly bytes name           # the same
    cdef readonly Peer peer
    cdef readonly Version version
    cdef uint32_t entry                # of its slots; 0: they are not counted over all workers
    cdef uint32_t n_streams            # at it, beyond its slots
    cdef int join(self) except -1
    cdef int leave(self) except -1


@final
cdef class Version:
    """An arm of a function: scaled, queued and counted on its own."""
    cdef readonly Function function
    cdef readonly bytes key            # NAME.NAMESPACE/VERSION
    cdef readonly bytes name           # v1
    cdef readonly uint32_t weight
    cdef readonly double mirror        # percent of the requests that it is sent copies of
    cdef readonly bytes tag
    cdef readonly bytes prefix         # what its paths begin with at the replicas, or nothing
    cdef readonly uint32_t concurrency  # requests at once at one replica; 0: any number
    cdef readonly uint32_t queue_size
    cdef readonly uint64_t queue_bytes
    cdef readonly uint32_t queue_ms
    cdef readonly uint32_t timeout_ms  # 0: none
    cdef readonly bint count_streams
    cdef readonly bint is_h2           # its replicas speak HTTP/2
    cdef readonly Upstream upstream    # its ready replicas as peers
    cdef readonly dict replicas        # id → Replica, those that are ready
    cdef readonly bint is_gone         # no longer in the table
    cdef public uint32_t series        # of its counters: their row + 1, 0: not named yet
    cdef public uint32_t copy_series   # the same of copies, when it is a shadow
    cdef Counts counts                 # None: nothing is shared
    cdef uint32_t entry                # 0: there was no room
    cdef uint32_t birth
    cdef Cell* cell                    # this worker's
    cdef Cell own                      # where it counts without an entry
    cdef readonly bint has_slots       # its replicas' slots are counted over all workers
    cdef bint is_woken                 # the controller was told, and said nothing since
    cdef uint64_t ready_ms             # since when somebody is ready
    cdef uint64_t refused_ms           # when a replica last refused a connection
    cdef uint32_t looked
    cdef object balance                # its row: method, key, max_fails, fail_timeout, slow_start
    cdef int obey_balance(self, object row) except -1
    cdef int obey(self, dict row) except -1
    cdef int bound(self, Replica it) except -1
    cdef int join(self) except -1
    cdef inline void rejoin(self) noexcept:
        if self.entry and entry_at(self.counts, self.entry).birth != self.birth:
            self.join_again()
    cdef void join_again(self) noexcept


@final
cdef class Function:
    cdef readonly bytes key            # NAME.NAMESPACE
    cdef readonly bytes name
    cdef readonly bytes namespace
    cdef readonly dict labels          # str → str
    cdef readonly dict annotations
    cdef readonly str created_at
    cdef readonly object sticky        # as the table has it: "cookie=NAME" …, or None
    cdef readonly bint is_async
    cdef readonly bint is_from_conf    # of this worker's own conf: known before the table
    cdef readonly list versions
    cdef public object arms            # _arms.Arms over `versions`, by who follows changes
    cdef readonly bint is_gone
    cdef int obey(self, dict row) except -1


@final
cdef class Functions:
    """All functions of a worker, by key."""
    cdef dict by_key                   # bytes → Function
    cdef dict by_name                  # bytes → [Function]
    cdef list hooks                    # callable(function, is_gone)
    cdef object peer_of
    cdef readonly Counts counts
    cdef dict by_entry                 # entry of a replica → Replica
    cdef readonly list left            # replicas out of the table whose requests go on
    cdef public object wake            # callable(version key as str): the controller is told
    cdef public object on_told         # callable(): the table said something
    cdef public object on_failed       # callable(Version): no replica could be started
    cdef PyObject* find_replica(self, uint32_t entry) noexcept
    cdef int tell_wake(self, Version v) except -1
    cdef Function find_function(self, bytes key)
    cdef int drop_version(self, Version v) except -1
    cdef dict read_replicas(self, Version v, rows)
    cdef int put_replicas(self, Version v, dict after) except -1

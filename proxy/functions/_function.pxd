# What a worker knows of functions: each with its versions, each version with its replicas.
#
# Everything here is changed between requests, by what the table says (table.py); a request
# keeps the Version that it asked (Request.version) and, through its connection, the Replica.

from cython cimport final
from libc.stdint cimport uint32_t, uint64_t

from proxy.upstream._balance cimport Peer, Upstream


cdef class Function


@final
cdef class Replica:
    """One running copy, ready to be asked."""
    cdef readonly str id
    cdef readonly Peer peer


@final
cdef class Version:
    """An arm of a function: scaled, queued and counted on its own."""
    cdef readonly Function function
    cdef readonly bytes key            # NAME.NAMESPACE/VERSION
    cdef readonly bytes name           # v1
    cdef readonly uint32_t weight
    cdef readonly double mirror        # percent of the requests that it is sent copies of
    cdef readonly bytes tag
    cdef readonly uint32_t concurrency  # requests at once at one replica; 0: any number
    cdef readonly uint32_t queue_size
    cdef readonly uint64_t queue_bytes
    cdef readonly uint32_t queue_ms
    cdef readonly uint32_t timeout_ms  # 0: none
    cdef readonly bint count_streams
    cdef readonly Upstream upstream    # its ready replicas as peers
    cdef readonly dict replicas        # id → Replica, those that are ready
    cdef readonly bint is_gone         # no longer in the table
    cdef public uint32_t series        # of its counters: their row + 1, 0: not named yet
    cdef int obey(self, dict row) except -1


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
    cdef readonly list left            # replicas out of the table whose requests go on
    cdef public object wake            # callable(version key as str): the controller is told
    cdef Function find_function(self, bytes key)
    cdef int drop_version(self, Version v) except -1
    cdef dict read_replicas(self, Version v, rows)
    cdef int put_replicas(self, Version v, dict after) except -1

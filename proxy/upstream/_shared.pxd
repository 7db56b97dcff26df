# Peers' state in a zone: what all workers of a gateway know of a server (directive zone).
#
# The data of the zone: PeersHead, PeerState[n_slots], then the ledger, a row of n_slots
# numbers a process. Whoever dies leaves its row behind, and what stands there is given
# back. Lock 0 of the zone guards all of it, a few tens of ns at a time.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from proxy.base._shm cimport LOCK_FAILED, LOCKED_BROKEN, ZoneHead, zone_lock, zone_mended
from proxy.base._shm cimport DATA_AT, zone_unlock


cdef enum:
    ROWS = 64             # processes that may know one zone at a time


cdef struct PeerState:
    # what may be shared by all workers; private memory of the Peer else
    uint64_t key          # hash of upstream, address and server text; 0: free slot
    uint64_t accessed_ms  # last failure
    uint64_t checked_ms   # last failure, or the try after fail_timeout
    uint64_t picks        # counters: attempts given to it,
    uint64_t failures     # of them failed,
    uint64_t disabled     # times that max_fails was reached
    int32_t current_weight
    int32_t effective_weight
    uint32_t fails
    uint32_t conns
    uint32_t refs         # rows that know it
    uint32_t is_unhealthy  # so the checks of its health say (_health.pyx)


cdef struct PeersHead:
    uint32_t n_slots
    uint32_t checker      # pid of who checks the peers' health, 0: nobody
    uint32_t pids[64]     # ROWS; whose row it is, 0: free


cdef inline PeersHead* peers_head(ZoneHead* z) noexcept nogil:
    return <PeersHead*>(<char*>z + DATA_AT)


cdef inline PeerState* slot_state(ZoneHead* z, uint32_t slot) noexcept nogil:
    return <PeerState*>(<char*>z + DATA_AT + sizeof(PeersHead)) + slot


cdef inline uint32_t* ledger(ZoneHead* z, uint32_t row, uint32_t slot) noexcept nogil:
    """Connections that this row holds of the slot, plus one if it knows the slot."""
    cdef uint32_t n = peers_head(z).n_slots
    return <uint32_t*>slot_state(z, n) + <size_t>row * n + slot


cdef inline bint lock_peers(ZoneHead* z) noexcept nogil:
    """True: locked. Every field stands for itself: after a death there is nothing to repair."""
    cdef int result = zone_lock(z, 0)
    if result == LOCKED_BROKEN:
        zone_mended(z, 0)
    return result != LOCK_FAILED


cdef inline void unlock_peers(ZoneHead* z) noexcept nogil:
    zone_unlock(z, 0)


# Under the lock: the seat of who checks, of which there is one.
cdef bint take_seat(ZoneHead* z) noexcept      # False: a living process has it
cdef void leave_seat(ZoneHead* z) noexcept

# Under the lock: take and leave a row or a slot.
cdef int take_row(ZoneHead* z) noexcept
cdef void leave_row(ZoneHead* z, uint32_t row) noexcept
cdef int take_slot(ZoneHead* z, uint32_t row, uint64_t key, PeerState* own) noexcept
cdef void leave_slot(ZoneHead* z, uint32_t row, uint32_t slot) noexcept

"""Peers' state in a zone: laid out by the master, taken by workers, given back for the dead."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from proxy.base._shm cimport DATA_AT, Zone, ZoneHead

cdef extern from "<errno.h>" nogil:
    int errno
    const int ESRCH

cdef extern from "<signal.h>" nogil:
    int kill(int pid, int signal)

cdef extern from "<unistd.h>" nogil:
    int getpid()


def lay_out(Zone zone not None):
    """Make a fresh zone ready for peers; one that is ready stays as it is (a reload).

    Returns the number of peers that fit. ValueError: none does.
    """
    cdef PeersHead* head = peers_head(zone.head)
    cdef Py_ssize_t room = <Py_ssize_t>zone.size - DATA_AT - <Py_ssize_t>sizeof(PeersHead)
    cdef Py_ssize_t n = room // <Py_ssize_t>(sizeof(PeerState) + ROWS * sizeof(uint32_t))
    if n < 1:
        raise ValueError(f'zone "{zone.name}" is too small')
    if not zone.head.is_ready:
        memset(head, 0, sizeof(PeersHead))
        head.n_slots = <uint32_t>min(n, 65536)
        zone.head.is_ready = 1
    return head.n_slots


def forget_process(Zone zone not None, uint32_t pid):
    """Give back what a dead process held in the zone; the master calls it after the death.

    Not calling it costs only time: a row of a dead process is found by who needs one.
    """
    cdef uint32_t row
    if not zone.head.is_ready or not lock_peers(zone.head):
        return
    for row in range(ROWS):
        if pid and peers_head(zone.head).pids[row] == pid:
            leave_row(zone.head, row)
    if pid and peers_head(zone.head).checker == pid:
        peers_head(zone.head).checker = 0
    unlock_peers(zone.head)


cdef bint take_seat(ZoneHead* z) noexcept:
    cdef PeersHead* head = peers_head(z)
    cdef uint32_t me = <uint32_t>getpid()
    if head.checker and head.checker != me and not (
            kill(<int>head.checker, 0) < 0 and errno == ESRCH):
        return False
    head.checker = me
    return True


cdef void leave_seat(ZoneHead* z) noexcept:
    if peers_head(z).checker == <uint32_t>getpid():
        peers_head(z).checker = 0


cdef int take_row(ZoneHead* z) noexcept:
    """A row for this process, -1: all are taken by the living."""
    cdef PeersHead* head = peers_head(z)
    cdef uint32_t row
    cdef uint32_t me = <uint32_t>getpid()
    for row in range(ROWS):
        if head.pids[row] == me:
            return <int>row
    for row in range(ROWS):
        if head.pids[row] and kill(<int>head.pids[row], 0) < 0 and errno == ESRCH:
            leave_row(z, row)
        if head.pids[row] == 0:
            head.pids[row] = me
            return <int>row
    return -1


cdef void leave_row(ZoneHead* z, uint32_t row) noexcept:
    cdef uint32_t slot
    for slot in range(peers_head(z).n_slots):
        leave_slot(z, row, slot)
    peers_head(z).pids[row] = 0


cdef int take_slot(ZoneHead* z, uint32_t row, uint64_t key, PeerState* own) noexcept:
    """The slot of key, or a free one filled from own; -1: the zone is full."""
    cdef PeerState* s
    cdef uint32_t i, n = peers_head(z).n_slots
    cdef uint32_t found = n
    for i in range(n):
        s = slot_state(z, i)
        # known already: a second server of one address, which is a peer of its own
        if s.key == key and ledger(z, row, i)[0] == 0:
            found = i
            break
        if s.key == 0 and found == n:
            found = i
    if found == n:
        return -1
    s = slot_state(z, found)
    if s.key == 0:
        s[0] = own[0]
        s.key = key
        s.refs = 0
    else:
        s.conns += own.conns
    s.refs += 1
    ledger(z, row, found)[0] = own.conns + 1
    return <int>found


cdef void leave_slot(ZoneHead* z, uint32_t row, uint32_t slot) noexcept:
    """Give back the connections that the row holds of the slot, and the slot with the last."""
    cdef PeerState* s = slot_state(z, slot)
    cdef uint32_t held = ledger(z, row, slot)[0]
    if held == 0:
        return
    ledger(z, row, slot)[0] = 0
    s.conns -= min(s.conns, held - 1)
    if s.refs <= 1:
        memset(s, 0, sizeof(PeerState))
    else:
        s.refs -= 1

"""What checks of health change of a peer: whether it may be asked, seen by all who share its zone.

One process of those that share a zone checks its peers: who holds its seat. It is taken when it
is free or its holder died, and given up by a worker that leaves.
"""

from proxy.upstream._balance cimport Peer, Upstream
from proxy.upstream._shared cimport leave_seat, lock_peers, take_seat, unlock_peers


def begin(Upstream upstream not None, bint is_mandatory):
    """From now on the checks decide who may be asked; called before the peers stand in a zone.

    is_mandatory: who was never checked may not. A peer that is known in the zone stays what it was.
    """
    cdef Peer p
    upstream.is_checked = True
    upstream.is_mandatory = is_mandatory
    for p in upstream.peers_:
        p.core.is_checked = True
        p.core.state.is_unhealthy = is_mandatory


def is_ours(Peer peer not None):
    """Is it for this process to check it? Peers without a zone are checked by each."""
    cdef bint is_taken
    if peer.zone_head == NULL:
        return True
    if not lock_peers(peer.zone_head):
        return False
    is_taken = take_seat(peer.zone_head)
    unlock_peers(peer.zone_head)
    return bool(is_taken)


def leave(Upstream upstream not None):
    """Somebody else may check its peers now."""
    if upstream.zone_head != NULL and lock_peers(upstream.zone_head):
        leave_seat(upstream.zone_head)
        unlock_peers(upstream.zone_head)


def judge(Peer peer not None, bint is_well_now):
    """It may be asked from now on, or may not."""
    peer.core.state.is_unhealthy = not is_well_now

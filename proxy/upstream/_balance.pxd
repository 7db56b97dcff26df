# Peers and the choice among them: what the fast path cimports to pick an upstream.
#
# A request zeroes one Tried, calls start_tries once, then pick and on_released in
# pairs. pick counts the connection on the peer; on_released gives it back. Times
# are CLOCK_MONOTONIC milliseconds, so that workers may share them through a zone.

from cython cimport final
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from proxy.base._shm cimport Zone, ZoneHead
from proxy.base.span cimport Str
from proxy.upstream._shared cimport PeerState


cdef enum Balance:
    B_ROUND_ROBIN = 0     # smooth weighted
    B_LEAST_CONN = 1
    B_HASH = 2            # hash KEY
    B_CONSISTENT = 3      # hash KEY consistent
    B_IP_HASH = 4
    B_RANDOM = 5
    B_RANDOM_TWO = 6      # random two [least_conn]


cdef enum Outcome:
    PEER_OK = 0           # answered
    PEER_FAILED = 1       # error, timeout, or a status that proxy_next_upstream names
    PEER_NEXT = 2         # http_403 and http_404: ask elsewhere, but the peer is well


cdef enum:
    MAX_MARKS = 256       # bits of Tried; a peer past them shares a mark with another


cdef struct Tried:
    # what one request has asked so far; all zero is a fresh one
    uint64_t marks[4]
    uint32_t tries        # attempts left, on_released counts down (nginx: peer.tries)
    uint32_t hash         # running hash, or place on the ring
    uint32_t rehash
    uint8_t hash_tries    # past 20 the hashing methods fall back to round robin
    uint8_t is_on_backup
    uint8_t is_hashed


cdef struct PeerCore:
    PeerState* state
    uint64_t fail_timeout_ms
    int32_t weight
    uint32_t max_fails
    uint32_t max_conns
    uint32_t slot         # its mark in Tried, stable while it is in the table
    uint32_t server       # number of its server text: addresses of one name share it
    uint8_t is_down
    uint8_t is_checked    # state.is_unhealthy counts
    uint64_t warm_ms      # until then it gets less than its share (slow start), 0: never less
    void* owner           # the Peer, borrowed: the table holds the reference


cdef struct Point:
    uint32_t hash
    uint32_t server


cdef struct Table:
    PeerCore** rows
    uint32_t* ranges      # cumulated weights (random)
    Point* points         # the ring (hash consistent)
    uint32_t n
    uint32_t n_points
    uint32_t total_weight
    uint32_t tries        # peers that are not down
    uint8_t is_single     # one peer and no backup: never marked down


@final
cdef class Peer:
    cdef PeerCore core
    cdef PeerState own
    cdef Zone zone            # None: core.state is &own
    cdef ZoneHead* zone_head
    cdef uint32_t zone_slot
    cdef uint32_t row         # of the zone's ledger
    cdef readonly bytes name      # as in $upstream_addr: 127.0.0.1:80, [::1]:80, unix:/path
    cdef readonly bytes server    # the text of its server directive (ring points)
    cdef readonly bytes sticky_id  # its route, or 32 hex digits; empty until one is needed
    cdef readonly bytes sockaddr  # for connect(2), whole
    cdef readonly int family      # AF_INET, AF_INET6, AF_UNIX
    cdef readonly bint is_backup
    cdef readonly bint is_removed  # no longer in the table; its holders may finish
    cdef void* idle               # the pool's: idle connections to this peer
    cdef void* busy               # the pool's: those in use that more requests may join (HTTP/2)
    cdef uint32_t n_idle          # the pool's
    cdef public uint32_t asked_counter   # numbers of its counters, 0: not named yet
    cdef public uint32_t failed_counter
    cdef public object replica          # functions: whose address it is, or None
    cdef public object tls_session  # the dialer's: session to resume (proxy_ssl_session_reuse)
    cdef uint64_t zone_key(self, bytes upstream)


cdef class Upstream


ctypedef void (*OnRemoved)(Upstream u, Peer p) noexcept


@final
cdef class Upstream:
    cdef readonly bytes name      # of the upstream block, or host:port of proxy_pass
    cdef Table primary
    cdef Table backup
    cdef Balance balance
    cdef uint32_t keepalive            # idle connections kept per worker; 0: none
    cdef bint keepalive_is_local       # only reused by the location that opened it
    cdef uint32_t keepalive_requests
    cdef uint64_t keepalive_time_ms
    cdef uint64_t keepalive_timeout_ms
    cdef public object key             # hash: text with variables; the plan compiles it
    cdef public object compiled_key    # the plan's
    cdef public object sticky          # _sticky.StickyCookie or StickyKey, or None
    cdef public object queue           # words.Queue, or None: who finds no free peer fails
    cdef object line                   # the conductor's: who waits
    cdef dict known                    # sticky_id → Peers, of the generation below
    cdef uint32_t known_generation
    cdef Zone zone                     # None: state is private
    cdef ZoneHead* zone_head
    cdef uint32_t row                  # of the zone's ledger
    cdef bint is_locked
    cdef bint is_checked               # checks decide which peers may be asked …
    cdef bint is_mandatory             # … and none is before its first
    cdef list peers_                   # every Peer of the table, primaries first
    cdef uint64_t seed                 # random
    cdef public uint64_t slow_start_ms  # of new peers beside others; random_two alone obeys
    cdef public uint32_t generation    # counts changes of the table
    cdef void* pool                    # the pool's
    cdef uint32_t n_idle               # the pool's
    cdef OnRemoved on_removed          # the pool's: close what idles there; may be NULL
    cdef void join_zone(self, Peer p) noexcept


# Begin a request: tries is the number of peers not down, or limit if that is less
# (proxy_next_upstream_tries; 0: no limit).
cdef void start_tries(Upstream u, Tried* t, uint32_t limit) noexcept

# The next peer, its connection counted; None: no live upstream. key is the value of
# the hash key, or the client's raw address (4 or 16 bytes, none for a Unix socket)
# under ip_hash; the other methods read none.
cdef Peer pick(Upstream u, Tried* t, const char* key, uint32_t n, uint64_t now_ms)

# Is there a peer that would be asked if it had not max_conns already?
cdef bint has_busy(Upstream u, uint64_t now_ms) noexcept

# The same for the peer of that sticky_id; None: it may not be asked (again).
cdef Peer pick_known(Upstream u, Tried* t, Str id, uint64_t now_ms)

# The one of those that may be asked (again) whose share the key is; few keys move when peers
# come and go. None: none may.
cdef Peer pick_alike(Upstream u, Tried* t, Str key, uint64_t now_ms)

# Give the peer back, once a pick. Counts t.tries down (0 if the upstream is single).
# t may be NULL when the request is over.
cdef void on_released(Upstream u, Peer p, Tried* t, Outcome outcome, uint64_t now_ms) noexcept


cdef inline bint is_out(const PeerCore* c) noexcept nogil:
    """By the conf's word, or by that of the checks of its health."""
    return c.is_down or c.is_checked and c.state.is_unhealthy


# FNV-1a that goes on from h, and its weak high bits mixed at last (splitmix64): the same in all
# workers and gateways.
cdef inline uint64_t hash_more(uint64_t h, const char* p, size_t n) noexcept nogil:
    cdef size_t i
    h ^= <uint64_t>0xCBF29CE484222325
    for i in range(n):
        h = (h ^ <uint8_t>p[i]) * <uint64_t>0x100000001B3
    return h


cdef inline uint64_t mixed(uint64_t h) noexcept nogil:
    h = (h ^ h >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    h = (h ^ h >> 27) * <uint64_t>0x94D049BB133111EB
    return h ^ h >> 31


# That peer may be asked again by this request.
cdef inline void unmark_tried(Tried* t, uint32_t slot) noexcept:
    t.marks[(slot >> 6) & 3] &= ~(<uint64_t>1 << (slot & 63))


# A kept connection that broke before it answered costs no try (nginx: peer.cached).
cdef inline void refund_try(Tried* t) noexcept:
    t.tries += 1

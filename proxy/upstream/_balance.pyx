"""Who answers: smooth round robin, least_conn, hash, ring, ip_hash, random; failures and backups.

The sequences are nginx's (ngx_http_upstream_{round_robin,least_conn,hash,ip_hash,random}),
so that a conf spreads its load here as it does there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.math cimport log
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from proxy.base._shm cimport Zone
from proxy.upstream._shared cimport (
    PeerState,
    leave_slot,
    ledger,
    lock_peers,
    slot_state,
    take_row,
    take_slot,
    unlock_peers,
)

from hashlib import md5

cdef extern from "<unistd.h>" nogil:
    int getpid()

METHODS = {
    "round_robin": B_ROUND_ROBIN,
    "least_conn": B_LEAST_CONN,
    "hash": B_HASH,
    "consistent": B_CONSISTENT,
    "ip_hash": B_IP_HASH,
    "random": B_RANDOM,
    "random_two": B_RANDOM_TWO,
}
OK = PEER_OK
FAILED = PEER_FAILED
NEXT = PEER_NEXT

cdef enum:
    POINTS_A_WEIGHT = 160     # of the ring, as Cache::Memcached::Fast has it
    MAX_POINTS = 16000000
    MAX_HASH_TRIES = 20

cdef uint64_t SCRAMBLE = 0x2545F4914F6CDD1DULL


# --- CRC-32 (IEEE), the hash of Cache::Memcached ---

cdef uint32_t crc_table[256]


cdef void fill_crc_table() noexcept:
    cdef uint32_t i, _k, c
    for i in range(256):
        c = i
        for _k in range(8):
            c = (c >> 1) ^ 0xEDB88320 if c & 1 else c >> 1
        crc_table[i] = c


fill_crc_table()


cdef inline uint32_t crc_more(uint32_t crc, const char* p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        crc = crc_table[(crc ^ <uint8_t>p[i]) & 0xFF] ^ (crc >> 8)
    return crc


cdef inline uint32_t crc_of(const char* p, size_t n) noexcept nogil:
    return crc_more(UINT32_MAX, p, n) ^ UINT32_MAX


cdef inline void lock(Upstream u) noexcept:
    if u.zone_head != NULL:
        u.is_locked = lock_peers(u.zone_head)


cdef inline void unlock(Upstream u) noexcept:
    if u.is_locked:
        u.is_locked = False
        unlock_peers(u.zone_head)


cdef class Peer:
    """One upstream address.

    name as in $upstream_addr; sockaddr the bytes for connect(2); server the text of
    the server directive (default: name). weight, max_fails, fail_timeout_ms,
    max_conns (0: no bound), is_backup and is_down mean what nginx's parameters of
    `server` mean. sticky_id: by what `sticky` knows it; else a hash of its name.
    """

    def __cinit__(self, bytes name not None, int family, bytes sockaddr not None, *,
                  bytes server=None, int weight=1, uint32_t max_fails=1,
                  uint64_t fail_timeout_ms=10000, uint32_t max_conns=0,
                  bint is_backup=False, bint is_down=False, bytes sticky_id=b""):
        if weight < 1 or weight > 1000000:
            raise ValueError("weight must be 1..1000000")
        self.name = name
        self.server = name if server is None else server
        self.family = family
        self.sockaddr = sockaddr
        self.sticky_id = sticky_id
        self.is_backup = is_backup
        self.core.state = &self.own
        self.core.owner = <void*>self
        self.core.weight = weight
        self.core.max_fails = max_fails
        self.core.max_conns = max_conns
        self.core.fail_timeout_ms = fail_timeout_ms
        self.core.is_down = is_down
        self.own.effective_weight = weight

    def __dealloc__(self):
        if self.zone_head != NULL and lock_peers(self.zone_head):
            leave_slot(self.zone_head, self.row, self.zone_slot)
            unlock_peers(self.zone_head)

    def __repr__(self):
        return f"Peer({self.name.decode(errors='replace')})"

    @property
    def weight(self):
        return self.core.weight

    @property
    def max_fails(self):
        return self.core.max_fails

    @property
    def max_conns(self):
        return self.core.max_conns

    @property
    def fail_timeout_ms(self):
        return self.core.fail_timeout_ms

    @property
    def is_down(self):
        return bool(self.core.is_down)

    @property
    def is_out(self):
        return bool(is_out(&self.core))

    @property
    def conns(self):
        """Connections in use, of all workers if the upstream has a zone."""
        return self.core.state.conns

    @property
    def fails(self):
        return self.core.state.fails

    @property
    def picks(self):
        return self.core.state.picks

    @property
    def failures(self):
        return self.core.state.failures

    @property
    def disabled(self):
        """How often max_fails was reached."""
        return self.core.state.disabled

    cdef uint64_t zone_key(self, bytes upstream):
        """FNV-1a of what names this peer in a zone that upstreams may share; never 0."""
        cdef uint64_t h = 0xCBF29CE484222325ULL
        cdef uint8_t c
        for c in b"%b\0%b\0%b\0%d" % (upstream, self.name, self.server, self.is_backup):
            h = (h ^ c) * 0x100000001B3ULL
        return h or 1


cdef class Upstream:
    """Peers under one balancing method, with the settings of their idle connections.

    method is a key of METHODS; key the text of `hash KEY`. keepalive… are the
    directives of those names. peers, see change(). ValueError: unknown method.
    """

    def __cinit__(self, bytes name not None, peers=(), *, str method="round_robin", key=None,
                  uint32_t keepalive=32, bint keepalive_is_local=True,
                  uint32_t keepalive_requests=1000, uint64_t keepalive_time_ms=3600000,
                  uint64_t keepalive_timeout_ms=60000):
        if method not in METHODS:
            raise ValueError(f"unknown balancing method {method!r}")
        self.name = name
        self.balance = METHODS[method]
        self.key = key
        self.keepalive = keepalive
        self.keepalive_is_local = keepalive_is_local
        self.keepalive_requests = keepalive_requests
        self.keepalive_time_ms = keepalive_time_ms
        self.keepalive_timeout_ms = keepalive_timeout_ms
        self.peers_ = []
        self.change(peers)

    def __dealloc__(self):
        free_table(&self.primary)
        free_table(&self.backup)

    def __repr__(self):
        return f"Upstream({self.name.decode(errors='replace')}, {self.peers_})"

    @property
    def peers(self):
        """The Peers of the table, backups among them, in the order given."""
        return list(self.peers_)

    @property
    def settings(self):
        """The keepalive settings by directive name (times in ms)."""
        return {
            "keepalive": self.keepalive,
            "local": bool(self.keepalive_is_local),
            "keepalive_requests": self.keepalive_requests,
            "keepalive_time": self.keepalive_time_ms,
            "keepalive_timeout": self.keepalive_timeout_ms,
        }

    def change(self, peers):
        """Make peers the table, at once for the next pick.

        A Peer of the same address, server text and role as one that is there is not
        taken: the one that is there stays, with its state and connections, and takes
        over the settings of the new one. What is left out is removed, and stays valid
        for its holders. On an error the table is as it was.
        """
        cdef Peer p, there
        cdef PeerCore* core
        cdef Table primary, backup
        cdef list after = []
        cdef dict known = {}, servers = {}
        cdef set used = set(), taken = set()
        cdef uint32_t slot = 0
        memset(&primary, 0, sizeof(Table))
        memset(&backup, 0, sizeof(Table))
        # two servers of one address in one block are two peers, as in nginx
        for p in self.peers_:
            known.setdefault((p.name, p.server, p.is_backup), []).append(p)
        kept = {}
        for p in peers:
            same = known.get((p.name, p.server, p.is_backup))
            if same:
                there = p if p in same else same[0]
                same.remove(there)
                kept[id(there)] = p
                p = there
            elif id(p) in taken:
                raise ValueError(f"{p!r} is given twice")
            taken.add(id(p))
            after.append(p)
        try:
            fill_table(&primary, after, kept, False, self.balance, servers)
            fill_table(&backup, after, kept, True, self.balance, servers)
        except BaseException:
            free_table(&primary)
            free_table(&backup)
            raise
        primary.is_single = primary.n == 1 and backup.n == 0
        for p in after:
            there = kept.get(id(p))
            if there is not None and there is not p:
                core = &p.core
                core.max_fails = there.core.max_fails
                core.max_conns = there.core.max_conns
                core.fail_timeout_ms = there.core.fail_timeout_ms
                core.is_down = there.core.is_down
                if core.weight != there.core.weight:
                    core.weight = there.core.weight
                    core.state.effective_weight = core.weight
                    core.state.current_weight = 0
            if there is not None:
                used.add(p.core.slot)
        for p in after:
            p.core.server = servers[p.server]
            p.is_removed = False
            if id(p) not in kept:
                while slot in used:
                    slot += 1
                p.core.slot = slot
                p.core.is_checked = self.is_checked
                p.own.is_unhealthy = self.is_mandatory
                used.add(slot)
        before = self.peers_
        free_table(&self.primary)
        free_table(&self.backup)
        self.primary = primary
        self.backup = backup
        self.peers_ = after
        self.generation += 1
        if self.zone_head != NULL:
            for p in after:
                self.join_zone(p)
        for p in before:
            if id(p) not in taken:
                p.is_removed = True
                if self.on_removed != NULL:
                    self.on_removed(self, p)

    def share(self, Zone zone not None):
        """Keep the peers' state in a zone that _shared.lay_out made ready (directive zone).

        Called once in each worker, before its first request. False: state stays private,
        as all rows of the zone are taken. Peers that do not fit stay private too.
        """
        cdef int row
        if self.zone_head != NULL:
            raise ValueError("upstream has a zone")
        if not zone.head.is_ready or not lock_peers(zone.head):
            raise ValueError(f'zone "{zone.name}" is not ready')
        row = take_row(zone.head)
        unlock_peers(zone.head)
        if row < 0:
            return False
        self.zone = zone
        self.zone_head = zone.head
        self.row = <uint32_t>row
        for p in self.peers_:
            self.join_zone(p)
        return True

    cdef void join_zone(self, Peer p) noexcept:
        cdef int slot
        cdef uint64_t key
        if p.zone_head != NULL:
            return
        key = p.zone_key(self.name)
        if not lock_peers(self.zone_head):
            return
        slot = take_slot(self.zone_head, self.row, key, &p.own)
        unlock_peers(self.zone_head)
        if slot >= 0:
            p.zone = self.zone
            p.zone_head = self.zone_head
            p.zone_slot = <uint32_t>slot
            p.row = self.row
            p.core.state = slot_state(self.zone_head, p.zone_slot)


# --- tables ---

cdef void free_table(Table* t) noexcept:
    PyMem_Free(t.rows)
    PyMem_Free(t.ranges)
    PyMem_Free(t.points)
    memset(t, 0, sizeof(Table))


cdef int fill_table(Table* t, list peers, dict kept, bint is_backup, Balance balance,
                    dict servers) except -1:
    """Rows, weights and what the method looks up; kept maps id(Peer) to its new settings."""
    cdef Peer p, new
    cdef uint32_t n = 0
    cdef uint64_t total = 0
    for p in peers:
        servers.setdefault(p.server, len(servers))
        n += p.is_backup == is_backup
    if n == 0:
        return 0
    t.rows = <PeerCore**>PyMem_Calloc(n, sizeof(PeerCore*))
    t.ranges = <uint32_t*>PyMem_Calloc(n, sizeof(uint32_t))
    if t.rows == NULL or t.ranges == NULL:
        raise MemoryError
    for p in peers:
        if p.is_backup != is_backup:
            continue
        new = kept.get(id(p), p)
        t.rows[t.n] = &p.core
        t.ranges[t.n] = <uint32_t>total
        t.n += 1
        t.tries += not new.core.is_down
        total += new.core.weight
    if total > 0x7FFFFFFF:
        raise ValueError("weights are too large")
    t.total_weight = <uint32_t>total
    if balance == B_CONSISTENT:
        fill_ring(t, [p for p in peers if p.is_backup == is_backup], kept, servers)
    return 0


cdef int fill_ring(Table* t, list peers, dict kept, dict servers) except -1:
    """The points of Cache::Memcached::Fast: crc32(HOST NUL PORT PREVIOUS), little endian."""
    cdef Peer p, new
    cdef uint32_t base, crc, i, j, _k, n = 0
    cdef uint8_t previous[4]
    cdef bytes start
    if <uint64_t>t.total_weight * POINTS_A_WEIGHT > MAX_POINTS:
        raise ValueError("weights are too large for a consistent hash")
    t.points = <Point*>PyMem_Calloc(t.total_weight * POINTS_A_WEIGHT, sizeof(Point))
    if t.points == NULL:
        raise MemoryError
    for p in peers:
        new = kept.get(id(p), p)
        start = ring_name(p.server)
        base = crc_more(UINT32_MAX, PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start))
        memset(previous, 0, 4)
        for _k in range(<uint32_t>new.core.weight * POINTS_A_WEIGHT):
            crc = crc_more(base, <char*>previous, 4) ^ UINT32_MAX
            t.points[n].hash = crc
            t.points[n].server = servers[p.server]
            n += 1
            for i in range(4):
                previous[i] = <uint8_t>(crc >> (8 * i))
    qsort(t.points, n, sizeof(Point), compare_points)
    i = 0
    for j in range(1, n):
        if t.points[i].hash != t.points[j].hash:
            i += 1
            t.points[i] = t.points[j]
    t.n_points = i + 1
    return 0


cdef int compare_points(const void* a, const void* b) noexcept nogil:
    cdef uint32_t one = (<const Point*>a).hash, two = (<const Point*>b).hash
    return -1 if one < two else one > two


cdef bytes ring_name(bytes server):
    """HOST NUL PORT of a server text; a port is digits after the last colon."""
    if server[:5].lower() == b"unix:":
        return server[5:] + b"\0"
    host, colon, port = server.rpartition(b":")
    if colon and all(48 <= c <= 57 for c in port):
        return host + b"\0" + port
    return server + b"\0"


# --- the choice ---

cdef inline bint is_tried(Tried* t, uint32_t slot) noexcept nogil:
    return (t.marks[(slot >> 6) & 3] >> (slot & 63)) & 1


cdef inline void mark_tried(Tried* t, uint32_t slot) noexcept nogil:
    t.marks[(slot >> 6) & 3] |= <uint64_t>1 << (slot & 63)


cdef inline bint may_take(PeerCore* c, uint64_t now_ms) noexcept nogil:
    """Not down, not failed within fail_timeout, below max_conns."""
    if is_out(c):
        return False
    if (c.max_fails and c.state.fails >= c.max_fails
            and <int64_t>(now_ms - c.state.checked_ms) <= <int64_t>c.fail_timeout_ms):
        return False
    return not (c.max_conns and c.state.conns >= c.max_conns)


cdef inline bint is_busy(PeerCore* c, uint64_t now_ms) noexcept nogil:
    """At max_conns, and nothing else is against it."""
    if is_out(c) or not c.max_conns or c.state.conns < c.max_conns:
        return False
    return not (c.max_fails and c.state.fails >= c.max_fails
                and <int64_t>(now_ms - c.state.checked_ms) <= <int64_t>c.fail_timeout_ms)


cdef inline void add_weight(PeerState* s, int32_t weight) noexcept nogil:
    s.current_weight += s.effective_weight
    if s.effective_weight < weight:
        s.effective_weight += 1


cdef inline PeerCore* chosen(PeerCore* c, Tried* t, uint64_t now_ms) noexcept nogil:
    mark_tried(t, c.slot)
    if <int64_t>(now_ms - c.state.checked_ms) > <int64_t>c.fail_timeout_ms:
        c.state.checked_ms = now_ms
    return c


cdef PeerCore* pick_round_robin(Table* table, Tried* t, uint64_t now_ms) noexcept nogil:
    cdef PeerCore* c
    cdef PeerCore* best = NULL
    cdef int32_t total = 0
    cdef uint32_t i
    if table.is_single:
        # never out for its failures, and asked again however often it was tried
        c = table.rows[0]
        if is_out(c) or (c.max_conns and c.state.conns >= c.max_conns):
            return NULL
        return c
    for i in range(table.n):
        c = table.rows[i]
        if is_tried(t, c.slot) or not may_take(c, now_ms):
            continue
        total += c.state.effective_weight
        add_weight(c.state, c.weight)
        if best == NULL or c.state.current_weight > best.state.current_weight:
            best = c
    if best == NULL:
        return NULL
    best.state.current_weight -= total
    return chosen(best, t, now_ms)


cdef PeerCore* pick_least_conn(Table* table, Tried* t, uint64_t now_ms) noexcept nogil:
    cdef PeerCore* c
    cdef PeerCore* best = NULL
    cdef uint64_t mine, least
    cdef int32_t total = 0
    cdef bint is_many = False
    cdef uint32_t i, first = 0
    if table.is_single:
        return pick_round_robin(table, t, now_ms)
    for i in range(table.n):
        c = table.rows[i]
        if is_tried(t, c.slot) or not may_take(c, now_ms):
            continue
        if best == NULL:
            best = c
            first = i
            continue
        mine = <uint64_t>c.state.conns * best.weight
        least = <uint64_t>best.state.conns * c.weight
        if mine < least:
            best = c
            first = i
            is_many = False
        elif mine == least:
            is_many = True
    if best == NULL:
        return NULL
    if is_many:
        # among equals the weights turn as in round robin
        for i in range(first, table.n):
            c = table.rows[i]
            if is_tried(t, c.slot) or not may_take(c, now_ms):
                continue
            if <uint64_t>c.state.conns * best.weight != <uint64_t>best.state.conns * c.weight:
                continue
            total += c.state.effective_weight
            add_weight(c.state, c.weight)
            if c.state.current_weight > best.state.current_weight:
                best = c
        best.state.current_weight -= total
    return chosen(best, t, now_ms)


cdef inline PeerCore* by_weight(Table* table, uint32_t w) noexcept nogil:
    """The row that holds point w of total_weight."""
    cdef uint32_t i = 0, j = table.n, k
    while j - i > 1:
        k = (i + j) // 2
        if w < table.ranges[k]:
            j = k
        else:
            i = k
    return table.rows[i]


cdef PeerCore* pick_hash(Table* table, Tried* t, const char* key, uint32_t n,
                         uint64_t now_ms) noexcept nogil:
    cdef char digits[4]
    cdef uint32_t crc, r
    cdef int at
    cdef PeerCore* c
    if n == 0 or table.n < 2:
        return pick_round_robin(table, t, now_ms)
    while t.hash_tries <= MAX_HASH_TRIES:
        # Cache::Memcached: ((crc32([REHASH] KEY) >> 16) & 0x7fff) + previous
        crc = UINT32_MAX
        if t.rehash:
            at = 4
            r = t.rehash
            while r:
                at -= 1
                digits[at] = <char>(48 + r % 10)
                r //= 10
            crc = crc_more(crc, &digits[at], 4 - at)
        crc = crc_more(crc, key, n) ^ UINT32_MAX
        t.hash += (crc >> 16) & 0x7FFF
        t.rehash = (t.rehash + 1) % 10000
        c = by_weight(table, t.hash % table.total_weight)
        if not is_tried(t, c.slot) and may_take(c, now_ms):
            return chosen(c, t, now_ms)
        t.hash_tries += 1
    return pick_round_robin(table, t, now_ms)


cdef PeerCore* pick_ip_hash(Table* table, Tried* t, const char* address, uint32_t n,
                            uint64_t now_ms) noexcept nogil:
    cdef uint32_t hash, i
    cdef uint32_t width = 16 if n == 16 else 3   # a /24 of IPv4; a Unix socket is zeros
    cdef PeerCore* c
    if table.n < 2:
        return pick_round_robin(table, t, now_ms)
    hash = t.hash if t.is_hashed else 89
    while t.hash_tries <= MAX_HASH_TRIES:
        for i in range(width):
            hash = (hash * 113 + (<uint8_t>address[i] if i < n else 0)) % 6271
        c = by_weight(table, hash % table.total_weight)
        if not is_tried(t, c.slot) and may_take(c, now_ms):
            t.hash = hash
            t.is_hashed = True
            return chosen(c, t, now_ms)
        t.hash_tries += 1
    return pick_round_robin(table, t, now_ms)


cdef PeerCore* pick_consistent(Table* table, Tried* t, const char* key, uint32_t n,
                               uint64_t now_ms) noexcept nogil:
    cdef PeerCore* c
    cdef PeerCore* best
    cdef uint32_t i, j, k, crc, server
    cdef int32_t total
    if n == 0 or table.is_single or table.n_points == 0:
        return pick_round_robin(table, t, now_ms)
    if not t.is_hashed:
        # the first point not below the key's hash
        crc = crc_of(key, n)
        i = 0
        j = table.n_points
        while i < j:
            k = (i + j) // 2
            if crc > table.points[k].hash:
                i = k + 1
            else:
                j = k
        t.hash = i
        t.is_hashed = True
    while t.hash_tries <= MAX_HASH_TRIES:
        server = table.points[t.hash % table.n_points].server
        best = NULL
        total = 0
        for i in range(table.n):
            c = table.rows[i]
            if c.server != server or is_tried(t, c.slot) or not may_take(c, now_ms):
                continue
            total += c.state.effective_weight
            add_weight(c.state, c.weight)
            if best == NULL or c.state.current_weight > best.state.current_weight:
                best = c
        if best != NULL:
            best.state.current_weight -= total
            return chosen(best, t, now_ms)
        t.hash += 1
        t.hash_tries += 1
    return pick_round_robin(table, t, now_ms)


cdef inline bint is_warm(PeerCore* c, uint64_t chance, uint64_t slow_start_ms,
                         uint64_t now_ms) noexcept nogil:
    """Slow start: a peer of half that age is taken every second time that it could be."""
    if c.warm_ms <= now_ms or slow_start_ms == 0:
        return True
    return (chance & 0xFFFF) * slow_start_ms >= (c.warm_ms - now_ms) << 16


cdef PeerCore* pick_random(Table* table, Tried* t, uint64_t* seed, bint is_two,
                           uint64_t slow_start_ms, uint64_t now_ms) noexcept nogil:
    cdef PeerCore* c
    cdef PeerCore* previous = NULL
    cdef uint64_t x
    cdef uint64_t chance = seed[0] * SCRAMBLE >> 20   # one for all draws: who is out stays out
    if table.n < 2:
        return pick_round_robin(table, t, now_ms)
    while t.hash_tries <= MAX_HASH_TRIES:
        x = seed[0]                                   # xorshift64*
        x ^= x >> 12
        x ^= x << 25
        x ^= x >> 27
        seed[0] = x
        c = by_weight(table, <uint32_t>((x * SCRAMBLE) >> 33) % table.total_weight)
        if c != previous and not is_tried(t, c.slot) and may_take(c, now_ms) and is_warm(
                c, chance, slow_start_ms, now_ms):
            if not is_two:
                return chosen(c, t, now_ms)
            if previous != NULL:
                if (<uint64_t>c.state.conns * previous.weight
                        > <uint64_t>previous.state.conns * c.weight):
                    c = previous
                return chosen(c, t, now_ms)
            previous = c
            continue
        t.hash_tries += 1
    if previous != NULL and slow_start_ms:       # the others are new
        return chosen(previous, t, now_ms)
    return pick_round_robin(table, t, now_ms)


cdef inline PeerCore* pick_from(Upstream u, Table* table, Tried* t, const char* key, uint32_t n,
                                uint64_t now_ms) noexcept:
    if table.n == 0:
        return NULL
    if u.balance == B_ROUND_ROBIN:
        return pick_round_robin(table, t, now_ms)
    if u.balance == B_LEAST_CONN:
        return pick_least_conn(table, t, now_ms)
    if u.balance == B_HASH:
        return pick_hash(table, t, key, n, now_ms)
    if u.balance == B_CONSISTENT:
        return pick_consistent(table, t, key, n, now_ms)
    if u.balance == B_IP_HASH:
        return pick_ip_hash(table, t, key, n, now_ms)
    if u.seed == 0:
        # seeded on first use, after the fork: workers must not walk in step
        u.seed = (now_ms * SCRAMBLE) ^ (<uint64_t>getpid() << 32) ^ <size_t><void*>u
        if u.seed == 0:
            u.seed = 1
    return pick_random(table, t, &u.seed, u.balance == B_RANDOM_TWO, u.slow_start_ms, now_ms)


cdef void start_tries(Upstream u, Tried* t, uint32_t limit) noexcept:
    memset(t, 0, sizeof(Tried))
    t.tries = u.primary.tries + u.backup.tries
    if limit and t.tries > limit:
        t.tries = limit


cdef Peer pick(Upstream u, Tried* t, const char* key, uint32_t n, uint64_t now_ms):
    cdef PeerCore* c
    lock(u)
    c = NULL
    if not t.is_on_backup:
        c = pick_from(u, &u.primary, t, key, n, now_ms)
        if c == NULL and u.backup.n:
            t.is_on_backup = True
            memset(t.marks, 0, sizeof(t.marks))
    if t.is_on_backup:
        c = pick_from(u, &u.backup, t, key, n, now_ms)
    if c == NULL:
        unlock(u)
        return None
    return take_locked(u, c)


cdef Peer take_locked(Upstream u, PeerCore* c):
    """Count the connection, in the zone's ledger too; the upstream was locked."""
    c.state.conns += 1
    c.state.picks += 1
    if u.zone_head != NULL:
        if (<Peer>c.owner).zone_head != NULL:
            ledger(u.zone_head, u.row, (<Peer>c.owner).zone_slot)[0] += 1
        unlock(u)
    return <Peer>c.owner


cdef Peer pick_known(Upstream u, Tried* t, Str id, uint64_t now_ms):
    cdef Peer p
    if u.known is None or u.known_generation != u.generation:
        u.known = {}
        u.known_generation = u.generation
        for p in u.peers_:
            if not p.sticky_id:
                p.sticky_id = md5(p.name, usedforsecurity=False).hexdigest().encode()
            u.known.setdefault(p.sticky_id, []).append(p)
    same = u.known.get(id.p[:id.n]) if id.n else None
    if same is None:
        return None
    lock(u)
    for p in same:
        if not is_tried(t, p.core.slot) and may_take(&p.core, now_ms):
            return take_locked(u, chosen(&p.core, t, now_ms))
    unlock(u)
    return None


cdef Peer pick_alike(Upstream u, Tried* t, Str key, uint64_t now_ms):
    cdef PeerCore* best = NULL
    cdef PeerCore* c
    cdef double score
    cdef double most = -1
    cdef bytes name
    cdef uint64_t h
    cdef uint32_t i
    lock(u)
    for i in range(u.primary.n):                 # rendezvous hashing, by weight
        c = u.primary.rows[i]
        if is_tried(t, c.slot) or not may_take(c, now_ms):
            continue
        name = (<Peer>c.owner).name
        h = hash_more(hash_more(0, key.p, key.n), PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        score = c.weight / -log((<double>(mixed(h) >> 11) + 0.5) * 2.0 ** -53)
        if score > most:
            best = c
            most = score
    if best == NULL:
        unlock(u)
        return None
    return take_locked(u, chosen(best, t, now_ms))


cdef bint has_busy(Upstream u, uint64_t now_ms) noexcept:
    cdef uint32_t i
    for i in range(u.primary.n):
        if is_busy(u.primary.rows[i], now_ms):
            return True
    for i in range(u.backup.n):
        if is_busy(u.backup.rows[i], now_ms):
            return True
    return False


cdef void on_released(Upstream u, Peer p, Tried* t, Outcome outcome, uint64_t now_ms) noexcept:
    cdef PeerCore* c = &p.core
    cdef PeerState* s = c.state
    lock(u)
    if s.conns:
        s.conns -= 1
        if p.zone_head != NULL and ledger(p.zone_head, p.row, p.zone_slot)[0] > 1:
            ledger(p.zone_head, p.row, p.zone_slot)[0] -= 1
    if outcome == PEER_FAILED:
        s.failures += 1
    if u.primary.is_single:
        s.fails = 0
        if t != NULL:
            t.tries = 0
    else:
        if outcome == PEER_FAILED:
            s.fails += 1
            s.accessed_ms = now_ms
            s.checked_ms = now_ms
            if c.max_fails:
                s.effective_weight -= c.weight // <int32_t>c.max_fails
                if s.fails == c.max_fails:
                    s.disabled += 1
            if s.effective_weight < 0:
                s.effective_weight = 0
        elif s.accessed_ms < s.checked_ms:
            s.fails = 0
        if t != NULL and t.tries:
            t.tries -= 1
    unlock(u)


cdef class Attempts:
    """One request's attempts at an upstream, for callers in Python.

    key as for pick(); limit is proxy_next_upstream_tries (0: none).
    """

    cdef readonly Upstream upstream
    cdef Tried tried
    cdef bytes key

    def __cinit__(self, Upstream upstream not None, bytes key=b"", uint32_t limit=0):
        self.upstream = upstream
        self.key = key
        start_tries(upstream, &self.tried, limit)

    @property
    def tries(self):
        return self.tried.tries

    def pick(self, uint64_t now_ms):
        """The next Peer, its connection counted, or None: no live upstream."""
        return pick(self.upstream, &self.tried, PyBytes_AS_STRING(self.key),
                    <uint32_t>PyBytes_GET_SIZE(self.key), now_ms)

    def give(self, Peer peer not None, int outcome, uint64_t now_ms):
        """Give a picked Peer back: OK, FAILED or NEXT."""
        on_released(self.upstream, peer, &self.tried, <Outcome>outcome, now_ms)


def spin(Upstream upstream not None, int n, bytes key=b""):
    """Pick and release n times in compiled code: what the micro-benchmark times."""
    cdef Tried t
    cdef Peer p
    cdef int i
    for i in range(n):
        start_tries(upstream, &t, 0)
        p = pick(upstream, &t, PyBytes_AS_STRING(key), <uint32_t>PyBytes_GET_SIZE(key), 1000)
        if p is None:
            return i
        on_released(upstream, p, &t, PEER_OK, 1000)
    return n

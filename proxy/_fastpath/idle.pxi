# Connections to upstreams that wait for their next request: a pool of each upstream and worker.

cdef UpstreamLink take_idle(
    Worker w, Upstream u, Peer p, ProxySettings s, bint is_tls, bint is_shared, KeyPair pair
):
    cdef UpstreamLink conn
    if p.idle == NULL:
        return None
    conn = <UpstreamLink><PyObject*>p.idle
    if conn.is_tls != is_tls or conn.is_shared != is_shared or conn.pair is not pair or (
            conn.s is not s and u.keepalive_is_local):
        return None
    forget_idle(w, conn)
    conn.s = s
    conn.is_reused = True
    return conn


cdef void give_idle(Worker w, UpstreamLink c) noexcept:
    cdef Upstream u = c.upstream
    cdef Pool* pool = <Pool*>u.pool
    if (u.keepalive == 0 or c.requests >= u.keepalive_requests or c.peer.is_removed
            or clock.now_ms - c.born_ms >= u.keepalive_time_ms or w.is_quitting):
        c.drop()
        return
    if pool == NULL:
        pool = <Pool*>calloc(1, sizeof(Pool))
        if pool == NULL:
            c.drop()
            return
        u.pool = pool
    c.state = U_IDLE
    c.peer_prev = NULL
    c.peer_next = <PyObject*>c.peer.idle
    if c.peer_next != NULL:
        (<UpstreamLink>c.peer_next).peer_prev = <PyObject*>c
    c.peer.idle = <void*>c
    c.lru_newer = NULL
    c.lru_older = pool.newest
    if pool.newest != NULL:
        (<UpstreamLink>pool.newest).lru_newer = <PyObject*>c
    else:
        pool.oldest = <PyObject*>c
    pool.newest = <PyObject*>c
    u.n_idle += 1
    Py_INCREF(c)
    c.unpause()
    set_deadline(w.wheel, c, clock.now_ms + u.keepalive_timeout_ms)
    if u.n_idle > u.keepalive:
        (<UpstreamLink>pool.oldest).drop()


cdef void forget_idle(Worker w, UpstreamLink c) noexcept:
    cdef Pool* pool
    if c.state != U_IDLE:
        return
    pool = <Pool*>c.upstream.pool
    if c.peer_next != NULL:
        (<UpstreamLink>c.peer_next).peer_prev = c.peer_prev
    if c.peer_prev != NULL:
        (<UpstreamLink>c.peer_prev).peer_next = c.peer_next
    else:
        c.peer.idle = <void*>c.peer_next
    if c.lru_newer != NULL:
        (<UpstreamLink>c.lru_newer).lru_older = c.lru_older
    else:
        pool.newest = c.lru_older
    if c.lru_older != NULL:
        (<UpstreamLink>c.lru_older).lru_newer = c.lru_newer
    else:
        pool.oldest = c.lru_newer
    c.state = U_HEAD
    c.upstream.n_idle -= 1
    Py_DECREF(c)

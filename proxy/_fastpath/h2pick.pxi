# Which connection of HTTP/2 carries a request: one in use that has room, an idle one, or a new one.

cdef int call_h2(
    Worker w, Request r, Upstream u, Peer p, ProxySettings s, bint is_tls, KeyPair pair
) noexcept:
    """A stream for r at p, on a connection that has room, or on one that is dialed. GO, PARK while
    it is, or a verdict."""
    cdef UpstreamH2 h = find_busy(u, p, s, is_tls, pair)
    cdef H2Call call
    cdef int rc
    if h is None:
        h = <UpstreamH2>take_idle(w, u, p, s, is_tls, True, pair)
        if h is not None:
            h.node.deadline_ms = 0
            h.show()
    if w.free_calls != NULL:
        call = <H2Call>w.free_calls
        w.free_calls = call.next_waiting
        call.next_waiting = NULL
        w.n_spare_calls -= 1
        Py_DECREF(call)
    else:
        call = H2Call.__new__(H2Call)
    if h is not None:
        call.join(h, r)
        call.s = s
        r.call = call
        begin_call(call, r)
        if h.state == U_DIALING:
            h.waiters.append(call)
            if call.until_ms:
                set_deadline(w.wheel, call, call.until_ms)
            if r.keep_head() < 0:
                return NO_MEMORY
            return PARK
        call.state = U_HEAD
        r.attempts[r.n_attempts - 1].connect_ms = 0
        return GO
    h = UpstreamH2.__new__(UpstreamH2)
    h.w = w
    h.upstream = u
    h.peer = p
    h.s = s
    h.is_tls = is_tls
    h.is_shared = True
    h.pair = pair
    h.waiters = [call]
    call.join(h, r)
    r.call = call
    begin_call(call, r)
    if r.keep_head() < 0:
        return NO_MEMORY
    rc = h.open_call()
    if rc < 0:
        r.call = None
        h.waiters = []
        h.is_over = True
        call.drop()
        h.drop()
        return w.release_failed(r, call, rc)
    h.show()
    if call.until_ms:
        set_deadline(w.wheel, call, call.until_ms)
    return PARK


cdef UpstreamH2 find_busy(Upstream u, Peer p, ProxySettings s, bint is_tls, KeyPair pair):
    """A connection in use that one more may join."""
    cdef UpstreamH2 h
    cdef PyObject* at = <PyObject*>p.busy
    while at != NULL:
        h = <UpstreamH2>at
        if h.has_room() and h.is_tls == is_tls and h.pair is pair and (
                h.s is s or not u.keepalive_is_local):
            return h
        at = h.peer_next
    return None

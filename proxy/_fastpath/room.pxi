# worker_connections: who goes first when a worker is nearly full, and when it stops accepting.

cdef void look_at_room(Worker w) noexcept:
    """worker_connections: from 15/16 on idle connections go first, then accepting pauses."""
    cdef uint32_t n = w.n_clients + w.n_upstreams + w.n_guests
    if w.max_connections == 0:
        return
    if n * 16 >= w.max_connections * 15:
        close_oldest_idle(w)
        n = w.n_clients + w.n_upstreams + w.n_guests
    if not w.is_full and n >= w.max_connections:
        w.is_full = True
        if w.on_full is not None:
            w.on_full()
    elif w.is_full and n * 16 < w.max_connections * 15:
        w.is_full = False
        if w.on_room is not None and not w.is_quitting:
            w.on_room()


cdef void close_oldest_idle(Worker w) noexcept:
    """One keep-alive connection that waits for nothing; the search is short or given up."""
    cdef PyObject* at = w.oldest
    cdef ClientH1 c
    cdef int looked = 0
    while at != NULL and looked < 64:
        c = <ClientH1>at
        at = c.prev
        looked += 1
        if c.state == C_IDLE and c.held_n == 0 and c.client.requests and not c.is_closing:
            c.close()
            return
        if c.state == C_H2 and c.h2.n_live == 0 and not c.is_closing:
            c.h2.part()
            return


cdef void cut_all(Worker w) noexcept:
    """Of each client the connection; what was under way on it is told as it stands."""
    cdef PyObject* at = w.clients
    cdef ClientH1 c
    tick()
    while at != NULL:
        c = <ClientH1>at
        at = c.next
        c.abort()
    w.settle()

# Where clients come in, and whether a connection may carry another request.

@final
cdef class Listener(Acceptor):
    """One listen address as the workers see it."""
    cdef public Worker w
    cdef public object key            # as process/ names it
    cdef public Names names
    cdef public Server default_server
    cdef public bint is_tls
    cdef public bint is_proxied       # proxy_protocol: a PROXY header comes first
    cdef public Door tls              # None: plain
    cdef public bint is_h2            # http2 of any server here: the rest is of the default one
    cdef public uint32_t h2_streams   # http2_max_concurrent_streams
    cdef public uint32_t h2_preread   # http2_body_preread_size
    cdef public uint32_t h2_frame     # bytes of the widest that a client may send
    cdef public uint32_t h2_parts     # http2_max_continuations
    cdef public uint32_t h2_field     # large_client_header_buffers: one of them is the most that a
    cdef public uint32_t h2_head      # name or a value has, all are what a head has
    cdef public uint32_t h2_resets    # http2_max_resets, in COUNTED_MS
    cdef public object quic           # its Settings (proxy/quic/engine.py), or None: TCP
    cdef public uint32_t h3_resets    # http3_max_resets, in COUNTED_MS
    cdef public uint32_t h2_control   # http2_max_control_frames, in COUNTED_MS

    cdef void on_accepted(self, int fd, const void* address) noexcept:
        cdef ClientH1 c = ClientH1.__new__(ClientH1)
        c.w = self.w
        c.listener = self
        if self.tls is not None:
            try:
                c.tls = begin_server(self.tls)
            except MemoryError:
                c_close(fd)
                return
        if c.open(fd) == 0:
            c.begin(address)


cdef bint may_keep(ClientH1 c, Request r) noexcept:
    """May the connection carry another request after this one?"""
    cdef Location here = r.location
    cdef const Field* agent
    if c.w.is_quitting:
        return False
    if here is None:
        return True
    if (here.keepalive_timeout_ms == 0 or c.client.requests >= here.keepalive_requests
            or clock.now_ms - c.client.accepted_ms > here.keepalive_time_ms):
        return False
    if here.keepalive_disable and (r.method == M_POST or here.keepalive_disable & 2):
        agent = find_field(&r.head, F_USER_AGENT)
        if agent != NULL:
            return not is_disabled_agent(value_of(&r.head, agent), here.keepalive_disable,
                                         r.method == M_POST)
    return True


cdef bint is_disabled_agent(Str agent, uint8_t disabled, bint is_post) noexcept:
    """keepalive_disable: old MSIE after a POST; Safari on a Mac."""
    cdef const char* at = <const char*>memmem(agent.p, agent.n, b"MSIE ", 5)
    if at != NULL and at + 6 < agent.p + agent.n and at[6] == c"." and (
            at[5] == c"4" or at[5] == c"5" or at[5] == c"6"):
        return disabled & 1 and is_post and memmem(agent.p, agent.n, b"SV1", 3) == NULL
    return (disabled & 2 and memmem(agent.p, agent.n, b"Safari/", 7) != NULL
            and memmem(agent.p, agent.n, b"Mac OS X", 8) != NULL
            and memmem(agent.p, agent.n, b"Chrome/", 7) == NULL)

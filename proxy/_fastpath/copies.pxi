# What follows an answer of a function: its version is counted, and shadows get copies.
#
# A copy is a request of its own that has no client: made when the answer is whole, from what is
# still held of the request, so that it delays nobody. Its answer is dropped.

cdef enum:
    MOST_COPIES = 64          # of one worker, under way: each is a connection that clients lack


cdef Request nobody = Request()       # the parent of all copies


cdef inline bint is_copy(Request r) noexcept:
    return r.parent is nobody


@final
cdef class Shadow(SubWaiter):
    """Waits for the end of a copy."""
    cdef Worker w

    cdef void on_sub(self, Request sub) noexcept:
        if sub.version is not None:
            count_version(self.w, <Version>sub.version, sub, True)
        self.w.copies.discard(sub)


cdef void count_version(Worker w, Version v, Request r, bint is_copied) noexcept:
    """Requests and their durations by function, version and status; copies apart."""
    cdef uint32_t* series = &v.copy_series if is_copied else &v.series
    if w.counters is None:
        return
    if series[0] == 0:
        try:
            series[0] = <uint32_t>w.counters.row("", "copies" if is_copied else "",
                                                 v.key.decode()) + 1
        except Exception as error:
            series[0] = 1                        # not worth another try
            tell_error(R_ALERT, r, "counting the requests of a version", error)
    if series[0] > 1:
        count_request(w.counters, series[0] - 1, r.told_status if r.told_status else r.status,
                      (clock.now_ms - r.start_ms) * 1000)


cdef void tell_version(Worker w, Request r) noexcept:
    cdef Version v = <Version>r.version
    cdef Arms arms = <Arms>v.function.arms
    cdef int arm
    if r.location.handler is None:               # it went to the queue, which calls it later
        return
    count_version(w, v, r, False)
    if arms is None or not arms.has_copies or not r.is_done or r.is_upgraded or (
            r.n_attempts == 0 or r.parent is not None):
        return
    arm = next_copy(arms, 0)
    while arm >= 0:
        if arm < <int>len(v.function.versions):
            send_copy(w, r, <Version>v.function.versions[arm])
        arm = next_copy(arms, arm + 1)


cdef void send_copy(Worker w, Request r, Version to) noexcept:
    """Ask `to` what r asked, unless too much is under way or the body is gone."""
    cdef Request sub
    cdef SubStream s
    cdef Shadow waiter
    if len(w.copies) >= MOST_COPIES or not r.is_body_done and r.body_kind != BODY_NONE or (
            r.body_n and r.body is None):
        return
    try:
        sub = Request.__new__(Request)
        s = SubStream.__new__(SubStream)
        waiter = Shadow.__new__(Shadow)
        waiter.w = w
        s.w = w
        s.waiter = waiter
        sub.begin(w, s)
        sub.parent = nobody
        sub.server = r.server
        sub.location = r.location
        sub.client = r.client
        sub.id = r.id
        sub.connection_requests = r.connection_requests
        sub.head = r.head
        if sub.keep_head() < 0:
            sub.end()
            return
        sub.head.flags &= ~<uint32_t>(H_UPGRADE | H_EXPECT_CONTINUE | H_KEEP_ALIVE)
        sub.method = r.method
        sub.is_internal = True
        sub.is_rewritten = r.is_rewritten
        sub.uri_in_proxy = r.uri_in_proxy
        sub.target = copy(&sub.arena, r.target)
        sub.uri = copy(&sub.arena, r.uri)
        sub.args = copy(&sub.arena, r.args)
        sub.host = copy(&sub.arena, r.host)
        sub.server_name = copy(&sub.arena, r.server_name)
        sub.proxy_uri = copy(&sub.arena, r.proxy_uri)
        sub.body_kind = r.body_kind
        sub.body_n = r.body_n
        sub.body = r.body
        sub.is_body_done = sub.is_body_read = True
        sub.version = to
        sub.stage = S_PICK - 1
        w.copies.add(sub)
    except MemoryError:
        return
    w.drive(sub, GO)

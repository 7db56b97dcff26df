# Requests that requests ask: on the same stages, with a stream that hands the answer to who
# asked. And who asks first of all: the checks of access, which may wait for one.

cdef enum:
    MOST_DEPTH = 50           # sub-requests inside sub-requests (nginx)
    MOST_SUBS = 2000          # of one request of a client


@final
cdef class SubStream(ClientStream):
    """The Stream of a sub-request: its head stays in the Request, its body goes to the waiter."""
    cdef Worker w
    cdef SubWaiter waiter

    cdef int send_head(self, Request r) noexcept:
        r.is_header_only = r.status == 204 or r.status == 304
        r.out_kind = BODY_UNTIL_CLOSE
        r.is_head_sent = True
        return 0

    cdef int send_body(self, Request r, const char* p, size_t n) noexcept:
        if n == 0 or r.is_header_only or self.waiter is None:
            return 0
        r.sent_body += <int64_t>n
        return self.waiter.on_sub_body(r, p, n)

    cdef int send_end(self, Request r) noexcept:
        return 0

    cdef void abort(self, Request r) noexcept:
        self.w.complete(r)


cdef int ask_request(
    Worker w, Request parent, Str uri, Str args, SubWaiter waiter, object tag
) noexcept:
    cdef Request sub
    cdef SubStream s
    cdef Request m = parent.main
    cdef uint16_t i
    cdef Field* fields
    if parent.depth >= MOST_DEPTH or m.n_subs >= MOST_SUBS:
        return REDIRECT_LOOP
    if parent.keep_head() < 0:
        return NO_MEMORY
    sub = Request.__new__(Request)
    s = SubStream.__new__(SubStream)
    s.w = w
    s.waiter = waiter
    sub.begin(w, s)
    fields = <Field*>take(&sub.arena, (parent.head.n_fields + 1) * sizeof(Field))
    if fields == NULL:
        sub.end()
        return NO_MEMORY
    m.n_subs += 1
    sub.parent = parent
    sub.main = m
    sub.depth = parent.depth + 1
    sub.sub_tag = tag
    sub.server = parent.server
    sub.location = <Location>parent.server.settings
    sub.client = parent.client
    sub.id = parent.id
    sub.connection_requests = parent.connection_requests
    # the parent's head (kept, and the parent outlives it), as a GET without a body
    sub.head = parent.head
    sub.is_head_kept = True
    sub.head.fields = fields
    for i in range(parent.head.n_fields):
        fields[i] = parent.head.fields[i]
        # conditions and ranges were meant for the whole (nginx: not for sub-requests)
        if F_RANGE <= fields[i].id <= F_IF_NONE_MATCH or fields[i].id in (
                F_EXPECT, F_CONTENT_LENGTH, F_UPGRADE):
            fields[i].flags |= F_IS_INVALID
    sub.head.method = M_OTHER     # not what is asked: r.method tells
    sub.method = M_GET
    sub.head.content_length = -1
    sub.head.flags &= ~<uint32_t>(H_CHUNKED | H_UPGRADE | H_EXPECT_CONTINUE | H_KEEP_ALIVE)
    sub.is_body_done = True
    sub.is_internal = True
    sub.target = parent.target
    sub.host = parent.host
    sub.server_name = parent.server_name
    sub.uri = copy(&sub.arena, uri)
    sub.args = copy(&sub.arena, args)
    if uri.n and sub.uri.n == 0:
        sub.end()
        return NO_MEMORY
    try:
        if parent.subs is None:
            parent.subs = []
        parent.subs.append(sub)
    except MemoryError:
        sub.end()
        return NO_MEMORY
    w.drive(sub, GO)
    return 0


cdef void end_sub(Worker w, Request sub) noexcept:
    """Its answer is whole, or cut: the waiter hears of it, then it goes."""
    cdef SubStream s = <SubStream>sub.stream
    cdef SubWaiter waiter = s.waiter
    cdef Request parent = sub.parent
    if waiter is None:
        return
    s.waiter = None
    sub.is_done = True
    if parent.subs is not None:
        try:
            parent.subs.remove(sub)
        except ValueError:
            pass
    write_sub_logs(sub)
    waiter.on_sub(sub)
    drop_subs(sub)
    if sub.asked != NULL:
        leave(w.waiting, sub)
    sub.end()


cdef void drop_subs(Request r) noexcept:
    """Nobody waits for them any more."""
    cdef Request sub
    cdef UpstreamCall u
    cdef list subs = r.subs
    if subs is None:
        return
    r.subs = None
    for sub in subs:
        (<SubStream>sub.stream).waiter = None
        if sub.call is not None:
            u = <UpstreamCall>sub.call
            sub.call = None
            u.leave()
        drop_subs(sub)
        if sub.asked != NULL:
            leave((<SubStream>sub.stream).w.waiting, sub)
        sub.end()


# -- access ------------------------------------------------------------------------------

@final
cdef class Authorization(SubWaiter):
    """Waits for the answer of auth_request."""
    cdef Worker w
    cdef int judged               # -1: no answer yet
    cdef bint is_asking           # the sub-request may be over before asking returns

    cdef void on_sub(self, Request sub) noexcept:
        cdef Request r = sub.parent
        if r.waiter is not self:
            return
        self.judged = judge_answer(<AccessSettings>r.location.access, r, sub)
        if not self.is_asking:
            r.waiter = None
            go_on_admitting(self.w, r, self.judged)


cdef void go_on_admitting(Worker w, Request r, int judged) noexcept:
    """A check that was waited for has its result; the next ones follow."""
    cdef int verdict = judge(w, r, judged)
    if verdict == GO:
        r.stage = S_ADMIT - 1
    w.drive(r, verdict)


cdef int judge(Worker w, Request r, int judged) noexcept:
    """One check's result under `satisfy`. GO: on with the next, else the verdict."""
    if judged == DECLINED:
        return GO
    if judged == LET_IN:
        if r.location.satisfy_any:
            r.access_status = 0
            r.checked = CHECK_ACCESS | CHECK_BASIC | CHECK_REQUEST
            forget_challenge(r)
        return GO
    if r.location.satisfy_any and (judged == 401 or judged == 403):
        if r.access_status != 401:
            r.access_status = <uint16_t>judged
        return GO
    return turn_away(w, r, judged)


cdef int turn_away(Worker w, Request r, int status) noexcept:
    cdef AccessSettings s = <AccessSettings>r.location.access
    r.status = <uint16_t>status
    if status == 401 and s.delay_ms:
        if r.keep_head() < 0:
            return NO_MEMORY
        return hold_for(w, r, s.delay_ms, STATUS)
    return STATUS


cdef int check_access(Worker w, Request r) noexcept:
    """Addresses, password, sub-request, in this order (nginx). GO, PARK or a verdict."""
    cdef AccessSettings s
    cdef Authorization a
    cdef list slow
    cdef int rc
    if r.location.access is None or r.parent is not None:
        return GO
    s = <AccessSettings>r.location.access
    if s.checks & CHECK_ACCESS and not r.checked & CHECK_ACCESS:
        r.checked |= CHECK_ACCESS
        rc = judge(w, r, judge_address(s, r))
        if rc != GO:
            return rc
    if s.checks & CHECK_BASIC and not r.checked & CHECK_BASIC:
        r.checked |= CHECK_BASIC
        slow = []
        rc = judge_password(s, r, slow)
        if rc < 0:
            if r.keep_head() < 0:
                return NO_MEMORY
            try:
                r.waiter = w.loop.create_task(check_password(w, r, s, slow[0], slow[1]))
            except Exception as error:
                tell_error(R_ALERT, r, "checking a password", error)
                return INTERNAL
            return PARK
        rc = judge(w, r, rc)
        if rc != GO:
            return rc
    if s.checks & CHECK_REQUEST and not r.checked & CHECK_REQUEST:
        r.checked |= CHECK_REQUEST
        a = Authorization.__new__(Authorization)
        a.w = w
        a.judged = -1
        a.is_asking = True
        r.waiter = a
        rc = ask_request(w, r, of_bytes(s.ask_uri), of_bytes(s.ask_args), a, None)
        a.is_asking = False
        if rc < 0:
            r.waiter = None
            return rc
        if a.judged < 0:
            return PARK
        r.waiter = None
        rc = judge(w, r, a.judged)
        if rc != GO:
            return rc
    if r.access_status:
        return turn_away(w, r, r.access_status)
    return GO


async def check_password(Worker w, Request r, AccessSettings s, bytes stored, bytes password):
    """A hash that takes long is computed by a thread."""
    task = r.waiter
    try:
        is_right = await w.loop.run_in_executor(None, s.check_slow, stored, password)
    except Exception as error:
        is_right = None
        if r.waiter is task:
            tell_error(R_ALERT, r, "checking a password", error)
    if r.waiter is not task:
        return
    r.waiter = None
    tick()
    if is_right is None:
        go_on_admitting(w, r, 500)
    else:
        go_on_admitting(w, r, LET_IN if is_right else ask_password(s, r))
    w.settle()


# -- what filters do to an answer --------------------------------------------------------

cdef int dress(Request r) noexcept:
    """The head as it goes out: what the conf adds, and what filtering the body makes untrue."""
    cdef int rc = 0
    if r.location is None or is_copy(r):
        return 0
    if is_web(r):
        dress_web(r)
    if r.location.headers is not None and r.parent is None:
        rc = add_fields(r)
    if r.location.handler_kind == HANDLE_PROXY and r.location.handler is not None and rc == 0:
        rc = tell_call(r)
    if r.location.filters is not None and rc == 0:
        rc = begin_filters(<BodyFilters>r.location.filters, r)
    return rc


cdef int begin_filters(BodyFilters filters, Request r) noexcept:
    """Each sees what the one before made of the body."""
    cdef int rc = 0
    if filters.ssi is not None:
        rc = begin_ssi(<SsiSettings>filters.ssi, r)
    if filters.gzip is not None and rc == 0:
        rc = begin_gzip(filters.gzip, r)
    return rc

# Answers in place of others: error pages, intercepted answers of upstreams; and feeding files.

cdef void forget_choice(Request r) noexcept:
    """Before another location is asked: nothing stays of what this one chose."""
    r.upstream = None
    r.found = None
    if r.asked != NULL:
        leave((<Worker>r.conductor).waiting, r)
        r.asked = NULL
    r.version = None
    r.proxy_uri.n = 0
    r.tried = NULL
    r.source = None
    r.waiting = None
    r.text.n = 0
    r.content_type.n = 0
    r.reason.n = 0
    r.length = r.last_modified = -1
    r.is_answer_read = 0


cdef int stand_in(Request r, int status) noexcept:
    """error_page. GO: the default page of `status`; REROUTE, REENTER; else that of r.status."""
    cdef int rc
    r.content_type.n = 0
    rc = on_error(r, status)
    if rc == REROUTE or rc == REENTER:
        if (r.answer.fields == NULL or r.keep_answer() == 0) and r.keep_head() == 0:
            if r.fault == BODY_TOO_LARGE or r.is_body_read and r.body is None:
                r.body_kind = BODY_NONE          # it cannot be sent (again): it is dropped
                r.body = None
            return rc
        rc = NO_MEMORY
    if rc < 0:
        r.status = 500
        r.n_out = 0
    r.error_status = 0
    return rc


cdef void find_type(Request r) noexcept:
    """A text of ours has the type that a file of this name would have (nginx: return)."""
    if r.content_type.n == 0 and r.source is None and r.status not in (204, 304, 444):
        r.content_type = type_of(<ContentSettings>r.location.content, r.uri)


cdef void intercept(Worker w, Request r, UpstreamCall u) noexcept:
    """proxy_intercept_errors: an error_page answers, with the upstream's challenges."""
    cdef Attempt* a = &r.attempts[r.n_attempts - 1]
    cdef int status = r.status
    cdef uint16_t i
    cdef int rc = r.keep_answer()
    a.response_ms = <int64_t>(clock.now_ms - a.start_ms)
    for i in range(r.answer.n_fields if status == 401 else 0):
        if r.answer.fields[i].id == F_WWW_AUTHENTICATE and rc == 0 and r.add_field(
                name_of(&r.answer, &r.answer.fields[i]),
                value_of(&r.answer, &r.answer.fields[i]), F_WWW_AUTHENTICATE) == NULL:
            rc = NO_MEMORY
    r.call = None
    u.leave()
    r.reason.n = 0
    if rc < 0:
        w.fail(r, NO_MEMORY)
    else:
        w.answer_status(r, status)


cdef int feed_source(Worker w, Request r) noexcept:
    """More of the source; one that could go on but lets others go first comes again soon."""
    cdef int rc = r.source.feed(r)
    if rc != GO:
        return rc
    try:
        w.loop.call_soon(Turn(w, r, r.source))
    except Exception as error:
        tell_error(R_ALERT, r, "going on with an answer", error)
        return INTERNAL
    return BLOCKED


@final
cdef class Turn:
    """Feeds an answer on after others had their turn."""
    cdef Worker w
    cdef Request r
    cdef Source source

    def __init__(self, Worker w not None, Request r not None, Source source not None):
        self.w = w
        self.r = r
        self.source = source

    def __call__(self):
        # the request may be another one's by now, the source cannot
        if self.r.source is self.source and not self.r.is_done:
            tick()
            self.w.on_client_drained(self.r)
            self.w.settle()

# What is told of a request: counted, logged, and which words each fault gets in the error log.

cdef Block nobody_counts          # where a worker counts that has no counters


cdef void tell_request(Worker w, Request r) noexcept:
    """The request is over: count it, write its logs."""
    cdef Location at = r.location
    cdef Counters c = w.counters
    cdef LimitSettings s
    if c is not None and at is not None:
        count_request(c, at.number, r.told_status if r.told_status else r.status,
                      (clock.now_ms - r.start_ms) * 1000)
        if at.limits is not None:
            s = <LimitSettings>at.limits
            count_decision(c, s.req_counters, r.limit_req_status)
            count_decision(c, s.conn_counters, r.limit_conn_status)
    write_logs(r)
    if r.version is not None:
        tell_version(w, r)


cdef inline void count_decision(Counters c, list numbers, uint8_t decision) noexcept:
    if decision and numbers is not None and decision < len(numbers):
        count(c, <uint32_t>numbers[decision], 1)


cdef void count_asked(Worker w, Upstream u, Peer p) noexcept:
    """A request goes to a peer."""
    if w.counters is None:
        return
    if p.asked_counter == 0:
        try:
            labels = {"upstream": u.name.decode("latin-1"), "peer": p.name.decode("latin-1")}
            p.failed_counter = w.counters.counter("headrace_upstream_peer_fails_total", labels)
            p.asked_counter = w.counters.counter("headrace_upstream_peer_requests_total", labels)
        except Exception as error:
            tell_error(R_ALERT, None, "counting the requests of a peer", error)
            return
    count(w.counters, p.asked_counter, 1)


cdef inline void count_failed(Worker w, Peer p) noexcept:
    if w.counters is not None and p.failed_counter:
        count(w.counters, p.failed_counter, 1)


cdef int answer_python(Worker w, Request r) noexcept:
    """A location that a Python callable answers: (status, [(name, value)], body)."""
    if r.method != M_GET and r.method != M_HEAD:
        return NOT_ALLOWED
    try:
        status, fields, body = r.location.handler(None)
        r.variables = body                       # keeps the bytes
        r.text = of_bytes(body)
        r.status = status
        for name, value in fields:
            put_field(r, name.encode("latin-1"), value.encode("latin-1"))
    except Exception as error:
        words = ("the answer failed: %r" % error).encode("utf-8", "replace")
        report(R_ALERT, r, of_bytes(words))
        return INTERNAL
    return DONE


cdef put_field(Request r, bytes name, bytes value):
    cdef Str kept = copy(&r.arena, of_bytes(value))
    if name == b"Content-Type":
        r.content_type = kept
    elif r.add_field(copy(&r.arena, of_bytes(name)), kept, 0) == NULL:
        raise MemoryError


# -- words (nginx's, so that who greps for them finds them) ---------------------------------

cdef void report_fault(Request r, int fault) noexcept:
    """A fault that ends a request, before it is answered."""
    cdef char[96] words
    cdef const char* told = NULL
    cdef int level = R_INFO
    if fault == BODY_TOO_LARGE:
        level = R_ERROR
        snprintf(words, 96, "client intended to send too large body: %lld bytes", <long long>(
            r.head.content_length if r.body_kind == BODY_LENGTH else r.body_n))
        told = words
    elif fault == BAD_REQUEST:
        told = "client sent invalid request while reading client request"
    elif fault == URI_TOO_LARGE:
        told = "client sent too long URI while reading client request line"
    elif fault == HEAD_TOO_LARGE:
        told = "client sent too long header line while reading client request headers"
    elif fault == TOO_MANY_FIELDS:
        told = "client sent too many header lines while reading client request headers"
    elif fault == BAD_VERSION:
        told = "client sent invalid version while reading client request line"
    elif fault == NOT_IMPLEMENTED and r.head.version >= 20:
        told = "client sent extended CONNECT with unknown :protocol"
    elif fault == NOT_IMPLEMENTED:
        told = "client sent unknown \"Transfer-Encoding\" while reading client request headers"
    elif fault == BAD_CHUNK:
        told = "client sent invalid chunked body"
    elif fault == BODY_TIMEOUT:
        told = "client timed out (110: Connection timed out) while reading client request body"
    elif fault == PLAIN_ON_TLS:
        told = "client sent plain HTTP request to HTTPS port while reading client request headers"
    elif fault == NO_LIVE_UPSTREAM:
        level = R_ERROR
        told = "no live upstreams while connecting to upstream"
    elif fault == UPSTREAM_NOT_RESOLVED:
        level = R_ERROR
        told = "the upstream's name could not be resolved"
    elif QUEUE_FULL >= fault >= FUNCTION_TIMEOUT:
        report_refusal(r)
    elif fault == REDIRECT_LOOP:
        level = R_ERROR
        report_about(level, r, "rewrite or internal redirection cycle while processing \"", r.uri,
                     "\"")
    elif fault == DISK_FULL:
        level = R_CRIT
        told = "a body could not be written to its temporary file"
    elif fault == NO_MEMORY:
        level = R_EMERG
        told = "no memory for a request"
    if told != NULL:
        report_text(level, r, told)


cdef void report_upstream(Request r, int fault) noexcept:
    """What one peer did wrong, whether or not another is asked."""
    cdef bint has_head = r.is_head_sent
    cdef const char* told = NULL
    if fault == UPSTREAM_CONNECT_TIMEOUT:
        told = "upstream timed out (110: Connection timed out) while connecting to upstream"
    elif fault == UPSTREAM_SEND_TIMEOUT:
        told = "upstream timed out (110: Connection timed out) while sending request to upstream"
    elif fault == UPSTREAM_READ_TIMEOUT and has_head:
        told = "upstream timed out (110: Connection timed out) while reading upstream"
    elif fault == UPSTREAM_READ_TIMEOUT:
        told = ("upstream timed out (110: Connection timed out) while reading response header "
                "from upstream")
    elif fault == UPSTREAM_CLOSED:
        told = ("upstream prematurely closed connection while reading response header "
                "from upstream")
    elif fault == UPSTREAM_CUT:
        told = "upstream prematurely closed connection while reading upstream"
    elif fault == UPSTREAM_BAD_HEAD:
        told = "upstream sent invalid header while reading response header from upstream"
    elif fault == UPSTREAM_HEAD_TOO_LARGE:
        told = "upstream sent too big header while reading response header from upstream"
    elif fault == UPSTREAM_BAD_CHUNK:
        told = "upstream sent invalid chunked response while reading upstream"
    if told != NULL:
        report_text(R_ERROR, r, told)


cdef void report_connect(Request r, int number) noexcept:
    """connect(2) said no; what was never there at all is worse (nginx: crit)."""
    cdef char[128] words
    if r is None:
        return
    snprintf(words, 128, "connect() failed (%d: %s) while connecting to upstream", number,
             strerror(number))
    report_text(R_ERROR if number == ECONNREFUSED or number == ECONNRESET or number == EAGAIN
                or number == ETIMEDOUT or number == EHOSTUNREACH or number == ENETUNREACH
                else R_CRIT, r, words)

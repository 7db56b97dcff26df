# The stages, each a question with one answer. See house rule: a stage returns, `drive` acts.

cdef int route(Worker w, Request r) noexcept:
    """Which location? Server, target, the server's rewrites, then the search."""
    cdef Program program
    cdef int rc
    if r.server is None:
        rc = find_host(r)
        if rc != 0:
            return rc
        put_realip(r)
    if r.server.rewrite is not None:
        r.location = <Location>r.server.settings
        program = <Program>r.server.rewrite
        rc = run_rewrite(program, r)
        if rc == REWRITE_STATUS:
            return STATUS
        if rc != GO and rc != REWRITE_AGAIN:
            return rc
    return search(w, r)


cdef inline void put_realip(Request r) noexcept:
    if r.location.access is not None and (<AccessSettings>r.location.access).realip is not None:
        put_real_address(<AccessSettings>r.location.access, r)


cdef int search(Worker w, Request r) noexcept:
    """The location of r.uri, again for each `rewrite … last`; bounded by the machine."""
    cdef PyObject* found
    cdef Tree tree = <Tree>r.server.locations
    cdef int rc
    cdef int how = 0
    while True:
        found = find_location(tree, r.uri.p, r.uri.n, &r.captures, &how)
        if found == NULL:
            return INTERNAL
        r.location = <Location>found
        if tree.function_routes is not None and is_last_resort(r.location, how):
            rc = find_route(r, tree)
            if rc != NOT_FOUND:
                if rc == GO:
                    rc = enter(w, r)
                elif rc == DONE and has_error_page(r, r.status):
                    rc = STATUS
                return rc
        if r.captures.n and put_groups(r) < 0:
            return NO_MEMORY
        if how == AT_REDIRECT:
            return redirect_to_slash(w, r)
        rc = enter(w, r)
        if rc != REWRITE_AGAIN:
            return rc


cdef inline bint is_last_resort(Location at, int how) noexcept:
    """No location of the conf, or only `location /`: routes of functions come before it."""
    return how == AT_SERVER or how == AT_LOCATION and not at.is_exact and at.name == b"/"


cdef int find_route(Request r, Tree tree) noexcept:
    """A function whose route fits; its version is chosen now. NOT_FOUND: none."""
    cdef PyObject* found
    cdef Str method = text(b"GET", 3)
    cdef FunctionRoute route
    cdef int rc
    if r.method == r.head.method:
        method = text(r.head.base + r.head.method_off, r.head.method_n)
    found = find_function(<FunctionRoutes>tree.function_routes, r.host, r.uri, method, r)
    if found == NULL:
        return NOT_FOUND
    route = <FunctionRoute>found
    r.location = <Location>tree.function_settings
    r.version = None
    return take_route(route, r)


cdef int enter(Worker w, Request r) noexcept:
    """The found location: may we be here, how large may the body be, its own rewrites."""
    cdef int rc
    cdef AccessSettings s
    if r.location.is_internal and not r.is_internal:
        return NOT_FOUND
    if r.location.access is not None:
        s = <AccessSettings>r.location.access
        if s.except_location is not None and not s.except_methods >> r.method & 1:
            r.location = s.except_location
    if r.body_kind == BODY_LENGTH and r.location.max_body and (
            r.head.content_length > r.location.max_body) and not r.is_body_done:
        return BODY_TOO_LARGE
    if r.location.rewrite is None:
        return GO
    rc = run_rewrite(<Program>r.location.rewrite, r)
    return STATUS if rc == REWRITE_STATUS else rc


cdef int find_host(Request r) noexcept:
    """The server, by Host and the address that the client came to; then the target."""
    cdef ClientH1 c = (<ClientStream>r.stream).conn
    cdef PyObject* found
    cdef uint32_t port = 0
    cdef uint32_t n
    cdef char* host
    cdef Str given
    cdef int refused
    cdef Listener at = (<ClientStream>r.stream).came_to()
    r.server = at.default_server
    r.location = <Location>r.server.settings
    if r.method == M_TRACE or r.method == M_CONNECT:
        r.keep_alive = False
        return NOT_ALLOWED
    if r.head.host_n:
        given = span(&r.head, r.head.host, r.head.host_n)
        host = <char*>take(&r.arena, given.n)
        if host == NULL:
            return NO_MEMORY
        if read_host(given.p, given.n, host, &n, &port) < 0:
            return BAD_REQUEST
        r.host = text(host, n)
    elif r.head.flags & H_HAS_HOST:
        return BAD_REQUEST
    found = find_server(at.names, r.host.p, r.host.n, &r.captures)
    if found == NULL:
        return INTERNAL
    r.server = <Server>found
    r.location = <Location>r.server.settings
    if r.captures.n and put_groups(r) < 0:
        return NO_MEMORY
    if r.head.version == 30:
        if not (<ServerTls>r.server.tls).is_h3:
            r.status = 421                       # that server does not speak it (nginx)
            return STATUS
        if (<ServerTls>r.server.tls).verify:
            return check_shown(r)
        return read_target(r)
    if c.is_misled:
        r.keep_alive = False
        return PLAIN_ON_TLS
    if r.head.version == 20 and not (<ServerTls>r.server.tls).is_h2:
        r.status = 421                           # that server does not speak it (nginx)
        return STATUS
    if c.tls is not None and r.server.tls is not None:
        refused = c.tls.client_fault(<ServerTls>r.server.tls)
        if refused:
            r.status = <uint16_t>refused
            r.keep_alive = False
            report_certificate(r, c.tls.verify_reason() if refused == 495 else b"")
            return STATUS
    return read_target(r)


cdef int check_shown(Request r) noexcept:
    """HTTP/3: the client's certificate, by the rules of a server that verifies; then the target."""
    cdef ClientCertificate shown = shown_in(r.client.tls)
    cdef int refused = 421                       # who was not asked came by another server's name
    if shown is not None:
        refused = shown.fault(<ServerTls>r.server.tls)
    if refused == 0:
        return read_target(r)
    r.status = <uint16_t>refused
    report_certificate(r, shown.reason() if refused == 495 else b"")
    return STATUS


cdef report_certificate(Request r, bytes reason):
    """Why a client's certificate, or its want of one, was refused. nginx's words."""
    cdef bytes words
    if r.status == 421:
        words = (b"client attempted to request the server name different from the one that "
                 b"was negotiated")
    elif r.status == 495:
        words = b"client SSL certificate verify error: " + reason
    else:
        words = b"client sent no required SSL certificate"
    words += b" while reading client request headers"
    report(R_INFO, r, of_bytes(words))


cdef int read_target(Request r) noexcept:
    """$request_uri, $uri and $args from the request line."""
    cdef Uri uri
    cdef char* room
    cdef Head* h = &r.head
    r.target = span(h, h.target, h.target_n)
    if h.path_n == 1 and h.base[h.path] == c"*" and h.method == M_OPTIONS:
        r.uri = text(b"*", 1)
        return 0
    room = <char*>take(&r.arena, h.path_n + 2)
    if room == NULL:
        return NO_MEMORY
    if read_uri(h.base + h.path, h.path_n, r.server.merge_slashes, room, &uri) < 0:
        return BAD_REQUEST
    r.uri = uri.path
    r.args = uri.args
    return 0


cdef int redirect_to_slash(Worker w, Request r) noexcept:
    cdef Str name = of_bytes(<bytes>r.location.name)
    return redirect_to_folder(r, text(name.p, name.n - 1))


cdef int admit(Worker w, Request r) noexcept:
    """May it pass? Cheapest test first."""
    cdef Location here = r.location
    cdef LimitSettings s
    cdef uint64_t delay_ms = 0
    cdef int rc
    put_realip(r)
    if here.limits is not None:
        s = <LimitSettings>here.limits
        if s.reqs is not None:
            rc = check_reqs(s, r, &delay_ms)
            if rc < 0:
                return rc
        if s.conns is not None:
            rc = take_conns(s, r)
            if rc < 0:
                return rc
        if delay_ms:
            if r.keep_head() < 0:
                return NO_MEMORY
            return hold_for(w, r, delay_ms, GO)
    return check_access(w, r)


@final
cdef class Alarm(Timed):
    """Resumes a parked request when its time has come. The request holds it (waiter)."""
    cdef Worker w
    cdef PyObject* r              # borrowed: it goes with the request
    cdef int verdict              # GO: admit goes on where it was

    cdef void on_deadline(self) noexcept:
        cdef Request r = <Request>self.r
        if r.waiter is self:
            r.waiter = None
            if self.verdict == GO:
                r.stage = S_ADMIT - 1
            self.w.drive(r, self.verdict)
            self.w.settle()


cdef int hold_for(Worker w, Request r, uint64_t delay_ms, int verdict) noexcept:
    """PARK the request in admit for so long; then GO asks admit again, others are final."""
    cdef Alarm a = Alarm.__new__(Alarm)
    a.w = w
    a.r = <PyObject*>r
    a.verdict = verdict
    r.waiter = a
    set_deadline(w.wheel, a, clock.now_ms + delay_ms)
    return PARK


cdef int shape(Worker w, Request r) noexcept:
    """What do we change on the way in?"""
    return GO


cdef int choose(Worker w, Request r) noexcept:
    """pick: who answers?"""
    cdef Location here = r.location
    cdef ProxySettings s
    cdef int rc
    if (<ContentSettings>here.content).tries is not None and r.tried == NULL and r.body is None:
        rc = try_files(r)
        if rc != GO:
            return rc
    if here.handler_kind == HANDLE_PROXY:
        s = <ProxySettings>here.proxy
        if s.is_web and r.filters is None and r.parent is None:
            begin_web(r)
        if r.head.flags & (H_EXPECT_CONTINUE | H_HAS_CONTROLS):
            if r.head.flags & H_HAS_CONTROLS:
                return BAD_REQUEST
            if r.is_body_done and r.body_kind == BODY_NONE:
                r.stream.send_interim(r, 100)    # an empty body is awaited too (nginx)
        if not r.is_body_done and s.passes_body and r.body_kind != BODY_NONE:
            if s.is_request_buffered and r.body is not None and not holds_body(r):
                hold_body(r, s.body_path)
            if s.is_request_buffered or r.is_body_read and holds_body(r) or (
                    s.version == 10 and r.body_kind == BODY_CHUNKED):  # HTTP/1.0 has no chunks
                if r.body is None:
                    r.body = body_spool(here, s.body_path)
                ask_body(r)
                if not r.is_body_done:
                    return PARK
        if here.handler is None:
            return choose_peer(w, r, s)
        if r.version is None:
            rc = find_version(r)
            if rc != GO:
                return STATUS if rc == DONE and has_error_page(r, r.status) else rc
        if is_later(r):
            rc = put_async(r)
            if rc < 0:
                return rc
            r.location = (<FunctionTarget>here.handler).asynchronous
            return choose_peer(w, r, <ProxySettings>r.location.proxy)
        return ask_version(w, r, <Version>r.version)
    if here.handler_kind == HANDLE_PYTHON:
        return answer_python(w, r)
    return answer_file(r)


cdef Spool body_spool(Location here, object folder):
    cdef Spool q = new_spool(here.body_buffer, <int64_t>1 << 62, folder, True)
    q.is_file_only = here.body_in_file > 0
    q.is_left = here.body_in_file == 2
    return q


cdef inline bint is_paced(ProxySettings s) noexcept:
    """proxy_limit_rate: read by the head's buffer, as nginx does."""
    return s.limit_rate != 0 or s.limit_rate_text is not None


cdef uint32_t piece_bytes(ProxySettings s) noexcept:
    """The most to read of an answer at once: what a client leaves of it has room in the buffers."""
    if is_paced(s) or s.buffer_bytes < s.head_bytes:
        return s.head_bytes
    return <uint32_t>s.buffer_bytes if s.buffer_bytes < PIECE_BYTES else PIECE_BYTES


cdef inline int64_t next_read(UpstreamCall u) noexcept:
    return u.most_bytes if u.most_bytes else READ_BYTES


cdef Spool answer_spool(UpstreamCall u, size_t n):
    """What a client did not take yet: in the answer's buffers, where n bytes are already, then
    in a file; before one, reads may be large. Where no file may take it, one read more has room:
    reading pauses only behind it."""
    cdef ProxySettings s = u.s
    cdef int64_t file_bytes = s.file_bytes if s.is_buffered else 0
    n = <size_t>s.buffer_bytes - n if n < <size_t>s.buffer_bytes else 0
    if file_bytes >= READ_BYTES and not is_paced(s):
        u.most_bytes = 0
    elif file_bytes < next_read(u):
        n += <size_t>(next_read(u) - file_bytes)
    return new_spool(n, file_bytes, s.temp_path, False)


cdef inline bint holds_body(Request r) noexcept:
    """The body is read whole before it is sent, rather than streamed."""
    return r.body is not None and not (<Spool>r.body).is_copy


cdef Spool body_copy(Location here):
    cdef Spool q = new_spool(here.body_buffer, 0, None, True)
    q.is_copy = True
    return q


cdef void hold_body(Request r, object folder) noexcept:
    """Streamed so far; from here on it is read whole, the copy being its beginning."""
    cdef Spool q = <Spool>r.body
    q.is_copy = False
    q.folder = folder
    q.file_bound = <int64_t>1 << 62
    q.is_file_only = r.location.body_in_file > 0
    q.is_left = r.location.body_in_file == 2
    r.stream.want_body(r, True)


cdef bint copy_body(Request r, const char* p, size_t n) noexcept:
    """$request_body, and another try, while all of a streamed body fits in its buffer."""
    if (<Spool>r.body).put(p, n) < 0:
        r.body = None
        return False
    return True


cdef void ask_body(Request r) noexcept:
    (<ClientStream>r.stream).ask_body(r)


cdef int find_target(Worker w, Request r, ProxySettings s) noexcept:
    """proxy_pass with variables: where does it go this time? PARK while a name is looked up."""
    cdef Str url
    cdef int rc = evaluate(s.url, r, &url)
    if rc < 0:
        return rc
    try:
        found = s.targets.find(to_bytes(url))
        if found is None:
            if r.keep_head() < 0:
                return NO_MEMORY
            r.waiter = w.loop.create_task(look_up_target(w, r, s, to_bytes(url)))
            return PARK
        take_target(r, found)
    except Exception as error:                   # dynamic.TargetError
        r.add_attempt(copy(&r.arena, url))
        tell_error(R_ERROR, r, "finding where \"proxy_pass\" leads", error)
        return INTERNAL if getattr(error, "is_ours", True) else UPSTREAM_NOT_RESOLVED
    return GO


cdef take_target(Request r, found):
    cdef bytes uri = found.uri
    r.found = found                              # keeps the bytes
    r.upstream = found.upstream
    r.proxy_uri = of_bytes(uri)


async def look_up_target(Worker w, Request r, ProxySettings s, bytes url):
    cdef int verdict = GO
    task = r.waiter
    try:
        found = await s.targets.look_up(url)
        if r.waiter is not task:
            return
        take_target(r, found)
        r.stage = S_PICK - 1
    except Exception as error:
        if r.waiter is not task:
            return
        tell_error(R_ERROR, r, "finding where \"proxy_pass\" leads", error)
        verdict = INTERNAL if getattr(error, "is_ours", True) else UPSTREAM_NOT_RESOLVED
    r.waiter = None
    tick()
    w.drive(r, verdict)
    w.settle()


cdef int choose_peer(Worker w, Request r, ProxySettings s) noexcept:
    cdef Upstream u = s.upstream
    cdef Tried* t = <Tried*>r.tried
    cdef Peer p = None
    cdef UpstreamH1 conn
    cdef Str key
    cdef bint is_tls
    cdef KeyPair pair = None
    cdef bint is_new = t == NULL
    cdef uint8_t taken
    cdef int rc
    if r.upstream is not None:
        u = <Upstream>r.upstream
    elif s.url is not None:
        rc = find_target(w, r, s)
        if rc != GO:
            return rc
        u = <Upstream>r.upstream
    if u is None:
        return INTERNAL
    is_tls = s.is_tls if r.found is None else r.found.is_tls
    if is_tls and s.certificates is not None:
        try:
            for found in (<Certificates>s.certificates).find(r):
                pair = <KeyPair>found
        except Exception as error:               # no peer is to blame
            tell_error(R_ERROR, r, b"finding our certificate for the upstream", error)
            return INTERNAL
    if t == NULL:
        r.upstream = u
        t = <Tried*>take(&r.arena, sizeof(Tried))
        if t == NULL:
            return NO_MEMORY
        memset(t, 0, sizeof(Tried))
        r.tried = t
        start_tries(u, t, s.next_tries)
    key.p = NULL
    key.n = 0
    if u.compiled_key is not None:
        rc = evaluate(u.compiled_key, r, &key)
        if rc < 0:
            return rc
    elif r.client is not None:
        key = text(<const char*>r.client.address.binary, r.client.address.binary_n)
    if r.asked != NULL:                          # a function's
        p = take_replica(w.waiting, <Version>r.version, <Asked*>r.asked, t, key.p, key.n)
        if p is None:
            return wait_for_replica(w, r)
        if is_copy(r):
            (<Version>r.version).cell.copies += 1
    elif u.queue is not None and comes_before(u, r):
        return stand_in_line(w, r, u)
    elif u.sticky is not None:
        p = pick_sticky(u, r, t, clock.now_ms)
    if p is None:
        p = pick(u, t, key.p, key.n, clock.now_ms)
    if p is not None and u.sticky is not None and r.asked == NULL:
        rc = name_peer(u, r, p)
        if rc < 0:
            on_released(u, p, NULL, PEER_OK, clock.now_ms)
            return rc
    if p is None and u.queue is not None and has_busy(u, clock.now_ms):
        return stand_in_line(w, r, u)
    if p is None:
        r.add_attempt(of_bytes(u.name))
        return NO_LIVE_UPSTREAM
    if r.add_attempt(of_bytes(p.name)) == NULL:
        if p.replica is not None:
            taken = TAKEN_SLOT
            give_replica(<Replica>p.replica, NULL, PEER_OK, &taken)
        else:
            on_released(u, p, NULL, PEER_OK, clock.now_ms)
        return NO_MEMORY
    r.attempts[r.n_attempts - 1].is_redirect = is_new and r.n_attempts > 1
    count_asked(w, u, p)
    if s.version == 20 or r.asked != NULL and (<Version>r.version).is_h2:
        return call_h2(w, r, u, p, s, is_tls, pair)
    conn = <UpstreamH1>take_idle(w, u, p, s, is_tls, False, pair)
    if conn is not None:
        conn.r = r
        r.call = conn
        begin_call(conn, r)
        r.attempts[r.n_attempts - 1].connect_ms = 0
        return GO
    conn = UpstreamH1.__new__(UpstreamH1)
    conn.w = w
    conn.upstream = u
    conn.peer = p
    conn.s = s
    conn.is_tls = is_tls
    conn.pair = pair
    conn.r = r
    r.call = conn
    begin_call(conn, r)
    if r.keep_head() < 0:
        return NO_MEMORY
    rc = conn.dial()
    if rc < 0:
        r.call = None
        conn.drop()
        return w.release_failed(r, conn, rc)
    return PARK


cdef int send(Worker w, Request r) noexcept:
    """Write it to the chosen peer."""
    cdef UpstreamCall conn = <UpstreamCall>r.call
    cdef int rc = conn.ask(r)
    if rc < 0:
        r.call = None
        conn.leave()
        return rc
    if conn.s.body is not None:
        rc = send_text(r, conn)
    elif r.body is not None:
        (<Spool>r.body).rewind()
        rc = w.send_spool(r, conn)
        if rc == 0 and not r.is_body_done:
            # asked again in the middle of a streamed body
            (<ClientStream>r.stream).go_on_reading(r)
    elif not r.is_body_done and conn.s.passes_body and r.body_kind != BODY_NONE:
        if r.parent is None and not r.is_body_read and (
                r.head.content_length <= <int64_t>r.location.body_buffer):
            r.body = body_copy(r.location)
        ask_body(r)
    elif r.body_kind == BODY_CHUNKED:
        conn.ask_end()
    return GO


cdef int send_text(Request r, UpstreamCall u) noexcept:
    cdef Str value
    cdef int rc = evaluate(u.s.body, r, &value)
    if rc < 0:
        return rc
    rc = u.ask_body(value.p, value.n)
    u.ask_end()
    return rc


cdef int relay_stage(Worker w, Request r) noexcept:
    """Carry the answer back: what the upstream sends drives it from here."""
    return PARK


cdef int accel_redirect(Worker w, Request r, UpstreamCall u, Str to) noexcept:
    """X-Accel-Redirect: the upstream leaves the answer to another location."""
    cdef Uri uri
    cdef char* room
    cdef Str kept
    if keep_for_redirect(r) < 0:
        return NO_MEMORY
    kept = copy(&r.arena, to)
    r.call = None
    u.leave()
    r.reason.n = 0
    if r.method != M_HEAD:
        r.method = M_GET
    if kept.n and kept.p[0] == c"@":
        return enter_named(r, (<ContentSettings>r.location.content).named, to_bytes(kept))
    room = <char*>take(&r.arena, kept.n + 1)
    if room == NULL:
        return NO_MEMORY
    if read_inner_uri(kept.p, kept.n, room, &uri) < 0:
        return NOT_FOUND
    r.uri = uri.path
    r.args = uri.args
    r.is_rewritten = True
    return REROUTE

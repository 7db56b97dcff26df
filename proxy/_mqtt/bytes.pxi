# What a session holds, what it writes, how it ends.

cdef bint hold(MqttSession s, Held* h, const char* p, size_t n) noexcept:
    """Behind what is held; how much that can be is bounded by who reads."""
    cdef char* grown = <char*>realloc(h.p, h.n + n)
    if grown == NULL:
        finish(s, 500)
        return False
    memcpy(grown + h.n, p, n)
    h.p = grown
    h.n += n
    return True


cdef void drop(Held* h) noexcept:
    free(h.p)
    h.p = NULL
    h.n = 0


cdef void drop_first(Held* h, size_t n) noexcept:
    h.n -= n
    if h.n == 0:
        drop(h)
    else:
        memmove(h.p, h.p + n, h.n)


cdef inline void tally(MqttSession s, int what) noexcept:
    cdef Counters c = s.house.counters
    if c is not None and s.server.counters is not None:
        count(c, <uint32_t>s.server.counters[what], 1)


cdef void wait(MqttSession s, uint64_t ms) noexcept:
    """From now on the session must go on within this time; 0: it has all there is."""
    s.due_ms = clock.now_ms + ms if ms else 0
    if ms:
        set_deadline(s.house.wheel, s.client, s.due_ms)
    else:
        s.client.node.deadline_ms = 0


cdef int write_client(MqttSession s, const char* p, size_t n) noexcept:
    """As Link.write; in a WebSocket it is one frame."""
    cdef char[FRAME_BYTES] head
    cdef uint32_t k = 2
    cdef int i
    s.r.sent_body += n
    if not s.is_framed:
        return s.client.write(p, n, NULL, 0)
    head[0] = <char>(0x80 | WS_BINARY)
    if n < 126:
        head[1] = <char>n
    elif n < 65536:
        head[1] = 126
        head[2] = <char>(n >> 8)
        head[3] = <char>n
        k = 4
    else:
        head[1] = 127
        for i in range(8):
            head[2 + i] = <char>(n >> (56 - 8 * i))
        k = 10
    return s.client.write(head, k, p, n)


cdef void say(MqttSession s, const char* p, size_t n) noexcept:
    """A packet of ours for the client, between two of the broker's."""
    if s.state == M_OVER:
        return
    if s.state == M_RELAYING and (s.said.n or not is_between(&s.down)):
        if s.said.n + n > SAID_MOST:
            report_text(R_ERROR, s.r, b"client asks much and the broker's packet does not end")
            finish(s, 500)
        else:
            hold(s, &s.said, p, n)
    elif write_client(s, p, n) < 0:
        lose(s, s.client, errno)


cdef void say_short(MqttSession s, int kind, int flags, uint16_t id, int reason) noexcept:
    """An acknowledgement; its reason is for MQTT 5 and left out if it is 0."""
    cdef char[8] out
    out[0] = <char>(kind << 4 | flags)
    out[1] = 2
    put_16(out + 2, id)
    if s.version == 5 and reason:
        out[1] = 3
        out[4] = <char>reason
    say(s, out, 2 + out[1])


cdef void refuse(MqttSession s, int reason, int status) noexcept:
    """CONNACK that says no (§3.2.2.2; 3.1.1 table 3.1), or nothing where it has no word."""
    cdef char[8] out
    cdef int code = 0
    if s.state == M_OVER:
        return
    s.facts.reason = <uint8_t>reason
    tally(s, N_REFUSED)
    out[0] = T_CONNACK << 4
    out[2] = 0
    if s.version >= 5:
        out[1] = 3
        out[3] = <char>reason
        out[4] = 0
        write_client(s, out, 5)
    else:
        if reason == R_VERSION:
            code = 1
        elif reason == R_CLIENT_ID:
            code = 2
        elif reason == R_UNAVAILABLE or reason == R_BUSY or reason == R_QUOTA:
            code = 3
        elif reason == R_PASSWORD:
            code = 4
        elif reason == R_FORBIDDEN:
            code = 5
        if code:
            out[1] = 2
            out[3] = <char>code
            write_client(s, out, 4)
    finish(s, status)


cdef void end(MqttSession s, int reason) noexcept:
    """The client is told why (MQTT 5) and let go; the broker only sees it go."""
    cdef char[4] out
    cdef char[WORDS] words
    if s.state == M_OVER:
        return
    s.facts.reason = <uint8_t>reason
    snprintf(words, WORDS, "client is disconnected, reason 0x%02x", <unsigned int>reason)
    report_text(R_INFO, s.r, words)
    if s.version == 5 and (s.state == M_SERVING or s.state == M_RELAYING and is_between(&s.down)):
        out[0] = <char>(T_DISCONNECT << 4)
        out[1] = 1
        out[2] = <char>reason
        write_client(s, out, 3)
    finish(s, 400)


cdef void on_side_drained(MqttSession s, MqttLink sink) noexcept:
    if s.state == M_RELAYING:
        if sink.is_client:
            s.broker.unpause()
            if s.broker.is_ended:
                on_side_ended(s, s.broker)
            return
        rest(s)
        work(s)
        if s.state == M_RELAYING and s.client.is_ended:
            on_side_ended(s, s.client)
    elif s.state == M_SERVING and sink.is_client:
        work(s)


cdef void on_side_ended(MqttSession s, MqttLink side) noexcept:
    """A side sent all that it had: MQTT has no half a connection."""
    cdef char[WORDS] words
    if M_DIALING <= s.state <= M_CONNACK:
        if side is s.broker:
            report_text(R_ERROR, s.r, b"broker closed the connection before CONNACK")
            try_next(s)
            return
    elif s.state == M_RELAYING:
        if side.is_client and (s.broker.is_blocked or s.is_throttled):
            return                               # on_side_drained or on_time comes back
        if not side.is_client and s.client.is_blocked:
            return
    snprintf(words, WORDS, "*%llu %s disconnected, bytes from/to client:%lld/%lld",
             <unsigned long long>s.r.id, <const char*>(b"client" if side.is_client else b"broker"),
             <long long>s.r.body_n, <long long>s.r.sent_body)
    report_text(R_INFO, None, words)
    finish(s, 200 if s.state >= M_RELAYING else 400)


cdef void lose(MqttSession s, MqttLink side, int error) noexcept:
    """A side broke."""
    cdef char[WORDS] words
    if s.state == M_OVER:
        return
    snprintf(words, WORDS, "%s connection failed (%d: %s)",
             <const char*>(b"client" if side.is_client else b"broker"), error, strerror(error))
    report_text(R_INFO if side.is_client else R_ERROR, s.r, words)
    if side is s.broker and M_DIALING <= s.state <= M_CONNACK:
        try_next(s)
        return
    side.let_go()
    finish(s, 200)


cdef void on_time(MqttSession s) noexcept:
    tick()
    if M_DIALING <= s.state <= M_CONNACK:
        report_text(R_ERROR, s.r, b"broker timed out (110: Connection timed out) while "
                    b"connecting to it" if s.state == M_DIALING else
                    b"broker timed out (110: Connection timed out) while SSL handshaking to it"
                    if s.state == M_SECURING else
                    b"broker timed out (110: Connection timed out) while waiting for CONNACK")
        try_next(s)
        return
    if s.state == M_RELAYING or s.state == M_SERVING:
        if s.is_throttled:
            s.is_throttled = False
            rest(s)
            work(s)
            if s.state == M_RELAYING and s.client.is_ended and not s.is_throttled:
                on_side_ended(s, s.client)
            return
        if s.state == M_RELAYING and s.broker.is_blocked:
            if s.broker.has_moved():
                wait(s, SEND_MS)
                return
            report_text(R_ERROR, s.r, b"broker takes nothing (110: Connection timed out)")
            finish(s, 502)
            return
        if s.n_calls:                            # we do not read it: it may have said something
            rest(s)
            return
        report_text(R_INFO, s.r, b"client timed out (110: Connection timed out): its keep-alive "
                    b"is over")
        end(s, R_KEEPALIVE)
        return
    report_text(R_INFO, s.r, b"client timed out (110: Connection timed out) before its CONNECT "
                b"was whole")
    finish(s, 408)


cdef inline void rest(MqttSession s) noexcept:
    """The client has said something: its time begins anew."""
    wait(s, s.quiet_ms)


cdef void finish(MqttSession s, int status) noexcept:
    """The session is over: told, given back, closed. Once."""
    cdef Request r = s.r
    cdef MqttLink c = s.client
    cdef MqttLink u = s.broker
    cdef Attempt* a
    cdef char[CLOSE_MOST] farewell
    cdef uint32_t n
    if s.state == M_OVER:
        return
    if s.state == M_SERVING:
        stop_serving(s)
    if s.is_framed and not c.is_closing:
        n = put_close(farewell, 1000, False, 0)
        c.write(farewell, n, NULL, 0)
    s.state = M_OVER
    r.status = <unsigned short>status
    if c.rest != NULL:
        r.sent_body -= <long long>c.rest.n
    if r.n_attempts:
        a = &r.attempts[r.n_attempts - 1]
        a.response_ms = <long long>(clock.now_ms - a.start_ms)
    if s.peer is not None:
        on_released(s.group, s.peer, NULL, PEER_OK, clock.now_ms)
        s.peer = None
    write_logs(r)
    give_conns(r)
    s.r = None
    r.end()
    if len(s.house.free_requests) < KEPT_REQUESTS:
        s.house.free_requests.append(r)
    drop(&s.held)
    drop(&s.hello)
    drop(&s.answer)
    drop(&s.said)
    drop(&s.instead)
    drop(&s.suback)
    s.merges = None
    s.client = s.broker = None
    c.leave()
    if u is not None:
        u.leave()

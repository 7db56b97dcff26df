# Whom to ask, and what is done when he refuses: a broker is chosen once the client was found good.

cdef void ask(MqttSession s) noexcept:
    """Ask one broker after the other until one is dialed, or nobody is left."""
    cdef Str key
    cdef bint is_first = s.dialed_ms == 0
    key.p = NULL
    key.n = 0
    if is_first:
        s.dialed_ms = clock.now_ms
        memset(&s.tried, 0, sizeof(Tried))
        start_tries(s.group, &s.tried, s.server.next_tries)
    if s.group.compiled_key is not None and evaluate(s.group.compiled_key, s.r, &key) < 0:
        finish(s, 500)
        return
    if key.n == 0:                               # no id: its broker shall not be everybody's
        key = text(<const char*>&s.who.serial, sizeof(uint64_t))
    s.state = M_DIALING
    while True:
        s.peer = pick(s.group, &s.tried, key.p, key.n, clock.now_ms)
        if s.peer is None:
            s.r.add_attempt(of_bytes(s.group.name))
            report_text(R_ERROR, s.r, b"no live brokers while connecting to one")
            refuse(s, R_UNAVAILABLE, 502)
            return
        if s.r.add_attempt(of_bytes(s.peer.name)) == NULL:
            finish(s, 500)
            return
        if dial(s):
            wait(s, s.server.connect_ms)
            return
        if not may_try_next(s):
            return


cdef bint may_try_next(MqttSession s) noexcept:
    """The broker failed. Is there time and leave for another? Else the session ends."""
    on_released(s.group, s.peer, &s.tried, PEER_FAILED, clock.now_ms)
    s.peer = None
    tally(s, N_FAILOVERS)
    if s.tried.tries and not (s.server.next_timeout_ms
                              and clock.now_ms - s.dialed_ms >= s.server.next_timeout_ms):
        return True
    refuse(s, R_UNAVAILABLE, 502)
    return False


cdef bint dial(MqttSession s) noexcept:
    cdef bytes address = s.peer.sockaddr
    cdef MqttLink u
    cdef int on = 1
    cdef int fd = c_socket(s.peer.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        tell_connect(s, errno)
        return False
    if s.peer.family != AF_UNIX:
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
    if s.server.so_keepalive:
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(int))
    # EAGAIN: a Unix socket with a full backlog
    if connect(fd, <const sockaddr*><const char*>address, <unsigned int>len(address)) != 0 and (
            errno != EINPROGRESS):
        tell_connect(s, errno)
        c_close(fd)
        return False
    u = MqttLink.__new__(MqttLink)
    u.house = s.house
    u.session = s
    if u.open_dialing(fd) != 0:
        return False
    u.is_counted = True
    s.house.worker.count_guests(1)
    s.broker = u
    return True


cdef void tell_connect(MqttSession s, int number) noexcept:
    cdef char[WORDS] words
    snprintf(words, WORDS, "connect() failed (%d: %s) while connecting to broker", number,
             strerror(number))
    report_text(R_ERROR, s.r, words)


cdef void on_broker(MqttSession s, int error) noexcept:
    """Connected, or not: it hears the client's CONNECT as it came."""
    cdef Attempt* a
    if s.state != M_DIALING:
        return
    if error:
        tell_connect(s, error)
        try_next(s)
        return
    a = &s.r.attempts[s.r.n_attempts - 1]
    a.connect_ms = <long long>(clock.now_ms - a.start_ms)
    a.bytes_sent += s.hello.n
    s.state = M_CONNACK
    wait(s, s.server.connack_ms)
    if s.broker.write(s.hello.p, s.hello.n, NULL, 0) < 0:
        lose(s, s.broker, errno)


cdef void try_next(MqttSession s) noexcept:
    s.broker.leave()
    s.broker = None
    drop(&s.answer)
    if may_try_next(s):
        ask(s)


cdef void on_answer(MqttSession s, const char* p, size_t n) noexcept:
    """Bytes of the broker."""
    cdef Attempt* a = &s.r.attempts[s.r.n_attempts - 1]
    cdef size_t k
    if a.header_ms < 0:
        a.header_ms = <long long>(clock.now_ms - a.start_ms)
    a.bytes_received += n
    if s.state == M_CONNACK:
        if hold(s, &s.answer, p, n):
            read_answer(s)
        return
    if s.state != M_RELAYING:
        return
    if s.said.n:                                 # ours goes out as soon as a packet ends
        k = to_boundary(&s.down, p, n)
        if not forward_down(s, p, k) or s.state != M_RELAYING or not is_between(&s.down):
            return
        write_client(s, s.said.p, s.said.n)
        drop(&s.said)
        p += k
        n -= k
        if n == 0:
            return
    if follow_packets(&s.down, p, n) < 0:
        report_text(R_ERROR, s.r, b"broker sent no MQTT")
        finish(s, 502)
        return
    forward_down(s, p, n)


cdef bint forward_down(MqttSession s, const char* p, size_t n) noexcept:
    cdef int rc = write_client(s, p, n)
    if rc < 0:
        lose(s, s.client, errno)
        return False
    if rc == 1:
        s.broker.pause()                         # until on_side_drained
    return True


cdef size_t to_boundary(Boundary* b, const char* p, size_t n) noexcept:
    """How many of these bytes come before a packet has ended; the Boundary has gone over them."""
    cdef size_t at = 0
    cdef size_t k
    while at < n and not is_between(b):
        k = b.left if b.left else 1
        if k > n - at:
            k = n - at
        if follow_packets(b, p + at, k) < 0:
            return n
        at += k
    return at


cdef void read_answer(MqttSession s) noexcept:
    """What the broker says to CONNECT: yes, no, or AUTH (§4.12)."""
    cdef MqttHead h
    cdef MqttProperties properties
    cdef char[WORDS] words
    cdef uint8_t flags = 0
    cdef int rc = read_mqtt_head(s.answer.p, s.answer.n, &h)
    if rc == 0:
        return
    if rc < 0 or (h.kind != T_CONNACK and not (h.kind == T_AUTH and s.version == 5)) or (
            h.n + h.body_n > s.server.packet_most):
        report_text(R_ERROR, s.r, b"broker sent no CONNACK")
        try_next(s)
        return
    if s.answer.n < h.n + h.body_n:
        return
    if h.kind == T_CONNACK:
        rc = read_mqtt_connack(s.answer.p + h.n, h.body_n, s.version, &flags, &properties)
        if rc < 0:
            report_text(R_ERROR, s.r, b"broker sent a CONNACK that is not good")
            try_next(s)
            return
        if is_elsewhere(s.version, rc):
            snprintf(words, WORDS, "broker refused the client, code 0x%02x", <unsigned int>rc)
            report_text(R_ERROR, s.r, words)
            try_next(s)
            return
        if properties.seen >> 0x13 & 1:          # Server Keep Alive (§3.2.2.3.14)
            s.quiet_ms = <uint32_t>properties.keepalive_s * 1500
            if s.server.idle_ms and (s.quiet_ms == 0 or s.quiet_ms > s.server.idle_ms):
                s.quiet_ms = s.server.idle_ms
        if rc:
            s.facts.reason = <uint8_t>rc
            tally(s, N_REFUSED)
        else:
            tally(s, N_CONNECTED)
    relay(s)


cdef bint is_elsewhere(uint8_t version, int code) noexcept:
    """Would another broker say something else? It cannot serve now, or is not the right one."""
    if version == 4:
        return code == 3
    return code == R_UNAVAILABLE or code == R_BUSY or code == R_QUOTA or code == 0x9C or (
        code == R_MOVED or code == R_RATE)


cdef void relay(MqttSession s) noexcept:
    """The broker has the client."""
    cdef Held told = s.answer
    s.answer.p = NULL
    s.answer.n = 0
    s.state = M_RELAYING
    drop(&s.hello)
    rest(s)
    memset(&s.down, 0, sizeof(Boundary))
    if follow_packets(&s.down, told.p, told.n) < 0:
        finish(s, 502)
    elif forward_down(s, told.p, told.n):
        s.client.unpause()
        work(s)
        if s.state == M_RELAYING and s.client.is_ended:
            on_side_ended(s, s.client)
    free(told.p)

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
    if s.state != M_DIALING and s.state != M_SECURING:
        return
    if error:
        tell_connect(s, error)
        try_next(s)
        return
    a = &s.r.attempts[s.r.n_attempts - 1]
    a.connect_ms = <long long>(clock.now_ms - a.start_ms)
    if s.server.way is not None and s.state == M_DIALING:
        secure(s)
        return
    s.state = M_CONNACK
    wait(s, s.server.connack_ms)
    a.bytes_sent += s.hello.n
    if s.broker.write(s.hello.p, s.hello.n, NULL, 0) < 0:
        lose(s, s.broker, errno)


cdef void secure(MqttSession s) noexcept:
    """TLS towards the broker; it has as long as connecting had."""
    s.state = M_SECURING
    try:
        s.broker.tls, s.tls_name = begin_way(
            <Way>s.server.way, s.r, of_bytes(s.group.name), s.peer.tls_session)
    except Exception as error:
        tell_broker_tls(s, f"{error}".encode())
        refuse(s, R_UNAVAILABLE, 500)
        return
    s.broker.is_plain = False
    wait(s, s.server.connect_ms)
    s.broker.unseal(NULL, 0)                     # ClientHello


cdef tell_broker_tls(MqttSession s, bytes what):
    cdef bytes words = what + b" while SSL handshaking to broker"
    report(R_ERROR, s.r, of_bytes(words))


cdef void unseal_broker(MqttSession s, const char* p, size_t n) noexcept:
    cdef MqttLink u = s.broker
    cdef Py_ssize_t got = u.unseal(p, n)
    cdef bytes wrong
    if u.tls.session is not None:
        s.peer.tls_session = u.tls.session
        u.tls.session = None
    if s.state == M_SECURING:
        try:
            wrong = None
            if got < 0 or u.tls.is_broken:
                wrong = b"SSL_do_handshake() failed (%s)" % (u.tls.reason or b"closed")
            elif not u.tls.is_ready:
                return
            else:
                wrong = wrong_peer(<Way>s.server.way, u.tls, s.tls_name)
            if wrong is not None:
                tell_broker_tls(s, wrong)
        except Exception:
            wrong = b""
        if wrong is not None:
            s.peer.tls_session = None
            try_next(s)
            return
        on_broker(s, 0)
    if got > 0 and s.broker is u:
        on_answer(s, plain, <size_t>got)
    if s.broker is not u:
        return
    if got < 0 or u.tls.is_broken:
        lose(s, u, ECONNRESET)
    elif u.tls.is_ended and not u.is_ended:
        u.is_ended = True
        on_side_ended(s, u)


cdef void try_next(MqttSession s) noexcept:
    s.broker.leave()
    s.broker = None
    drop(&s.answer)
    if may_try_next(s):
        ask(s)


cdef void on_answer(MqttSession s, const char* p, size_t n) noexcept:
    """Bytes of the broker."""
    cdef Attempt* a = &s.r.attempts[s.r.n_attempts - 1]
    if a.header_ms < 0:
        a.header_ms = <long long>(clock.now_ms - a.start_ms)
    a.bytes_received += n
    if s.state == M_CONNACK:
        if hold(s, &s.answer, p, n):
            read_answer(s)
        return
    if s.state != M_RELAYING:
        return
    if s.said.n or s.merges is not None:
        pass_answers(s, p, n)
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


cdef void pass_answers(MqttSession s, const char* p, size_t n) noexcept:
    """The broker's bytes, looked at packet by packet: ours go between two of them, and a SUBACK
    that we have to complete is kept until it is whole."""
    cdef size_t at = 0
    cdef size_t gone = 0                         # up to there bytes went on, or are kept
    cdef size_t k
    while at < n:
        if is_between(&s.down):
            if s.said.n:
                if not forward_part(s, p, &gone, at) or write_client(s, s.said.p, s.said.n) < 0:
                    return
                drop(&s.said)
            s.collects = s.merges is not None and <uint8_t>p[at] >> 4 == T_SUBACK
            if s.collects and not forward_part(s, p, &gone, at):
                return
        k = next_boundary(&s.down, p + at, n - at)
        if k == 0 or s.collects and s.suback.n + k > SUBACK_MOST:
            report_text(R_ERROR, s.r, b"broker sent no MQTT" if k == 0 else
                        b"broker sent too large a SUBACK")
            finish(s, 502)
            return
        at += k
        if s.collects:
            if not hold(s, &s.suback, p + gone, k):
                return
            gone = at
            if is_between(&s.down):
                complete_suback(s)
                if s.state != M_RELAYING:
                    return
    if forward_part(s, p, &gone, n) and s.said.n and is_between(&s.down):
        write_client(s, s.said.p, s.said.n)
        drop(&s.said)


cdef bint forward_part(MqttSession s, const char* p, size_t* gone, size_t at) noexcept:
    """False: the session is over."""
    if at > gone[0]:
        forward_down(s, p + gone[0], at - gone[0])
        gone[0] = at
    return s.state == M_RELAYING


cdef size_t next_boundary(Boundary* b, const char* p, size_t n) noexcept:
    """How many of these bytes there are to the end of the packet that is under way, or begins; all,
    if it does not end there. The Boundary has gone over them. 0: it is no MQTT."""
    cdef size_t at = 0
    cdef size_t k
    while at < n:
        k = b.left if b.left else 1
        if k > n - at:
            k = n - at
        if follow_packets(b, p + at, k) < 0:
            return 0
        at += k
        if is_between(b):
            break
    return at


cdef void complete_suback(MqttSession s) noexcept:
    """The broker answered those of a SUBSCRIBE's filters that it was asked; the rest is ours, and
    each code stands where its filter stood (MQTT-3.8.4-6)."""
    cdef bytes whole
    try:
        whole = s.suback.p[:s.suback.n]
        for it in s.merges:
            number, codes = it
            merged = merge_suback(whole, s.version, number, codes)
            if merged is not None:
                s.merges.remove(it)
                whole = merged
                break
        if not s.merges:
            s.merges = None
    except Exception:
        report_text(R_ERROR, s.r, b"broker sent a SUBACK that is not good")
        finish(s, 502)
        return
    drop(&s.suback)
    s.collects = False
    forward_down(s, <const char*>whole, <size_t>len(whole))


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

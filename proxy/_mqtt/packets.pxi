# What a client says after CONNECT: each packet is judged, and goes on as it came.

cdef void on_bytes(MqttSession s, const char* p, size_t n) noexcept:
    """MQTT of the client, out of TLS and frames."""
    cdef size_t used
    if s.state == M_CONNECT:
        read_connect(s, p, n)
        return
    if s.state < M_RELAYING:
        hold(s, &s.held, p, n)                   # a piece at most: it is not read any more
        return
    if s.state == M_OVER:
        return
    if not s.is_throttled:
        s.client.node.deadline_ms = clock.now_ms + s.quiet_ms if s.quiet_ms else 0
    if s.held.n or s.is_throttled or s.client.is_paused:
        if hold(s, &s.held, p, n):
            work(s)
        return
    used = pass_packets(s, p, n)
    if s.state != M_OVER and used < n:
        hold(s, &s.held, p + used, n - used)
    after_work(s)


cdef void work(MqttSession s) noexcept:
    """Go on with what is held, if nothing stands in the way."""
    cdef size_t used
    if s.is_working or s.state == M_OVER or s.is_throttled or is_stopped(s):
        return
    s.is_working = True
    if s.held.n:
        used = pass_packets(s, s.held.p, s.held.n)
        if s.state != M_OVER and used:
            drop_first(&s.held, used)
    s.is_working = False
    after_work(s)


cdef inline bint is_stopped(MqttSession s) noexcept:
    """Does the other side, or do functions, take nothing now?"""
    if s.state == M_RELAYING:
        return s.broker.is_blocked
    return s.client.is_blocked or s.n_calls >= s.server.in_flight or (
        s.calls is not None and len(s.calls) >= s.server.in_flight)


cdef void after_work(MqttSession s) noexcept:
    if s.state == M_OVER:
        return
    if s.is_throttled or is_stopped(s):
        s.client.pause()
    else:
        s.client.unpause()


cdef bint forward(MqttSession s, const char* p, size_t n) noexcept:
    """To the broker. False: no more now."""
    cdef int rc
    if n == 0:
        return True
    s.r.attempts[s.r.n_attempts - 1].bytes_sent += n
    rc = s.broker.write(p, n, NULL, 0)
    if rc < 0:
        lose(s, s.broker, errno)
    elif rc == 1:
        wait(s, SEND_MS)
    return rc == 0


cdef size_t pass_packets(MqttSession s, const char* p, size_t n) noexcept:
    """How many of these bytes are done with: gone on, answered or dropped. What is left begins a
    packet that is not whole, or that may not come yet."""
    cdef MqttHead h
    cdef size_t at = 0
    cdef size_t passed = 0                       # up to there bytes have gone on
    cdef size_t k
    cdef int rc
    cdef bint is_relayed = s.state == M_RELAYING
    while at < n:
        if s.left:                               # a long PUBLISH is under way
            k = s.left if s.left < n - at else n - at
            s.left -= <uint32_t>k
            at += k
            if s.drops:
                passed = at
            continue
        rc = read_mqtt_head(p + at, n - at, &h)
        if rc == 0:
            break
        if rc > 0:
            rc = check_mqtt_head(&h, s.version)
        if rc == 0 and <size_t>h.n + h.body_n > s.server.packet_most:
            rc = -R_TOO_LARGE
        if rc == 0 and s.has_left:
            rc = -R_PROTOCOL                     # nothing comes behind DISCONNECT (§3.14.4)
        if rc < 0:
            if is_relayed:
                forward(s, p + passed, at - passed)
            end(s, -rc)
            return n
        k = <size_t>h.n + h.body_n
        if h.kind == T_PUBLISH and is_relayed:
            rc = pass_publish(s, p + at, n - at, &h)
        elif n - at < k:
            break                                # whole, or not at all
        elif is_relayed:
            rc = pass_other(s, p + at, k, &h)
        else:
            rc = serve_packet(s, p + at, k, &h)
        if s.state == M_OVER:
            return n
        if rc == P_LATER:
            break
        if rc < 0:
            if is_relayed:
                forward(s, p + passed, at - passed)
            end(s, -rc)
            return n
        if rc == P_DROP or rc == P_DONE:
            if is_relayed and not forward_up_to(s, p, &passed, at):
                return n
            passed = at + (k if k < n - at else n - at)
        s.drops = rc == P_DROP
        if n - at < k:
            s.left = <uint32_t>(k - (n - at))
            at = n
        else:
            at += k
        if is_stopped(s) or s.is_throttled:
            break
    if is_relayed and s.state == M_RELAYING:
        forward_up_to(s, p, &passed, at)
    return n if s.state == M_OVER else at


cdef bint forward_up_to(MqttSession s, const char* p, size_t* passed, size_t at) noexcept:
    """False: the session is over."""
    if at > passed[0]:
        forward(s, p + passed[0], at - passed[0])
        passed[0] = at
    return s.state != M_OVER


cdef enum Passing:                # what becomes of a packet; less than 0: a reason, with a minus
    P_PASS = 0
    P_DROP = 1                    # it does not go on
    P_DONE = 2                    # … because it is dealt with here
    P_LATER = 3                   # it is not whole, or it is too early for it


cdef int pass_publish(MqttSession s, const char* p, size_t n, const MqttHead* h) noexcept:
    cdef MqttPublish m
    cdef int rc = read_mqtt_publish(p + h.n, n - h.n, h, s.version, &m)
    if rc == 0:
        return P_LATER
    if rc < 0:
        return rc
    if not take_tokens(s, h.n + h.body_n):
        return P_LATER
    s.facts.published += 1
    tally(s, N_PUBLISHED)
    if is_allowed(s, &m):
        return P_PASS
    s.facts.refused += 1
    tally(s, N_FORBIDDEN)
    if s.version == 4 and m.qos:
        return -R_FORBIDDEN                      # 3.1.1 has no word for it (MQTT-3.3.5-2)
    if m.qos == 1:
        say_short(s, T_PUBACK, 0, m.id, R_FORBIDDEN)
    elif m.qos == 2:
        say_short(s, T_PUBREC, 0, m.id, R_FORBIDDEN)
    return P_DROP


cdef bint is_allowed(MqttSession s, const MqttPublish* m) noexcept:
    """May it be published? A Topic Alias is as good as the topic that it was given to; one that
    was given to a topic we refused never reached the broker, so it must not be used either."""
    cdef uint16_t alias = m.properties.alias
    cdef bint is_good
    if s.server.topics is None:
        return True
    if m.topic.n == 0:
        return s.aliases != NULL and s.aliases[alias >> 3] >> (alias & 7) & 1
    is_good = may(s.server.topics, MAY_PUBLISH, m.topic, s.facts.client_id, s.facts.user)
    if alias:
        if s.aliases == NULL:
            s.aliases = <uint8_t*>calloc(ALIAS_BYTES, 1)
            if s.aliases == NULL:
                return False
        s.aliases[alias >> 3] &= ~<uint8_t>(1 << (alias & 7))
        if is_good:
            s.aliases[alias >> 3] |= <uint8_t>(1 << (alias & 7))
    return is_good


cdef bint take_tokens(MqttSession s, uint32_t n) noexcept:
    """May a PUBLISH of n bytes come now? Else the client waits, and is not read. One that is larger
    than its bucket comes when that is full."""
    cdef MqttServer server = s.server
    cdef int64_t cost = <int64_t>n * BYTE_TOKEN
    cdef int64_t most = <int64_t>server.bytes_burst * BYTE_TOKEN
    cdef int64_t lacks = 0
    cdef uint64_t passed_ms
    cdef uint64_t wait_ms = 0
    if server.rate_milli == 0 and server.bytes_rate == 0:
        return True
    passed_ms = clock.now_ms - s.filled_ms
    s.filled_ms = clock.now_ms
    if server.rate_milli:
        s.tokens = filled(s.tokens, server.rate_milli, passed_ms, server.rate_burst * TOKEN)
        if s.tokens < TOKEN:
            lacks = TOKEN - s.tokens
            wait_ms = <uint64_t>lacks // server.rate_milli + 1
    if server.bytes_rate:
        s.byte_tokens = filled(s.byte_tokens, server.bytes_rate, passed_ms, <uint64_t>most)
        lacks = (cost if cost < most else most) - s.byte_tokens
        if lacks > 0 and <uint64_t>lacks // server.bytes_rate + 1 > wait_ms:
            wait_ms = <uint64_t>lacks // server.bytes_rate + 1
    if wait_ms:
        s.is_throttled = True
        s.facts.throttled += 1
        tally(s, N_THROTTLED)
        wait(s, wait_ms)
        return False
    s.tokens -= TOKEN
    s.byte_tokens -= cost
    return True


cdef inline int64_t filled(int64_t level, uint64_t rate, uint64_t ms, uint64_t most) noexcept:
    # after an hour any bucket is full: no sum may wrap
    if ms > 3600000 or level + <int64_t>(rate * ms) > <int64_t>most:
        return <int64_t>most
    return level + <int64_t>(rate * ms)


cdef int pass_other(MqttSession s, const char* p, size_t n, const MqttHead* h) noexcept:
    """Any packet but PUBLISH, whole."""
    cdef MqttFilters f
    cdef uint16_t number = 0
    cdef int rc
    if h.kind == T_SUBSCRIBE or h.kind == T_UNSUBSCRIBE:
        rc = read_mqtt_filters(p + h.n, h.body_n, h, s.version, &f)
        if rc < 0:
            return rc
        if h.kind == T_SUBSCRIBE and s.server.topics is not None:
            return judge_filters(s, &f)
        return P_PASS
    if h.kind == T_CONNECT:
        return -R_PROTOCOL                       # MQTT-3.1.0-2
    rc = check_mqtt_packet(p + h.n, h.body_n, h, s.version, &number)
    if rc < 0:
        return rc
    if h.kind == T_DISCONNECT:
        s.has_left = True
    return P_PASS


cdef int judge_filters(MqttSession s, const MqttFilters* f) noexcept:
    """All of a SUBSCRIBE is let through, or nothing: the broker's answer is its own. What was
    allowed beside something that is not fails with another word in MQTT 5."""
    cdef Str rest_ = f.list
    cdef Str one
    cdef uint8_t options
    cdef uint32_t at = 0
    cdef bint is_good = True
    cdef char* out
    cdef uint32_t n
    while next_filter(&rest_, True, &one, &options):
        is_good &= may(s.server.topics, MAY_SUBSCRIBE, bare_filter(one), s.facts.client_id,
                       s.facts.user)
    if is_good:
        return P_PASS
    s.facts.refused += 1
    tally(s, N_FORBIDDEN)
    out = <char*>calloc(1, f.count + 16)
    if out == NULL:
        finish(s, 500)
        return P_DONE
    n = 2 + (1 if s.version == 5 else 0) + f.count
    out[0] = <char>(T_SUBACK << 4)
    at = 1 + put_length(out + 1, n)
    put_16(out + at, f.id)
    at += 3 if s.version == 5 else 2             # and no properties
    rest_ = f.list
    while next_filter(&rest_, True, &one, &options):
        out[at] = <char>0x80
        if s.version == 5:
            out[at] = <char>R_REJECTED
            if not may(s.server.topics, MAY_SUBSCRIBE, bare_filter(one), s.facts.client_id,
                       s.facts.user):
                out[at] = <char>R_FORBIDDEN
        at += 1
    say(s, out, at)
    free(out)
    return P_DONE

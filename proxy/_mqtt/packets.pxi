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
        if rc == P_DROP or rc == P_DONE or rc == P_OTHER:
            if is_relayed and not forward_up_to(s, p, &passed, at):
                return n
            if rc == P_OTHER:
                forward(s, s.instead.p, s.instead.n)
                drop(&s.instead)
                if s.state == M_OVER:
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
    P_OTHER = 3                   # … but MqttSession.instead does
    P_LATER = 4                   # it is not whole, or it is too early for it


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
    cdef Pace paces[2]
    cdef uint64_t wait_ms
    if server.paces is None or server.publish_ns == 0 and server.bytes_rate == 0:
        return True
    paces[0].cost_ns = server.publish_ns
    paces[0].burst_ns = server.publish_burst_ns
    paces[1].cost_ns = <uint64_t>n * 1000000000 // server.bytes_rate if server.bytes_rate else 0
    paces[1].burst_ns = server.bytes_burst_ns
    wait_ms = take_paces(<PaceZone>server.paces, s.pace_key, KEY_BYTES, paces, clock.now_ms)
    if wait_ms == 0:
        return True
    s.is_throttled = True
    s.facts.throttled += 1
    tally(s, N_THROTTLED)
    wait(s, wait_ms)
    return False


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
            return judge_filters(s, p, h, &f)
        return P_PASS
    if h.kind == T_CONNECT:
        return -R_PROTOCOL                       # MQTT-3.1.0-2
    rc = check_mqtt_packet(p + h.n, h.body_n, h, s.version, &number)
    if rc < 0:
        return rc
    if h.kind == T_DISCONNECT:
        s.has_left = True
    return P_PASS


cdef int judge_filters(MqttSession s, const char* p, const MqttHead* h,
                       const MqttFilters* f) noexcept:
    """Each filter for itself: those that are allowed go to the broker, the others are refused where
    its answer comes by. A broker that is slow to answer is not asked without end."""
    cdef Str rest_ = f.list
    cdef Str one
    cdef uint8_t options
    cdef uint32_t n_good = 0
    while next_filter(&rest_, True, &one, &options):
        n_good += may(s.server.topics, MAY_SUBSCRIBE, bare_filter(one), s.facts.client_id,
                      s.facts.user)
    if n_good == f.count:
        return P_PASS
    s.facts.refused += 1
    tally(s, N_FORBIDDEN)
    try:
        return part_filters(s, p, h, f, n_good)
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"a SUBSCRIBE cannot be judged: {error}".encode()))
        return -R_REJECTED


cdef int part_filters(MqttSession s, const char* p, const MqttHead* h, const MqttFilters* f,
                      uint32_t n_good) except? -1:
    cdef Str rest_ = f.list
    cdef Str one
    cdef uint8_t options
    cdef list codes = []
    cdef list kept = []
    cdef bytes before
    cdef bytes whole
    cdef char[4] length
    cdef uint32_t k
    cdef bint asks = n_good > 0 and (s.merges is None or len(s.merges) < MERGES_MOST)
    while next_filter(&rest_, True, &one, &options):
        if may(s.server.topics, MAY_SUBSCRIBE, bare_filter(one), s.facts.client_id, s.facts.user):
            codes.append(None if asks else R_QUOTA)
            kept.append(b"%c%c%b%c" % (one.n >> 8, one.n & 255, to_bytes(one), options))
        else:
            codes.append(R_FORBIDDEN)
    if s.version == 4:
        codes = [None if it is None else 0x80 for it in codes]
    if not asks:
        say_list(s, T_SUBACK, f.id, bytes(codes))
        return P_DONE
    before = p[h.n:f.list.p - p]                 # the packet id, and the properties
    whole = before + b"".join(kept)
    k = put_length(length, <uint32_t>len(whole))
    whole = b"%c%b%b" % (p[0] & 0xFF, length[:k], whole)
    if not hold(s, &s.instead, <const char*>whole, <size_t>len(whole)):
        return P_DONE
    if s.merges is None:
        s.merges = []
    s.merges.append((f.id, codes))
    return P_OTHER

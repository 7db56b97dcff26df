# From the first byte to a CONNECT that was found good; no broker is touched before.

cdef void begin(MqttSession s, MqttListener listener, MqttLink client,
                const void* address) noexcept:
    cdef MqttSessions house = listener.house
    cdef Request r
    cdef char[WORDS] words
    s.house = house
    s.listener = listener
    s.server = listener.server
    s.client = client
    s.begun_ms = clock.now_ms
    s.who = Client.__new__(Client)
    s.who.serial = <uint64_t>house.worker.count_guests(1)
    client.is_counted = True
    s.who.open(client.fd, address)
    s.who.is_tls = client.tls is not None
    s.who.tls = client.tls
    if client.tls is not None:
        client.tls.who = <PyObject*>s.who
    r = house.free_requests.pop() if house.free_requests else Request.__new__(Request)
    r.begin(None, None)
    r.client = s.who
    r.server = listener.address
    r.location = s.server.location
    r.id = s.who.serial
    s.r = r
    s.facts = MqttFacts.__new__(MqttFacts)
    r.call = s.facts
    snprintf(words, WORDS, "*%llu client %.*s:%u connected to %.*s",
             <unsigned long long>r.id, <int>s.who.peer.text_n, s.who.peer.text,
             <unsigned int>s.who.peer.port, <int>r.server.name_s.n, r.server.name_s.p)
    report_text(R_INFO, None, words)
    if listener.is_proxied:
        s.state = M_HEADER
        client.most_bytes = PROXY_HEADER_MAX
        wait(s, s.server.header_ms)
    else:
        admit(s)


cdef void read_header(MqttSession s, const char* p, size_t n) noexcept:
    """The PROXY header first, whole."""
    cdef ProxyHeader h
    cdef Held behind
    cdef int used
    if not hold(s, &s.held, p, n):
        return
    used = read_proxy_header(s.held.p, <uint32_t>s.held.n, &h)
    if used == 0 and s.held.n < PROXY_HEADER_MAX:
        return
    if used <= 0:
        report_text(R_ERROR, s.r, b"broken header while reading PROXY protocol")
        finish(s, 400)
        return
    if h.has_addresses and not keep_proxy_header(s.who, &h):
        finish(s, 500)
        return
    drop_first(&s.held, <size_t>used)
    behind = s.held
    s.held.p = NULL
    s.held.n = 0
    s.client.most_bytes = 0
    admit(s)
    if s.state != M_OVER and behind.n:
        if s.client.tls is not None:
            unseal(s, behind.p, behind.n)
        else:
            on_plain(s, behind.p, behind.n)
    free(behind.p)


cdef void admit(MqttSession s) noexcept:
    """Counted and let in, or not; then TLS, where the address has it."""
    cdef LimitSettings limits = s.server.location.limits
    cdef AccessSettings access = s.server.location.access
    cdef int rc
    if access is not None and access.realip is not None:
        put_real_address(access, s.r)            # before all that asks for an address
    if limits is not None:
        rc = take_conns(limits, s.r)
        if rc == LIMITED or rc < 0:
            finish(s, 503 if rc == LIMITED else 500)
            return
    if access is not None and judge_address(access, s.r) == 403:
        finish(s, 403)
        return
    if s.client.tls is not None:
        s.state = M_HANDSHAKE
        wait(s, s.server.handshake_ms)
    else:
        await_connect(s)


cdef void await_connect(MqttSession s) noexcept:
    s.state = M_UPGRADE if s.listener.is_websocket else M_CONNECT
    wait(s, s.server.hello_ms)


cdef void unseal(MqttSession s, const char* p, size_t n) noexcept:
    cdef MqttLink side = s.client
    cdef Py_ssize_t got = side.unseal(p, n)
    if s.state == M_HANDSHAKE:
        if got < 0 or side.tls.is_broken:
            tell_handshake(s)
            finish(s, 500)
            return
        if not side.tls.is_ready:
            return
        if side.tls.client_fault(s.server.tls):
            report_text(R_INFO, s.r, b"client SSL certificate verify error while SSL handshaking")
            finish(s, 403)
            return
        await_connect(s)
    if got > 0:
        on_plain(s, plain, <size_t>got)
    if s.state == M_OVER or side.session is None:
        return
    if got < 0 or side.tls.is_broken:
        lose(s, side, ECONNRESET)
    elif side.tls.is_ended and not side.is_ended:
        side.is_ended = True
        on_side_ended(s, side)


cdef void tell_handshake(MqttSession s) noexcept:
    cdef bytes words
    try:
        words = b"SSL_do_handshake() failed (%s) while SSL handshaking" % (
            s.client.tls.reason or b"")
    except Exception:
        return
    report(R_INFO, s.r, of_bytes(words))


# -- WebSockets --------------------------------------------------------------------------

cdef void on_plain(MqttSession s, char* p, size_t n) noexcept:
    """What the client sent, out of TLS."""
    s.r.body_n += n
    if s.state == M_UPGRADE:
        if hold(s, &s.held, p, n):
            upgrade(s)
    elif s.is_framed:
        unframe(s, p, n)
    else:
        on_bytes(s, p, n)


cdef void upgrade(MqttSession s) noexcept:
    """The client's HTTP, whole or not."""
    cdef Held behind
    cdef bytes head
    try:
        head, end, rest_ = s.held.p[:s.held.n].partition(b"\r\n\r\n")
        if not end:
            if s.held.n > UPGRADE_BYTES:
                finish(s, 400)
            return
        is_good, told = answer_upgrade(head)
        if s.who.address.binary_n == 0:          # our own http { } has the client's address
            sender = forwarded_for(head)
            s.who.put_address(of_bytes(sender))
    except Exception:
        finish(s, 500)
        return
    drop_first(&s.held, <size_t>len(head) + 4)
    behind = s.held
    s.held.p = NULL
    s.held.n = 0
    if s.client.write(<const char*><bytes>told, <size_t>len(told), NULL, 0) < 0:
        lose(s, s.client, errno)
    elif not is_good:
        report_text(R_INFO, s.r, b"client asked for no WebSocket of MQTT")
        finish(s, 400)
    else:
        s.is_framed = True
        s.state = M_CONNECT
        begin_frames(&s.frames, True, False, 0)
        if behind.n:
            unframe(s, behind.p, behind.n)
    free(behind.p)


cdef void unframe(MqttSession s, char* p, size_t n) noexcept:
    """The payload of binary frames, put together where it lies."""
    cdef Frames* f = &s.frames
    cdef char* out = p
    cdef char* at = p
    cdef const char* stop = p + n
    cdef uint32_t used
    cdef uint32_t i
    cdef uint32_t turn
    cdef bint was_payload
    cdef int rc
    cdef int fault = 0
    while True:
        used = 0
        was_payload = f.state == IN_PAYLOAD
        turn = <uint32_t>((f.length - f.left) & 3)
        rc = read_websocket(f, at, <uint32_t>(stop - at), &used)
        if rc < 0:
            fault = -rc
            break
        if was_payload and used:
            if f.opcode < WS_CLOSE:
                for i in range(used):            # in place: the head was longer than nothing
                    out[i] = at[i] ^ <char>f.mask[turn + (i & 3)]
                out += used
            elif f.opcode == WS_PING:
                for i in range(used):
                    s.ping[s.ping_n + i] = <uint8_t>at[i] ^ f.mask[turn + (i & 3)]
                s.ping_n += <uint8_t>used
        at += used
        if rc == FRAME_MORE:
            break
        if rc == FRAME_HEAD:
            s.ping_n = 0
            if f.opcode == WS_TEXT:
                fault = 1003                     # MQTT-6.0.0-1
                break
        elif f.opcode == WS_PING:
            send_pong(s)
        elif f.opcode == WS_CLOSE:
            fault = 1000
            break
        if s.state == M_OVER:
            return
    if out != p:
        on_bytes(s, p, <size_t>(out - p))
    if fault and s.state != M_OVER:
        close_frames(s, fault)


cdef void send_pong(MqttSession s) noexcept:
    cdef char[8] head
    cdef uint32_t n = put_control(head, WS_PONG, s.ping_n, False, 0)
    if s.client.write(head, n, <const char*>s.ping, s.ping_n) < 0:
        lose(s, s.client, errno)


cdef void close_frames(MqttSession s, int code) noexcept:
    cdef char[CLOSE_MOST] out
    cdef uint32_t n = put_close(out, <uint16_t>code, False, 0)
    s.client.write(out, n, NULL, 0)
    s.is_framed = False                          # nothing is said behind it
    if code != 1000:
        report_text(R_INFO, s.r, b"client sent a broken WebSocket frame")
    finish(s, 200 if code == 1000 else 400)


# -- CONNECT -----------------------------------------------------------------------------

cdef void read_connect(MqttSession s, const char* p, size_t n) noexcept:
    """CONNECT comes first, and whole (§3.1)."""
    cdef MqttHead h
    cdef MqttConnect c
    cdef int rc
    if not hold(s, &s.held, p, n):
        return
    rc = read_mqtt_head(s.held.p, s.held.n, &h)
    if rc == 0:
        return
    if rc < 0 or h.kind != T_CONNECT or check_mqtt_head(&h, 4) < 0:
        report_text(R_INFO, s.r, b"client sent no CONNECT first")
        finish(s, 400)
        return
    if h.n + h.body_n > s.server.packet_most:
        report_text(R_INFO, s.r, b"client sent too large a CONNECT")
        finish(s, 413)
        return
    if s.held.n < h.n + h.body_n:
        return
    s.client.pause()                             # nobody takes what comes behind it yet
    rc = read_mqtt_connect(s.held.p + h.n, h.body_n, &c)
    s.version = c.version & 127                  # 128: a bridge of mosquitto, which asks again
    if rc < 0:
        report_text(R_INFO, s.r, b"client sent a CONNECT that is not good")
        refuse(s, -rc, 400)
        return
    if not hold(s, &s.hello, s.held.p, h.n + h.body_n):
        return
    drop_first(&s.held, h.n + h.body_n)
    read_mqtt_connect(s.hello.p + h.n, h.body_n, &c)       # the same, where it stays
    s.quiet_ms = <uint32_t>c.keepalive_s * 1500  # MQTT-3.1.2-22
    if s.server.idle_ms and (s.quiet_ms == 0 or s.quiet_ms > s.server.idle_ms):
        s.quiet_ms = s.server.idle_ms
    s.packet_most = c.properties.packet_most
    s.facts.version = c.version
    try:
        tell_names(s, &c)
        check(s, &c)
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"CONNECT cannot be checked: {error}".encode()))
        refuse(s, R_UNAVAILABLE, 500)


cdef tell_names(MqttSession s, MqttConnect* c):
    """$mqtt_client_id and $mqtt_user, as the client says them."""
    cdef bytes kept = to_bytes(c.client_id) + to_bytes(c.user)
    s.facts.kept = kept
    s.facts.client_id = text(<const char*>kept, c.client_id.n)
    s.facts.user = text(<const char*>kept + c.client_id.n, c.user.n)


cdef name_user(MqttSession s, bytes user):
    """… and who the client is found to be."""
    cdef bytes kept = to_bytes(s.facts.client_id) + user
    cdef uint32_t n = s.facts.client_id.n
    s.facts.kept = kept
    s.facts.client_id = text(<const char*>kept, n)
    s.facts.user = text(<const char*>kept + n, <Py_ssize_t>len(user))


cdef check(MqttSession s, MqttConnect* c):
    """May this client come in? Raises what Python raises."""
    cdef Str value
    cdef bytes name = b""
    if s.server.certificate_name is not None:
        if evaluate(<Template>s.server.certificate_name, s.r, &value) >= 0:
            name = common_name(to_bytes(value))
        if not name:
            report_text(R_INFO, s.r, b"client has no certificate with a name")
            refuse(s, R_FORBIDDEN, 403)
            return
        name_user(s, name)
    if s.server.keeper is not None:
        user = to_bytes(c.user) if c.has_user else None
        verdict, found = s.server.keeper.judge(
            user, to_bytes(c.password) if c.has_password else None)
        if verdict == BAD or verdict == BROKEN:
            tell_bad(s, verdict, found)
            return
        if verdict == GOOD:
            if not name:
                name_user(s, found)
        else:
            s.state = M_CHECKING
            future = s.house.wheel.loop.run_in_executor(None, found)
            future.add_done_callback(s.on_checked)
            return
    accept_client(s)


cdef tell_bad(MqttSession s, int verdict, str why):
    report(R_INFO if verdict == BAD else R_CRIT, s.r,
           of_bytes(f"client is not let in: {why}".encode("utf-8", "replace")))
    refuse(s, R_PASSWORD if verdict == BAD else R_UNAVAILABLE, 403 if verdict == BAD else 500)


cdef void after_check(MqttSession s, task) noexcept:
    try:
        if task.result():
            accept_client(s)
        else:
            tell_bad(s, BAD, "password mismatch")
    except Exception:
        refuse(s, R_UNAVAILABLE, 500)


cdef void accept_client(MqttSession s) noexcept:
    """It may come in. May its will be published?"""
    cdef MqttHead h
    cdef MqttConnect c
    read_mqtt_head(s.hello.p, s.hello.n, &h)
    if read_mqtt_connect(s.hello.p + h.n, h.body_n, &c) < 0:
        finish(s, 500)
        return
    if c.has_will and not may(s.server.topics, MAY_PUBLISH, c.will_topic, s.facts.client_id,
                              s.facts.user):
        report_text(R_INFO, s.r, b"client may not publish its will")
        refuse(s, R_FORBIDDEN, 403)
        return
    try:
        name_paces(s)
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"client's rates cannot be told: {error}".encode()))
        refuse(s, R_UNAVAILABLE, 500)
        return
    if s.server.upstream is None:
        serve(s, &c)
    else:
        s.group = <Upstream>s.server.upstream
        ask(s)


cdef name_paces(MqttSession s):
    """Whose rates are these? A client that comes again shall find its buckets as it left them."""
    cdef Str value
    cdef bytes key = b""
    cdef bytes digest
    if s.server.paces is None or s.server.publish_ns == 0 and s.server.bytes_rate == 0:
        return
    if s.server.publish_key is not None:
        if evaluate(s.server.publish_key, s.r, &value) < 0:
            raise ValueError("mqtt_publish_key")
        key = to_bytes(value)
    if key:
        digest = digest_of(b"key", key, b"")
    elif s.facts.client_id.n:
        digest = digest_of(s.server.name, to_bytes(s.facts.user), to_bytes(s.facts.client_id))
    else:                                        # its broker makes one up: another each time
        digest = digest_of(s.server.name, to_bytes(s.facts.user), s.who.address.binary[
            :s.who.address.binary_n])
    memcpy(s.pace_key, <const char*>digest, KEY_BYTES)


cdef bytes digest_of(bytes first, bytes second, bytes third):
    """KEY_BYTES of three texts: two clients share one only by chance."""
    cdef bytes whole = b"%d %d %b%b%b" % (len(first), len(second), first, second, third)
    return blake2b(whole, digest_size=KEY_BYTES).digest()

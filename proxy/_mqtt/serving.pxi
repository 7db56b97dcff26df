# Without a broker: we answer, messages go to functions, answers to whoever published.
#
# Sessions are clean, nothing is retained, QoS 2 is refused, nobody hears of another's messages.
# Acknowledgements go out in the order of what they acknowledge (MQTT-4.6.0-2).

cdef enum:
    NO_MATCH = 0x10               # reasons that only a server without a broker has
    RETAIN_NOT = 0x9A
    SHARED_NOT = 0x9E
    NO_SUBSCRIPTION = 0x11
    AUTH_METHOD = 0x8C
    WITH_WILL = 0x04


cdef void serve(MqttSession s, MqttConnect* c) noexcept:
    """The client is ours."""
    if s.version == 5:
        if c.properties.method.p != NULL:
            refuse(s, AUTH_METHOD, 400)
            return
        if c.has_will and c.will_qos == 2:
            refuse(s, R_QOS, 400)
            return
        if c.has_will and c.will_retain:
            refuse(s, RETAIN_NOT, 400)
            return
    try:
        begin_serving(s, c)
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"client cannot be served: {error}".encode()))
        refuse(s, R_UNAVAILABLE, 500)


cdef begin_serving(MqttSession s, MqttConnect* c):
    cdef MqttSession other
    cdef bytes given = b""
    cdef bytes more
    cdef bytes key
    if c.client_id.n == 0:
        given = b"headrace-%016x" % (s.who.serial ^ clock.now_ms << 20)
        more = given + to_bytes(s.facts.user)
        s.facts.kept = more
        s.facts.client_id = text(<const char*>more, <Py_ssize_t>len(given))
        s.facts.user = text(<const char*>more + len(given), s.facts.user.n)
    s.will = (to_bytes(c.will_topic), to_bytes(c.will_payload)) if c.has_will else None
    s.calls = []
    s.filters = []
    key = session_key(s)
    other = s.house.serving.get(key)
    if other is not None:
        end(other, R_TAKEN_OVER)                 # MQTT-3.1.4-3: at once in this worker
    s.house.serving[key] = s
    if s.server.paces is not None:
        held = digest_of(b"holder " + s.server.name, to_bytes(s.facts.user),
                         to_bytes(s.facts.client_id))
        memcpy(s.own_key, <const char*><bytes>held, KEY_BYTES)
        s.holder = <uint64_t>int.from_bytes(urandom(8)) | 1
        put_holder(<PaceZone>s.server.paces, s.own_key, KEY_BYTES, s.holder)
    s.state = M_SERVING
    if s.version == 5:
        # Receive Maximum, Maximum QoS 1, nothing retained, Maximum Packet Size, no Subscription
        # Identifiers, no shared subscriptions
        more = b"".join((
            b"\x21", (<object>s.server.in_flight).to_bytes(2, "big"), b"\x24\x01\x25\x00\x27",
            (<object>s.server.packet_most).to_bytes(4, "big"), b"\x29\x00\x2a\x00"))
        if c.properties.expiry_s:
            more += b"\x11\0\0\0\0"
        if given:
            more += b"\x12%c%c%b" % (0, len(given), given)
        more = b"\0\0%c%b" % (len(more), more)
    else:
        more = b"\0\0"
    more = b"\x20%c%b" % (len(more), more)
    drop(&s.hello)
    tally(s, N_CONNECTED)
    rest(s)
    if write_client(s, more, <size_t>len(more)) < 0:
        lose(s, s.client, errno)
        return
    s.client.unpause()
    work(s)


cdef bint is_newest(MqttSession s) noexcept:
    """Has the client no newer session? One with another worker ends this one as soon as it would do
    anything: nothing is taken of it and nothing told it any more, and one that does nothing ends
    with its keep-alive."""
    if s.holder and not is_holder(<PaceZone>s.server.paces, s.own_key, KEY_BYTES, s.holder):
        end(s, R_TAKEN_OVER)
        return False
    return True


cdef bytes session_key(MqttSession s):
    """One user cannot take over another's session."""
    return to_bytes(s.facts.user) + b"\0" + to_bytes(s.facts.client_id)


cdef void stop_serving(MqttSession s) noexcept:
    """It went; a client that did not say DISCONNECT has its will published (§3.1.2.5)."""
    cdef bytes key
    try:
        key = session_key(s)
        if s.house.serving.get(key) is s:
            del s.house.serving[key]
        if s.will is not None and not s.has_left:
            publish_will(s)
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"a will is lost: {error}".encode()))


cdef publish_will(MqttSession s):
    topic, payload = s.will
    found = s.server.publishing.find(topic.decode())
    if found is None:
        return
    handling, captures = found
    if is_busy(s.house):
        raise OverflowError("too many messages are with functions")
    message = s.server.publishing.message(
        topic.decode(), payload, 1, *names_of(s), captures=captures)
    call(s.house, message, handling)


cdef bint is_busy(MqttSessions house) noexcept:
    return len(house.tasks) >= CALLS_MOST or house.task_bytes >= CALL_BYTES_MOST


cdef object call(MqttSessions house, message, handling):
    """A task that delivers the message, counted as long as it runs."""
    cdef size_t n = <size_t>len(message.payload)
    task = house.wheel.loop.create_task(house.deliverer.deliver(message, handling))

    def on_done(task, MqttSessions house=house, size_t n=n):
        house.tasks.discard(task)
        house.task_bytes -= n
        if not task.cancelled() and task.exception() is not None:
            report(R_ERROR, None, of_bytes(f"a message is lost: {task.exception()}".encode()))

    house.tasks.add(task)
    house.task_bytes += n
    task.add_done_callback(on_done)
    return task


cdef tuple names_of(MqttSession s):
    """client_id, user and source of a Message."""
    cdef Str where = s.r.server.name_s
    return (to_bytes(s.facts.client_id).decode(), to_bytes(s.facts.user).decode(),
            f"mqtt://{to_bytes(where).decode()}")


cdef int serve_packet(MqttSession s, const char* p, size_t n, const MqttHead* h) noexcept:
    """A packet, whole. As pass_packets wants it."""
    cdef MqttFilters f
    cdef uint16_t number = 0
    cdef int rc
    cdef char[2] pong
    if not is_newest(s):
        return P_DONE
    try:
        if h.kind == T_PUBLISH:
            return serve_publish(s, p, n, h)
        if h.kind == T_SUBSCRIBE or h.kind == T_UNSUBSCRIBE:
            rc = read_mqtt_filters(p + h.n, h.body_n, h, s.version, &f)
            if rc == 0 and h.kind == T_SUBSCRIBE:
                serve_subscribe(s, &f)
            elif rc == 0:
                serve_unsubscribe(s, &f)
            return rc if rc < 0 else P_DONE
        if h.kind == T_CONNECT:
            return -R_PROTOCOL
        rc = check_mqtt_packet(p + h.n, h.body_n, h, s.version, &number)
        if rc < 0:
            return rc
        if h.kind == T_PINGREQ:
            pong[0] = <char>(T_PINGRESP << 4)
            pong[1] = 0
            say(s, pong, 2)
            return P_DONE
        if h.kind == T_DISCONNECT:
            s.has_left = number != WITH_WILL
            finish(s, 200)
            return P_DONE
    except Exception as error:
        report(R_ERROR, s.r, of_bytes(f"a packet cannot be served: {error}".encode()))
        return -R_REJECTED
    return -R_PROTOCOL                           # it acknowledges what we never sent


cdef int serve_publish(MqttSession s, const char* p, size_t n, const MqttHead* h) except? -1:
    cdef MqttPublish m
    cdef Str rest_
    cdef Str name
    cdef Str value
    cdef int at
    if s.n_calls >= s.server.in_flight or len(s.calls) >= s.server.in_flight:
        return P_LATER
    if is_busy(s.house):
        s.is_throttled = True
        wait(s, BUSY_MS)
        return P_LATER
    at = read_mqtt_publish(p + h.n, n - h.n, h, s.version, &m)
    if at <= 0:
        return at or -R_MALFORMED
    if not take_tokens(s, h.n + h.body_n):
        return P_LATER
    s.facts.published += 1
    tally(s, N_PUBLISHED)
    if m.qos == 2:
        return -R_QOS
    if m.is_retained and s.version == 5:
        return -RETAIN_NOT
    if m.properties.alias:
        return -R_ALIAS
    slot = [m.id, None] if m.qos else None
    if slot is not None:
        s.calls.append(slot)
    if not may(s.server.topics, MAY_PUBLISH, m.topic, s.facts.client_id, s.facts.user):
        s.facts.refused += 1
        tally(s, N_FORBIDDEN)
        if s.version == 4 and m.qos:
            return -R_FORBIDDEN
        acknowledge(s, slot, R_FORBIDDEN)
        return P_DONE
    topic = to_bytes(m.topic).decode()
    found = s.server.publishing.find(topic)
    if found is None:
        acknowledge(s, slot, NO_MATCH if s.version == 5 else 0)
        return P_DONE
    handling, captures = found
    message = s.server.publishing.message(
        topic, p[h.n + at:n], m.qos, *names_of(s), captures=captures,
        is_retained=bool(m.is_retained), is_text=bool(m.properties.is_text))
    answer_topic = handling.expanded_reply(message.client_id, message.user)
    if s.version == 5:
        message.content_type = to_bytes(m.properties.content_type).decode()
        if m.properties.answer_topic.p != NULL:
            answer_topic = ""
            if may_reply(s, m.properties.answer_topic):
                answer_topic = to_bytes(m.properties.answer_topic).decode()
            message.answer_topic = answer_topic
            if m.properties.correlation.p != NULL:
                message.correlation = to_bytes(m.properties.correlation)
        rest_ = m.properties.all
        message.properties = []
        while next_user_property(&rest_, &name, &value):
            message.properties.append((to_bytes(name).decode(), to_bytes(value).decode()))
    s.n_calls += 1
    tally(s, N_CALLED)
    task = call(s.house, message, handling)

    def on_done(task, session=s, slot=slot, topic=answer_topic, data=message.correlation):
        session.on_delivered(slot, topic, data, task)

    task.add_done_callback(on_done)
    return P_DONE


cdef bint may_reply(MqttSession s, Str topic):
    """Is it a topic, or a filter, of the client's own answers?"""
    for pattern in s.server.publishing.reply_patterns:
        if holds(of_bytes(pattern), topic, s.facts.client_id, s.facts.user):
            return True
    return False


cdef void acknowledge(MqttSession s, list slot, int reason) noexcept:
    """Of QoS 1 (slot is not None), when those before it are; a reason of -1: it is not."""
    if slot is None:
        return
    slot[1] = reason
    while s.state == M_SERVING and s.calls and s.calls[0][1] is not None:
        id, said = s.calls.pop(0)
        if said < 0 and s.version == 4:
            end(s, R_REJECTED)                   # it shall be sent again
        else:
            say_short(s, T_PUBACK, 0, <uint16_t>id, R_REJECTED if said < 0 else said)


cdef void after_call(MqttSession s, list slot, str answer_topic, correlation, task) noexcept:
    cdef int reason = -1
    s.n_calls -= 1
    try:
        outcome = task.result()
        if outcome.is_dead:
            tally(s, N_DEAD)
        elif not 200 <= outcome.status < 300:
            tally(s, N_FAILED)
        if outcome.is_taken:
            reason = 0
        if s.state == M_SERVING and is_newest(s) and answer_topic and outcome.body is not None:
            answer_client(s, answer_topic, outcome, correlation)
    except BaseException as error:               # a loop that stops cancels
        report(R_ERROR, s.r, of_bytes(f"a message was not delivered: {error}".encode()))
    if s.state != M_SERVING:
        return
    acknowledge(s, slot, reason)
    if s.state == M_SERVING:
        work(s)


cdef answer_client(MqttSession s, str topic, outcome, correlation):
    """PUBLISH of QoS 0 to the client, if it has subscribed the topic and takes packets so large."""
    cdef bytes name = topic.encode()
    cdef bytes properties = b""
    cdef bytes packet
    cdef char[4] length
    cdef uint32_t k
    for it in s.filters:
        if holds(of_bytes(it), of_bytes(name), s.facts.client_id, s.facts.user):
            break
    else:
        return
    if s.version == 5:
        kind = outcome.content_type.encode()[:200]
        if kind:
            properties += b"\x03%c%c%b" % (0, len(kind), kind)
        if correlation is not None:
            properties += b"\x09%c%c%b" % (len(correlation) >> 8, len(correlation) & 255,
                                           correlation)
        k = put_length(length, <uint32_t>len(properties))
        properties = length[:k] + properties
    packet = b"%c%c%b%b%b" % (len(name) >> 8, len(name) & 255, name, properties, outcome.body)
    k = put_length(length, <uint32_t>len(packet))
    packet = b"\x30" + length[:k] + packet
    if <size_t>len(packet) > s.server.packet_most or (
            s.packet_most and <size_t>len(packet) > s.packet_most):
        report_text(R_WARN, s.r, b"an answer is too large for the client")
        return
    tally(s, N_ANSWERED)
    say(s, packet, <size_t>len(packet))


cdef serve_subscribe(MqttSession s, const MqttFilters* f):
    """Only its own answers, at QoS 0; anything else is refused (0x87, in 3.1.1 0x80)."""
    cdef Str rest_ = f.list
    cdef Str one
    cdef uint8_t options
    cdef list said = []
    while next_filter(&rest_, True, &one, &options):
        name = to_bytes(one)
        if bare_filter(one).p != one.p:
            said.append(SHARED_NOT)
        elif not may_reply(s, one) or not may(s.server.topics, MAY_SUBSCRIBE, one,
                                              s.facts.client_id, s.facts.user):
            said.append(R_FORBIDDEN)
            s.facts.refused += 1
            tally(s, N_FORBIDDEN)
        elif name not in s.filters and len(s.filters) >= FILTERS_MOST:
            said.append(R_QUOTA)
        else:
            if name not in s.filters:
                s.filters.append(name)
            said.append(0)
    if s.version == 4:
        said = [0x80 if it else 0 for it in said]
    say_list(s, T_SUBACK, f.id, bytes(said))


cdef serve_unsubscribe(MqttSession s, const MqttFilters* f):
    cdef Str rest_ = f.list
    cdef Str one
    cdef uint8_t options
    cdef list said = []
    while next_filter(&rest_, False, &one, &options):
        name = to_bytes(one)
        said.append(0 if name in s.filters else NO_SUBSCRIPTION)
        if name in s.filters:
            s.filters.remove(name)
    say_list(s, T_UNSUBACK, f.id, bytes(said) if s.version == 5 else b"")


cdef say_list(MqttSession s, int kind, uint16_t id, bytes said):
    cdef char[4] length
    cdef bytes body = b"%c%c%b%b" % (id >> 8, id & 255, b"\0" if s.version == 5 else b"", said)
    cdef uint32_t k = put_length(length, <uint32_t>len(body))
    body = b"%c%b%b" % (kind << 4, length[:k], body)
    say(s, body, <size_t>len(body))

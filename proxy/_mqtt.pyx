# The conductor of mqtt { }: a session is a client's connection and a broker's, or no broker at all.
#
# What a client says is read packet by packet and judged before it goes on; the bytes themselves are
# passed as they came, out of the worker's one read buffer, and what a broker says is only followed
# so far that we know where its packets end. What the other side does not take waits in its Link
# while the source is not read. One deadline serves a session in each of its states; it hangs on the
# client's Link. Sections are those of MQTT 5; 3.1.1 says the same unless it is named.

from cpython.object cimport PyObject
from cython cimport final
from libc.errno cimport EAGAIN, ECONNRESET, EINPROGRESS, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset, strerror
from posix.unistd cimport close as c_close

from proxy.base._client cimport Client
from proxy.base._clock cimport clock, tick
from proxy.base._report cimport R_CRIT, R_ERROR, R_INFO, R_WARN, report, report_text
from proxy.base._request cimport Attempt, Request, Server
from proxy.base.span cimport Str, of_bytes, text, to_bytes
from proxy.base.verdict cimport LIMITED
from proxy.engine._accept cimport Acceptor
from proxy.engine._link cimport Link, read_buffer
from proxy.engine._tls cimport Door, begin_server, plain
from proxy.engine._watch cimport READABLE
from proxy.engine._way cimport Way, begin_way, wrong_peer
from proxy.engine._wheel cimport Wheel, set_deadline
from proxy.filters._access cimport AccessSettings, judge_address
from proxy.filters._realip cimport put_real_address
from proxy.limits._admit cimport LimitSettings, give_conns, take_conns
from proxy.limits._paces cimport Pace, PaceZone, is_holder, put_holder, take_paces
from proxy.mqtt._facts cimport MqttFacts
from proxy.mqtt._settings cimport MqttServer
from proxy.mqtt._topics cimport MAY_PUBLISH, MAY_SUBSCRIBE, holds, may
from proxy.observe._counters cimport Counters, count
from proxy.observe._log cimport write_logs
from proxy.upstream._balance cimport (
    PEER_FAILED, PEER_OK, Peer, Tried, Upstream, on_released, pick, start_tries,
)
from proxy.variables._variables cimport Template, evaluate
from proxy.wire._mqtt cimport *
from proxy.wire._proxy_protocol cimport (
    PROXY_HEADER_MAX, ProxyHeader, keep_proxy_header, read_proxy_header,
)
from proxy.wire._websocket cimport (
    CLOSE_MOST, FRAME_HEAD, FRAME_MORE, IN_PAYLOAD, WS_BINARY, WS_CLOSE, WS_PING,
    WS_PONG, WS_TEXT, Frames, begin_frames, put_close, put_control, read_websocket,
)

from hashlib import blake2b
from os import urandom

from proxy.mqtt.credentials import BAD, BROKEN, GOOD, common_name
from proxy.mqtt.suback import merge_suback
from proxy.mqtt.upgrade import HEAD_BYTES as UPGRADE_BYTES
from proxy.mqtt.upgrade import answer as answer_upgrade
from proxy.mqtt.upgrade import forwarded_for

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        SO_KEEPALIVE
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM
        SOL_SOCKET
    struct sockaddr:
        pass
    int connect(int, const sockaddr*, unsigned int)
    int c_socket "socket"(int, int, int)
    int setsockopt(int, int, int, const void*, unsigned int)
    ssize_t recv(int, void*, size_t, int)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef enum:
    PIECE_BYTES = 64 * 1024       # read at once, and so the most that waits in a Link
    SAID_MOST = 64 * 1024         # of answers of ours that wait for the end of a broker's packet
    FRAME_BYTES = 16              # a WebSocket frame's head is shorter
    PING_BYTES = 125              # RFC 6455 §5.5
    ALIAS_BYTES = 8192            # a bit for each Topic Alias
    FILTERS_MOST = 32             # subscriptions of a client without a broker
    WORDS = 640                   # of a line for the error log
    KEPT_REQUESTS = 256
    CALLS_MOST = 4096             # messages that functions of a worker have, or wait for: clients …
    CALL_BYTES_MOST = 64 << 20    # … may go while theirs are tried, so a session cannot count them
    BUSY_MS = 100                 # beyond, a client is not read for so long
    SEND_MS = 60000               # a broker that takes nothing for so long is given up
    LEAVE_MS = 10000              # what was written may still go out for so long
    MERGES_MOST = 32              # SUBSCRIBEs of a client that a broker has to answer in part
    SUBACK_MOST = 64 * 1024       # bytes of such an answer
    KEY_BYTES = 24                # of a client, for what all workers know of it

cdef enum MqttState:
    M_HEADER = 0                  # waits for the client's PROXY header
    M_HANDSHAKE = 1
    M_UPGRADE = 2                 # … for the HTTP of a WebSocket
    M_CONNECT = 3                 # … for its CONNECT
    M_CHECKING = 4                # a thread looks at its password
    M_DIALING = 5
    M_SECURING = 6                # the broker's TLS handshake
    M_CONNACK = 7                 # … for the broker's CONNACK
    M_RELAYING = 8
    M_SERVING = 9                 # there is no broker but us
    M_OVER = 10

cdef enum Counted:                # rows of COUNTED
    N_CONNECTED = 0
    N_REFUSED
    N_PUBLISHED
    N_FORBIDDEN
    N_THROTTLED
    N_FAILOVERS
    N_CALLED
    N_ANSWERED
    N_FAILED
    N_DEAD

# Names of the counters, in the order above; help is in observe's table.
COUNTED = (
    "headrace_mqtt_connects_total", "headrace_mqtt_refused_total",
    "headrace_mqtt_published_total", "headrace_mqtt_forbidden_total",
    "headrace_mqtt_throttled_total", "headrace_mqtt_failovers_total",
    "headrace_mqtt_calls_total", "headrace_mqtt_answers_total",
    "headrace_mqtt_failed_total", "headrace_mqtt_dead_letters_total",
)


cdef struct Held:                 # bytes that are kept
    char* p
    size_t n


@final
cdef class MqttSessions:
    """What all sessions of a worker share. deliverer: publishing.Deliverer, once somebody needs
    one."""
    cdef object worker            # counts their connections among its own
    cdef Wheel wheel
    cdef list free_requests
    cdef Counters counters
    cdef public object deliverer
    cdef dict serving             # client id → session, of clients without a broker
    cdef set tasks
    cdef size_t task_bytes        # of payloads

    def __init__(self, worker, Wheel wheel not None, counters):
        self.worker = worker
        self.wheel = wheel
        self.free_requests = []
        self.counters = counters
        self.serving = {}
        self.tasks = set()
        self.task_bytes = 0

    def accept(self, MqttListener listener not None, int fd):
        """Accept on `fd`, which is ours from now on. Raises OSError."""
        listener.house = self
        listener.open(fd, self.wheel)


@final
cdef class MqttListener(Acceptor):
    """One listen address of mqtt { }."""
    cdef MqttSessions house
    cdef public object key            # as process/ names it
    cdef public Server address        # named by the key, for the error log
    cdef public MqttServer server
    cdef public Door tls              # None: plain
    cdef public bint is_proxied       # proxy_protocol: a PROXY header comes first
    cdef public bint is_websocket

    cdef void on_accepted(self, int fd, const void* address) noexcept:
        cdef MqttSession s = MqttSession.__new__(MqttSession)
        cdef MqttLink c = MqttLink.__new__(MqttLink)
        if self.tls is not None:
            try:
                c.tls = begin_server(self.tls)
            except MemoryError:
                c_close(fd)
                return
        c.is_client = True
        c.house = self.house
        c.session = s
        if c.open(fd) == 0:
            begin(s, self, c, address)


@final
cdef class MqttLink(Link):
    """One of the two connections of a session."""
    cdef MqttSession session      # None: it only writes what is left, and closes
    cdef MqttSessions house
    cdef bint is_client
    cdef bint is_counted

    cdef void receive(self) noexcept:
        cdef MqttSession s = self.session
        cdef ssize_t n
        if s is None or self.is_paused or self.is_ended or self.is_closing:
            self.watch(self.mask & ~READABLE)
            return
        tick()
        n = recv(self.fd, read_buffer, PIECE_BYTES if self.most_bytes == 0 else self.most_bytes, 0)
        if n > 0:
            if not self.is_client:
                if self.tls is None:
                    on_answer(s, read_buffer, <size_t>n)
                else:
                    unseal_broker(s, read_buffer, <size_t>n)
            elif s.state == M_HEADER:
                read_header(s, read_buffer, <size_t>n)
            elif self.tls is not None:
                unseal(s, read_buffer, <size_t>n)
            else:
                on_plain(s, read_buffer, <size_t>n)
        elif n == 0:
            self.is_ended = True
            self.watch(self.mask & ~READABLE)
            on_side_ended(s, self)
        elif errno != EAGAIN and errno != EINTR:
            lose(s, self, errno)

    cdef void on_dialed(self, int error) noexcept:
        tick()
        if self.session is not None:
            on_broker(self.session, error)

    cdef void on_drained(self) noexcept:
        if self.session is not None:
            on_side_drained(self.session, self)

    cdef void on_deadline(self) noexcept:
        if self.session is not None:
            on_time(self.session)
        else:
            self.abort()                         # nobody takes what is left

    cdef void on_lost(self) noexcept:
        cdef MqttSession s = self.session
        if s is not None:
            lose(s, self, EPIPE)
        if self.is_counted:
            self.is_counted = False
            self.house.worker.count_guests(-1)

    cdef void leave(self) noexcept:
        """The session is over: what was written may still go out, for LEAVE_MS."""
        self.session = None
        if self.is_dialing:
            self.let_go()
        else:
            self.close()
        if self.fd >= 0:
            set_deadline(self.house.wheel, self, clock.now_ms + LEAVE_MS)
        else:
            self.forget_deadline()


@final
cdef class MqttSession:
    cdef MqttSessions house
    cdef MqttListener listener
    cdef MqttServer server
    cdef Request r                # its log, its limits, its variables
    cdef Client who
    cdef MqttFacts facts
    cdef MqttLink client
    cdef MqttLink broker          # None: not dialed yet, or there is none
    cdef Upstream group
    cdef Peer peer                # None: none is held
    cdef Tried tried
    cdef uint8_t state
    cdef uint8_t version          # 4 or 5, once CONNECT was read
    cdef bint is_framed           # a WebSocket: frames go both ways
    cdef bint has_left            # the client said DISCONNECT
    cdef bint is_throttled        # … or has to wait until due_ms
    cdef bint is_working          # work() is under way: it looks again
    cdef bint drops               # the PUBLISH that is passing does not go on
    cdef uint32_t left            # bytes of it that are still to come
    cdef uint32_t quiet_ms        # how long the client may say nothing; 0: for ever
    cdef uint64_t due_ms
    cdef uint64_t begun_ms
    cdef uint64_t dialed_ms       # when the first broker was asked
    cdef bytes tls_name           # whom the broker's certificate must name
    cdef char[KEY_BYTES] pace_key  # whose rates these are
    cdef char[KEY_BYTES] own_key   # whose session this is, without a broker
    cdef uint64_t holder          # its number: a newer one takes over
    cdef Held held                # of the client: not whole, or not to be looked at yet
    cdef Held hello               # its CONNECT, until a broker took it
    cdef Held answer              # of the broker, before its CONNACK
    cdef Held said                # ours to the client, until the broker's packet is over
    cdef Boundary down            # of what the broker says
    cdef Held instead             # goes on instead of the packet that is judged
    cdef list merges              # of SUBSCRIBEs that went on in part: (packet id, our codes)
    cdef Held suback              # the broker's answer to one, until it is whole
    cdef bint collects            # it is coming
    cdef uint8_t* aliases         # a bit: a PUBLISH of that Topic Alias was let through
    cdef Frames frames
    cdef uint8_t ping[125]
    cdef uint8_t ping_n
    # without a broker
    cdef list calls               # of QoS 1 in their order: [packet id, reason or None]
    cdef uint32_t n_calls         # messages that functions have now
    cdef list filters             # what it subscribed
    cdef object will              # (topic, payload), or None
    cdef uint32_t packet_most     # that the client takes

    def __dealloc__(self):
        free(self.held.p)
        free(self.hello.p)
        free(self.answer.p)
        free(self.said.p)
        free(self.instead.p)
        free(self.suback.p)
        free(self.aliases)

    def on_checked(self, task):
        """A thread has looked at the password."""
        tick()
        if self.state == M_CHECKING:
            after_check(self, task)

    def on_delivered(self, list slot, str answer_topic, correlation, task):
        """A function has the message, or it could not be given."""
        tick()
        after_call(self, slot, answer_topic, correlation, task)


include "_mqtt/bytes.pxi"
include "_mqtt/admit.pxi"
include "_mqtt/broker.pxi"
include "_mqtt/packets.pxi"
include "_mqtt/serving.pxi"

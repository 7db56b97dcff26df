# The conductor: the eight stages, the loop that drives them, the two thin protocol classes.
#
# Order, not knowledge: what a stage needs to know lives in its room. A stage returns one
# verdict and `drive` acts on it; no stage calls another. Nothing here imports Python policy.

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cython cimport final
from libc.errno cimport (
    EAGAIN, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EINPROGRESS, EINTR, ENETUNREACH, EPIPE,
    ETIMEDOUT, errno,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strerror
from posix.unistd cimport close as c_close, read as c_read

from proxy.base._arena cimport copy, take
from proxy.base._client cimport Client, address_text, read_address
from proxy.base._clock cimport clock, tick
from proxy.base._request cimport *
from proxy.base._report cimport *
from proxy.base._told cimport tell_error
from proxy.base.head cimport *
from proxy.base.span cimport Str, is_word, of_bytes, text, to_bytes
from proxy.base.verdict cimport *
from proxy.bodies._spool cimport Spool, new_spool
from proxy.content._charset cimport add_charset
from proxy.content._error_page cimport enter_named, has_error_page, on_error
from proxy.content._errors cimport error_page
from proxy.content._files cimport answer_file, cut_ranges, try_files
from proxy.content._redirect cimport complete_location, redirect_to_folder
from proxy.content._settings cimport ContentSettings, type_of
from proxy.content._ssi cimport SsiSettings, begin_ssi
from proxy.engine._accept cimport Acceptor
from proxy.engine._certificates cimport Certificates, KeyPair, put_pair
from proxy.engine._client_certificate cimport ClientCertificate, shown_in
from proxy.engine._link cimport READ_BYTES, Diversion, Link, read_buffer
from proxy.engine._pipe cimport PIPE_BYTES, give_pipe, move_bytes, take_pipe
from proxy.engine._tls cimport Door, Session, begin_client, begin_server, plain
from proxy.engine._tls_context cimport ServerTls
from proxy.engine._watch cimport FAILED, READABLE, WRITABLE, at_turn_end, is_in_turn
from proxy.engine._wheel cimport Timed, Wheel, set_deadline
from proxy.filters._access cimport (
    DECLINED, LET_IN, AccessSettings, ask_password, forget_challenge, judge_address, judge_answer,
    judge_password,
)
from proxy.filters._grpc_web cimport (
    WEB_BROKEN, begin_web, dress_web, is_web, take_text, text_is_whole,
)
from proxy.filters._gzip cimport BodyFilters, begin_gzip
from proxy.filters._headers cimport add_fields, add_trailers, expect_trailers
from proxy.filters._realip cimport put_real_address
from proxy.functions._arms cimport Arms, next_copy
from proxy.functions._function cimport Functions, Replica, Version
from proxy.functions._handler cimport (
    add_timing, answer_asleep, answer_refusal, refusal_word, report_refusal, wakes_nobody,
)
from proxy.functions._target cimport (
    FunctionRoute, FunctionTarget, find_version, is_later, put_async, put_prefix, take_route,
    tell_call,
)
from proxy.functions._waiting cimport (
    R_TIMEOUT, TAKEN_SLOT, Asked, Waiting, asked_of, begin_stream, find_gone, give_replica, leave,
    park, take_replica,
)
from proxy.limits._admit cimport LimitSettings, check_reqs, give_conns, take_conns
from proxy.observe._counters cimport Block, Counters, count, count_request
from proxy.observe._log cimport write_logs, write_sub_logs
from proxy.routing._function_routes cimport FunctionRoutes, find_function
from proxy.routing._locations cimport AT_LOCATION, AT_REDIRECT, AT_SERVER, Tree, find_location
from proxy.routing._names cimport Names, find_server, read_host
from proxy.routing._rewrite cimport REWRITE_AGAIN, REWRITE_STATUS, Program, run as run_rewrite
from proxy.routing._uri cimport Uri, read_inner_uri, read_uri
from proxy.upstream._balance cimport (
    PEER_FAILED, PEER_NEXT, PEER_OK, Outcome, Peer, Tried, Upstream, has_busy, on_released, pick,
    refund_try, start_tries, unmark_tried,
)
from proxy.upstream._handshake cimport is_begun, put_key
from proxy.upstream._settings cimport (
    ProxySettings, keep_for_redirect, obey_accel, shape_answer, wants_hints, write_request_block,
    write_request_head,
)
from proxy.upstream._sticky cimport name_peer, pick_sticky
from proxy.upstream._websocket cimport (
    Tokens, WebSocketSettings, close_number, is_deflate, is_websocket, take_token,
)
from proxy.upstream.next_upstream cimport NEXT_403, NEXT_404, condition_of, may_retry
from proxy.variables._variables cimport Template, evaluate, put_groups
from proxy.wire._chunked cimport (
    CHUNK_END, CHUNK_PIECE, Chunked, begin_chunked, chunk_prefix, read_chunked,
)
from proxy.wire._h1 cimport (
    Limits, begin_head, body_kind, read_request_head, read_response_head, read_trailers,
)
from proxy.wire._h2 cimport *
from proxy.wire._h2frame cimport RST_STREAM
from proxy.wire._h2past cimport is_taken_back
from proxy.wire._h2head cimport (
    BLOCK_CUT, BLOCK_MALFORMED, BLOCK_NO_CONNECT, BLOCK_WRONG, H_HAS_CONTROLS, HeadRoom,
    read_request_block, room_for, room_for_answer, room_for_hints, room_for_trailers, skip_block,
    write_answer_block, write_hint_block, write_trailer_block,
)
from proxy.wire._h2out cimport *
from proxy.wire._h1answer cimport (
    MAX_OWN_BYTES, frame_answer, write_answer_head, write_hints, write_trailers,
)
from proxy.wire._hpack cimport (
    HPACK_FIELD, HpackField, HpackTable, begin_block, begin_table, free_table, grown, put_status,
    read_field,
)
from proxy.wire._proxy_protocol cimport (
    PROXY_HEADER_MAX, ProxyHeader, keep_proxy_header, read_proxy_header,
)
from proxy.wire._scan cimport IS_METHOD, class_of
from proxy.wire._websocket cimport (
    CLOSE_MOST, FRAME_HEAD, FRAME_MORE, FRAMES_OVER, HEAD_MOST, IN_HEAD, IN_PAYLOAD, PING_MOST,
    WS_BINARY, WS_CONTINUATION, Frames, begin_frames, put_close, put_ping, read_websocket,
)

from collections import deque

from _socket import SO_REUSEADDR, socket as borrow_socket

from proxy.faults import TABLE as FAULTS

cdef extern from "<string.h>" nogil:
    void* memmem(const void*, size_t, const void*, size_t)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        SO_KEEPALIVE
        SO_RCVBUF
        SO_SNDBUF
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM
        SOL_SOCKET
    struct sockaddr:
        pass
    int connect(int, const sockaddr*, unsigned int)
    int c_socket "socket"(int, int, int)
    int setsockopt(int, int, int, const void*, unsigned int)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int, int, int64_t*, size_t)

cdef extern from *:
    """
    #ifdef HEADRACE_DEBUG   /* what still points into the read buffer afterwards reads this */
    #define poison(p, n) memset((p), 0xDD, (n))
    #else
    #define poison(p, n) ((void)0)
    #endif
    """
    void poison(void*, size_t) noexcept

cdef enum:
    PIECE_BYTES = 32 * 1024       # moved at once where a client may leave all of it to memory
    OUT_BYTES = 128 * 1024        # heads and small pieces on their way out
    SMALL_BYTES = 4096            # copied behind a head rather than written beside it
    TRAILER_BYTES = 16 * 1024
    FRAME_HEAD_BYTES = 9          # of HTTP/2 (RFC 9113 §4.1)
    MAX_POOLED = 1024             # requests kept for reuse
    CLOSE_MS = 5000               # a closed connection may take what was written, then is reset
    LONG_MS = 3600000             # what a function without a timeout may be silent
    PARTING_MS = 1000             # a leaving worker keeps a connection that was busy so recently

cdef int statuses[128]
for _number, _fault in FAULTS.items():
    statuses[-_number] = _fault.status


cdef inline int status_of(int fault) noexcept:
    return statuses[-fault] if -128 < fault < 0 and statuses[-fault] else 500


include "_fastpath/telling.pxi"
include "_fastpath/line.pxi"
include "_fastpath/listener.pxi"
include "_fastpath/stream.pxi"
include "_fastpath/client.pxi"
include "_fastpath/h2stream.pxi"
include "_fastpath/h2.pxi"
include "_fastpath/h3.pxi"
include "_fastpath/pool.pxi"
include "_fastpath/call.pxi"
include "_fastpath/upstream.pxi"
include "_fastpath/h2up.pxi"
include "_fastpath/h2pick.pxi"
include "_fastpath/websocket.pxi"
include "_fastpath/splice.pxi"
include "_fastpath/pacing.pxi"
include "_fastpath/idle.pxi"
include "_fastpath/stages.pxi"
include "_fastpath/subrequest.pxi"
include "_fastpath/copies.pxi"
include "_fastpath/answers.pxi"
include "_fastpath/grpc.pxi"
include "_fastpath/waking.pxi"
include "_fastpath/room.pxi"
include "_fastpath/worker.pxi"

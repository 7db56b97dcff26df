# What one location says of passing on (proxy_…), frozen for the fast path.

from cython cimport final
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.upstream._balance cimport Peer, Upstream
from proxy.upstream._websocket cimport WebSocketSettings
from proxy.variables._variables cimport Template


cdef struct HeaderOp:         # one proxy_set_header, or one of the defaults
    Str name
    void* value               # Template, borrowed from ProxySettings.kept
    uint8_t id


@final
cdef class ProxySettings:
    cdef public Upstream upstream         # None: found per request (variables)
    cdef public object targets            # dynamic.DynamicTargets of a url with variables
    cdef public Template url              # proxy_pass with variables, or None
    cdef public bint is_tls
    cdef public object tls                # tls.TlsSettings for the peer, or None
    cdef public object sent_name          # tls.sent_name and bare_name: policy, as callables
    cdef public object bare_name
    cdef public object certificates       # engine: Certificates that a request names, or None
    cdef public Template tls_name
    cdef public bint tls_verify
    cdef public bint tls_sni
    cdef public bytes proxy_host          # $proxy_host
    cdef public bytes proxy_port
    cdef public bint has_uri              # a URI of proxy_pass replaces the location's prefix
    cdef public bytes uri
    cdef public uint32_t prefix_n         # bytes of the prefix that it replaces
    cdef public uint8_t version           # 10, 11 or 20
    cdef public bint is_grpc              # grpc_pass: te: trailers is passed, and trailers are
    cdef public bint is_web               # grpc_web: calls of browsers are translated
    cdef public bint sets_host            # by the conf: sent as host, not as :authority (nginx)
    cdef public bint is_buffered          # proxy_buffering
    cdef public bint is_request_buffered
    cdef public bint passes_fields        # proxy_pass_request_headers
    cdef public bint passes_body
    cdef public bint passes_trailers
    cdef public bint intercepts           # proxy_intercept_errors
    cdef public bint ignores_abort
    cdef public WebSocketSettings websocket  # None: an upgraded connection is opaque
    cdef public bint passes_upgrade       # function_pass: an upgrade goes through by itself
    cdef public bint tells_timing         # function_pass: server_timing
    cdef public uint32_t connect_ms
    cdef public uint32_t send_ms
    cdef public uint32_t read_ms
    cdef public uint32_t head_bytes       # proxy_buffer_size
    cdef public int64_t buffer_bytes      # memory of one answer that waits
    cdef public int64_t file_bytes        # proxy_max_temp_file_size
    cdef public object temp_path
    cdef public object body_path          # client_body_temp_path
    cdef public uint32_t next_conditions
    cdef public uint32_t next_tries
    cdef public uint32_t next_timeout_ms
    cdef public Template method           # proxy_method, or None
    cdef public Template body             # proxy_set_body, or None
    cdef public Template bind             # proxy_bind, or None
    cdef public bint so_keepalive
    cdef public int receive_bytes         # proxy_socket_rcvbuf, 0: the system's
    cdef public int send_bytes            # proxy_socket_sndbuf
    cdef public uint64_t limit_rate
    cdef public Template limit_rate_text
    # answer
    cdef public list hints                # early_hints: Templates, one must say yes; or None
    cdef public uint64_t hidden           # by FieldId
    cdef public frozenset hidden_names    # lower case, names without an id
    cdef public uint64_t obeyed           # by FieldId: X-Accel-…, not in proxy_ignore_headers
    cdef public object redirects          # callable(request, value, is_refresh) → bytes or None
    cdef public object cookie_rules       # the same for Set-Cookie
    # request
    cdef HeaderOp* ops
    cdef uint32_t n_ops
    cdef uint64_t replaced                # by FieldId: made by ops or by us
    cdef frozenset replaced_names         # lower case, names without an id
    cdef list kept


# Write the request line and fields for this peer. Bytes written; NO_MEMORY: does not fit;
# another fault. Sets *length to the body bytes announced (-1: chunked).
cdef int write_request_head(
    ProxySettings s, Request r, char* out, size_t cap, int64_t* length
) noexcept
# The same as a header block of HTTP/2, in room that is twice as large as the request's target, and
# more. *length is -1 where the body's end is not known yet.
cdef int write_request_block(
    ProxySettings s, Request r, bint is_tls, char* out, size_t cap, int64_t* length
) noexcept
# Mark fields of r.answer that the client does not get, and rewrite what points at the peer.
cdef int shape_answer(ProxySettings s, Request r) noexcept

# Does r want the early hints in r.answer? What is hidden of answers is hidden in them, too.
cdef bint wants_hints(ProxySettings s, Request r) noexcept
# Obey X-Accel-Buffering and -Limit-Rate of r.answer; the value of X-Accel-Redirect (n is 0
# without one) is for the caller.
cdef Str obey_accel(ProxySettings s, Request r) noexcept
# Keep what an X-Accel-Redirect takes along (nginx: Content-Type, Set-Cookie, …) among r.out.
cdef int keep_for_redirect(Request r) noexcept

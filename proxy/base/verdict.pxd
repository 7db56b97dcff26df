# What a stage answers, and the numbers of every fault inside compiled code.
#
# proxy/faults.py holds the table of the same numbers: whose fault, retry, status.
# A fault is negative, so that one comparison tells it from a verdict.

cdef enum Verdict:
    GO = 0        # next stage
    PARK = 1      # somebody holds this request and will resume it
    DONE = 2      # an answer exists
    REROUTE = 3   # the URI changed: back to route, bounded
    STATUS = 5    # r.status is decided; its page answers, or what error_page says
    REENTER = 4   # the location changed (a named one): on with its rewrite and admit

cdef enum FaultCode:
    # the client's fault
    BAD_REQUEST = -1              # 400: head, framing or target cannot be understood
    URI_TOO_LARGE = -2            # 414
    HEAD_TOO_LARGE = -3           # 494 inside, 400 on the wire (nginx)
    BODY_TOO_LARGE = -4           # 413
    HEAD_TIMEOUT = -5             # client_header_timeout: 408
    BODY_TIMEOUT = -6             # client_body_timeout: 408
    SEND_TIMEOUT = -7             # send_timeout: close
    CLIENT_GONE = -8              # 499
    BAD_VERSION = -9              # 505
    NOT_IMPLEMENTED = -10         # 501: a transfer coding that we do not know
    TOO_MANY_FIELDS = -11         # max_headers: 400
    BAD_CHUNK = -12               # 400: chunked body malformed
    PLAIN_ON_TLS = -13            # 497 inside, 400 on the wire
    # the upstream's fault
    UPSTREAM_REFUSED = -32        # connect failed: 502
    UPSTREAM_CONNECT_TIMEOUT = -33  # proxy_connect_timeout: 504
    UPSTREAM_SEND_TIMEOUT = -34   # proxy_send_timeout: 504
    UPSTREAM_READ_TIMEOUT = -35   # proxy_read_timeout: 504
    UPSTREAM_CLOSED = -36         # closed or reset before a whole head: 502
    UPSTREAM_BAD_HEAD = -37       # what it sent is no HTTP: 502
    UPSTREAM_HEAD_TOO_LARGE = -38  # does not fit proxy_buffer_size: 502
    UPSTREAM_CUT = -39            # died inside the body: cut visibly
    NO_LIVE_UPSTREAM = -40        # 502
    UPSTREAM_STATUS = -41         # a status that proxy_next_upstream names
    UPSTREAM_BAD_CHUNK = -42      # 502, or cut visibly
    UPSTREAM_NOT_RESOLVED = -43   # 502
    # a function's
    QUEUE_FULL = -44              # queue size= or bytes=: 503
    QUEUE_TIMEOUT = -45           # queue wait=: 504
    START_FAILED = -46            # no replica could be started: 502
    FUNCTION_TIMEOUT = -47        # timeout, until the answer's end: 504
    # ours
    INTERNAL = -64                # 500
    NO_MEMORY = -65               # 500
    DISK_FULL = -66               # 500: the spool could not be written
    REDIRECT_LOOP = -67           # 500: more than 10 internal redirects
    FORBIDDEN = -68               # 403
    NOT_FOUND = -69               # 404
    NOT_ALLOWED = -70             # 405
    LIMITED = -71                 # limit_req / limit_conn: their status directive
    UNAUTHORIZED = -72            # 401

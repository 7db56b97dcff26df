# A Request that Python can make from bytes, and ask: for tests of variables and of rewriting.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from proxy.base._arena cimport take
from proxy.base._client cimport Client
from proxy.base._request cimport Attempt, Location, Request, Server
from proxy.base.head cimport Field, span
from proxy.base.span cimport Str, of_bytes, text, to_bytes
from proxy.variables._variables cimport (
    Template, capture, evaluate, find_named, find_number, find_value, match_regex, Regex)
from proxy.wire._h1 cimport Limits, begin_head, read_request_head, read_response_head

import time


cdef enum:
    FIELDS = 100


cdef class Probe:
    """A request as it stands after its head was read and its target normalised.

    head: bytes of the whole head; uri: the normalised path when it differs from the target's;
    client: the client's address; sub: a Probe whose sub-request this is.
    """
    cdef public Request request
    cdef Request r
    cdef bytes head
    cdef bytes answer
    cdef list held
    cdef Field[100] fields
    cdef Field[100] answer_fields

    def __init__(self, bytes head=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", *, uri=None,
                 client="127.0.0.1:4711", server="localhost", bint is_tls=False, main=None):
        cdef Limits limits
        cdef Str path
        cdef Str query
        cdef uint32_t i
        cdef int rc
        cdef bytes made
        cdef Client c
        self.held = []
        self.head = head
        self.r = self.request = Request()
        self.r.begin(None, None)
        memset(&limits, 0, sizeof(limits))
        limits.max_line = limits.max_head = 1 << 20
        limits.ignore_invalid = 1
        begin_head(&self.r.head, self.fields, FIELDS)
        rc = read_request_head(&self.r.head, head, <uint32_t>len(head), &limits)
        if rc <= 0:
            raise ValueError(f"no head: {rc}")
        self.r.head.base = <char*><const char*>head
        self.r.received_head = self.r.head.size
        self.r.method = self.r.head.method
        self.r.target = span(&self.r.head, self.r.head.target, self.r.head.target_n)
        path = span(&self.r.head, self.r.head.path, self.r.head.path_n)
        query = text(path.p, 0)
        for i in range(path.n):
            if path.p[i] == c"?":
                query = text(path.p + i + 1, path.n - i - 1)
                path.n = i
                break
        self.r.uri = path
        self.r.args = query
        if uri is not None:
            self.r.uri = self._hold(uri)
        made = to_bytes(span(&self.r.head, self.r.head.host, self.r.head.host_n))
        self.r.host = self._hold(made.partition(b":")[0].lower())
        self.r.server = Server(server.encode())
        self.r.location = Location(b"/")
        if client is not None:
            c = Client()
            made = client.encode()
            c.put_address(of_bytes(made))
            c.peer = c.address
            c.is_tls = is_tls
            c.serial = 7
            c.requests = 1
            self.r.client = c
        if main is not None:
            self.r.main = (<Probe>main).r

    def __dealloc__(self):
        if self.r is not None:
            self.r.end()

    cdef Str _hold(self, bytes b):
        self.held.append(b)
        return of_bytes(b)

    def put_answer(self, bytes head):
        """What the upstream answered, as a head."""
        cdef Limits limits
        memset(&limits, 0, sizeof(limits))
        limits.max_line = limits.max_head = 1 << 20
        self.answer = head
        begin_head(&self.r.answer, self.answer_fields, FIELDS)
        if read_response_head(&self.r.answer, head, <uint32_t>len(head), &limits, False) <= 0:
            raise ValueError("no head")
        self.r.answer.base = <char*><const char*>head
        self.r.status = self.r.answer.status

    def add_field(self, bytes name, bytes value):
        """A field of our own answer."""
        self.r.add_field(self._hold(name), self._hold(value), 0)

    def add_attempt(self, bytes peer, uint16_t status=0, connect_ms=-1, header_ms=-1,
                    response_ms=-1, uint64_t length=0, bint is_redirect=False):
        """One upstream that was tried."""
        cdef Attempt* a = self.r.add_attempt(of_bytes(peer))
        a.status = status
        a.connect_ms = connect_ms
        a.header_ms = header_ms
        a.response_ms = response_ms
        a.length = length
        a.is_redirect = is_redirect

    def keep_head(self):
        """Move the head as the fast path does, and spoil the bytes it came from."""
        if self.r.keep_head() < 0:
            raise MemoryError
        memset(<char*><const char*>self.head, c"#", len(self.head))

    def evaluate(self, Template template not None):
        """bytes of the template; raises ArithmeticError(fault)."""
        cdef Str out
        cdef int rc = evaluate(template, self.r, &out)
        if rc < 0:
            raise ArithmeticError(rc)
        return to_bytes(out)

    def value(self, str name):
        """bytes of a variable, None when it is not found."""
        cdef Str out
        cdef int rc = find_value(self.r, find_number(name.encode()), &out)
        if rc < 0:
            raise ArithmeticError(rc)
        return to_bytes(out) if rc else None

    def named(self, str name):
        """The same by a name that no plan needs to know."""
        cdef Str out
        cdef int rc = find_named(self.r, name.encode(), &out)
        if rc < 0:
            raise ArithmeticError(rc)
        return to_bytes(out) if rc else None

    def match(self, Regex regex not None, bytes subject):
        """Does it match? Its groups are $1 … and its names from now on."""
        return match_regex(regex, self.r, self._hold(subject)) == 1

    def capture(self, uint32_t number):
        return to_bytes(capture(self.r, number))

    def measure(self, Template template not None, uint32_t times):
        """Nanoseconds that one evaluation takes, arena and cached values let go each time."""
        cdef Str out
        cdef char* at = <char*>take(&self.r.arena, 3000)
        cdef int rc = 0
        start = time.perf_counter_ns()
        for _ in range(times):
            self.r.values = NULL
            self.r.value_states = NULL
            self.r.arena.at = at
            rc |= evaluate(template, self.r, &out)
        if rc < 0:
            raise ArithmeticError(rc)
        return (time.perf_counter_ns() - start) / times

    @property
    def uri(self):
        return to_bytes(self.r.uri)

    @property
    def args(self):
        return to_bytes(self.r.args)

    @property
    def status(self):
        return self.r.status

    @property
    def text(self):
        return to_bytes(self.r.text)

    @property
    def is_uri_in_proxy(self):
        return bool(self.r.uri_in_proxy)

    @property
    def location(self):
        return self.r.location

    @property
    def fields(self):
        """[(name, value)] of our own answer."""
        return [(to_bytes(self.r.out[i].name), to_bytes(self.r.out[i].value))
                for i in range(self.r.n_out)]

# Requests are used again, each with its Stream: of HTTP/1.1, of HTTP/2, or of HTTP/3.

cdef Request new_request(Worker w):
    cdef Request r
    if w.free_requests:
        r = <Request>w.free_requests.pop()
        r.begin(w, r.stream)
    else:
        r = Request.__new__(Request)
        r.begin(w, H1Stream.__new__(H1Stream))
    return r


cdef Request new_request_h2(Worker w):
    cdef Request r
    cdef H2Stream s
    if w.free_requests_h2:
        r = <Request>w.free_requests_h2.pop()
        r.begin(w, r.stream)
    else:
        r = Request.__new__(Request)
        s = H2Stream.__new__(H2Stream)
        s.client = Client.__new__(Client)
        s.timer = StreamTimer.__new__(StreamTimer)
        s.timer.stream = <PyObject*>s
        r.begin(w, s)
    return r


cdef Request new_request_h3(Worker w):
    cdef Request r
    cdef H3Stream s
    if w.free_requests_h3:
        r = <Request>w.free_requests_h3.pop()
        r.begin(w, r.stream)
    else:
        r = Request.__new__(Request)
        s = H3Stream.__new__(H3Stream)
        s.client = Client.__new__(Client)
        s.timer = H3Timer.__new__(H3Timer)
        s.timer.stream = <PyObject*>s
        r.begin(w, s)
    return r


cdef void free_request(Worker w, Request r) noexcept:
    cdef ClientStream s = <ClientStream>r.stream
    w.drop_out(s)
    if r.subs is not None:
        drop_subs(r)
    if r.asked != NULL:
        leave(w.waiting, r)
    if r.is_counted:
        w.stats.writing -= 1
    else:
        w.stats.reading -= 1
    r.end()
    s.give_back(w, r)

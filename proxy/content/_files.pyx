# Answers with files: index, types, conditions, ranges, try_files.
# nginx: ngx_http_static_module, ngx_http_index_module, ngx_http_try_files_module.
#
# A piece of 64 KiB is read at a time, or sendfile(2) takes it where the stream can. One feed
# never moves more than FEED_BYTES, so that a fast client does not hold the loop.

from cython cimport final
from libc.errno cimport (
    EACCES, EINTR, ELOOP, EMLINK, ENAMETOOLONG, ENOENT, ENOTDIR, errno,
)
from libc.string cimport memcmp, memcpy, strerror, strlen
from posix.unistd cimport pread

from proxy.base._arena cimport take
from proxy.base._clock cimport clock
from proxy.base._report cimport R_ALERT, R_CRIT, R_ERROR, report, report_about
from proxy.base._request cimport BLOCKED, put_body
from proxy.base.head cimport (
    F_ACCEPT_RANGES, F_CONTENT_RANGE, F_ETAG, F_LAST_MODIFIED, M_GET, M_HEAD, M_POST,
)
from proxy.base.span cimport text, to_bytes
from proxy.base.verdict cimport (
    DONE, FORBIDDEN, GO, INTERNAL, NO_MEMORY, NOT_ALLOWED, NOT_FOUND, NOT_IMPLEMENTED, STATUS,
)
from proxy.content._conditions cimport RANGES_BAD, RANGES_FOUND, check_conditions, find_ranges
from proxy.content._error_page cimport enter_named
from proxy.content._open cimport KIND_FILE, KIND_FOLDER, open_path
from proxy.content._paths cimport Path, find_root, join_path, map_path
from proxy.content._redirect cimport redirect_inside, redirect_to_folder, split_args
from proxy.content._settings cimport (
    BY_ALIAS, BY_PATTERN, BY_ROOT, ContentSettings, TryFiles, type_of,
)
from proxy.variables._variables cimport Template, evaluate
from proxy.wire._date cimport read_date
from proxy.wire._h1write cimport put_bytes, put_decimal, put_str

cdef enum:
    PIECE_BYTES = 64 * 1024
    FEED_BYTES = 1024 * 1024
    SEND_FILE_LEAST = 64 * 1024
    PART_HEAD_BYTES = 160         # of a part's head, beside its type
    TYPE_BYTES = 1024             # of the type in a part's head; a longer one is left out

cdef char[PIECE_BYTES] piece      # read into and sent at once: nobody keeps it
cdef uint64_t boundaries = 0


# -- the body ----------------------------------------------------------------------------

cdef inline char* put_boundary(char* at, uint64_t boundary) noexcept:
    """20 digits."""
    cdef int i
    for i in range(20):
        at[19 - i] = <char>(48 + boundary % 10)
        boundary //= 10
    return at + 20


@final
cdef class FileSource(Source):
    cdef int put_part_head(self, char* out, uint32_t i) noexcept:
        """The head of part i (RFC 9110 §14.6); bytes written."""
        cdef char* at = put_bytes(out, b"\r\n--", 4)
        at = put_boundary(at, self.boundary)
        if self.type.n:
            at = put_str(put_bytes(at, b"\r\nContent-Type: ", 16), self.type)
        at = put_bytes(at, b"\r\nContent-Range: bytes ", 23)
        at = put_decimal(at, <uint64_t>self.ranges[i].at)
        at[0] = c"-"
        at = put_decimal(at + 1, <uint64_t>self.ranges[i].end - 1)
        at[0] = c"/"
        at = put_decimal(at + 1, <uint64_t>self.file.size)
        return <int>(put_bytes(at, b"\r\n\r\n", 4) - out)

    cdef int feed(self, Request r) noexcept:
        cdef char[PART_HEAD_BYTES + TYPE_BYTES] head
        cdef Range* part
        cdef int64_t budget = FEED_BYTES
        cdef int64_t allowed
        cdef int64_t n
        cdef int64_t before
        cdef char* at
        cdef int rc
        while self.at < self.n:
            part = &self.ranges[self.at]
            if self.boundary and not self.is_told:
                self.is_told = True
                n = self.put_part_head(head, self.at)
                rc = put_body(r, head, <size_t>n)
                if rc:
                    return rc
            while part.at < part.end:
                if budget <= 0:                  # others come first
                    return GO
                allowed = r.stream.allowance(r)
                if allowed <= 0:                 # limit_rate: it will be fed again
                    return BLOCKED
                n = part.end - part.at
                if n > allowed:
                    n = allowed
                if n >= SEND_FILE_LEAST and r.filters is None:
                    before = part.at
                    rc = r.stream.send_file(r, self.file.fd, &part.at, n if n < budget else budget)
                    budget -= part.at - before
                    if rc == 0:
                        continue
                    if rc != NOT_IMPLEMENTED:
                        return rc
                if n > PIECE_BYTES:
                    n = PIECE_BYTES
                n = pread(self.file.fd, piece, <size_t>n, part.at)
                if n < 0 and errno == EINTR:
                    continue
                if n <= 0:                       # shorter than it was: the answer cannot be whole
                    return INTERNAL
                part.at += n
                budget -= n
                rc = put_body(r, piece, <size_t>n)
                if rc:
                    return rc
            self.at += 1
            self.is_told = False
        if self.boundary:
            at = put_boundary(put_bytes(head, b"\r\n--", 4), self.boundary)
            at = put_bytes(at, b"--\r\n", 4)
            self.boundary = 0
            rc = put_body(r, head, <size_t>(at - head))
            if rc:
                return rc
        return DONE


# -- faults ------------------------------------------------------------------------------

cdef int tell_failed(
    ContentSettings s, Request r, const char* what, Path path, const char* how, int error
) noexcept:
    """Report `what "path" how (errno: …)`; answers the fault."""
    cdef int fault = fault_of(error)
    cdef char[1024] line
    cdef char* at = line
    cdef const char* words = strerror(error)
    cdef uint32_t n = path.n if path.n < 700 else 700
    if fault == NOT_FOUND and not s.tells_not_found:
        return fault
    at = put_bytes(at, what, <uint32_t>strlen(what))
    at[0] = c'"'
    at = put_bytes(at + 1, path.p, n)
    at[0] = c'"'
    at = put_bytes(at + 1, how, <uint32_t>strlen(how))
    at = put_bytes(at, b" (", 2)
    at = put_decimal(at, <uint64_t>error)
    at = put_bytes(at, b": ", 2)
    n = <uint32_t>strlen(words)
    at = put_bytes(at, words, n if n < 64 else 64)
    at[0] = c")"
    report(R_CRIT if fault == INTERNAL else R_ERROR, r, text(line, at + 1 - line))
    return fault


cdef int fault_of(int error) noexcept:
    if error == ENOENT or error == ENOTDIR or error == ENAMETOOLONG:
        return NOT_FOUND
    if error == EACCES or error == ELOOP or error == EMLINK:
        return FORBIDDEN
    return INTERNAL


# -- index -------------------------------------------------------------------------------

cdef int find_index(ContentSettings s, Request r) noexcept:
    cdef Path path
    cdef Path whole
    cdef Str name
    cdef Str uri
    cdef OpenFile f
    cdef char* p
    cdef uint32_t i
    cdef bint is_folder_known = False
    cdef int rc
    for i in range(<uint32_t>len(s.index)):
        rc = evaluate(<Template>s.index[i], r, &name)
        if rc < 0:
            return rc
        if name.n and name.p[0] == c"/":
            return redirect_inside(r, name, r.args)
        rc = map_path(s, r, 0, &path)
        if rc == 0:
            rc = join_path(r, text(path.p, path.n), name, &whole)
        if rc < 0:
            return rc
        f = open_path(whole.p, whole.n, True, s.cache)
        if f.error == 0:
            p = <char*>take(&r.arena, r.uri.n + name.n + 1)
            if p == NULL:
                return NO_MEMORY
            memcpy(p, r.uri.p, r.uri.n)
            memcpy(p + r.uri.n, name.p, name.n)
            uri = text(p, r.uri.n + name.n)
            return redirect_inside(r, uri, r.args)
        if f.error == ENOTDIR or f.error == ENAMETOOLONG or f.error == EACCES:
            return tell_failed(s, r, b"", whole,
                               b" is forbidden" if f.error == EACCES else b" is not found", f.error)
        if f.error == ELOOP or f.error == EMLINK:
            return FORBIDDEN
        if not is_folder_known:
            rc = check_folder(s, r, path, whole)
            if rc < 0:
                return rc
            is_folder_known = True
        if f.error != ENOENT:
            return tell_failed(s, r, b"stat() ", whole, b" failed", f.error)
    rc = map_path(s, r, 0, &path)
    if rc < 0:
        return rc
    report_about(R_ERROR, r, b'directory index of "', text(path.p, path.n), b'" is forbidden')
    return FORBIDDEN


cdef int check_folder(ContentSettings s, Request r, Path path, Path file) noexcept:
    """Nothing found in it: is it there at all?"""
    cdef OpenFile f
    cdef uint32_t n = path.n
    if n > 1 and path.p[n - 1] == c"/":
        n -= 1
        path.p[n] = 0
    f = open_path(path.p, n, True, s.cache)
    if f.error == ENOENT:
        return tell_failed(s, r, b"", file, b" is not found", ENOENT)
    if f.error == EACCES:                        # the index file was looked for in it: enterable
        return 0
    if f.error:
        return tell_failed(s, r, b"stat() ", path, b" failed", f.error)
    if f.kind == KIND_FOLDER:
        return 0
    report_about(R_ALERT, r, b'"', text(path.p, n), b'" is not a directory')
    return INTERNAL


# -- files -------------------------------------------------------------------------------

cdef int answer_file(Request r) noexcept:
    cdef ContentSettings s = <ContentSettings>r.location.content
    cdef Path path
    cdef OpenFile f
    cdef int rc
    if r.method != M_GET and r.method != M_HEAD and r.method != M_POST:
        return NOT_ALLOWED
    if r.uri.n == 0:
        return INTERNAL
    if r.uri.p[r.uri.n - 1] == c"/":
        return find_index(s, r)
    rc = map_path(s, r, 0, &path)
    if rc < 0:
        return rc
    f = open_path(path.p, path.n, False, s.cache)
    if f.error:
        return tell_failed(s, r, b"open() ", path, b" failed", f.error)
    if f.kind == KIND_FOLDER:
        return redirect_to_folder(r, r.uri)
    if f.kind != KIND_FILE:
        report_about(R_CRIT, r, b'"', text(path.p, path.n), b'" is not a regular file')
        return NOT_FOUND
    if r.method == M_POST:
        return NOT_ALLOWED
    return tell_file(s, r, f)


cdef char* put_hex(char* at, uint64_t value) noexcept:
    cdef int shift = 60
    cdef uint64_t digit
    while shift and value >> shift == 0:
        shift -= 4
    while shift >= 0:
        digit = value >> shift & 15
        at[0] = <char>(48 + digit if digit < 10 else 87 + digit)
        at += 1
        shift -= 4
    return at


cdef int add_etag(Request r, OpenFile f, Str* etag) noexcept:
    cdef char* p = <char*>take(&r.arena, 40)
    cdef char* at
    if p == NULL:
        return NO_MEMORY
    p[0] = c'"'
    at = put_hex(p + 1, <uint64_t>f.mtime_s)
    at[0] = c"-"
    at = put_hex(at + 1, <uint64_t>f.size)
    at[0] = c'"'
    etag[0] = text(p, at + 1 - p)
    return 0 if r.add_field(text("ETag", 4), etag[0], F_ETAG) != NULL else NO_MEMORY


cdef int tell_file(ContentSettings s, Request r, OpenFile f) noexcept:
    """The head of a file's answer, and what feeds its body."""
    cdef Str etag = text("", 0)
    cdef uint16_t n_before = r.n_out
    cdef FileSource source
    cdef int rc
    r.status = r.error_status if r.error_status else 200
    r.length = f.size
    r.last_modified = f.mtime_s
    r.content_type = type_of(s, r.uri)
    if s.has_etag and add_etag(r, f, &etag) < 0:
        return NO_MEMORY
    if r.status == 200 and r is r.main:
        rc = check_conditions(r, etag, s.since)
        if rc == 304:
            r.status = 304
            r.content_type.n = 0
            r.text.n = 0
            return DONE
        if rc == 412:
            r.n_out = n_before
            r.last_modified = -1
            r.status = 412
            return STATUS
    source = FileSource.__new__(FileSource)
    source.file = f
    source.n = 1
    source.ranges = <Range*>take(&r.arena, sizeof(Range))
    if source.ranges == NULL:
        return NO_MEMORY
    source.ranges.at = 0
    source.ranges.end = f.size
    r.source = source
    return DONE


cdef int cut_ranges(Request r) noexcept:
    cdef ContentSettings s
    cdef FileSource source
    cdef Range* ranges = NULL
    cdef Str etag = text("", 0)
    cdef int64_t changed = r.last_modified
    cdef uint32_t n = 0
    cdef uint16_t i
    cdef int rc
    if r.status != 200 or r.length < 0 or r.filters is not None or r is not r.main or (
            type(r.source) is not FileSource):
        return 0
    s = <ContentSettings>r.location.content
    source = <FileSource>r.source
    if s.max_ranges == 0:
        return 0
    for i in range(r.n_out):                     # add_header may have said otherwise
        if r.out[i].id == F_ETAG:
            etag = r.out[i].value
        elif r.out[i].id == F_LAST_MODIFIED:
            changed = read_date(r.out[i].value)
    rc = find_ranges(r, etag, changed, r.length, s.max_ranges, &ranges, &n)
    if rc < 0:
        return rc
    if rc == RANGES_FOUND:
        source.ranges = ranges
        source.n = n
        return tell_ranges(r, source)
    if rc == RANGES_BAD:
        r.source = None
        r.n_out = 0
        r.last_modified = -1
        r.status = 416
        if add_content_range(r, NULL, source.file.size) < 0:
            return NO_MEMORY
        return STATUS
    if r.add_field(text("Accept-Ranges", 13), text("bytes", 5), F_ACCEPT_RANGES) == NULL:
        return NO_MEMORY
    return 0


cdef int add_content_range(Request r, Range* part, int64_t size) noexcept:
    """`bytes 0-499/1234`, or `bytes */1234` without a part."""
    cdef char* p = <char*>take(&r.arena, 80)
    cdef char* at
    if p == NULL:
        return NO_MEMORY
    at = put_bytes(p, b"bytes ", 6)
    if part == NULL:
        at[0] = c"*"
        at += 1
    else:
        at = put_decimal(at, <uint64_t>part.at)
        at[0] = c"-"
        at = put_decimal(at + 1, <uint64_t>part.end - 1)
    at[0] = c"/"
    at = put_decimal(at + 1, <uint64_t>size)
    if r.add_field(text("Content-Range", 13), text(p, at - p), F_CONTENT_RANGE) == NULL:
        return NO_MEMORY
    return 0


cdef int tell_ranges(Request r, FileSource source) noexcept:
    global boundaries
    cdef char[PART_HEAD_BYTES + TYPE_BYTES] head
    cdef char* p
    cdef char* at
    cdef uint32_t i
    r.status = 206
    if source.n == 1:
        r.length = source.ranges.end - source.ranges.at
        return add_content_range(r, source.ranges, source.file.size)
    if boundaries == 0:
        boundaries = <uint64_t>clock.wall_s * 1000003
    boundaries += 1
    source.boundary = boundaries
    if r.content_type.n <= TYPE_BYTES:
        source.type = r.content_type
    r.length = 28
    for i in range(source.n):
        r.length += source.put_part_head(head, i) + source.ranges[i].end - source.ranges[i].at
    p = <char*>take(&r.arena, 64)
    if p == NULL:
        return NO_MEMORY
    at = put_boundary(put_bytes(p, b"multipart/byteranges; boundary=", 31), source.boundary)
    r.content_type = text(p, at - p)
    return 0


# -- try_files ---------------------------------------------------------------------------

cdef int try_files(Request r) noexcept:
    cdef ContentSettings s = <ContentSettings>r.location.content
    cdef TryFiles t = s.tries
    cdef Path path
    cdef Str root
    cdef Str name
    cdef Str args
    cdef OpenFile f
    cdef uint32_t i
    cdef bint is_folder
    cdef int rc
    for i in range(<uint32_t>len(t.paths)):
        rc = find_root(s, r, &root)
        if rc == 0:
            rc = evaluate(<Template>t.paths[i], r, &name)
        if rc < 0:
            return rc
        is_folder = <object>t.is_folder[i]
        if s.rooted == BY_ALIAS and not (<Template>t.paths[i]).is_constant and (
                name.n >= s.alias_n and r.uri.n >= s.alias_n
                and memcmp(name.p, r.uri.p, s.alias_n) == 0):
            name.p += s.alias_n
            name.n -= s.alias_n
        rc = join_path(r, root, name, &path)
        if rc < 0:
            return rc
        f = open_path(path.p, path.n, True, s.cache)
        if f.error or (f.kind == KIND_FOLDER) != is_folder:
            continue
        return take_tried(s, r, text(path.p + path.root_n, path.n - path.root_n), is_folder)
    if t.last is None:
        r.status = t.status
        return STATUS
    rc = evaluate(t.last, r, &name)
    if rc < 0:
        return rc
    if name.n and name.p[0] == c"@":
        return enter_named(r, s.named, to_bytes(name))
    split_args(name, &name, &args)
    return redirect_inside(r, name, args)


cdef int take_tried(ContentSettings s, Request r, Str name, bint is_folder) noexcept:
    """The URI becomes that of the file found."""
    cdef char* p
    if s.rooted == BY_ROOT:
        r.uri = name
    elif s.rooted == BY_PATTERN:
        if not is_folder:
            r.uri = name
            r.alias_takes_uri = 1
    elif r.uri.n >= s.alias_n:
        p = <char*>take(&r.arena, s.alias_n + name.n + 1)
        if p == NULL:
            return NO_MEMORY
        memcpy(p, r.uri.p, s.alias_n)
        memcpy(p + s.alias_n, name.p, name.n)
        r.uri = text(p, s.alias_n + name.n)
    return GO

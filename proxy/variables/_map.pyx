# Variables that the conf computes: map, split_clients, geo. Built by freeze.py, read per request.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from proxy.base._arena cimport take
from proxy.base._client cimport Address, read_address
from proxy.base._request cimport Request
from proxy.base.head cimport F_IS_INVALID, F_X_FORWARDED_FOR, value_of
from proxy.base.span cimport Str, lower, of_bytes, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._variables cimport (
    NO_CACHE, Getter, Regex, Template, define, evaluate, find_value, keep_alive, match_regex)


cdef enum:
    HOST_MAX = 255            # a longer value is no host name: wildcards are not tried


def define_map(name, Map it not None, bint is_volatile=False):
    """Make `$name` answer what `it` finds. Raises ConfError for a name that is a room's own."""
    _define(name, get_map, it, is_volatile)


def define_split(name, Split it not None):
    """Make `$name` the part that the hash of a text falls into."""
    _define(name, get_split, it, False)


def define_geo(name, Geo it not None, bint is_volatile=False):
    """Make `$name` the value of the network that an address lies in."""
    _define(name, get_geo, it, is_volatile)


cdef int _define(name, Getter get, it, bint is_volatile) except -1:
    keep_alive(it)
    define(name.encode("utf-8", "surrogateescape"), get, <uint64_t><PyObject*>it,
           NO_CACHE if is_volatile else 0)
    return 0


# -- map ---------------------------------------------------------------------------------

@final
cdef class Map:
    """What a map block holds. Keys are lower case bytes, values Templates.

    exact, heads ("*.x" → "x"), tails ("x.*" → "x"): dicts; regexes: [(Regex, Template)], in
    order; default: Template. nginx: ngx_http_map_module, ngx_hash_find_combined.
    """
    cdef Template source
    cdef dict exact
    cdef dict heads
    cdef dict tails
    cdef list patterns
    cdef list answers
    cdef Template default
    cdef bint has_hostnames

    def __init__(self, Template source not None, dict exact not None, dict heads not None,
                 dict tails not None, list regexes not None, Template default not None,
                 bint has_hostnames):
        self.source = source
        self.exact = exact
        self.heads = heads
        self.tails = tails
        self.patterns = [regex for regex, _ in regexes]
        self.answers = [answer for _, answer in regexes]
        self.default = default
        self.has_hostnames = has_hostnames


cdef PyObject* look_up(dict table, const char* p, Py_ssize_t n) noexcept:
    cdef bytes key
    try:
        key = PyBytes_FromStringAndSize(p, n)
    except MemoryError:
        return NULL
    return PyDict_GetItem(table, key)


cdef PyObject* find_wildcard(Map it, const char* p, uint32_t n) noexcept:
    # the longest known end goes first, then the longest known beginning
    cdef PyObject* found
    cdef uint32_t i
    if it.heads:
        for i in range(n):
            if p[i] == c"." and i + 1 < n:
                found = look_up(it.heads, p + i + 1, n - i - 1)
                if found != NULL:
                    return found
    if it.tails:
        i = n
        while i > 1:
            i -= 1
            if p[i] == c".":
                found = look_up(it.tails, p, i)
                if found != NULL:
                    return found
    return NULL


cdef int get_map(Request r, uint64_t data, Str* out) noexcept:
    cdef Map it = <Map><PyObject*>data
    cdef Str subject
    cdef char* low
    cdef PyObject* found
    cdef Py_ssize_t i
    cdef uint32_t k
    cdef int rc = evaluate(it.source, r, &subject)
    if rc < 0:
        return rc
    if it.has_hostnames and subject.n and subject.p[subject.n - 1] == c".":
        subject.n -= 1
    low = <char*>take(&r.arena, subject.n)
    if low == NULL:
        return NO_MEMORY
    for k in range(subject.n):
        low[k] = <char>lower(<uint8_t>subject.p[k])
    found = look_up(it.exact, low, subject.n)
    if found == NULL and it.has_hostnames and 0 < subject.n <= HOST_MAX:
        found = find_wildcard(it, low, subject.n)
    if found == NULL and subject.n:
        for i in range(len(it.patterns)):
            rc = match_regex(<Regex>it.patterns[i], r, subject)
            if rc < 0:
                return rc
            if rc:
                found = <PyObject*>it.answers[i]
                break
    if found == NULL:
        found = <PyObject*>it.default
    rc = evaluate(<Template>found, r, out)
    return rc if rc < 0 else 1


# -- split_clients -----------------------------------------------------------------------

cdef uint32_t murmur_hash2(const char* s, uint32_t n) noexcept nogil:
    """MurmurHash2 (32 bit, seed 0) of n bytes: split_clients must part as nginx does."""
    cdef const uint8_t* p = <const uint8_t*>s
    cdef uint32_t h = n
    cdef uint32_t k
    while n >= 4:
        k = p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24
        k *= <uint32_t>0x5bd1e995
        k ^= k >> 24
        k *= <uint32_t>0x5bd1e995
        h = h * <uint32_t>0x5bd1e995 ^ k
        p += 4
        n -= 4
    if n == 3:
        h ^= <uint32_t>p[2] << 16
    if n >= 2:
        h ^= <uint32_t>p[1] << 8
    if n >= 1:
        h = (h ^ p[0]) * <uint32_t>0x5bd1e995
    h = (h ^ h >> 13) * <uint32_t>0x5bd1e995
    return h ^ h >> 15


@final
cdef class Split:
    """`parts`: [(end, value)]; a hash below end belongs to the part, end 0 takes the rest."""
    cdef Template source
    cdef list values
    cdef uint32_t* ends
    cdef uint32_t n

    def __init__(self, Template source not None, list parts not None):
        self.source = source
        self.n = <uint32_t>len(parts)
        self.ends = <uint32_t*>malloc((self.n + 1) * sizeof(uint32_t))
        if self.ends == NULL:
            raise MemoryError
        self.values = [value for _, value in parts]
        for i, (end, _) in enumerate(parts):
            self.ends[i] = end

    def __dealloc__(self):
        free(self.ends)


cdef int get_split(Request r, uint64_t data, Str* out) noexcept:
    cdef Split it = <Split><PyObject*>data
    cdef Str subject
    cdef uint32_t hash
    cdef uint32_t i
    cdef int rc = evaluate(it.source, r, &subject)
    if rc < 0:
        return rc
    hash = murmur_hash2(subject.p, subject.n)
    for i in range(it.n):
        if hash < it.ends[i] or it.ends[i] == 0:
            out[0] = of_bytes(<bytes>it.values[i])
            return 1
    return 1


# -- geo ---------------------------------------------------------------------------------

cdef struct Range:
    uint8_t start[16]         # network order; an IPv4 address fills the first four
    uint8_t end[16]
    uint32_t value


cdef struct Ranges:
    Range* all                # sorted, none overlaps another
    uint32_t n


cdef int fill(Ranges* ranges, list rows, list values, dict numbers, int size) except -1:
    # rows: sorted (start, end, value bytes), numbers of `size` bytes
    cdef Range* it
    cdef bytes start
    cdef bytes end
    cdef int k
    ranges.all = <Range*>malloc((len(rows) + 1) * sizeof(Range))
    if ranges.all == NULL:
        raise MemoryError
    ranges.n = <uint32_t>len(rows)
    for i, (first, last, value) in enumerate(rows):
        if value not in numbers:
            numbers[value] = len(values)
            values.append(value)
        it = &ranges.all[i]
        start = first.to_bytes(size, "big")
        end = last.to_bytes(size, "big")
        for k in range(size):
            it.start[k] = start[k]
            it.end[k] = end[k]
        it.value = numbers[value]
    return 0


cdef Range* search(const Ranges* ranges, const uint8_t* address, int size) noexcept:
    cdef uint32_t low = 0
    cdef uint32_t high = ranges.n
    cdef uint32_t middle
    while low < high:
        middle = (low + high) // 2
        if memcmp(ranges.all[middle].end, address, size) < 0:
            low = middle + 1
        else:
            high = middle
    if low < ranges.n and memcmp(ranges.all[low].start, address, size) <= 0:
        return &ranges.all[low]
    return NULL


@final
cdef class Geo:
    """Networks and their values: four, six are sorted, disjoint [(first, last, bytes)].

    number: of the variable that holds the address, -1 for the client's own; proxies: the same
    rows as (four, six) of those whose X-Forwarded-For is believed, or None.
    nginx: ngx_http_geo_module.
    """
    cdef int number
    cdef Ranges four
    cdef Ranges six
    cdef Ranges proxies4
    cdef Ranges proxies6
    cdef list values
    cdef bytes default
    cdef bint has_proxies
    cdef bint is_recursive

    def __init__(self, int number, list four not None, list six not None, bytes default not None,
                 proxies=None, bint is_recursive=False):
        cdef dict numbers = {}
        self.number = number
        self.values = []
        self.default = default
        fill(&self.four, four, self.values, numbers, 4)
        fill(&self.six, six, self.values, numbers, 16)
        if proxies is not None:
            self.has_proxies = True
            self.is_recursive = is_recursive
            fill(&self.proxies4, proxies[0], self.values, numbers, 4)
            fill(&self.proxies6, proxies[1], self.values, numbers, 16)

    def __dealloc__(self):
        free(self.four.all)
        free(self.six.all)
        free(self.proxies4.all)
        free(self.proxies6.all)


cdef uint8_t* MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
cdef uint8_t* NOWHERE = [0xFF, 0xFF, 0xFF, 0xFF]


cdef Range* find_network(const Ranges* four, const Ranges* six, const Address* a) noexcept:
    if a.binary_n == 4:
        return search(four, a.binary, 4)
    if a.binary_n == 16:
        if memcmp(a.binary, MAPPED, 12) == 0:
            return search(four, a.binary + 12, 4)
        return search(six, a.binary, 16)
    # no address at all is looked up as 255.255.255.255, as nginx does
    return search(four, NOWHERE, 4)


cdef bint step_back(Geo it, Str line, Address* a) noexcept:
    # One X-Forwarded-For value, read from its end. True: every address in it was a proxy's.
    cdef Address next
    cdef uint32_t end = line.n
    cdef uint32_t at
    while True:
        if find_network(&it.proxies4, &it.proxies6, a) == NULL:
            return False
        while end and line.p[end - 1] in (c" ", c",", c"\t"):
            end -= 1
        if end == 0:
            return True
        at = end
        while at and line.p[at - 1] not in (c" ", c",", c"\t"):
            at -= 1
        if read_address(text(line.p + at, end - at), &next) < 0:
            return False
        a[0] = next
        end = at
        if not it.is_recursive:
            return False


cdef int get_geo(Request r, uint64_t data, Str* out) noexcept:
    cdef Geo it = <Geo><PyObject*>data
    cdef Address a
    cdef Range* found
    cdef Str subject
    cdef int rc
    cdef int i
    a.binary_n = 0
    if it.number < 0:
        if r.client is not None:
            a = r.client.address
    else:
        rc = find_value(r, it.number, &subject)
        if rc < 0:
            return rc
        if rc == 0 or read_address(subject, &a) < 0:
            a.binary_n = 0
    if it.has_proxies and r.head.fields != NULL and a.binary_n:
        i = r.head.n_fields
        while i:
            i -= 1
            if r.head.fields[i].id == F_X_FORWARDED_FOR and (
                    not r.head.fields[i].flags & F_IS_INVALID):
                if not step_back(it, value_of(&r.head, &r.head.fields[i]), &a):
                    break
    found = find_network(&it.four, &it.six, &a)
    out[0] = of_bytes(<bytes>it.values[found.value] if found != NULL else it.default)
    return 1

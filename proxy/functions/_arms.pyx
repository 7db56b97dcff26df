# Which version of a function answers a request: tags, affinity, weights.
#
# A tag names a version outright, also one of weight 0 (Knative: an unknown tag is none). Else a
# client that is known again has a place among 10000, and its arm is whose place that is: no
# state, the same in all workers and gateways. Each arm but the first takes its places in an
# order of its own, the first one has the rest; so a weight that grows takes clients nearly
# only from the first, and all others stay. A client that is not known again gets the next of a
# smooth round robin: of every 100 requests exactly those that the weights say.

from cpython.list cimport PyList_GET_ITEM
from cython cimport final
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from proxy.base._arena cimport take
from proxy.base._client cimport address_binary
from proxy.base.span cimport is_equal, of_bytes, text, to_bytes
from proxy.base.verdict cimport NO_MEMORY
from proxy.upstream._balance cimport hash_more, mixed
from proxy.variables._lines cimport get_cookie, get_http
from proxy.variables._variables cimport find_known, find_value

cdef enum:
    STRIDE = 3819         # PLACES / golden ratio, and prime to PLACES

cdef bytes SERVING_TAG = b"knative_serving_tag"
cdef Str serving_tag = of_bytes(SERVING_TAG)
cdef bytes SET_COOKIE = b"Set-Cookie"
KNOWN = {"": BY_NOTHING, "cookie": BY_COOKIE, "header": BY_HEADER, "variable": BY_VARIABLE,
         "address": BY_ADDRESS}


cdef bytes field_name(str name):
    return name.encode().lower().replace(b"-", b"_")


@final
cdef class Affinity:
    """Of a Sticky (upstream/sticky.py)."""

    def __init__(self, sticky):
        self.known = KNOWN[sticky.kind]
        is_header = sticky.kind == "header"
        self.name = field_name(sticky.name) if is_header else sticky.name.encode()
        self.name_s = of_bytes(self.name)
        self.variable = find_known(self.name) if self.known == BY_VARIABLE else -1
        self.attributes = sticky.attributes.encode()
        if b"; Path=" not in self.attributes:
            self.attributes += b"; Path=/"
        self.tag_header = field_name(sticky.tag_header)
        self.tag_header_s = of_bytes(self.tag_header)
        self.tag_cookie = sticky.tag_cookie.encode()
        self.tag_cookie_s = of_bytes(self.tag_cookie)
        self.cookie = self.name + b"="


cdef uint64_t hash_text(uint64_t seed, Str s) noexcept nogil:
    return mixed(hash_more(seed, s.p, s.n))      # the same on every machine, for ever


@final
cdef class Arms:
    """key: the function's, bytes. arms: (name, weight 0 … 1000000, tag, percent of copies) each.

    A shadow (copies > 0) has no share of its own. Raises ValueError for too many.
    """

    def __cinit__(self):
        self.only = -1

    def __init__(self, bytes key not None, arms, Affinity affinity=None):
        cdef list rows = list(arms)
        cdef int i
        cdef int with_weight = 0
        if len(rows) > MOST_ARMS:
            raise ValueError(f"a function has at most {MOST_ARMS} versions")
        self.n = <uint32_t>len(rows)
        self.seed = hash_text(0, of_bytes(key))
        self.affinity = affinity
        self.tags = []
        # workers begin apart, so that their first new clients do not get the same places
        self.cursor = <uint32_t>(getpid() * 7919) % PLACES
        for i, (name, weight, tag, copies) in enumerate(rows):
            self.weights[i] = 0 if copies else max(0, min(int(weight), 1000000))
            self.copies[i] = max(0, min(round(copies * 100), PLACES))
            self.has_copies |= self.copies[i] > 0
            self.current[i] = self.owed[i] = 0
            self.total += self.weights[i]
            self.tags.append(tag.encode())
            if self.weights[i]:
                self.only = i
                with_weight += 1
        if with_weight > 1:
            self.only = -1
            self.places = <uint8_t*>malloc(PLACES)
            if self.places == NULL:
                raise MemoryError
            self.share_out([it[0].encode() for it in rows])

    def __dealloc__(self):
        free(self.places)

    cdef share_out(self, list names):
        """Give every place its arm."""
        cdef int base = 0
        cdef int left = PLACES
        cdef uint64_t h
        cdef uint32_t at
        cdef uint32_t step
        cdef int i
        cdef int k
        while self.weights[base] == 0:
            base += 1
        memset(self.places, base, PLACES)
        # by name, wherever it stands in the list: other arms that come and go move nobody here
        for i in sorted(range(self.n), key=names.__getitem__):
            if i == base or self.weights[i] == 0:
                continue
            k = <int>((<uint64_t>self.weights[i] * PLACES + self.total // 2) // self.total)
            k = min(k or 1, left - 1)
            left -= k
            h = hash_text(self.seed, of_bytes(names[i]))
            at = <uint32_t>(h % PLACES)
            step = <uint32_t>((h >> 32) % (PLACES // 10)) * 10 + 3   # odd, no 5: prime to PLACES
            while k:
                if self.places[at] == base:
                    self.places[at] = <uint8_t>i
                    k -= 1
                at = (at + step) % PLACES

    cdef int next(self) noexcept:
        """Smooth weighted round robin. -1: no arm has weight."""
        cdef int best = -1
        cdef uint32_t i
        if self.places == NULL:
            return self.only
        for i in range(self.n):
            if self.weights[i]:
                self.current[i] += self.weights[i]
                if best < 0 or self.current[i] > self.current[best]:
                    best = i
        self.current[best] -= self.total
        return best

    cdef uint32_t free_place(self, int arm) noexcept:
        """A place of this arm for a client that is new; spread over all that it has."""
        cdef int left = PLACES
        while left:
            self.cursor = (self.cursor + STRIDE) % PLACES
            if self.places == NULL or self.places[self.cursor] == arm:
                break
            left -= 1
        return self.cursor

    cdef int find_tag(self, Str tag) noexcept:
        cdef uint32_t i
        if tag.n:
            for i in range(self.n):
                if is_equal(of_bytes(<bytes>PyList_GET_ITEM(self.tags, i)), tag):
                    return i
        return -1

    cdef int find_tagged(self, Request r) noexcept:
        """The arm that the request names itself: Knative's header, one of ours, a cookie."""
        cdef Affinity a = self.affinity
        cdef Str tag
        cdef int arm = -1
        if get_http(r, <uint64_t>&serving_tag, &tag) == 1:
            arm = self.find_tag(tag)
        if arm < 0 and a is not None:
            if a.tag_header_s.n and get_http(r, <uint64_t>&a.tag_header_s, &tag) == 1:
                arm = self.find_tag(tag)
            if arm < 0 and a.tag_cookie_s.n and get_cookie(
                    r, <uint64_t>&a.tag_cookie_s, &tag) == 1:
                arm = self.find_tag(tag)
        return arm

    # -- for whoever wants to look ---------------------------------------------------------------
    def shares(self):
        """How many of the 10000 places each arm has."""
        cdef int i
        counts = [0] * self.n
        for i in range(PLACES):
            if self.places != NULL:
                counts[self.places[i]] += 1
            elif self.only >= 0:
                counts[self.only] += 1
        return counts

    def arm_of(self, bytes key not None):
        """The arm of a client that is known by this."""
        if self.places == NULL:
            return self.only
        return self.places[hash_text(self.seed, of_bytes(key)) % PLACES]

    def arm_at(self, int place):
        """The arm that has this place."""
        return self.places[place % PLACES] if self.places != NULL else self.only

    def choose(self, Request r not None):
        """(arm of the request, the Set-Cookie that its answer gets or None)."""
        cdef uint16_t before = r.n_out
        cdef int arm = choose_arm(self, r)
        return arm, to_bytes(r.out[before].value) if r.n_out > before else None

    def take_next(self):
        """The arm of the next client that is not known again."""
        return self.next()

    def take_copy(self, int from_arm=0):
        """The next shadow that shall get a copy, -1: none."""
        return next_copy(self, from_arm)


cdef int choose_arm(Arms a, Request r) noexcept:
    cdef Affinity sticky = a.affinity
    cdef Str key
    cdef int arm
    cdef int rc
    if a.n > 1 or sticky is not None:
        arm = a.find_tagged(r)
        if arm >= 0:
            return arm
    if a.places == NULL or sticky is None or sticky.known == BY_NOTHING:
        return a.next()
    if sticky.known == BY_COOKIE:
        return choose_by_cookie(a, sticky, r)
    rc = 0
    if sticky.known == BY_HEADER:
        rc = get_http(r, <uint64_t>&sticky.name_s, &key)
    elif sticky.known == BY_VARIABLE:
        rc = find_value(r, sticky.variable, &key) if sticky.variable >= 0 else 0
    elif r.client is not None:
        key = address_binary(&r.client.address)
        rc = 1
    if rc < 0:
        return NO_MEMORY
    if rc == 0 or key.n == 0:
        return a.next()
    return a.places[hash_text(a.seed, key) % PLACES]


cdef int choose_by_cookie(Arms a, Affinity sticky, Request r) noexcept:
    """The cookie holds the place, four digits, and so follows the weights."""
    cdef Str value
    cdef uint32_t place = 0
    cdef uint32_t i
    cdef char* p
    cdef int arm
    cdef size_t size
    if get_cookie(r, <uint64_t>&sticky.name_s, &value) == 1 and value.n == 4:
        for i in range(4):
            if not 48 <= value.p[i] <= 57:
                break
            place = place * 10 + <uint32_t>(value.p[i] - 48)
        else:
            return a.places[place]
    arm = a.next()
    place = a.free_place(arm)
    size = len(sticky.cookie) + 4 + len(sticky.attributes)
    p = <char*>take(&r.arena, size)
    if p == NULL:
        return NO_MEMORY
    memcpy(p, <const char*>sticky.cookie, len(sticky.cookie))
    i = <uint32_t>len(sticky.cookie)
    p[i] = <char>(48 + place // 1000)
    p[i + 1] = <char>(48 + place // 100 % 10)
    p[i + 2] = <char>(48 + place // 10 % 10)
    p[i + 3] = <char>(48 + place % 10)
    memcpy(p + i + 4, <const char*>sticky.attributes, len(sticky.attributes))
    if r.add_field(of_bytes(SET_COOKIE), text(p, size), 0) == NULL:
        return NO_MEMORY
    return arm


cdef int next_copy(Arms a, int from_arm) noexcept:
    cdef int i
    for i in range(from_arm, <int>a.n):
        if a.copies[i]:
            a.owed[i] += a.copies[i]
            if a.owed[i] >= PLACES:
                a.owed[i] -= PLACES
                return i
    return -1

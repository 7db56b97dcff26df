# A radix tree over bytes: exact and prefix search; keys come and go while it is in use.
#
# Called under the GIL from one thread: a search never sees half a change. Nodes live in one
# arena and name each other by number, so that the arena may move when it grows.

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove


cdef enum:
    MOST_LABEL = 43
    MOST_SORTED = 32      # more children than this get a table of 256
    TABLE = 256
    MOST_WALK = 64        # prefixes told to Python at once

cdef uint32_t NONE = 0xFFFFFFFF


cdef inline uint32_t* numbers(Node* node) noexcept:
    """The children's numbers: behind their keys, or the table itself."""
    if node.cap_kids == TABLE:
        return <uint32_t*>node.kids
    return <uint32_t*>(node.kids + node.cap_kids)


cdef inline uint32_t find_kid(Node* node, uint8_t byte) noexcept:
    """Number of the child whose label starts with byte, or 0."""
    cdef uint8_t* at
    if node.n_kids == 0:
        return 0
    if node.cap_kids == TABLE:
        return (<uint32_t*>node.kids)[byte]
    at = <uint8_t*>memchr(node.kids, byte, node.n_kids)
    return numbers(node)[at - node.kids] if at != NULL else 0


cdef inline void set_kid(Node* node, uint8_t byte, uint32_t kid) noexcept:
    """Put another child into the place of the one that byte finds."""
    cdef uint8_t* at
    if node.cap_kids == TABLE:
        (<uint32_t*>node.kids)[byte] = kid
        return
    at = <uint8_t*>memchr(node.kids, byte, node.n_kids)
    numbers(node)[at - node.kids] = kid


cdef inline void drop_kid(Node* node, uint8_t byte) noexcept:
    cdef uint8_t* at
    cdef uint32_t i
    if node.cap_kids == TABLE:
        (<uint32_t*>node.kids)[byte] = 0
        node.n_kids -= 1
        return
    at = <uint8_t*>memchr(node.kids, byte, node.n_kids)
    i = <uint32_t>(at - node.kids)
    node.n_kids -= 1
    node.kids[i] = node.kids[node.n_kids]
    numbers(node)[i] = numbers(node)[node.n_kids]


@cython.final
cdef class Radix:
    """Bytes to objects. `size` counts the keys."""

    def __cinit__(self):
        self.cap = 4
        self.nodes = <Node*>calloc(self.cap, sizeof(Node))
        if self.nodes == NULL:
            raise MemoryError
        self.used = 1

    def __dealloc__(self):
        cdef uint32_t i
        if self.nodes == NULL:
            return
        for i in range(self.used):
            free(self.nodes[i].kids)
            if self.nodes[i].value != NULL:
                Py_DECREF(<object>self.nodes[i].value)
        free(self.nodes)

    cdef uint32_t new_node(self) except 0:
        cdef uint32_t number = self.free_head
        cdef Node* grown
        if number:
            self.free_head = self.nodes[number].n_kids | <uint32_t>self.nodes[number].cap_kids << 16
        else:
            if self.used == self.cap:
                grown = <Node*>realloc(self.nodes, <size_t>self.cap * 2 * sizeof(Node))
                if grown == NULL:
                    raise MemoryError
                self.nodes = grown
                self.cap *= 2
            number = self.used
            self.used += 1
        self.nodes[number].value = NULL
        self.nodes[number].kids = NULL
        self.nodes[number].n_kids = 0
        self.nodes[number].cap_kids = 0
        self.nodes[number].label_n = 0
        return number

    cdef void free_node(self, uint32_t number) noexcept:
        # the chain of freed nodes is kept in the two counts of a node without children
        free(self.nodes[number].kids)
        self.nodes[number].kids = NULL
        self.nodes[number].value = NULL
        self.nodes[number].n_kids = <uint16_t>(self.free_head & 0xFFFF)
        self.nodes[number].cap_kids = <uint16_t>(self.free_head >> 16)
        self.free_head = number

    cdef int add_kid(self, uint32_t at, uint8_t byte, uint32_t kid) except -1:
        cdef Node* node = &self.nodes[at]
        cdef uint8_t* kids
        cdef uint32_t cap, i
        if node.cap_kids == TABLE:
            (<uint32_t*>node.kids)[byte] = kid
            node.n_kids += 1
            return 0
        if node.n_kids == node.cap_kids and node.n_kids == MOST_SORTED:
            kids = <uint8_t*>calloc(TABLE, sizeof(uint32_t))
            if kids == NULL:
                raise MemoryError
            for i in range(node.n_kids):
                (<uint32_t*>kids)[node.kids[i]] = numbers(node)[i]
            free(node.kids)
            node.kids = kids
            node.cap_kids = TABLE
            return self.add_kid(at, byte, kid)
        if node.n_kids == node.cap_kids:
            cap = node.cap_kids * 2 if node.cap_kids else 4
            kids = <uint8_t*>malloc(cap * (1 + sizeof(uint32_t)))
            if kids == NULL:
                raise MemoryError
            if node.n_kids:
                memcpy(kids, node.kids, node.n_kids)
                memcpy(kids + cap, numbers(node), node.n_kids * sizeof(uint32_t))
            free(node.kids)
            node.kids = kids
            node.cap_kids = <uint16_t>cap
        node.kids[node.n_kids] = byte
        numbers(node)[node.n_kids] = kid
        node.n_kids += 1
        return 0

    cdef int put(self, const char* key, uint32_t n, object value) except -1:
        """1 when the key is new, 0 when its value was replaced."""
        cdef uint32_t at = 0
        cdef uint32_t i = 0
        cdef uint32_t kid, mid, k, most
        cdef PyObject* old
        cdef uint8_t[MOST_LABEL] label
        while i < n:
            kid = find_kid(&self.nodes[at], <uint8_t>key[i])
            if kid == 0:
                k = n - i if n - i < MOST_LABEL else MOST_LABEL
                kid = self.new_node()
                self.nodes[kid].label_n = <uint8_t>k
                memcpy(self.nodes[kid].label, key + i, k)
                self.add_kid(at, <uint8_t>key[i], kid)
                at = kid
                i += k
                continue
            most = self.nodes[kid].label_n
            if most > n - i:
                most = n - i
            k = 1
            while k < most and self.nodes[kid].label[k] == <uint8_t>key[i + k]:
                k += 1
            if k < self.nodes[kid].label_n:
                # split: mid takes the shared bytes and the place of kid
                mid = self.new_node()
                memcpy(label, self.nodes[kid].label, MOST_LABEL)
                self.nodes[mid].label_n = <uint8_t>k
                memcpy(self.nodes[mid].label, label, k)
                self.add_kid(mid, label[k], kid)
                self.nodes[kid].label_n -= <uint8_t>k
                memmove(self.nodes[kid].label, label + k, self.nodes[kid].label_n)
                set_kid(&self.nodes[at], label[0], mid)
                kid = mid
            at = kid
            i += k
        old = self.nodes[at].value
        Py_INCREF(value)
        self.nodes[at].value = <PyObject*>value
        if old != NULL:
            Py_DECREF(<object>old)
            return 0
        self.size += 1
        return 1

    cdef int drop(self, const char* key, uint32_t n) except -1:
        """1 when the key was there."""
        cdef uint32_t at, parent
        cdef PyObject* old
        cdef uint8_t byte = 0
        at = self.walk(key, n, &parent, &byte)
        if at == NONE or self.nodes[at].value == NULL:
            return 0
        old = self.nodes[at].value
        self.nodes[at].value = NULL
        self.size -= 1
        # take out what leads nowhere now; a chain of long labels takes several rounds
        while at and self.nodes[at].value == NULL and self.nodes[at].n_kids == 0:
            drop_kid(&self.nodes[parent], byte)
            n -= self.nodes[at].label_n
            self.free_node(at)
            at = self.walk(key, n, &parent, &byte)
        if at:
            self.join(at)
        # last: this may run a destructor
        Py_DECREF(<object>old)
        return 1

    cdef uint32_t walk(
        self, const char* key, uint32_t n, uint32_t* parent, uint8_t* byte
    ) noexcept:
        """Number of the node where the key ends, or NONE; and what leads there."""
        cdef uint32_t at = 0
        cdef uint32_t i = 0
        cdef uint32_t kid
        cdef Node* node
        while i < n:
            kid = find_kid(&self.nodes[at], <uint8_t>key[i])
            if kid == 0:
                return NONE
            node = &self.nodes[kid]
            if node.label_n > n - i or memcmp(node.label, key + i, node.label_n) != 0:
                return NONE
            parent[0] = at
            byte[0] = <uint8_t>key[i]
            at = kid
            i += node.label_n
        return at

    cdef void join(self, uint32_t at) noexcept:
        """Undo a split: a node without value and with one short child becomes one with it."""
        cdef Node* node = &self.nodes[at]
        cdef Node* kid
        cdef uint32_t number
        if node.value != NULL or node.n_kids != 1 or node.cap_kids == TABLE:
            return
        number = numbers(node)[0]
        kid = &self.nodes[number]
        if node.label_n + kid.label_n > MOST_LABEL:
            return
        memcpy(node.label + node.label_n, kid.label, kid.label_n)
        node.label_n += kid.label_n
        free(node.kids)
        node.kids = kid.kids
        node.n_kids = kid.n_kids
        node.cap_kids = kid.cap_kids
        node.value = kid.value
        kid.kids = NULL
        self.free_node(number)

    cdef PyObject* find(self, const char* s, uint32_t n) noexcept:
        """The value of exactly s, or NULL."""
        cdef Node* node = self.nodes
        cdef uint32_t i = 0
        cdef uint32_t kid
        while i < n:
            kid = find_kid(node, <uint8_t>s[i])
            if kid == 0:
                return NULL
            node = &self.nodes[kid]
            if node.label_n > n - i or memcmp(node.label, s + i, node.label_n) != 0:
                return NULL
            i += node.label_n
        return node.value

    cdef PyObject* find_prefix(self, const char* s, uint32_t n, uint32_t* length) noexcept:
        """The value of the longest key that s starts with, and that key's length; or NULL."""
        cdef Node* node = self.nodes
        cdef PyObject* best = node.value
        cdef uint32_t i = 0
        cdef uint32_t kid
        length[0] = 0
        while i < n:
            kid = find_kid(node, <uint8_t>s[i])
            if kid == 0:
                break
            node = &self.nodes[kid]
            if node.label_n > n - i or memcmp(node.label, s + i, node.label_n) != 0:
                break
            i += node.label_n
            if node.value != NULL:
                best = node.value
                length[0] = i
        return best

    cdef int find_prefixes(
        self, const char* s, uint32_t n, PyObject** values, uint32_t* lengths, int most
    ) noexcept:
        """All keys that s starts with, shortest first; of more than `most`, the longest."""
        cdef Node* node = self.nodes
        cdef uint32_t i = 0
        cdef uint32_t kid
        cdef int count = 0
        while True:
            if node.value != NULL:
                if count == most:
                    count -= 1
                    memmove(values, values + 1, count * sizeof(PyObject*))
                    memmove(lengths, lengths + 1, count * sizeof(uint32_t))
                values[count] = node.value
                lengths[count] = i
                count += 1
            if i == n:
                break
            kid = find_kid(node, <uint8_t>s[i])
            if kid == 0:
                break
            node = &self.nodes[kid]
            if node.label_n > n - i or memcmp(node.label, s + i, node.label_n) != 0:
                break
            i += node.label_n
        return count

    def __len__(self):
        return self.size

    def add(self, bytes key not None, value):
        """Add or replace; True when the key is new."""
        return self.put(<const char*>key, <uint32_t>len(key), value) == 1

    def remove(self, bytes key not None):
        """True when the key was there."""
        return self.drop(<const char*>key, <uint32_t>len(key)) == 1

    def get(self, bytes key not None):
        """The value of exactly this key, or None."""
        cdef PyObject* value = self.find(<const char*>key, <uint32_t>len(key))
        return <object>value if value != NULL else None

    def longest(self, bytes s not None):
        """(value, length of its key) for the longest key that s starts with, or None."""
        cdef uint32_t length
        cdef PyObject* value = self.find_prefix(<const char*>s, <uint32_t>len(s), &length)
        return (<object>value, length) if value != NULL else None

    def prefixes(self, bytes s not None):
        """Values of all keys that s starts with, shortest first (the longest 64)."""
        cdef PyObject *values[MOST_WALK]
        cdef uint32_t[MOST_WALK] lengths
        cdef int i
        cdef int count = self.find_prefixes(
            <const char*>s, <uint32_t>len(s), values, lengths, MOST_WALK
        )
        return [<object>values[i] for i in range(count)]

    def values(self):
        """All values, in no order."""
        return [
            <object>self.nodes[i].value for i in range(self.used) if self.nodes[i].value != NULL
        ]

    @property
    def n_nodes(self):
        """Nodes of the arena in use or freed: what a leak would let grow."""
        return self.used

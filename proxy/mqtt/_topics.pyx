# Holds a topic or a filter against patterns, level by level.
#
# %c and %u stand for the client's id and user. A name that is empty, begins with $ or has one of
# + # / fits nowhere: it would reach beyond its own place.

from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp

from proxy.base.span cimport of_bytes


cdef class TopicRules:
    def __init__(self, rules):
        """rules: (verbs, pattern) pairs; patterns are bytes that is_pattern found good."""
        self.kept = [pattern for _, pattern in rules]
        self.rows = <Pattern*>calloc(len(self.kept) or 1, sizeof(Pattern))
        if self.rows == NULL:
            raise MemoryError
        for verbs, pattern in rules:
            self.rows[self.n].text = of_bytes(<bytes?>pattern)
            self.rows[self.n].verbs = verbs
            self.n += 1

    def __dealloc__(self):
        free(self.rows)


cdef bint may(TopicRules rules, int verb, Str topic, Str client_id, Str user) noexcept:
    cdef uint32_t i
    if rules is None:
        return True
    for i in range(rules.n):
        if rules.rows[i].verbs & verb and holds(rules.rows[i].text, topic, client_id, user):
            return True
    return False


cdef bint is_own(Str name) noexcept nogil:
    """May it stand in a pattern?"""
    return (name.n > 0 and name.p[0] != c"$" and memchr(name.p, c"/", name.n) == NULL
            and memchr(name.p, c"+", name.n) == NULL and memchr(name.p, c"#", name.n) == NULL)


cdef bint holds(Str pattern, Str topic, Str client_id, Str user) noexcept nogil:
    cdef const char* p = pattern.p
    cdef const char* p_end = p + pattern.n
    cdef const char* t = topic.p
    cdef const char* t_end = t + topic.n
    cdef Str name
    while True:                                  # each turn is a level
        if p < p_end and p[0] == c"#":
            return not (t == topic.p and t < t_end and t[0] == c"$")     # MQTT-4.7.2-1
        if p < p_end and p[0] == c"+":
            if t < t_end and (t[0] == c"#" or t == topic.p and t[0] == c"$"):
                return False
            p += 1
            while t < t_end and t[0] != c"/":
                t += 1
        else:
            while p < p_end and p[0] != c"/":
                if p[0] == c"%" and p + 1 < p_end and p[1] != c"%":
                    name = client_id if p[1] == c"c" else user
                    if not is_own(name) or name.n > <size_t>(t_end - t) or (
                            memcmp(name.p, t, name.n)):
                        return False
                    t += name.n
                    p += 2
                    continue
                if t >= t_end or t[0] != p[0]:
                    return False
                t += 1
                p += 2 if p[0] == c"%" else 1
        if p >= p_end:
            return t >= t_end
        if t >= t_end:
            return p + 2 == p_end and p[1] == c"#"         # a/# holds a, too (§4.7.1.2)
        if t[0] != c"/":
            return False
        p += 1
        t += 1


def is_held(bytes pattern not None, bytes topic not None, bytes client_id=b"", bytes user=b""):
    """Does the pattern hold all that the topic or filter names, for this client?"""
    return holds(of_bytes(pattern), of_bytes(topic), of_bytes(client_id), of_bytes(user))

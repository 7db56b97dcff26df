# charset: names the character set behind the type of an answer.

from proxy.base._request cimport Request


# 0, or a fault. Again is harmless. Called before the head is written, for every answer.
cdef int add_charset(Request r) noexcept

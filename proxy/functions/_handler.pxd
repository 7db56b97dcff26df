# Who answers in a location with function_pass, and what we answer in a function's place.

from proxy.base._request cimport Request

# While a plan is made: the variables that are asked for here get their numbers.
cdef int number_names() except -1
# A CORS preflight or a health probe: nobody is woken for it.
cdef bint wakes_nobody(Request r) noexcept
# The answer to one of those while nobody is ready: DONE, or NO_MEMORY.
cdef int answer_asleep(Request r) noexcept
# The answer that names the limit (Asked.refusal) with its status: DONE; GO: not of this status.
cdef int answer_refusal(Request r, int status) noexcept
# The limit's word, the same in the answer, the log and the metric.
cdef bytes refusal_word(int refusal)
cdef void report_refusal(Request r) noexcept
# Server-Timing, as far as it is known. 0 or NO_MEMORY.
cdef int add_timing(Request r) noexcept

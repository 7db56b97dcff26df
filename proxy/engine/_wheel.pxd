# The timer wheel of a worker: 10 ms slots, intrusive nodes, lazy re-arm.
#
# Whoever waits writes only node.deadline_ms; a node that comes up early is put further
# on. The owner is called through Timed.on_deadline when its deadline has passed.

from libc.stdint cimport uint64_t

cdef enum:
    SLOT_MS = 10
    SLOTS = 4096              # 41 s a round; what lies further on is met on the way

cdef struct Node:
    Node* next
    Node* prev
    void* owner               # Timed, borrowed: the owner unlinks itself before it goes
    uint64_t deadline_ms      # 0: none
    uint64_t slot             # absolute number of the slot that it sits in


cdef class Timed:
    cdef Node node
    cdef void on_deadline(self) noexcept
    cdef void forget_deadline(self) noexcept


cdef class Wheel:
    cdef Node slots[SLOTS]
    cdef uint64_t bits[64]    # SLOTS / 64: which slots hold somebody
    cdef uint64_t at          # absolute slot that was served last
    cdef public object loop
    cdef object timer
    cdef uint64_t timer_slot  # absolute slot that the loop timer is armed for, 0: not armed
    cdef Node run             # list head used while a slot is served
    cdef bint is_serving

    cdef void place(self, Node* n) noexcept
    cdef void arm(self) noexcept
    cdef void serve(self)


cdef void set_deadline(Wheel w, Timed t, uint64_t deadline_ms) noexcept

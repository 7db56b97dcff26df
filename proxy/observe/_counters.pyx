# Making, naming, summing and folding the counters' blocks.

import os
from time import perf_counter

from cython cimport final
from libc.errno cimport ESRCH, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from proxy.base._shm cimport LOCK_FAILED, LOCKED, ordered, zone_lock, zone_mended, zone_unlock

cdef extern from "<signal.h>" nogil:
    int kill(int, int)


BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

cdef enum:
    BASE = 0                # the block of the dead
    NAMES_LOCK = 0
    FOLD_LOCK = 1
    CLAIM_LOCK = 2
    LOOKS = 1000            # times a reader looks again while somebody folds


def counters_bytes(n_processes: int = 256, rows: int = 4096, plain: int = 4096) -> int:
    """Size of a zone for so many; only the pages that are used cost memory."""
    return (blocks_at(rows, plain) + n_processes * block_size(rows, plain) + 4095) & ~4095


cdef uint64_t blocks_at(uint64_t rows, uint64_t plain):
    return (DATA_AT + 4096 + (rows + plain) * LABEL_BYTES + 4095) & ~<uint64_t>4095


cdef uint64_t block_size(uint64_t rows, uint64_t plain):
    return (sizeof(Block) + rows * sizeof(Row) + plain * 8 + 4095) & ~<uint64_t>4095


cdef inline Block* block_of(CountersHead* head, ZoneHead* zone, uint32_t process) noexcept nogil:
    return <Block*>(<char*>zone + head.blocks_at + process * head.block_bytes)


cdef inline Row* rows_of(Block* block) noexcept nogil:
    return <Row*>(block + 1)


cdef inline uint64_t* plain_of(CountersHead* head, Block* block) noexcept nogil:
    return <uint64_t*>(rows_of(block) + head.cap_rows)


cdef bint lock_zone(ZoneHead* head, uint32_t number) noexcept nogil:
    # what these locks guard is whole after each store: nothing to repair
    cdef int result = zone_lock(head, number)
    if result != LOCKED and result != LOCK_FAILED:
        zone_mended(head, number)
    return result != LOCK_FAILED


@final
cdef class Snapshot:
    """All blocks summed up at one moment.

    connections: accepted, handled, requests, active, reading, writing, waiting.
    series: ((server, location, function), class, buckets, seconds) of what was counted; class
    0 is "none of 1xx … 5xx", buckets are not yet cumulative, the last is past all BOUNDS.
    plain: (name, labels, is_gauge, value), labels a tuple of (label, value).
    """

    cdef readonly dict connections
    cdef readonly list series
    cdef readonly list plain


@final
cdef class Counters:
    """The counters of process number `process`: 1 … n_processes-1, unique among the living.

    The master makes the zone (`counters_bytes`) and itself one Counters with process 0 to
    fold; a worker attaches with its own number. Sizes are read at the first call only.
    """

    def __init__(self, zone: Zone, process: int = 0, n_processes: int = 256, rows: int = 4096,
                 plain: int = 4096):
        if zone.kind != "counters":
            raise ValueError(f'"{zone.name}" is no zone of counters')
        self.zone = zone
        self.head = <CountersHead*>zone.data()
        if not zone.head.is_ready:
            if rows < 1 or plain < 1 or n_processes < 2 or counters_bytes(
                    n_processes, rows, plain) > zone.size:
                raise ValueError(f'zone "{zone.name}" is too small')
            self.head.n_processes = n_processes
            self.head.cap_rows = rows
            self.head.cap_plain = plain
            self.head.rows_at = DATA_AT + 4096
            self.head.plain_at = self.head.rows_at + <uint64_t>rows * LABEL_BYTES
            self.head.blocks_at = blocks_at(rows, plain)
            self.head.block_bytes = block_size(rows, plain)
            ordered()
            zone.head.is_ready = 1
        if not 0 <= process < self.head.n_processes:
            raise ValueError(f"no block for process {process}")
        self.process = process
        self.block = block_of(self.head, zone.head, process)
        self.rows = rows_of(self.block)
        self.plain = plain_of(self.head, self.block)
        self.row_numbers = {}
        self.plain_numbers = {}
        self.block.pid = os.getpid()
        self.block.is_used = 1
        self.row("", "", "")
        self.counter("", {})

    def row(self, server: str, location: str, function: str) -> int:
        """The number of a series; 0, which is ("", "", ""), when there is no room for more."""
        return self._name(_joined(server, location, function), True, False)

    def counter(self, name: str, labels: dict, is_gauge: bool = False) -> int:
        """The number of a plain counter; 0 (told to nobody) when there is no room for more."""
        fields = [name]
        for label, value in labels.items():
            fields += [label, value]
        return self._name(_joined(*fields), False, is_gauge)

    cdef int learn(self) except -1:
        """Read the names that others gave since."""
        cdef Label* label
        cdef uint32_t i
        for i in range(<uint32_t>len(self.row_numbers), self.head.n_rows):
            label = <Label*>(self.zone.base + self.head.rows_at) + i
            self.row_numbers[label.text[:label.n]] = i
        for i in range(<uint32_t>len(self.plain_numbers), self.head.n_plain):
            label = <Label*>(self.zone.base + self.head.plain_at) + i
            self.plain_numbers[label.text[:label.n]] = i
        return 0

    def _name(self, text: bytes, is_row: bool, is_gauge: bool) -> int:
        cdef dict numbers = self.row_numbers if is_row else self.plain_numbers
        cdef uint32_t* n = &self.head.n_rows if is_row else &self.head.n_plain
        cdef uint32_t cap = self.head.cap_rows if is_row else self.head.cap_plain
        cdef uint64_t at = self.head.rows_at if is_row else self.head.plain_at
        cdef Label* label
        number = numbers.get(text)
        if number is not None:
            return number
        if not lock_zone(self.zone.head, NAMES_LOCK):
            return 0
        try:
            self.learn()
            number = numbers.get(text)
            if number is None and n[0] < cap:
                label = <Label*>(self.zone.base + at) + n[0]
                label.n = <uint16_t>len(text)
                label.is_gauge = is_gauge
                memcpy(label.text, <const char*>text, len(text))
                ordered()
                number = n[0]
                n[0] += 1
                numbers[text] = number
        finally:
            zone_unlock(self.zone.head, NAMES_LOCK)
        return number or 0

    def add(self, number: int, n: int = 1) -> None:
        """`count`, from Python; n may be negative for a gauge."""
        count(self, number, <uint64_t><int64_t>n)

    def add_request(self, row: int, status: int, duration_us: int) -> None:
        """`count_request`, from Python."""
        count_request(self, row, status, duration_us)

    def add_connections(self, **changes) -> None:
        """Change the numbers of connections by name, as in Snapshot.connections."""
        cdef Block* block = self.block
        block.accepted += <uint64_t>changes.pop("accepted", 0)
        block.handled += <uint64_t>changes.pop("handled", 0)
        block.requests += <uint64_t>changes.pop("requests", 0)
        block.active += <int64_t>changes.pop("active", 0)
        block.reading += <int64_t>changes.pop("reading", 0)
        block.writing += <int64_t>changes.pop("writing", 0)
        block.waiting += <int64_t>changes.pop("waiting", 0)
        if changes:
            raise TypeError(f"no such numbers: {', '.join(changes)}")

    def fold(self, process: int) -> None:
        """Move what a dead process counted into the base; the master calls this.

        Its gauges are forgotten, no counter goes down, and the number may be given anew.
        """
        cdef CountersHead* head = self.head
        cdef Block* dead
        cdef Block* base = block_of(head, self.zone.head, BASE)
        cdef uint64_t* from_
        cdef uint64_t* to
        cdef Label* labels = <Label*>(self.zone.base + head.plain_at)
        cdef uint64_t i
        if not 0 < process < head.n_processes:
            raise ValueError(f"no block for process {process}")
        dead = block_of(head, self.zone.head, process)
        if not dead.is_used or not lock_zone(self.zone.head, FOLD_LOCK):
            return
        head.fold_serial |= 1  # also after a folder that died in here
        ordered()
        base.accepted += dead.accepted
        base.handled += dead.handled
        base.requests += dead.requests
        from_ = <uint64_t*>rows_of(dead)
        to = <uint64_t*>rows_of(base)
        for i in range(head.n_rows * (sizeof(Row) // 8)):
            if from_[i]:
                to[i] += from_[i]
                from_[i] = 0
        from_ = plain_of(head, dead)
        to = plain_of(head, base)
        for i in range(head.n_plain):
            if not labels[i].is_gauge:
                to[i] += from_[i]
            from_[i] = 0
        memset(dead, 0, sizeof(Block))
        ordered()
        head.fold_serial += 1
        zone_unlock(self.zone.head, FOLD_LOCK)

    def read(self) -> Snapshot:
        """The sum over all blocks, living and folded."""
        cdef CountersHead* head = self.head
        cdef Snapshot it = Snapshot.__new__(Snapshot)
        cdef Block total
        cdef Block* block
        cdef uint32_t n_rows = head.n_rows
        cdef uint32_t n_plain = head.n_plain
        cdef uint64_t n_values = n_rows * (sizeof(Row) // 8)
        cdef uint64_t* sums = <uint64_t*>calloc(n_values + n_plain, 8)
        cdef uint64_t serial
        cdef int _look
        if sums is NULL:
            raise MemoryError
        try:
            for _look in range(LOOKS):
                serial = head.fold_serial
                if serial & 1:
                    os.sched_yield()
                    continue
                ordered()
                memset(&total, 0, sizeof(total))
                memset(sums, 0, (n_values + n_plain) * 8)
                sum_blocks(head, self.zone.head, &total, sums, n_values, n_plain)
                ordered()
                if serial == head.fold_serial:
                    break
            block = &total
            it.connections = {
                "accepted": block.accepted, "handled": block.handled,
                "requests": block.requests, "active": block.active, "reading": block.reading,
                "writing": block.writing, "waiting": block.waiting,
            }
            it.series = self._series(<size_t>sums, n_rows)
            it.plain = self._plain(<size_t>(sums + n_values), n_plain)
        finally:
            free(sums)
        return it

    def _series(self, size_t address, uint32_t n_rows) -> list:
        cdef Row* rows = <Row*>address
        cdef Label* labels = <Label*>(self.zone.base + self.head.rows_at)
        cdef Latency* latency
        cdef uint64_t n
        cdef uint32_t i
        cdef uint32_t k
        cdef uint32_t b
        found = []
        for i in range(n_rows):
            for k in range(N_CLASSES):
                latency = &rows[i].of_class[k]
                n = 0
                for b in range(N_BOUNDS + 1):
                    n += latency.bucket[b]
                if n:
                    found.append((
                        tuple(_split(labels[i].text[:labels[i].n])), k,
                        [latency.bucket[b] for b in range(N_BOUNDS + 1)],
                        latency.sum_us / 1e6,
                    ))
        return found

    def _plain(self, size_t address, uint32_t n_plain) -> list:
        cdef uint64_t* values = <uint64_t*>address
        cdef Label* labels = <Label*>(self.zone.base + self.head.plain_at)
        cdef uint32_t i
        cdef object value
        found = []
        for i in range(1, n_plain):
            name, *fields = _split(labels[i].text[:labels[i].n])
            is_gauge = labels[i].is_gauge != 0
            value = values[i]
            if is_gauge:
                value = <int64_t>values[i]
            found.append((name, tuple(zip(fields[::2], fields[1::2])), is_gauge, value))
        return found

    def time_requests(self, row: int, rounds: int) -> float:
        """Seconds for `rounds` of count_request, timed inside; for the bench."""
        cdef uint32_t number = row
        cdef uint64_t left = rounds
        began = perf_counter()
        while left:
            count_request(self, number, 200, left)
            left -= 1
        return perf_counter() - began


def open_counters(zone: Zone) -> Counters:
    """The Counters of this process: a block of its own, free or of a process that died.

    What the dead one counted is folded first. Raises ValueError when every block is taken.
    """
    cdef Counters base = Counters(zone)
    cdef CountersHead* head = base.head
    cdef Block* block
    cdef uint32_t p
    lock_zone(zone.head, CLAIM_LOCK)
    try:
        for p in range(1, head.n_processes):
            block = block_of(head, zone.head, p)
            if block.is_used and not is_dead(block.pid):
                continue
            if block.is_used:
                base.fold(p)
            block.pid = os.getpid()
            block.is_used = 1
            return Counters(zone, p)
    finally:
        zone_unlock(zone.head, CLAIM_LOCK)
    raise ValueError(f'zone "{zone.name}" has no block for another process')


cdef void sum_connections(Counters c, Block* total) noexcept:
    cdef Block* block
    cdef uint32_t p
    memset(total, 0, sizeof(Block))
    for p in range(c.head.n_processes):
        block = block_of(c.head, c.zone.head, p)
        if p == BASE or block.is_used:
            add_block(total, block)


cdef void add_block(Block* total, Block* block) noexcept nogil:
    total.accepted += block.accepted
    total.handled += block.handled
    total.requests += block.requests
    if not block.pid or block.is_used and is_dead(block.pid):
        return                                   # its clients went with it
    total.active += block.active
    total.reading += block.reading
    total.writing += block.writing
    total.waiting += block.waiting


cdef inline bint is_dead(uint32_t pid) noexcept nogil:
    return kill(<int>pid, 0) != 0 and errno == ESRCH


cdef void sum_blocks(CountersHead* head, ZoneHead* zone, Block* total, uint64_t* sums,
                     uint64_t n_values, uint32_t n_plain) noexcept nogil:
    cdef Block* block
    cdef uint64_t* values
    cdef uint32_t p
    cdef uint64_t i
    for p in range(head.n_processes):
        block = block_of(head, zone, p)
        if p != BASE and not block.is_used:
            continue
        add_block(total, block)
        values = <uint64_t*>rows_of(block)
        for i in range(n_values):
            sums[i] += values[i]
        values = plain_of(head, block)
        for i in range(n_plain):
            sums[n_values + i] += values[i]


def _joined(*fields: str) -> bytes:
    """Fields in one label, cut evenly where they are too long for it."""
    room = 252 // len(fields) - 1
    parts = [field.replace("\0", "").encode("utf-8", "surrogateescape") for field in fields]
    if sum(map(len, parts)) + len(parts) > 252:
        parts = [part[:room] for part in parts]
    return b"".join([part + b"\0" for part in parts])


def _split(text: bytes) -> list:
    parts = text.split(b"\0")
    parts.pop()  # behind the last NUL
    return [part.decode("utf-8", "replace") for part in parts]

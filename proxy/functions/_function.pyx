# Functions, versions and replicas as rows of the table make them.

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cython cimport final

from proxy.base._clock cimport clock
from proxy.base._report cimport R_ALERT
from proxy.base._told cimport tell_error
from proxy.functions._counts cimport (
    ENTRY_VERSION, Counts, cell_at, entry_at, join_replica, leave_replica,
)
from proxy.upstream._balance cimport (
    B_CONSISTENT, B_RANDOM_TWO, B_ROUND_ROBIN, Balance, Peer, Upstream,
)

from sys import intern

from proxy.functions.values import NAMESPACE
from proxy.variables._variables import compile as compile_text

BALANCE = ("least_in_flight", "", 1, 1000, 0)
cdef dict METHODS = {
    "least_in_flight": B_RANDOM_TWO, "round_robin": B_ROUND_ROBIN, "hash": B_CONSISTENT,
}
KEPT = 64                     # idle connections a worker keeps to all replicas of a version
KEPT_MS = 4000                # a replica that is to be stopped is not held up by them for longer
MOST_SHARED = 4096
cdef dict shared = {}


cdef object share(object value):
    """Ten thousand functions differ in little: what is equal is kept once."""
    if len(shared) > MOST_SHARED:
        shared.clear()
    return shared.setdefault(value, value)


cdef dict share_texts(dict texts):
    """The same for a map, which nobody changes; one of few others shares its words at least."""
    cdef dict words = {intern(key): intern(text) for key, text in texts.items()}
    if len(shared) > MOST_SHARED:
        shared.clear()
    return shared.setdefault(tuple(words.items()), words)


@final
cdef class Replica:
    def __init__(self, Version version not None, str id not None, Peer peer not None):
        self.version = version
        self.id = id
        self.name = id.encode()
        self.peer = peer
        peer.replica = self

    @property
    def is_idle(self):
        """No request of this worker is at it."""
        cdef Version v = self.version
        if self.n_streams:
            return False
        if self.entry:
            return cell_at(v.counts, v.counts.row, self.entry).held <= 1
        return self.peer.conns == 0

    cdef int join(self) except -1:
        """From now on all workers share its slots; those that this one has taken go along."""
        if self.entry == 0:
            self.entry = join_replica(self.version.counts, self.id.encode(), self.version.entry,
                                      &self.peer.own)
            if self.entry:
                self.peer.core.state = &entry_at(self.version.counts, self.entry).state
        return 0

    cdef int leave(self) except -1:
        if self.entry:
            leave_replica(self.version.counts, self.entry, &self.peer.own)
            self.entry = 0
            self.peer.core.state = &self.peer.own
        return 0


@final
cdef class Version:
    def __init__(self, Function function not None, str name not None, Counts counts=None):
        self.function = function
        self.name = share(name.encode())
        self.key = function.key + b"/" + self.name
        self.replicas = {}
        self.counts = counts
        # of two replicas taken at random the one with fewer requests is asked
        self.upstream = Upstream(self.key, method="random_two", keepalive=KEPT,
                                 keepalive_is_local=False, keepalive_timeout_ms=KEPT_MS)
        self.join()

    def __repr__(self):
        return f"Version({self.key.decode()})"

    cdef int join(self) except -1:
        """Its entry in shared memory; without one it counts for itself."""
        self.cell = &self.own
        self.entry = 0
        if self.counts is not None:
            self.entry = self.counts.take_entry(self.key, ENTRY_VERSION, 0)
            if self.entry:
                self.birth = entry_at(self.counts, self.entry).birth
                self.cell = cell_at(self.counts, self.counts.row, self.entry)
        return 0

    cdef void join_again(self) noexcept:
        """It was forgotten, and is asked all the same."""
        try:
            self.join()
        except Exception as error:
            self.cell = &self.own
            tell_error(R_ALERT, None, "counting a function among all workers", error)

    cdef int obey(self, dict row) except -1:
        """Its settings in a row of the table; what is not said stays as nothing."""
        queue = row.get("queue") or (1000, 64 << 20, 30000)
        self.weight = row.get("weight", 100)
        self.mirror = row.get("mirror", 0)
        self.tag = row.get("tag", "").encode()
        self.prefix = row.get("prefix", "").encode()
        self.concurrency = row.get("concurrency", 0)
        self.queue_size, self.queue_bytes, self.queue_ms = queue
        self.timeout_ms = row.get("timeout_ms", 0)
        self.count_streams = row.get("count_streams", True)
        self.is_h2 = row.get("http_version") == "2"
        self.obey_balance(row.get("balance") or BALANCE)
        self.has_slots = self.concurrency > 0 and self.entry > 0
        for it in self.replicas.values():
            self.bound(it)
        return 0

    cdef int obey_balance(self, object row) except -1:
        """[method, key, max_fails, fail_timeout_ms, slow_start_ms]."""
        cdef Upstream u = self.upstream
        row = tuple(row)
        if row == self.balance:
            return 0
        method, key, _, _, u.slow_start_ms = row
        u.compiled_key = compile_text(key) if key else None
        u.balance = <Balance><int>METHODS[method]
        self.balance = row
        u.change(u.peers)                        # the ring of a hash
        return 0

    cdef int bound(self, Replica it) except -1:
        """What holds for each of its replicas."""
        it.peer.core.max_conns = self.concurrency
        it.peer.core.max_fails = self.balance[2]
        it.peer.core.fail_timeout_ms = self.balance[3]
        if self.has_slots:
            it.join()
        else:
            it.leave()
        return 0


@final
cdef class Function:
    def __init__(self, str key not None, str name, str namespace):
        self.key = key.encode()
        self.name = name.encode()
        self.namespace = share(namespace.encode())
        self.labels = {}
        self.annotations = {}
        self.versions = []
        self.created_at = ""

    def __repr__(self):
        return f"Function({self.key.decode()})"

    def find_version(self, bytes name not None):
        """The Version of that name, or None."""
        cdef Version v
        for v in self.versions:
            if v.name == name:
                return v
        return None

    cdef int obey(self, dict row) except -1:
        self.labels = share_texts(row.get("labels") or {})
        self.annotations = share_texts(row.get("annotations") or {})
        self.created_at = row.get("created_at", "")
        self.sticky = row.get("sticky")
        self.is_async = row.get("async", False)
        return 0


@final
cdef class Functions:
    """Rows of the table (FUNCTION ROW below) come by `change`; whoever must know registers a hook.

    FUNCTION ROW: {"function": key, "name", "namespace", "labels", "annotations", "created_at",
    "sticky", "async", "versions": [{"name", "weight", "tag", "mirror", "concurrency",
    "queue": [size, bytes, wait_ms], "timeout_ms", "count_streams", "http_version",
    "replicas": [[id, address]]}]}
    """

    def __init__(self, peer_of, Counts counts=None):
        """peer_of: callable(address) → Peer; ValueError for what is none."""
        self.counts = counts
        self.by_entry = {}
        self.by_key = {}
        self.by_name = {}
        self.hooks = []
        self.left = []
        self.peer_of = peer_of

    def __len__(self):
        return len(self.by_key)

    def __iter__(self):
        return iter(list(self.by_key.values()))

    cdef Function find_function(self, bytes key):
        return self.by_key.get(key)

    def find(self, bytes key not None):
        """The Function of that key (NAME.NAMESPACE), or None."""
        return self.by_key.get(key)

    def find_name(self, str name not None):
        """Whom `function_pass NAME` and `/function/NAME` mean: the key itself, the one in the
        default namespace, else the only one of that name. None: nobody."""
        cdef bytes key = name.encode()
        cdef list alike
        found = self.by_key.get(key) or self.by_key.get(key + b"." + NAMESPACE.encode())
        if found is None:
            alike = self.by_name.get(key)
            if alike is not None and len(alike) == 1:
                found = alike[0]
        return found

    def on_change(self, hook):
        """hook(function, is_gone) is called for each function there is, and after each change."""
        self.hooks.append(hook)
        for function in list(self.by_key.values()):
            hook(function, False)

    def declare(self, dict row not None):
        """A function of this worker's own conf: it is there before any table, and stays."""
        cdef Function f = self.change(row)
        f.is_from_conf = True
        return f

    def change(self, dict row not None):
        """Make a FUNCTION ROW true. What cannot be read (KeyError, TypeError, ValueError) changes
        nothing."""
        cdef Function f
        cdef Version v
        cdef str key = row["function"]
        cdef list made = []
        cdef list before
        rows = row["versions"]
        if not rows:
            raise ValueError(f"{key} has no version")
        f = self.by_key.get(key.encode())
        is_new = f is None
        if is_new:
            name, _, namespace = key.rpartition(".")
            f = Function(key, row.get("name") or name, row.get("namespace") or namespace)
        for it in rows:
            v = f.find_version(it["name"].encode())
            if v is None:
                v = Version(f, it["name"], self.counts)
            # of a row without replicas nothing is said of them
            made.append((v, it, self.read_replicas(v, it["replicas"])
                         if "replicas" in it else None))
        before = f.versions
        f.obey(row)
        f.versions = [v for v, _, _ in made]
        for v, it, replicas in made:
            v.obey(it)
            v.is_gone = False
            if replicas is not None:
                self.put_replicas(v, replicas)
        for v in before:
            if v not in f.versions:
                self.drop_version(v)
        f.is_gone = False
        if is_new:
            self.by_key[f.key] = f
            self.by_name.setdefault(f.name, []).append(f)
        for hook in self.hooks:
            hook(f, False)
        return f

    def change_replicas(self, str key not None, list rows not None):
        """All ready replicas of the version of that key: (id, address). Errors as in change."""
        cdef Function f
        cdef Version v
        function, slash, name = key.rpartition("/")
        if not slash:
            raise ValueError(key)
        f = self.by_key.get(function.encode())
        v = f.find_version(name.encode()) if f is not None else None
        if v is None:
            self.change({"function": function, "versions": [{"name": name, "replicas": rows}]})
        else:
            self.put_replicas(v, self.read_replicas(v, rows))

    def forget(self, str key not None):
        """The function is gone; one of our own conf only loses its replicas."""
        cdef Function f = self.by_key.get(key.encode())
        cdef Version v
        if f is None:
            return
        if f.is_from_conf:
            for v in f.versions:
                self.put_replicas(v, {})
            return
        del self.by_key[f.key]
        self.by_name[f.name].remove(f)
        if not self.by_name[f.name]:
            del self.by_name[f.name]
        f.is_gone = True
        for v in f.versions:
            self.drop_version(v)
        for hook in self.hooks:
            hook(f, True)

    cdef int drop_version(self, Version v) except -1:
        v.is_gone = True
        self.put_replicas(v, {})
        return 0

    cdef dict read_replicas(self, Version v, rows):
        """id → Replica of rows (id, address), those that are known being the same."""
        cdef dict known = dict(v.replicas)
        cdef dict after = {}
        cdef Replica it
        for it in self.left:
            known.setdefault(it.id, it)
        for id, address in rows:
            after[id] = known.get(id) or Replica(v, id, self.peer_of(address))
        return after

    cdef int put_replicas(self, Version v, dict after) except -1:
        """Who is asked from now on; who is not any more waits in `left` for its requests."""
        cdef dict before = v.replicas
        cdef Replica it
        for it in after.values():
            v.bound(it)
            if before and it.id not in before and it not in self.left:
                it.peer.core.warm_ms = clock.now_ms + v.upstream.slow_start_ms
            if it.entry:
                self.by_entry[it.entry] = it
        v.replicas = after
        v.upstream.change([it.peer for it in after.values()])
        v.is_woken = False
        if after and not before:
            v.ready_ms = clock.now_ms
        for it in list(self.left):
            if it.id in after:
                self.left.remove(it)
        for it in before.values():
            if it.id not in after:
                self.left.append(it)
        return 0

    def take_idle(self):
        """The replicas that left and have no request of this worker any more: let go of."""
        cdef Replica it
        cdef list idle = [it for it in self.left if it.is_idle]
        for it in idle:
            self.left.remove(it)
            self.by_entry.pop(it.entry, None)
            it.leave()
        return idle

    def fail(self, str key not None):
        """No replica of the version of that key could be started."""
        cdef Function f
        cdef Version v
        function, _, name = key.rpartition("/")
        f = self.by_key.get(function.encode())
        v = f.find_version(name.encode()) if f is not None else None
        if v is not None:
            v.is_woken = False
            if self.on_failed is not None:
                self.on_failed(v)

    def wake_again(self):
        """A new controller does not know who waits."""
        cdef Function f
        cdef Version v
        for f in self.by_key.values():
            for v in f.versions:
                if v.is_woken:
                    self.tell_wake(v)

    cdef int tell_wake(self, Version v) except -1:
        if self.wake is not None:
            self.wake(v.key.decode())
        return 0

    cdef PyObject* find_replica(self, uint32_t entry) noexcept:
        return PyDict_GetItem(self.by_entry, entry)

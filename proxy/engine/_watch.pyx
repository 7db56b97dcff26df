# Finds libuv inside uvloop, and opens, changes and closes watches on its loop.
#
# The GIL is taken at the first event of a turn of the loop and given back in its check
# phase, so that a turn with a hundred events takes it once.

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADF, ENOMEM
from libc.stdlib cimport free, malloc
from posix.unistd cimport close as c_close


cdef extern from "Python.h" nogil:
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure()
    void PyGILState_Release(PyGILState_STATE)


cdef extern from "Python.h":
    void* PyCapsule_GetPointer(object, const char*) except NULL


cdef extern from "<dlfcn.h>" nogil:
    enum:
        RTLD_NOW
        RTLD_NOLOAD
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)


cdef extern from * nogil:
    """
    typedef struct headrace_uv_handle uvh;
    typedef void (*poll_cb)(uvh *, int, int);
    typedef void (*handle_cb)(uvh *);
    typedef void (*turn_cb)(void *);
    static int (*uvp_poll_init)(void *, uvh *, int);
    static int (*uvp_poll_start)(uvh *, int, poll_cb);
    static int (*uvp_poll_stop)(uvh *);
    static void (*uvp_close)(uvh *, handle_cb);
    static size_t (*uvp_handle_size)(int);
    static int (*uvp_check_init)(void *, uvh *);
    static int (*uvp_check_start)(uvh *, handle_cb);
    static void (*uvp_unref)(uvh *);
    static int (*uvp_run)(void *, int);
    static void **uvp_all[] = {
        (void **)&uvp_poll_init, (void **)&uvp_poll_start, (void **)&uvp_poll_stop,
        (void **)&uvp_close, (void **)&uvp_handle_size, (void **)&uvp_check_init,
        (void **)&uvp_check_start, (void **)&uvp_unref, (void **)&uvp_run };
    """
    ctypedef headrace_uv_handle uvh
    ctypedef void (*poll_cb)(uvh*, int, int) noexcept nogil
    ctypedef void (*handle_cb)(uvh*) noexcept nogil
    ctypedef void (*turn_cb)(void*) noexcept nogil
    int uvp_poll_init(void*, uvh*, int)
    int uvp_poll_start(uvh*, int, poll_cb)
    int uvp_poll_stop(uvh*)
    void uvp_close(uvh*, handle_cb)
    size_t uvp_handle_size(int)
    int uvp_check_init(void*, uvh*)
    int uvp_check_start(uvh*, handle_cb)
    void uvp_unref(uvh*)
    int uvp_run(void*, int)
    void** uvp_all[9]


cdef enum:
    UV_CHECK = 2              # uv_handle_type; stable since libuv 1.0
    UV_POLL = 8
    UV_RUN_NOWAIT = 2
    KEPT_HANDLES = 1024

NAMES = (b"uv_poll_init", b"uv_poll_start", b"uv_poll_stop", b"uv_close", b"uv_handle_size",
         b"uv_check_init", b"uv_check_start", b"uv_unref", b"uv_run")

cdef void* the_loop = NULL
cdef uvh* check = NULL
cdef size_t poll_bytes = 0
cdef bint is_held = False             # the GIL, for the rest of this turn
cdef PyGILState_STATE held
cdef uvh* kept[KEPT_HANDLES]
cdef int n_kept = 0
cdef void* first_watched = NULL
cdef TurnEnd turn_end = NULL
cdef void* turn_whom = NULL


cdef void at_turn_end(TurnEnd what, void* whom) noexcept:
    global turn_end, turn_whom
    if what != NULL or whom == turn_whom:
        turn_end = what
        turn_whom = whom


cdef bint is_in_turn() noexcept:
    return is_held


cdef find_libuv(bytes file):
    cdef void* so = dlopen(<const char*>file, RTLD_NOW | RTLD_NOLOAD)
    cdef int i
    if so == NULL:
        raise ImportError("uvloop's own module cannot be opened")
    for i, name in enumerate(NAMES):
        uvp_all[i][0] = dlsym(so, <const char*><bytes>name)
        if uvp_all[i][0] == NULL:
            raise ImportError(f"this uvloop does not show {name.decode()}: install its wheel")


def attach(loop) -> None:
    """From now on watches live on this uvloop loop; one loop a process. ImportError when its
    libuv cannot be reached."""
    global the_loop, check, poll_bytes
    from uvloop import loop as inside            # not before: a master needs none of it

    find_libuv(inside.__file__.encode())
    the_loop = PyCapsule_GetPointer(inside.libuv_get_loop_t_ptr(loop), NULL)
    poll_bytes = uvp_handle_size(UV_POLL)
    check = <uvh*>malloc(uvp_handle_size(UV_CHECK))
    if check == NULL:
        raise MemoryError
    check.data = NULL
    uvp_check_init(the_loop, check)
    uvp_check_start(check, on_check)
    uvp_unref(check)


def detach() -> None:
    """Close every watch: uvloop must not meet handles that are not its own when it closes."""
    global the_loop, check
    cdef Watched w
    if the_loop == NULL:
        return
    while first_watched != NULL:
        w = <Watched><PyObject*>first_watched
        w.close_watch()
    uvp_close(check, on_check_closed)
    check = NULL
    for _ in range(2):
        with nogil:
            uvp_run(the_loop, UV_RUN_NOWAIT)
    the_loop = NULL


cdef void on_check(uvh* handle) noexcept nogil:
    global is_held
    if is_held:
        if turn_end != NULL:
            (<turn_cb>turn_end)(turn_whom)
        is_held = False
        PyGILState_Release(held)


cdef void on_check_closed(uvh* handle) noexcept nogil:
    free(handle)


cdef void on_poll(uvh* handle, int status, int events) noexcept nogil:
    global is_held, held
    if not is_held:
        held = PyGILState_Ensure()
        is_held = True
    (<poll_cb>tell_ready)(handle, status, events)


cdef void tell_ready(uvh* handle, int status, int events) noexcept:
    cdef Watched w = <Watched>handle.data
    if status < 0:                               # libuv stopped the handle (EPOLLERR)
        events = w.mask | FAILED
        w.mask = 0
    w.on_ready(events)


cdef void on_poll_closed(uvh* handle) noexcept with gil:
    global n_kept
    cdef Watched w = <Watched>handle.data
    if n_kept < KEPT_HANDLES:
        kept[n_kept] = handle
        n_kept += 1
    else:
        free(handle)
    # Not sooner: libuv forgets descriptors at the end of its turn. One that is closed by then
    # and open elsewhere, as a listening socket is, would be reported for ever.
    c_close(w.closing_fd)
    w.on_closed()
    Py_DECREF(w)


cdef class Watched(Timed):
    def __cinit__(self):
        self.fd = -1

    cdef int open_watch(self, int fd) noexcept:
        global n_kept, first_watched
        cdef uvh* handle
        cdef int rc = -EBADF
        if n_kept:
            n_kept -= 1
            handle = kept[n_kept]
        else:
            handle = <uvh*>malloc(poll_bytes)
        if handle == NULL:
            c_close(fd)
            return -ENOMEM
        if the_loop != NULL:
            rc = uvp_poll_init(the_loop, handle, fd)
        if rc < 0:
            free(handle)
            c_close(fd)
            return rc
        handle.data = <void*>self
        self.handle = handle
        self.fd = fd
        self.mask = 0
        self.prev_watched = NULL
        self.next_watched = first_watched
        if first_watched != NULL:
            (<Watched>first_watched).prev_watched = <void*>self
        first_watched = <void*>self
        Py_INCREF(self)
        return 0

    cdef void watch(self, int mask) noexcept:
        if mask != self.mask and self.handle != NULL:
            self.mask = <uint8_t>mask
            if mask:
                uvp_poll_start(self.handle, mask, on_poll)
            else:
                uvp_poll_stop(self.handle)

    cdef void close_watch(self) noexcept:
        global first_watched
        cdef uvh* handle = self.handle
        if handle == NULL:
            return
        self.handle = NULL
        self.mask = 0
        if self.next_watched != NULL:
            (<Watched>self.next_watched).prev_watched = self.prev_watched
        if self.prev_watched != NULL:
            (<Watched>self.prev_watched).next_watched = self.next_watched
        else:
            first_watched = self.next_watched
        uvp_close(handle, on_poll_closed)        # stops it, too
        self.closing_fd = self.fd
        self.fd = -1

    cdef void on_ready(self, int events) noexcept:
        pass

    cdef void on_closed(self) noexcept:
        pass

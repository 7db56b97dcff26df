# A process of its own out of the master: from fork to exec no Python runs, and its memory is not
# copied where no other user is to be (vfork(2)).
#
# A Python child of a Python master costs some milliseconds before its exec; a start has ten.

from libc.errno cimport errno
from libc.stdlib cimport free, malloc

import os


cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <grp.h>
    #include <signal.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <unistd.h>

    #define LAUNCH_LIMITS 16
    #define LAUNCH_FDS 8
    #define LAUNCH_MOST_FDS (1 << 20)
    #ifndef SYS_close_range
    #define SYS_close_range 436
    #endif

    struct launch {
        char **paths, **argv, **envp;      /* paths: tried one after another */
        const char *cwd;                   /* or NULL */
        int fds[LAUNCH_FDS];               /* become 0, 1, 2 … */
        int n_fds;
        int tell;                          /* closed by exec; failures are written to it */
        int group_fd;                      /* cgroup.procs, or -1 */
        int nice;
        int has_user, is_other;            /* is_other: not who we are */
        unsigned uid, gid;
        int n_limits;
        int limits[LAUNCH_LIMITS];
        rlim_t most[LAUNCH_LIMITS];
    };

    /* In the child, perhaps on its parent's memory: system calls, and nothing that the parent
       would find changed. Which step failed, or 0. */
    static int launch_child(struct launch *it) {
        struct sigaction plain;
        struct rlimit limit;
        sigset_t none;
        gid_t gid = it->gid;
        int high[LAUNCH_FDS], tell, i, error = ENOENT;
        memset(&plain, 0, sizeof(plain));
        plain.sa_handler = SIG_DFL;
        setsid();
        for (i = 1; i < NSIG; i++)
            sigaction(i, &plain, NULL);
        if (it->group_fd >= 0 && write(it->group_fd, "0", 1) != 1) return 1;
        /* out of the way first: a pipe may have one of these numbers */
        for (i = 0; i < it->n_fds; i++)
            if ((high[i] = fcntl(it->fds[i], F_DUPFD_CLOEXEC, 2 * LAUNCH_FDS)) < 0) return 2;
        if ((tell = fcntl(it->tell, F_DUPFD_CLOEXEC, 2 * LAUNCH_FDS)) < 0) return 2;
        for (i = 0; i < it->n_fds; i++)
            if (dup2(high[i], i) < 0) return 2;
        if (dup3(tell, i, O_CLOEXEC) < 0) return 2;
        it->tell = i;
        if (syscall(SYS_close_range, i + 1, ~0U, 0) < 0) {      /* before Linux 5.9 */
            if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return 3;
            for (i++; (rlim_t) i < limit.rlim_max && i < LAUNCH_MOST_FDS; i++)
                close(i);
        }
        if (it->nice && setpriority(PRIO_PROCESS, 0, it->nice) < 0) return 4;
        if (it->has_user) {
            if (syscall(SYS_setgroups, 1, &gid) < 0 || syscall(SYS_setgid, gid) < 0
                || syscall(SYS_setuid, it->uid) < 0) return 5;
        }
        /* after the change of user: what is too many for its new limits must fail for it */
        for (i = 0; i < it->n_limits; i++) {
            if (getrlimit(it->limits[i], &limit) < 0) return 6;
            if (limit.rlim_max == RLIM_INFINITY || it->most[i] < limit.rlim_max)
                limit.rlim_max = it->most[i];
            limit.rlim_cur = limit.rlim_max;
            if (setrlimit(it->limits[i], &limit) < 0) return 6;
        }
        if (it->cwd && chdir(it->cwd) < 0) return 7;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (i = 0; it->paths[i]; i++) {
            execve(it->paths[i], it->argv, it->envp);
            if (errno != ENOENT && errno != ENOTDIR) error = errno;
        }
        errno = error;
        return 8;
    }

    static pid_t launch(struct launch *it) {
        sigset_t all, before;
        int told[2];
        pid_t pid;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);   /* no handler of ours runs in the child */
        pid = it->is_other ? fork() : vfork();
        if (pid == 0) {
            told[0] = launch_child(it);
            told[1] = errno;
            if (write(it->tell, told, sizeof(told)) < 0) {}
            _exit(127);
        }
        told[1] = errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
        errno = told[1];
        return pid;
    }
    """
    enum:
        LAUNCH_LIMITS
        LAUNCH_FDS
    struct launch_order "launch":
        char **paths
        char **argv
        char **envp
        const char *cwd
        int *fds
        int n_fds, tell, group_fd, nice, has_user, is_other
        unsigned int uid, gid
        int n_limits
        int *limits
        unsigned long long *most
    int start_launch "launch"(launch_order *)


STEPS = ("", "its cgroup", "its descriptors", "what it has open", "its nice value", "its user",
         "its limits", "its folder", "")


cdef char **texts(list words) except NULL:
    """Pointers into them, NULL behind the last; the caller keeps the words and frees this."""
    cdef char **found
    cdef bytes word
    cdef Py_ssize_t i = 0
    if any(b"\0" in it for it in words):
        raise ValueError("a zero byte")
    found = <char **> malloc((len(words) + 1) * sizeof(char *))
    if found == NULL:
        raise MemoryError
    for word in words:
        found[i] = word
        i += 1
    found[i] = NULL
    return found


def launch(list paths, list argv, list environ, bytes cwd, list fds, int tell, int group_fd,
           int nice, user, list limits):
    """The pid of a new process with a session of its own, which is about to exec the first of
    `paths` that is there. All strings are bytes.

    fds become its 0, 1, 2 …, it has no other. user: (uid, gid) or None. limits: (RLIMIT_…, most)
    pairs, both of soft and hard. group_fd: cgroup.procs of where it belongs. What fails before the
    exec is written to `tell` as two ints, a place in STEPS and an errno; exec closes it. The caller
    keeps `tell` and fds, and has blocked nobody's way: this returns when the child has gone on.
    OSError: there is no new process.
    """
    cdef launch_order it
    cdef Py_ssize_t i
    cdef int pid, error
    if len(fds) > LAUNCH_FDS or len(limits) > LAUNCH_LIMITS:
        raise ValueError("too many descriptors or limits")
    it.cwd = <const char *> cwd if cwd is not None else NULL
    it.n_fds = <int> len(fds)
    for i in range(len(fds)):
        it.fds[i] = fds[i]
    it.tell, it.group_fd, it.nice = tell, group_fd, nice
    it.has_user = user is not None
    it.is_other = 0
    if user is not None:
        it.uid, it.gid = user
        it.is_other = (it.uid, it.gid) != (os.geteuid(), os.getegid())
    it.n_limits = <int> len(limits)
    for i in range(len(limits)):
        it.limits[i], it.most[i] = limits[i]
    it.paths = it.argv = it.envp = NULL
    try:
        it.paths, it.argv, it.envp = texts(paths), texts(argv), texts(environ)
        pid = start_launch(&it)
        error = errno
    finally:
        free(it.paths)
        free(it.argv)
        free(it.envp)
    if pid < 0:
        raise OSError(error, os.strerror(error))
    return pid

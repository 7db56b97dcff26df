"""The directives of the processes: how many, as whom, with which limits, where the pid stands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from proxy.conf.directive import EVENTS, MAIN, directive, ignored
from proxy.conf.report import ConfError
from proxy.conf.values import Duration, Flag, Int, Size, Word, read_int

if TYPE_CHECKING:
    from proxy.conf.inherit import Block
    from proxy.conf.lexer import Token

MAX_WORKERS = 512


class User(NamedTuple):
    """As whom workers run. `name` is for the supplementary groups."""

    name: str
    uid: int
    gid: int


def read_worker_processes(args: list[Token], block: Block) -> int:
    """The number of workers; `auto` is one for each core this process may run on."""
    if args[0] == "auto":
        return min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    number = read_int(args[0])
    if number is None or not 1 <= number <= MAX_WORKERS:
        raise ConfError(args[0], '"worker_processes" directive invalid value')
    return number


def read_user(args: list[Token], block: Block) -> User | None:
    """user [group]; without super-user rights it means nothing, as nginx warns."""
    if os.geteuid() != 0:
        block.warn(
            'the "user" directive makes sense only if the master process runs with super-user '
            "privileges, ignored",
            args[0],
        )
        return None
    return find_user(args[0], args[1] if len(args) > 1 else args[0])


def find_user(user: Token, group: Token) -> User:
    """Raises ConfError at the name that the system does not know."""
    import grp
    import pwd

    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfError(user, f'getpwnam("{user}") failed') from None
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfError(group, f'getgrnam("{group}") failed') from None
    return User(str(user), uid, gid)


def default_user() -> User | None:
    """As whom workers run where the conf says nothing: nobody, when we are root."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfError(None, 'getpwnam("nobody") failed') from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def read_priority(args: list[Token], block: Block) -> int:
    """A nice value, -20 … 19."""
    text = args[0]
    number = read_int(text[1:] if text[:1] in ("-", "+") else text)
    if number is None:
        raise ConfError(text, '"worker_priority" directive invalid number')
    return -number if text.startswith("-") else number


def declare() -> None:
    """Declare what stands in the main and the events context."""
    directive("daemon", MAIN, Flag(), default="on", doc="Go to the background after the start.")
    directive(
        "master_process",
        MAIN,
        Flag(),
        default="on",
        doc="Off: no master and no controller, one worker in the process that was started.",
    )
    directive(
        "pid", MAIN, Word(), default="logs/headrace.pid", doc="The file with the master's pid."
    )
    directive(
        "user",
        MAIN,
        read=read_user,
        least=1,
        most=2,
        syntax="user [group]",
        doc="As whom workers and the controller run when the master is root; nobody by default.",
    )
    directive(
        "worker_processes",
        MAIN,
        read=read_worker_processes,
        least=1,
        most=1,
        default="1",
        syntax="number | auto",
        doc="How many workers; auto is one for each core.",
    )
    directive(
        "worker_connections",
        EVENTS,
        Int(least=1),
        default="512",
        doc="Connections a worker holds at most, of clients and upstreams together.",
    )
    directive("worker_rlimit_nofile", MAIN, Int(), doc="The limit on open files of a worker.")
    directive("worker_rlimit_core", MAIN, Size(), doc="The limit on a worker's core dump.")
    directive(
        "worker_priority",
        MAIN,
        read=read_priority,
        least=1,
        most=1,
        default="0",
        syntax="number",
        doc="The nice value of the workers.",
    )
    directive(
        "worker_shutdown_timeout",
        MAIN,
        Duration(),
        default="0",
        doc="How long a worker that was told to leave may finish its requests; 0 is no bound.",
    )
    directive("working_directory", MAIN, Word(), doc="Where workers run, and dump core.")
    directive(
        "env",
        MAIN,
        Word(),
        many=True,
        syntax="name[=value]",
        doc="A variable of the workers' environment; what the master was given they have anyway.",
    )
    ignored("debug_points", MAIN, "a fault ends the worker, with a traceback in the error log")


declare()

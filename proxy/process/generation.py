"""A generation: one conf that was read and found right, with its log, addresses and zones.

The start and each reload make one. Nothing of the generation before is lost while the new one may
still be refused.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from proxy.conf.directive import DIRECTIVES
from proxy.conf.report import ConfError
from proxy.engine.held import hold_files
from proxy.engine.listen import Address, SocketOptions, addresses
from proxy.observe.directives import DEFAULT_PATH, log_paths
from proxy.observe.error_log import ERROR, LEVELS, ErrorLog
from proxy.process.directives import User, default_user
from proxy.process.post import Post
from proxy.process.zones import open_zones

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.conf.inherit import Block, Statement
    from proxy.process.options import Options

MAX_REPORT = 64 * 1024
LONGEST_PATH = 100  # bytes of a Unix socket's name, with room below 108
TEMP_PATHS = {"client_body_temp_path": "client_body_temp", "proxy_temp_path": "proxy_temp"}


class Refused(Exception):
    """Why a generation cannot be: lines for the log, each with its level word."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        super().__init__(lines[-1][1] if lines else "")
        self.lines = lines


class Generation:
    """`number` counts from 1. `zones` are name → Zone."""

    __slots__ = (
        "addresses", "bells", "internal_path", "keys", "log", "model", "number", "pid_path",
        "post", "user", "workers", "zones",
    )  # fmt: skip

    def __init__(
        self,
        model: Block,
        options: Options,
        before: Generation | None = None,
        post: Post | None = None,
    ) -> None:
        """post: of the executable before. Raises ConfError, or Refused where the system says no."""
        self.number: int = before.number + 1 if before else 1
        self.model = model
        self.addresses: list[Address] = addresses(model)
        self.workers: int = model.get("worker_processes")
        # A pid file that moved would lose the master to whoever looks for it.
        self.pid_path: str = before.pid_path if before else pid_path_of(model, options)
        self.user: User | None = model.get("user") or default_user()
        # the next generation's workers accept on the very socket that this one's do
        path = before.internal_path if before else socket_path(self.pid_path, "workers")
        self.internal_path: str = path
        if has_functions(model) and model.get("master_process"):
            self.addresses.append(internal_address(self.internal_path, self.user))
        self.keys = {it.key for it in self.addresses}
        self.log = _open_log(model, options)
        try:
            prepare_files(model, options, self.user)
            hold_files(model)
            self.zones: dict[str, Any] = open_zones(model, before.zones if before else {})
        except BaseException:
            self.log.close()
            raise
        # an eventfd for each ledger that workers of this and the next generation may have
        self.bells: list[int] = list(before.bells) if before else []
        while len(self.bells) < 2 * self.workers + 1:
            self.bells.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self.post: Post = before.post if before else post or Post()
        if any(it.is_quic for it in self.addresses):
            self.post.grow(len(self.bells))
        if self.user is not None and self.user.uid:
            with contextlib.suppress(OSError):
                self.log.own(self.user.uid, self.user.gid)

    @property
    def shared(self) -> dict[str, int]:
        """name → descriptor, as a seat hands it on."""
        return {name: zone.fd for name, zone in self.zones.items()}


def read_model(options: Options) -> Block:
    """Every room declares, then the conf is read. Raises ConfError."""
    from proxy import order
    from proxy.conf import load

    order.declare_all()
    return load(options.conf_path, options.prefix, options.globals)


def has_functions(model: Block) -> bool:
    """Does the conf speak of functions anywhere?"""
    return any(
        http.find("function") or http.find("functions")
        or any(server.own("openfaas_api") for server in http.find("server"))
        for http in model.find("http")
    )  # fmt: skip


def socket_path(pid_path: str, name: str) -> str:
    """Where a Unix socket of ours lies: beside the pid file, if its name is not too long there."""
    path = f"{os.path.splitext(pid_path)[0]}-{name}.sock"
    if len(os.fsencode(path)) > LONGEST_PATH:
        import tempfile

        token = f"{os.getpid()}-{os.urandom(6).hex()}"
        path = f"{tempfile.gettempdir()}/headrace-{token}-{name}.sock"
    return path


def internal_address(path: str, user: User | None) -> Address:
    """Where all workers hear what the controller calls: for its user and root alone."""
    options = SocketOptions()
    options.owner = (user.uid, user.gid) if user is not None else (os.getuid(), os.getgid())
    return Address.internal(path, options)


def pid_path_of(model: Block, options: Options) -> str:
    return options.path(model.get("pid"))


def check(model: Block) -> None:
    """All that can be known wrong before a worker starts. Raises ConfError."""
    addresses(model)
    check_plan = _of_plan("check")
    if check_plan is not None:
        check_plan(model)


def check_apart(options: Options, model: Block | None = None) -> list[tuple[str, str]]:
    """`check` in a child, so that the master does not load what only workers need.

    Gives the lines (level, text) of the report; an `emerg` among them refuses the conf.
    """
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        lines: list[tuple[str, str]] = []
        try:
            if model is None:
                model = read_model(options)
            check(model)
            lines = model.notes
        except ConfError as error:
            lines = [*(model.notes if model else []), ("emerg", str(error))]
        except BaseException as error:
            lines = [("emerg", f"the check of the conf failed: {error!r}")]
        finally:
            text = "".join(f"{level} {line}\n" for level, line in lines)
            os.write(send, text.encode("utf-8", "surrogateescape")[-MAX_REPORT:])
            os._exit(0)
    os.close(send)
    with open(receive, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    found = [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]
    if status:
        found.append(("emerg", f"the check of the conf ended with status {status}"))
    return found


def _of_plan(name: str) -> Any:
    try:
        from proxy import plan  # type: ignore[attr-defined, unused-ignore]
    except ImportError as error:
        if error.name not in (None, "proxy", "proxy.plan"):
            raise
        return None
    return getattr(plan, name, None)


def _open_log(model: Block, options: Options) -> ErrorLog:
    files = []
    for path, level in model.own("error_log") or [(options.error_log, ERROR)]:
        files.append((options.path(path) if path else "", level))
    if not model.own("error_log") and not options.has_error_log:
        make_log_directory(options)
    try:
        return ErrorLog(files)
    except OSError as error:
        raise refused_open(error) from None


def make_log_directory(options: Options) -> None:
    """The default log and pid file stand in logs/, which a new prefix may lack."""
    with contextlib.suppress(OSError):
        os.mkdir(options.path("logs"))


def refused_open(error: OSError) -> Refused:
    line = f'open() "{error.filename}" failed ({error.errno}: {error.strerror})'
    return Refused([("emerg", line)])


def statements_of(block: Block) -> Iterator[Statement]:
    """Every statement of `block`, at any depth."""
    for statement in block.statements:
        yield statement
        if statement.block is not None:
            yield from statements_of(statement.block)


def prepare_files(model: Block, options: Options, user: User | None) -> None:
    """Directories for bodies, and logs that workers open after they gave up root.

    Raises Refused.
    """
    paths: dict[str, bool] = {}  # path → is it a directory?
    if model.find("http"):
        for name, path in TEMP_PATHS.items():
            if name in DIRECTIVES and not model.find("http")[0].own(name):
                paths[options.path(path)] = True
    for statement in statements_of(model):
        if not statement.args:
            continue
        path = str(statement.args[0])
        if statement.name in TEMP_PATHS:
            paths[options.path(path)] = True
        elif statement.name in ("access_log", "error_log"):
            is_file = path not in ("off", "stderr") and "$" not in path
            if is_file and not path.startswith(("syslog:", "memory:", "|")):
                paths[options.path(path)] = False
    for path in log_paths(model):
        if path == options.path(DEFAULT_PATH):
            make_log_directory(options)
        paths[path] = False
    if user is not None and user.uid and has_functions(model):
        from proxy.functions.folders import folders

        paths |= {path: True for path in folders(model) if not os.path.isdir(path)}
    for path, is_directory in paths.items():
        try:
            if is_directory:
                os.makedirs(path, 0o700, exist_ok=True)
            else:
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
            if user is not None and user.uid and os.stat(path).st_uid != user.uid:
                os.chown(path, user.uid, -1)
        except OSError as error:
            call = "mkdir" if is_directory else "open"
            line = f'{call}() "{path}" failed ({error.errno}: {error.strerror})'
            raise Refused([("emerg", line)]) from None


def level_of(word: str) -> int:
    """The number of a level's name."""
    return LEVELS.index(word)

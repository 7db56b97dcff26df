"""The provider of this machine's processes: commands, Python handlers, actions, lambdas.

The master is their parent (process.py talks to it), so they outlive the controller; a replica's
id holds where it listens: a Unix socket in a folder of its own, and a port kept free for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from typing import TYPE_CHECKING, Any

from proxy.functions.orders import argv_of
from proxy.functions.provider import Provider, Refusal, Running, Usage
from proxy.functions.providers.process import LogLines
from proxy.functions.secrets import COPIES, Secrets, renew_copy, secrets_of
from proxy.functions.zygotes import Zygotes, most_zygotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proxy.conf.inherit import Block
    from proxy.functions.model import Version
    from proxy.functions.provider import Events

FOLDER = "headrace-fn-"
PATH_BYTES = 100  # of a Unix socket
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Place:
    """Where one replica listens, and what it prints. holder keeps the port ours until then."""

    __slots__ = ("holder", "log", "pid", "port", "seen", "socket")

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.socket = path
        self.holder: socket.socket | None = None
        self.log: LogLines | None = None
        self.pid = 0
        self.seen = (0.0, 0)  # when its CPU time was read last, and what it was

    @property
    def addresses(self) -> Sequence[str]:
        return [f"unix:{self.socket}", f"127.0.0.1:{self.port}"]

    def release(self) -> None:
        """Let go of the port's reservation."""
        if self.holder is not None:
            self.holder.close()
            self.holder = None

    def forget_files(self) -> None:
        """Its folder: the socket, and the copies of its secrets."""
        folder = os.path.dirname(self.socket)
        if os.path.basename(folder).startswith(FOLDER):
            shutil.rmtree(folder, ignore_errors=True)


class Local(Provider):
    """See providers/process.py for what the master is told. open() before anything else."""

    kinds = ("command", "python", "fork", "openwhisk", "lambda")

    def __init__(self, loop: asyncio.AbstractEventLoop, events: Events) -> None:
        super().__init__(loop, events)
        self.processes: Zygotes
        self.secrets = Secrets("")
        self._places: dict[str, Place] = {}
        self._running: list[Running] = []
        self._is_listed = asyncio.Event()
        self._unheld: dict[str, bool] = {}  # version → its next replica finds its port unreserved

    def open(self, fd: int, model: Block, say: Callable[[str], None]) -> None:
        """Take over the channel to the master."""
        most = most_zygotes(model)
        self.processes = Zygotes(self.loop, fd, self, say, self._on_zygote_line, most)

    def _on_zygote_line(self, name: str, text: str) -> None:
        """What the import of a handler prints belongs to its version."""
        self.events.on_line(f"{name}/zygote/zygote/", text)

    def prepare(self, model: Block, versions: Iterable[Version]) -> None:
        """These are all that there are: what can be made warm is."""
        self.processes.most = most_zygotes(model)
        self.secrets = secrets_of(model)
        self.processes.prepare(versions)

    def describe(self, version: Version) -> str:
        return self.processes.describe(version.key)

    def check(self, version: Version) -> None:
        try:
            argv = argv_of(version)
        except ValueError as error:
            raise Refusal(str(error)) from None
        env = dict(version.env)
        path = env.get("PATH", os.environ.get("PATH", os.defpath))
        if shutil.which(argv[0], path=path) is None:
            who = f" that user {os.geteuid()} may run" if os.geteuid() else ""
            raise Refusal(f'there is no program "{argv[0]}"{who}')
        if not os.path.isdir(version.cwd):
            raise Refusal(f'there is no folder "{version.cwd}"')
        for file in version.files if version.handler.kind not in ("command", "fork") else ():
            if not os.path.exists(file):
                raise Refusal(f'there is no file "{file}"')

    async def find_running(self) -> list[Running]:
        await self._is_listed.wait()
        return self._running

    def place(self, version: Version, stem: str) -> str:
        folder = tempfile.mkdtemp(prefix=FOLDER)
        if len(os.fsencode(folder)) > PATH_BYTES:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix=FOLDER, dir="/tmp")
        holder = hold_port()
        port = holder.getsockname()[1]
        place = Place(port, os.path.join(folder, "s"))
        if self._unheld.get(version.key):
            holder.close()
        else:
            place.holder = holder
        id = f"{stem}/{port}/{place.socket}"
        self._places[id] = place
        return id

    def start(self, version: Version, id: str) -> None:
        place = self._places[id]
        try:
            order = version.order(place.port, place.socket)
            self._furnish(version, place, order)
        except (ValueError, OSError) as error:
            self.loop.call_soon(self.on_failed, id, str(error))
            return
        self.processes.start(id, order)

    def _furnish(self, version: Version, place: Place, order: dict[str, Any]) -> None:
        """Its folder is its user's, and holds its secrets. Raises OSError, ValueError."""
        uid, gid = order["uid"], order["gid"]
        is_other = os.getuid() == 0 and uid != 0
        folder = os.path.dirname(place.socket)
        if is_other:
            os.chown(folder, uid, gid)
        if not version.secrets:
            return
        inside = os.path.join(folder, COPIES)
        os.mkdir(inside, 0o700)
        for name in version.secrets:
            try:
                value = self.secrets.read(version.namespace, name)
            except OSError:
                text = f'there is no secret "{name}" in namespace "{version.namespace}"'
                raise ValueError(text) from None
            fd = os.open(os.path.join(inside, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(value)
                if is_other:
                    os.fchown(fd, uid, gid)
        if is_other:
            os.chown(inside, uid, gid)
        order["env"] |= {"SECRETS_PATH": inside, "secret_mount_path": inside}

    def on_secret(self, namespace: str, name: str) -> None:
        for id, place in self._places.items():
            if id.partition("/")[0].rpartition(".")[2] == namespace:
                with contextlib.suppress(OSError):  # it has none of that name, or is about to go
                    value = self.secrets.read(namespace, name)
                    renew_copy(os.path.dirname(place.socket), name, value)

    def stop(self, id: str, is_forced: bool) -> None:
        self.processes.signal(id, signal.SIGKILL if is_forced else signal.SIGTERM)

    def on_answering(self, id: str, address: str) -> None:
        """It is known where it listens: the other address is not needed."""
        place = self._places.get(id)
        if place is not None:
            place.release()

    def on_early_exit(self, key: str) -> None:
        """It ended before it listened: a server that sets no SO_REUSEADDR cannot bind a port that
        is held for it. The next one finds its port free."""
        self._unheld[key] = not self._unheld.get(key)
        if not self._unheld[key]:
            del self._unheld[key]

    def forget(self, id: str) -> None:
        place = self._places.pop(id, None)
        if place is not None:
            if place.log is not None:
                place.log.close()
            place.release()
            place.forget_files()

    def last_lines(self, id: str) -> list[str]:
        place = self._places.get(id)
        return list(place.log.lines) if place and place.log else []

    def usage(self, id: str) -> Usage | None:
        place = self._places.get(id)
        found = read_usage(place.pid) if place and place.pid else None
        if place is None or found is None:
            return None
        ticks, resident = found
        before_s, before = place.seen
        now_s = self.loop.time()
        place.seen = now_s, ticks
        elapsed_s = now_s - before_s
        cpu = (ticks - before) / TICKS / elapsed_s * 1000 if before_s and elapsed_s > 0 else 0.0
        return Usage(cpu, resident)

    # -- what the master tells (process.Events) ---------------------------------------------------
    def on_started(self, id: str, pid: int, fds: list[int]) -> None:
        place = self._places.get(id)
        if place is None:  # nobody waits for it any more
            for fd in fds:
                os.close(fd)
            self.processes.signal(id, signal.SIGKILL)
            return
        self._follow(id, place, pid, fds)
        self.events.on_started(id, place.addresses, pid=pid)

    def _follow(self, id: str, place: Place, pid: int, fds: list[int]) -> None:
        place.pid = pid
        place.seen = self.loop.time(), 0
        place.log = LogLines(self.loop, fds, lambda it: self.events.on_line(id, it))

    def on_running(self, id: str, pid: int, fds: list[int]) -> None:
        port, path = id.split("/", 5)[4:]
        place = self._places[id] = Place(int(port), path)
        self._follow(id, place, pid, fds)
        self._running.append(Running(id, place.addresses, pid))

    def on_listed(self) -> None:
        self._is_listed.set()

    def on_failed(self, id: str, error: str) -> None:
        self.events.on_failed(id, error)

    def on_exited(self, id: str, status: int | None) -> None:
        how = "ended" if status is None else f"exited with code {status}"
        if status is not None and status < 0:
            how = f"exited on signal {-status}"
        place = self._places.get(id)
        if place is not None and place.log is not None:
            place.log.close()  # its last words first
        self.events.on_exited(id, how)


def hold_port() -> socket.socket:
    """A free port of 127.0.0.1, bound and not listened on: nobody else is given it, and a server
    that sets SO_REUSEADDR (nearly all do) can bind it beside us. Raises OSError."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
    except OSError:
        holder.close()
        raise
    return holder


def read_usage(pid: int) -> tuple[int, int] | None:
    """CPU time in ticks and resident bytes of a process and its living children, from proc(5)."""
    ticks = resident = 0
    found, queue = False, [pid]
    while queue and len(queue) < 1000:
        it = queue.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{it}/stat", "rb") as file:
                words = file.read().rpartition(b")")[2].split()
            ticks += int(words[11]) + int(words[12])
            resident += int(words[21]) * PAGE
            found = True
            with open(f"/proc/{it}/task/{it}/children", "rb") as file:
                queue += map(int, file.read().split())
    return (ticks, resident) if found else None

"""Zygotes: which replica is forked from what, so that a cold start costs milliseconds.

A zygote is the function's own interpreter that has imported the handler's module and forks a
replica for each order (functions/runtime.py; process/replicas.py says how the order gets there).
At most `zygotes N` of them stay; a function without one is forked from a generic zygote of its
interpreter and imports then. A place is taken from the least recently used one by a function that
was asked for twice since that was used; those of functions with `prewarm` stay. What cannot be
forked is exec'ed, and `describe` says why.

Stands between keepers and the channel to the master: a keeper starts and signals replicas here, and
hears of them as it would without zygotes.
"""

from __future__ import annotations

import os
import signal
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from proxy.functions.orders import WITH_RUNTIME
from proxy.functions.providers.process import LogLines, Processes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from proxy.conf.inherit import Block
    from proxy.functions.model import Version
    from proxy.functions.providers.process import Events

MOST = 32
MOST_GENERIC = 8
PREFIX = "zygote/"
FORK_S = 5.0  # a zygote that has not forked within this is stuck
IMPORT_S = 60.0
MOST_NOTES = 20_000
GENERIC_NAME = "generic/python"  # as if it were a version
STARTING, READY, UNFIT = "starting", "ready", "unfit"
FORKED = "forked from a zygote"
GENERIC = "forked from a generic zygote, imports for itself"
EXECED = "started by exec"


class Zygote:
    """id: the master's word for it, `KEY/SERIAL`; waiting: orders of replicas until it is ready."""

    __slots__ = ("id", "is_generic", "is_kept", "key", "log", "name", "state", "timer", "used_s",
                 "waiting")  # fmt: skip

    def __init__(self, id: str, name: str, is_generic: bool) -> None:
        self.id = id
        self.key = id.rpartition("/")[0]
        self.name = name
        self.is_generic = is_generic
        self.is_kept = is_generic
        self.state = STARTING
        self.used_s = 0.0
        self.waiting: dict[str, dict[str, Any]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.log: LogLines | None = None

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.log is not None:
            self.log.close()


class Zygotes:
    """`start`, `signal` as Processes has them. An order may have a key "from":

    {"name": the version's key, "id": of its zygote, "argv": …, "env": …, "words": for a generic
     one, "generic": {"id", "argv", "env"} or None, "timeout_ms": of the import}
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        events: Events,
        say: Callable[[str], None],
        say_line: Callable[[str, str], None],
        most: int = MOST,
    ) -> None:
        self.most = most
        self._say_line = say_line
        self._serial = 0
        self._loop = loop
        self._events = events
        self._say = say
        self._by_key: dict[str, Zygote] = {}
        self._unfit: OrderedDict[str, tuple[str, str]] = OrderedDict()  # id → (name, why)
        self._asked: OrderedDict[str, float] = OrderedDict()  # id → when
        self._prepared: deque[Version] = deque()
        self._forks: dict[str, tuple[dict[str, Any], asyncio.TimerHandle]] = {}  # not born yet
        self._how: OrderedDict[str, str] = OrderedDict()  # name → how its last replica came
        self._processes = Processes(loop, fd, self)

    # -- what keepers ask -----------------------------------------------------------------------
    def start(self, id: str, order: dict[str, Any]) -> None:
        """A replica, by the fastest way that there is for it."""
        plan = order.get("from")
        order = {key: value for key, value in order.items() if key != "from"}
        if plan is None or not self.most or plan["id"] in self._unfit:
            why = self._unfit.get(plan["id"], ("", ""))[1] if plan else ""
            self._exec(id, order, plan["name"] if plan else "", why)
            return
        zygote = self._by_key.get(plan["id"])
        if is_generic(plan):
            zygote = self._generic(plan, order)
        elif zygote is None:
            self._drop_older(plan)
            if self._count() < self.most:
                zygote = self._hatch(plan, order)
            else:
                self._ask_place(plan, order)
                zygote = self._generic(plan, order)
        if zygote is None:
            self._exec(id, order, plan["name"], "")
            return
        order = {**order, "from": plan}
        if zygote.state == READY:
            self._fork(zygote, id, order)
        else:
            zygote.waiting[id] = order

    def prepare(self, versions: Iterable[Version]) -> None:
        """Zygotes for what will be asked one day, as far as there are places for them; one import
        at a time. Nobody else is to have one."""
        wanted = {it.key: it for it in versions}
        for zygote in list(self._by_key.values()):
            if not zygote.is_generic and zygote.name not in wanted:
                self.forget(zygote.name)
        able = [it for it in wanted.values() if it.handler.kind in WITH_RUNTIME and self.most]
        self._prepared = deque(sorted(able, key=lambda it: -it.scale.prewarm))
        self._prepare_next()

    def signal(self, id: str, number: int) -> None:
        """To the process group of a replica; one that is not born yet never will be."""
        for zygote in self._by_key.values():
            if zygote.waiting.pop(id, None) is not None:
                self._loop.call_soon(self._events.on_failed, id, "it was called back")
                return
        self._born(id)  # if it was told to be: the master says that it failed
        self._processes.signal(id, number)

    def forget(self, name: str) -> None:
        """The version is gone: so is its zygote."""
        for zygote in [it for it in self._by_key.values() if it.name == name]:
            self._drop(zygote)
        for id in [id for id, it in self._unfit.items() if it[0] == name]:
            del self._unfit[id]
        self._prepared = deque(it for it in self._prepared if it.key != name)
        self._how.pop(name, None)

    def describe(self, name: str) -> str:
        """How replicas of this version come to be; "" when none did yet."""
        return self._how.get(name, "")

    def rows(self) -> list[dict[str, Any]]:
        """For whoever wants to look."""
        return [
            {"id": it.id, "name": it.name, "state": it.state, "waiting": len(it.waiting)}
            for it in self._by_key.values()
        ]

    # -- places ---------------------------------------------------------------------------------
    def _count(self) -> int:
        return sum(not it.is_generic for it in self._by_key.values())

    def _drop_older(self, plan: dict[str, Any]) -> None:
        """An older make of the same version needs no zygote any more."""
        for it in list(self._by_key.values()):
            if it.name == plan["name"] and not it.is_generic and it.id != plan["id"]:
                self._drop(it)

    def _ask_place(self, plan: dict[str, Any], order: dict[str, Any]) -> None:
        now = self._loop.time()
        last = self._asked.pop(plan["id"], 0.0)
        self._asked[plan["id"]] = now
        if len(self._asked) > 4 * self.most + 64:
            self._asked.popitem(last=False)
        own = [it for it in self._by_key.values() if not it.is_kept and it.state == READY]
        oldest = min(own, key=lambda it: it.used_s, default=None)
        if oldest is not None and last > oldest.used_s:
            self._drop(oldest)
            self._hatch(plan, order)

    def _hatch(self, plan: dict[str, Any], order: dict[str, Any]) -> Zygote:
        zygote = Zygote(self._new_id(plan), plan["name"], is_generic=False)
        zygote.is_kept = bool(plan.get("is_kept"))
        return self._begin(zygote, plan, order, plan.get("timeout_ms", IMPORT_S * 1000) / 1000)

    def _generic(self, plan: dict[str, Any], order: dict[str, Any]) -> Zygote | None:
        generic = plan.get("generic")
        if generic is None or generic["id"] in self._unfit:
            return None
        found = self._by_key.get(generic["id"])
        if found is not None:
            return found
        if sum(it.is_generic for it in self._by_key.values()) >= MOST_GENERIC:
            return None
        zygote = Zygote(self._new_id(generic), GENERIC_NAME, is_generic=True)
        return self._begin(zygote, generic, {**order, "cwd": "/"}, IMPORT_S)

    def _new_id(self, plan: dict[str, Any]) -> str:
        """One that no zygote of an earlier controller has: the clock is in it."""
        self._serial += 1
        return f"{plan['id']}/{time.monotonic_ns() // 1000:x}{self._serial:x}"

    def _find(self, id: str) -> Zygote | None:
        zygote = self._by_key.get(id.rpartition("/")[0])
        return zygote if zygote is not None and zygote.id == id else None

    def _begin(
        self, zygote: Zygote, plan: dict[str, Any], order: dict[str, Any], limit_s: float
    ) -> Zygote:
        self._by_key[zygote.key] = zygote
        zygote.used_s = self._loop.time()
        zygote.timer = self._loop.call_later(limit_s, self._on_late, zygote, limit_s)
        made: dict[str, Any] = {key: order[key] for key in ("cwd", "uid", "gid") if key in order}
        made |= {"argv": plan["argv"], "env": plan["env"], "zygote": True}
        self._processes.start(zygote.id, made)
        return zygote

    def _prepare_next(self) -> None:
        while self._prepared:
            if any(it.state == STARTING for it in self._by_key.values()):
                return
            try:
                order = self._prepared.popleft().order(0, "")
            except ValueError:  # whoever starts it is told
                continue
            plan = order["from"]
            if plan is None or plan["id"] in self._by_key or plan["id"] in self._unfit:
                continue
            if self._count() >= self.most or is_generic(plan):
                self._generic(plan, order)  # for the others
                if self._count() >= self.most:
                    self._prepared.clear()
            else:
                self._drop_older(plan)
                self._hatch(plan, order)

    # -- births ---------------------------------------------------------------------------------
    def _exec(self, id: str, order: dict[str, Any], name: str, why: str) -> None:
        self._note(name, f"{EXECED}: {why}" if why else EXECED)
        self._processes.start(id, {key: it for key, it in order.items() if key != "from"})

    def _note(self, name: str, how: str) -> None:
        if name:
            self._how[name] = how
            self._how.move_to_end(name)
            if len(self._how) > MOST_NOTES:
                self._how.popitem(last=False)

    def _fork(self, zygote: Zygote, id: str, order: dict[str, Any]) -> None:
        plan = order["from"]
        zygote.used_s = self._loop.time()
        self._forks[id] = order, self._loop.call_later(FORK_S, self._on_late, zygote, FORK_S)
        told = {key: order[key] for key in ("limits", "group", "nice", "cwd") if order.get(key)}
        if zygote.is_generic:
            told |= {"words": plan["words"], "env": order["env"]}
        else:
            had = plan["env"]
            told["env"] = {key: it for key, it in order["env"].items() if had.get(key) != it}
        self._note(plan["name"], GENERIC if zygote.is_generic else FORKED)
        self._processes.fork(id, zygote.id, told)

    def _on_late(self, zygote: Zygote, limit_s: float) -> None:
        """Its import, or a fork, takes too long."""
        what = "its fork" if zygote.state == READY else "the import of the handler"
        self._fail(zygote, f"{what} took longer than {limit_s:g} s")

    def _fail(self, zygote: Zygote, why: str) -> None:
        """No more of it: who waits for its import has failed."""
        self._say(f"function {zygote.name}: its zygote failed: {why}")
        waiting, zygote.waiting = zygote.waiting, {}
        self._drop(zygote)
        for id in waiting:
            self._events.on_failed(id, why)

    def _drop(self, zygote: Zygote) -> None:
        """It is to go; who waits for it is exec'ed. Of forks that it has not made the master says
        that they failed."""
        if self._by_key.get(zygote.key) is not zygote:
            return
        del self._by_key[zygote.key]
        zygote.close()
        self._processes.signal(zygote.id, signal.SIGKILL)
        for id, order in zygote.waiting.items():
            self._exec(id, order, order["from"]["name"], "")

    # -- what the master tells (providers/process.py) -------------------------------------------
    def on_started(self, id: str, pid: int, fds: list[int]) -> None:
        if id.startswith(PREFIX):
            self._on_hatched(id, fds)
            return
        self._born(id)
        self._events.on_started(id, pid, fds)

    def on_running(self, id: str, pid: int, fds: list[int]) -> None:
        if id.startswith(PREFIX):
            name = id[len(PREFIX) :].rsplit("/", 2)[0]
            zygote = Zygote(id, name, is_generic=name == GENERIC_NAME)
            self._by_key[zygote.key] = zygote
            self._on_hatched(id, fds)
        else:
            self._events.on_running(id, pid, fds)

    def on_listed(self) -> None:
        self._events.on_listed()

    def on_zygote(self, id: str, state: str, why: str) -> None:
        zygote = self._find(id)
        if zygote is None:
            return
        if zygote.timer is not None:
            zygote.timer.cancel()
            zygote.timer = None
        if state == READY:
            zygote.state = READY
            waiting, zygote.waiting = zygote.waiting, {}
            for replica, order in waiting.items():
                self._fork(zygote, replica, order)
        elif state == UNFIT:
            self._unfit[zygote.key] = zygote.name, why
            if len(self._unfit) > MOST_NOTES:
                self._unfit.popitem(last=False)
            self._say(f"function {zygote.name}: {why}: its replicas are not forked but exec'ed")
            waiting, zygote.waiting = zygote.waiting, {}
            self._drop(zygote)
            for replica, order in waiting.items():
                self._exec(replica, order, zygote.name, why)
        else:
            self._fail(zygote, why)
        self._prepare_next()

    def on_failed(self, id: str, error: str) -> None:
        zygote = self._find(id)
        order = self._born(id)
        if zygote is not None:
            self._fail(zygote, error)
        elif order is not None:
            self._exec(id, order, order["from"]["name"], error)
        elif not id.startswith(PREFIX):
            self._events.on_failed(id, error)

    def on_exited(self, id: str, status: int | None) -> None:
        if not id.startswith(PREFIX):
            self._events.on_exited(id, status)
            return
        zygote = self._find(id)
        if zygote is not None:
            self._fail(zygote, f"it exited with code {status}{last_words(zygote.log)}")

    def _born(self, id: str) -> dict[str, Any] | None:
        """The fork `id` is decided: its order."""
        order, timer = self._forks.pop(id, (None, None))
        if timer is not None:
            timer.cancel()
        return order

    def _on_hatched(self, id: str, fds: list[int]) -> None:
        zygote = self._find(id)
        if zygote is None:
            for fd in fds:
                os.close(fd)
            return
        say = self._say_line
        name = zygote.name
        zygote.log = LogLines(self._loop, fds, lambda it: say(name, it))


def is_generic(plan: dict[str, Any]) -> bool:
    """There is nothing of the function to import."""
    return bool(plan["generic"]) and plan["generic"]["id"] == plan["id"]


def last_words(log: LogLines | None) -> str:
    lines = list(log.lines)[-1:] if log else []
    return f": {lines[0]}" if lines else ""


def most_zygotes(model: Block) -> int:
    """`functions { zygotes N; }` of a conf."""
    for http in model.find("http"):
        for block in http.find("functions"):
            return int(block.get("zygotes"))
    return MOST

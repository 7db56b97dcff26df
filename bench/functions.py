"""What functions cost: cold starts, bursts, faults under load, and calls that wait in the queue.

    bench/functions.py [QUESTION …] [--write] [--minutes 5] [--calls 10000] [--many 10000]

Questions: cold command zero warm burst churn slots queue accept jetstream many. Each prints one
line with the figure it must reach; churn runs for --minutes. All functions are local processes, all
traffic goes over loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import report
from cold import ZYGOTE, command_starts, starts
from load import wrk
from meter import cpu_ns, rss_bytes, tree
from peers import ROOT, Process, Upstream, free_port, user_line

sys.path.append(str(ROOT / "tests/functions/queue"))
from natsserver import Nats  # noqa: E402

PYTHON = sys.executable
HANDLER = "def handle(event, context):\n    return {'statusCode': 200, 'body': 'hello'}\n"
ECHO = """import os, time
def handle(event, context):
    with open(os.environ['SEEN'], 'a') as seen:
        seen.write(event.headers.get('X-Id', '') + '\\n')
    time.sleep(0.01)
    return {'statusCode': 200, 'body': str(len(event.body))}
"""
SLEEPS = "min_scale 0; initial_scale 0; window 6s; retention 0s;"


class Gateway(Process):
    """A Headrace with functions, unpinned: replicas need the cores too."""

    name = "headrace"

    def __init__(self, folder: Path, functions: str, locations: str, more: str = "") -> None:
        super().__init__(folder)
        self.text = functions, locations, more
        self.workers = 1

    def conf(self, kind: str, upstream: int) -> None:
        functions, locations, more = self.text
        port = free_port()
        self.ports = {"http": port}
        (self.folder / "headrace.conf").write_text(
            f"{user_line()} daemon off; worker_processes {self.workers}; pid {self.folder}/pid;\n"
            f"error_log {self.folder}/error.log notice; events {{ worker_connections 8192; }}\n"
            f"http {{ access_log off; client_max_body_size 1m; {functions} {more}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; {locations} }} }}\n"
        )

    def command(self) -> list[str]:
        return [PYTHON, "-m", "proxy", "-p", str(self.folder), "-c",
                str(self.folder / "headrace.conf")]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    @property
    def pid(self) -> int:
        """The master's, of whichever executable it is by now."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "pid").read_text())
        return super().pid

    def stop(self) -> None:
        """TERM to the master that is left after upgrades, too."""
        pid, is_first = self.pid, self.process is None or self.pid == super().pid
        super().stop()
        if not is_first:
            end = time.monotonic() + 10
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                while time.monotonic() < end:
                    os.kill(pid, 0)
                    time.sleep(0.05)

    core = "0-63" if (os.cpu_count() or 1) > 63 else f"0-{(os.cpu_count() or 1) - 1}"

    def child(self, title: str) -> int:
        """The pid of one of its processes, by its title."""
        for pid in tree(self.pid):
            with contextlib.suppress(OSError):
                if f"headrace: {title}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise LookupError(title)


async def ask(port: int, path: str, body: bytes = b"", fields: str = "",
              kept: list | None = None) -> tuple[int, bytes]:  # fmt: skip
    """One request; on a kept connection when `kept` holds one. Raises OSError, EOFError."""
    while kept and kept[-1][0].at_eof():  # ended while it was idle
        kept.pop()[1].close()
    reader, writer = kept.pop() if kept else await asyncio.open_connection("127.0.0.1", port)
    method = "POST" if body else "GET"
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
                     f"\r\n{fields}\r\n".encode() + body)  # fmt: skip
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            data = b""
            while size := int(await reader.readline(), 16):
                data += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        else:
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 : lower.index(b"\r\n", at)]) if at >= 0 else 0
            data = await reader.readexactly(length)
        if kept is not None and b"connection: close" not in lower:
            kept.append((reader, writer))
            writer = None
        return int(head.split(b" ", 2)[1]), data
    finally:
        if writer is not None:
            writer.close()


async def upgrade(gateway: Gateway) -> None:
    """USR2 to the master; QUIT to the old one when the new one has its pid in the file."""
    old = gateway.pid
    os.kill(old, signal.SIGUSR2)
    for _ in range(200):
        await asyncio.sleep(0.05)
        if gateway.pid != old and (gateway.folder / "pid.oldbin").exists():
            break
    else:
        raise TimeoutError("the new executable did not start")
    await asyncio.sleep(2)
    os.kill(old, signal.SIGQUIT)


def function(name: str, kind: str, words: str = SLEEPS) -> str:
    """One function block."""
    return f"function {name} {{ {kind}; {words} }}\n"


def say(row: dict[str, object]) -> dict[str, object]:
    """Print one answer."""
    print(f"  {row['what']:<58} {row['figure']:<34} {row.get('must', '')}", flush=True)
    return row


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all are below."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def run_gateway(folder: Path, functions: str, locations: str,
                work: Callable[[Gateway], Awaitable[dict[str, object]]], more: str = "",
                workers: int = 1) -> dict[str, object]:  # fmt: skip
    """Start, ask, stop."""
    gateway = Gateway(folder, functions, locations, more)
    gateway.workers = workers
    folder.mkdir(parents=True, exist_ok=True)
    gateway.start("functions")
    try:
        time.sleep(1.0)
        return asyncio.run(work(gateway))
    except Exception:
        print((folder / "error.log").read_text()[-1500:])
        raise
    finally:
        gateway.stop()


def cold(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """One function, asleep before each of 200 requests; its zygote is warm."""
    times, failed = starts(ZYGOTE, 32, 200)
    p50, p99 = statistics.median(times) * 1000, percentile(times, 0.99) * 1000
    return {"what": "cold start, Python by zygote, first byte, p50 / p99 of 200",
            "figure": f"{p50:.1f} / {p99:.1f} ms, {failed} failed", "must": "15 / 60 ms",
            "values": [p50, p99, failed]}  # fmt: skip


def command(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """A server of the standard library: our part of its cold start."""
    times, bare, failed = command_starts(50)
    ours, alone = statistics.median(times) * 1000, statistics.median(bare) * 1000
    return {"what": "cold start, command python3 server.py, p50 of 50",
            "figure": f"{ours:.0f} ms, alone {alone:.0f} ms: +{ours - alone:.0f}, {failed} failed",
            "must": "+10 ms", "values": [ours, alone, failed]}  # fmt: skip


def zero(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """200 functions at zero, one request each, all at once."""
    (folder / "hello.py").write_text(HANDLER)
    blocks = "".join(function(f"z{i}", f"python {folder}/hello.py:handle") for i in range(200))

    async def work(gateway: Gateway) -> dict[str, object]:
        begin = time.perf_counter()
        found = await asyncio.gather(
            *(ask(gateway.ports["http"], f"/z{i}") for i in range(200)), return_exceptions=True
        )
        took = time.perf_counter() - begin
        good = sum(isinstance(it, tuple) and it[0] == 200 for it in found)
        return {"what": "200 Python functions at zero, one request each at once",
                "figure": f"{good} answered in {took:.1f} s", "must": "all 200",
                "values": [good, took]}  # fmt: skip

    places = "".join(f"location /z{i} {{ function_pass z{i}; }}\n" for i in range(200))
    return run_gateway(folder / "zero", blocks, places, work)


def warm(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """A request to a replica that is ready, and the same by proxy_pass: CPU of the worker."""
    upstream = Upstream(folder / "upstream")
    upstream.start()
    address = f"127.0.0.1:{upstream.ports['plain']}"
    plain = free_port()

    async def work(gateway: Gateway) -> dict[str, object]:
        worker = gateway.child("worker process")
        costs: dict[str, list[float]] = {"plain": [], "warm": []}
        for number in range(7):
            for kind, samples in costs.items():
                begin = cpu_ns(worker)
                port = plain if kind == "plain" else gateway.ports["http"]
                sums = wrk(f"http://127.0.0.1:{port}/", 64, 2)
                if number:  # the first round warms up
                    samples.append((cpu_ns(worker) - begin) / 1000 / sums["requests"])
        a, b = (statistics.median(costs[it]) for it in ("warm", "plain"))
        return {"what": "warm request to a function, CPU per request",
                "figure": f"{a:.1f} µs, proxy_pass {b:.1f}: {a / b:.2f} x", "must": "1.10 x",
                "values": [a, b]}  # fmt: skip

    block = function("w", f"static {address}", "concurrency 0;")
    block += f"upstream app {{ server {address}; keepalive 1024; }}\n"
    block += f"server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://app; }} }}\n"
    places = "location / { function_pass w; }"
    try:
        return run_gateway(folder / "gateway", block, places, work)
    finally:
        upstream.stop()


def burst(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """0 to 500 concurrent requests at one function, max_scale 20."""
    (folder / "slow.py").write_text(
        "import time\ndef handle(event, context):\n    time.sleep(0.05)\n    return 'hello'\n"
    )
    block = function(
        "b", f"python {folder}/slow.py:handle", SLEEPS + "max_scale 20; concurrency 10; target 5;"
    )

    async def work(gateway: Gateway) -> dict[str, object]:
        counts: collections.Counter = collections.Counter()

        async def one() -> None:
            kept: list = []
            for _ in range(6):
                try:
                    status, _ = await ask(gateway.ports["http"], "/b", kept=kept)
                except (OSError, EOFError) as error:
                    status = repr(error)
                counts[status] += 1

        begin = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(500)))
        failed = sum(n for status, n in counts.items() if status != 200)
        return {"what": "burst 0 -> 500 concurrent at one function, max_scale 20",
                "figure": f"{failed} failed of {sum(counts.values())}, "
                          f"{time.perf_counter() - begin:.1f} s",
                "must": "0 failed", "values": [failed, dict(counts)]}  # fmt: skip

    return run_gateway(folder / "burst", block, "location /b { function_pass b; }", work)


def churn(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Load that comes and goes while the controller is killed and the conf reloaded."""
    seen = folder / "seen"
    seen.write_text("")
    (folder / "echo.py").write_text(ECHO)
    block = function(
        "e",
        f"python {folder}/echo.py:handle",
        SLEEPS + f"max_scale 6; concurrency 4; env SEEN {seen};",
    )

    async def work(gateway: Gateway) -> dict[str, object]:
        counts: collections.Counter = collections.Counter()
        posted: list[str] = []
        end = time.monotonic() + options.minutes * 60
        body = b"x" * 65536

        async def client(number: int) -> None:
            kept: list | None = [] if number % 2 else None
            turn = 0
            while time.monotonic() < end:
                turn += 1
                if int(time.monotonic()) // 10 % 3 == 2 and number > 1:
                    await asyncio.sleep(0.2)  # scale down for 10 s of each 30
                    continue
                name = f"{number}-{turn}"
                is_post = turn % 2 == 0
                if is_post:
                    posted.append(name)
                try:
                    status, _ = await ask(
                        gateway.ports["http"],
                        "/e",
                        body if is_post else b"",
                        f"X-Id: {name if is_post else ''}\r\n",
                        kept,
                    )
                except (OSError, EOFError) as error:
                    status = repr(error)[:60]
                counts[status] += 1

        async def faults() -> str:
            kills = reloads = upgrades = 0
            for turn in itertools.count():
                await asyncio.sleep(5)
                if time.monotonic() > end - 10:
                    break
                if turn % 5 == 4:
                    await upgrade(gateway)
                    upgrades += 1
                elif turn % 2:
                    os.kill(gateway.pid, signal.SIGHUP)
                    reloads += 1
                else:
                    with contextlib.suppress(LookupError, OSError):
                        os.kill(gateway.child("controller process"), signal.SIGKILL)
                        kills += 1
            return f"{kills} controllers killed, {reloads} HUP, {upgrades} USR2"

        said, *_ = await asyncio.gather(faults(), *(client(i) for i in range(24)))
        ran = collections.Counter(seen.read_text().split())
        twice = sum(n > 1 for name, n in ran.items() if name)
        failed = sum(n for status, n in counts.items() if status != 200)
        return {"what": f"{options.minutes:g} min up and down, {said}",
                "figure": f"{failed} failed of {sum(counts.values())}, {twice} POSTs twice",
                "must": "0 failed, 0 twice",
                "values": [failed, twice, {str(k): n for k, n in counts.items()}]}  # fmt: skip

    return run_gateway(folder / "churn", block, "location /e { function_pass e; }", work, workers=2)


def slots(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """The worker that holds every slot of a function is killed: who is parked in the other?"""
    (folder / "slow.py").write_text(
        "import time\ndef handle(event, context):\n    time.sleep(1)\n    return 'hello'\n"
    )
    block = function(
        "s",
        f"python {folder}/slow.py:handle",
        "min_scale 1; max_scale 1; concurrency 4; queue size=100 wait=20s;",
    )

    async def work(gateway: Gateway) -> dict[str, object]:
        port = gateway.ports["http"]
        places = b"headrace: worker process"
        workers = [pid for pid in tree(gateway.pid)
                   if places in Path(f"/proc/{pid}/cmdline").read_bytes()]  # fmt: skip

        def held_by(pid: int) -> set[str]:
            """Local ports of the clients whose connection that worker has."""
            inodes = set()
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(f"/proc/{pid}/fd/{name}")[8:-1])
            rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return {row[2] for row in rows if row[9] in inodes}

        async def connect(pid: int, count: int) -> list:
            found: list = []
            while len(found) < count:  # SO_REUSEPORT deals them out by hash
                pair = await asyncio.open_connection("127.0.0.1", port)
                name = f"0100007F:{pair[1].get_extra_info('sockname')[1]:04X}"
                await asyncio.sleep(0.02)
                if name in held_by(pid):
                    found.append(pair)
                else:
                    pair[1].close()
            return found

        holders = [asyncio.create_task(ask(port, "/s", kept=[it]))
                   for it in await connect(workers[0], 4)]  # fmt: skip
        await asyncio.sleep(0.3)
        parked = [asyncio.create_task(ask(port, "/s", kept=[it]))
                  for it in await connect(workers[1], 4)]  # fmt: skip
        await asyncio.sleep(0.1)
        os.kill(workers[0], signal.SIGKILL)
        begin = time.perf_counter()
        found = await asyncio.gather(*parked, return_exceptions=True)
        took = time.perf_counter() - begin
        await asyncio.gather(*holders, return_exceptions=True)
        good = sum(isinstance(it, tuple) and it[0] == 200 for it in found)
        return {"what": "kill -9 of the worker with every slot: 4 parked in the other",
                "figure": f"{good} answered, {took:.1f} s after", "must": "all 4",
                "values": [good, took]}  # fmt: skip

    return run_gateway(folder / "slots", block, "location /s { function_pass s; }", work, workers=2)


def queue_of(folder: Path, where: str) -> tuple[str, str, str]:
    """A conf with one function that is called asynchronously."""
    seen = folder / "called"
    (folder / "call.py").write_text(ECHO.replace("time.sleep(0.01)", "pass"))
    block = function(
        "q", f"python {folder}/call.py:handle", f"min_scale 1; concurrency 0; env SEEN {seen};"
    )
    more = f"functions {{ queue {where}; store {folder}/functions.db; }}"
    return block, "openfaas_api on; openfaas_auth off;", more


async def accept_calls(port: int, count: int, at_once: int = 64) -> tuple[list[str], int, float]:
    """Post `count` calls; (ids accepted, refused, seconds)."""
    accepted: list[str] = []
    refused = 0
    numbers = iter(range(count))
    begin = time.perf_counter()

    async def client() -> None:
        nonlocal refused
        kept: list = []
        for number in numbers:
            try:
                status, _ = await ask(port, "/async-function/q", b"x", f"X-Id: {number}\r\n", kept)
            except (OSError, EOFError):
                status = 0
            if status == 202:
                accepted.append(str(number))
            else:
                refused += 1

    await asyncio.gather(*(client() for _ in range(at_once)))
    return accepted, refused, time.perf_counter() - begin


def queue(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Accepted calls while the controller is killed five times: each must run."""
    place = folder / "queue"
    place.mkdir()
    block, locations, more = queue_of(place, f"sqlite:{place}/queue.db")

    async def work(gateway: Gateway) -> dict[str, object]:
        async def kill() -> None:
            for _ in range(5):
                await asyncio.sleep(1.5)
                with contextlib.suppress(LookupError, OSError):
                    os.kill(gateway.child("controller process"), signal.SIGKILL)

        (accepted, refused, _), _ = await asyncio.gather(
            accept_calls(gateway.ports["http"], options.calls, 32), kill()
        )
        called: set[str] = set()
        for _ in range(600):
            called = set((place / "called").read_text().split())
            if called.issuperset(accepted):
                break
            await asyncio.sleep(0.5)
        lost = len(set(accepted) - called)
        return {"what": f"{options.calls} async calls, controller killed 5 times",
                "figure": f"{len(accepted)} accepted, {lost} lost, {refused} refused",
                "must": "0 lost", "values": [len(accepted), lost, refused]}  # fmt: skip

    return run_gateway(place / "gateway", block, locations, work, more)


def accept(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """How many calls a second are accepted, SQLite."""
    return accept_in(folder / "accept", "SQLite", ">= 2,000", f"sqlite:{folder}/accept/queue.db")


def jetstream(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """How many calls a second are accepted, NATS JetStream on its defaults."""
    nats = Nats(folder / "nats").start()
    try:
        where = f"nats://127.0.0.1:{nats.port}"
        return accept_in(folder / "jetstream", "JetStream", ">= 3,000", where)
    finally:
        nats.stop()


def accept_in(place: Path, name: str, must: str, where: str) -> dict[str, object]:
    """One gateway with that queue; its function runs what is accepted meanwhile."""
    place.mkdir()
    block, locations, more = queue_of(place, where)

    async def work(gateway: Gateway) -> dict[str, object]:
        accepted, refused, seconds = await accept_calls(gateway.ports["http"], 8000)
        return {"what": f"async calls accepted per second, {name}",
                "figure": f"{len(accepted) / seconds:.0f}, {refused} refused", "must": must,
                "values": [len(accepted) / seconds, refused]}  # fmt: skip

    return run_gateway(place / "gateway", block, locations, work, more)


def many(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Functions by the API, each invoked once, asleep again: what the gateway keeps of them."""
    place = folder / "many"
    place.mkdir()
    (place / "hello.py").write_text(HANDLER)
    more = f"functions {{ root {place}; store {place}/functions.db; }}"

    def call(port: int, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    async def work(gateway: Gateway) -> dict[str, object]:
        def own() -> float:
            total = rss_bytes(gateway.pid) if not tree(gateway.pid) else 0
            for pid in [gateway.pid, *tree(gateway.pid)]:
                with contextlib.suppress(OSError):
                    if b"headrace:" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                            if line.startswith("Pss:"):
                                total += int(line.split()[1]) * 1024
            return total / 2**20

        port = gateway.ports["http"]
        before = own()
        for i in range(options.many):
            call(
                port,
                "POST",
                "/system/functions",
                {
                    "service": f"m{i}",
                    "image": f"{place}/hello.py",
                    "envProcess": "",
                    "labels": {"com.openfaas.scale.zero": "true"},
                    "annotations": {
                        "autoscaling.knative.dev/initial-scale": "0",
                        "autoscaling.knative.dev/window": "6s",
                        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
                    },
                },
            )
        kept: list = []
        for i in range(options.many):
            status, _ = await ask(port, f"/function/m{i}", kept=kept)
            assert status == 200, (i, status)
        await asyncio.sleep(20)
        after = own()
        begin = time.perf_counter()
        call(port, "GET", "/system/functions")
        took = (time.perf_counter() - begin) * 1000
        return {"what": f"{options.many} functions by API, invoked once, asleep again",
                "figure": f"+{after - before:.0f} MiB, list {took:.0f} ms",
                "must": "+60 MiB, 200 ms", "values": [after - before, took]}  # fmt: skip

    return run_gateway(place / "gateway", "", "openfaas_api on; openfaas_auth off;", work, more)


ASKED = (cold, command, zero, warm, burst, churn, slots, queue, accept, jetstream, many)
QUESTIONS = {it.__name__: it for it in ASKED}


def main() -> int:
    """Ask, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="QUESTION",
        help=f"of {' '.join(QUESTIONS)}; all when left out",
    )
    parser.add_argument("--write", action="store_true", help="into bench/results and the README")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    unknown = set(options.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"unknown question {unknown.pop()}")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    rows = {}
    for name in options.questions or QUESTIONS:
        with tempfile.TemporaryDirectory(prefix="hr-") as folder:
            os.chmod(folder, 0o755)
            try:
                rows[name] = say(QUESTIONS[name](Path(folder), options))
            except Exception as error:
                print(f"  {name}: {error!r}", flush=True)
    if options.write:
        report.write_rows("functions", rows, list(QUESTIONS))
    return 0 if len(rows) == len(options.questions or QUESTIONS) else 1



if __name__ == "__main__":
    raise SystemExit(main())

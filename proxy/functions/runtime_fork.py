"""`fork PROGRAM …`: a process per request, the body its input, its output the answer.

OpenFaaS' classic contract as of-watchdog has it. Environment: `mode` is streaming (the default:
output goes out as it comes) or serializing (input and output are whole); `exec_timeout`,
`max_inflight`, `content_type` mean what they mean there. Loaded by runtime.py.
"""

# mypy: check-untyped-defs=False
import asyncio
import contextlib
import os
import re
import signal
import sys
import time

from headrace_runtime import BODY_BYTES, PIECE_BYTES, BadRequest

UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
AFTER_S = 5.0  # for the output that is still in the pipe of a process that ended


def prepare(*argv):
    return lambda pool: Fork(argv)


def read_duration(text, other):
    """Seconds of a duration as Go writes it (`1m30s`), or of a number."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return other
    return sum(float(number) * UNITS_S[unit] for number, unit in parts)


class Fork:
    def __init__(self, argv):
        self.argv = argv
        env = os.environ
        self.is_whole = env.get("mode", "streaming") == "serializing"
        limit_s = int(env.get("FUNCTION_TIMEOUT_MS", 60_000)) / 1000
        self.limit_s = read_duration(env.get("exec_timeout", ""), limit_s)
        self.kind = env.get("content_type", "application/octet-stream")
        self.most = int(env.get("max_inflight", 0))
        self.count = 0
        if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.set_child_watcher(watcher)

    async def answer(self, request, answer):
        if self.most and self.count >= self.most:
            raise BadRequest(429, f"more than max_inflight={self.most} requests at once")
        self.count += 1
        began_s = time.monotonic()
        try:
            body = await request.body(answer.writer) if self.is_whole else None
            process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=env_of(request),
                start_new_session=True,
                limit=PIECE_BYTES,
            )
        except OSError as error:
            print(f"{self.argv[0]}: {error}", file=sys.stderr)
            return fail(answer, 500, f"{self.argv[0]} cannot be run: {error.strerror}", began_s)
        finally:
            self.count -= 1
        self.count += 1
        fed = asyncio.ensure_future(feed(process, request, answer, body))
        try:
            work = self.whole if self.is_whole else self.stream
            await asyncio.wait_for(work(process, answer, began_s), self.limit_s)
        except asyncio.TimeoutError:  # noqa: UP041 (two before Python 3.11)
            print(f"{self.argv[0]}: killed after {self.limit_s:g} s", file=sys.stderr)
            if answer.is_begun:
                raise ConnectionResetError from None
            fail(answer, 504, f"the function took longer than {self.limit_s:g} s", began_s)
        finally:
            self.count -= 1
            fed.cancel()
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return None

    async def whole(self, process, answer, began_s):
        pieces, size = [], 0
        while data := await process.stdout.read(PIECE_BYTES):
            pieces.append(data)
            size += len(data)
            if size > BODY_BYTES:
                return fail(answer, 502, f"the output is over {BODY_BYTES} bytes", began_s)
        code = await process.wait()
        if code:
            return fail(answer, 500, ended(code), began_s)
        answer.whole(200, self.fields(began_s), b"".join(pieces))
        return None

    async def stream(self, process, answer, began_s):
        while data := await process.stdout.read(PIECE_BYTES):
            if not answer.is_begun:
                answer.begin(200, self.fields(None))
            answer.put(data)
            await answer.writer.drain()
        code = await process.wait()
        if code and answer.is_begun:  # an end would say that all went well
            print(f"{self.argv[0]}: {ended(code)}", file=sys.stderr)
            raise ConnectionResetError
        if code:
            fail(answer, 500, ended(code), began_s)
        elif answer.is_begun:
            answer.end()
        else:
            answer.whole(200, self.fields(began_s), b"")

    def fields(self, began_s):
        fields = [("Content-Type", self.kind)]
        if began_s is not None:
            fields.append(duration(began_s))
        return fields


def duration(began_s):
    return "X-Duration-Seconds", f"{time.monotonic() - began_s:.6f}"


def ended(code):
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


def fail(answer, status, text, began_s):
    """A platform's answer, told from the function's own by a field."""
    fields = [("Content-Type", "text/plain"), ("X-OpenFaaS-Internal", "headrace")]
    answer.whole(status, [*fields, duration(began_s)], text.encode() + b"\n")


async def feed(process, request, answer, body):
    """The body into its input; whoever does not read it need not."""
    with contextlib.suppress(OSError, EOFError):
        if body is not None:
            process.stdin.write(body)
            await process.stdin.drain()
        else:
            while data := await request.piece(answer.writer):
                process.stdin.write(data)
                await process.stdin.drain()
    process.stdin.close()


def env_of(request):
    """The function's environment with the request in it. A field Proxy stays out: a program that
    does not look at case would take it for its proxy."""
    env = dict(os.environ)
    env.pop("SOCKET", None)
    env.pop("PORT", None)
    fields = {}
    for name, value in request.fields:
        key = "Http_" + "_".join(part.capitalize() for part in name.split("-"))
        if key != "Http_Proxy" and "\0" not in value:
            fields[key] = f"{fields[key]}, {value}" if key in fields else value
    if request.is_chunked:
        fields["Http_Transfer_Encoding"] = "chunked"
    env.update(fields)
    env["Http_Method"] = request.method
    env["Http_Path"] = request.path
    env["Http_Query"] = request.query
    return env

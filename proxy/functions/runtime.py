"""Serves one function over HTTP/1.1 on the Unix socket $SOCKET: `runtime.py FILE CALLABLE`.

Started by the gateway with the function's own interpreter: standard library alone, Python 3.9 or
newer, this one file. The callable is told apart by its shape: `handle(event, context)` or
`handle(text)` as in the OpenFaaS Python templates, a WSGI or an ASGI application, a target of
functions-framework. Plain callables run in a bounded pool of threads; coroutines and ASGI on the
loop. `runtime.py KIND WORD…` serves what runtime_KIND.py beside this file makes of the words.

`runtime.py zygote[=SPARES] [WORD…]` imports what the words name and keeps so many forked replicas,
each of which waits for an order on descriptor 3 (process/replicas.py says which); without words a
replica imports for itself.
"""

# mypy: check-untyped-defs=False
import sys

if __name__ == "__main__":
    del sys.path[0]  # else a handler's import could meet a module of the gateway's

import asyncio
import contextlib
import gc
import importlib.util
import inspect
import io
import json
import os
import re
import resource
import select
import signal
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

HEAD_BYTES = 64 * 1024
BODY_BYTES = int(os.environ.get("MAX_BODY_BYTES", 64 << 20))  # of a body that must be whole
PIECE_BYTES = 64 * 1024
MOST_CONNECTIONS = 1024
KINDS = ("fork", "openwhisk", "lambda")  # each a file beside this one
CHANNEL_FD = 3
QUIET_MS = 30
MOST_DEATHS = 20  # of spare replicas, one after the other
ORDER_BYTES = 256 * 1024
DROP_S = 5.0  # for a body that nobody reads
IDLE_S = 75.0  # the gateway closes after 4 s; a peer that does not is not waited for


class BadRequest(Exception):
    """What cannot be understood; `status` is answered and the connection closed."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Fields(dict):
    """The fields of a request: names in any case; several lines of one name are joined."""

    def __init__(self, pairs):
        super().__init__()
        for name, value in pairs:
            key = name.title()
            self[key] = self[key] + ", " + value if key in self else value

    def __getitem__(self, name):
        return super().__getitem__(name.title())

    def __contains__(self, name):
        return super().__contains__(name.title())

    def get(self, name, default=None):
        return super().get(name.title(), default)


class Event:
    """body: bytes; headers: any case; method; query: dict of the first values; path: decoded."""

    def __init__(self, request, body):
        self.body = body
        self.headers = Fields(request.fields)
        self.method = request.method
        self.path = unquote(request.path)
        self.query = {}
        for name, value in parse_qsl(request.query, keep_blank_values=True):
            self.query.setdefault(name, value)


class Context:
    def __init__(self):
        self.hostname = os.environ.get("HOSTNAME") or socket.gethostname()
        self.function_name = os.environ.get("FUNCTION_NAME", "")


class Request:
    """One request's head, and its body as it comes."""

    def __init__(self, head, reader):
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadRequest(400, "no request line")
        self.method, self.target, self.version = words
        path, _, self.query = self.target.partition("?")
        if "://" in path:
            path = "/" + path.partition("://")[2].partition("/")[2]
        self.path = path
        self.fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequest(400, "no field")
            self.fields.append((name, value.strip(" \t")))
        names = [name.lower() for name, _ in self.fields]
        self.is_chunked = "transfer-encoding" in names
        lengths = {value for name, value in self.fields if name.lower() == "content-length"}
        if len(lengths) > 1 or (self.is_chunked and lengths):
            raise BadRequest(400, "bad framing")
        text = lengths.pop() if lengths else "0"
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise BadRequest(400, "bad Content-Length")
        self.left = int(text)
        options = self.get("connection").lower()
        self.keep_alive = self.version == "HTTP/1.1" and "close" not in options
        self.expects = self.get("expect").lower() == "100-continue"
        self.is_read = not self.is_chunked and self.left == 0
        self.reader = reader

    def get(self, name):
        return ", ".join(value for key, value in self.fields if key.lower() == name)

    async def piece(self, writer):
        """The next piece of the body; b"" at its end."""
        if self.expects and not self.is_read:
            self.expects = False
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.is_read:
            return b""
        if self.is_chunked and self.left == 0:
            size = (await self.reader.readuntil(b"\r\n")).partition(b";")[0].strip()
            try:
                if not 0 < len(size) < 16 or size[:1] in b"+-" or b"_" in size:
                    raise ValueError
                self.left = int(size, 16)
            except ValueError:
                raise BadRequest(400, "bad chunk") from None
            if self.left == 0:
                for _ in range(100):
                    if await self.reader.readuntil(b"\r\n") == b"\r\n":
                        self.is_read = True
                        return b""
                raise BadRequest(400, "too many trailers")
        data = await self.reader.read(min(self.left, PIECE_BYTES))
        if not data:
            raise ConnectionResetError("the body was cut")
        self.left -= len(data)
        if self.left == 0:
            if not self.is_chunked:
                self.is_read = True
            elif await self.reader.readexactly(2) != b"\r\n":
                raise BadRequest(400, "bad chunk")
        return data

    async def drop(self, writer):
        """Read the rest of the body for nobody."""
        self.expects = False
        while await self.piece(writer):
            pass

    async def body(self, writer):
        """The body, whole."""
        if self.left > BODY_BYTES:
            raise BadRequest(413, "too large")
        pieces, size = [], 0
        while True:
            data = await self.piece(writer)
            if not data:
                return b"".join(pieces)
            size += len(data)
            if size > BODY_BYTES:
                raise BadRequest(413, "too large")
            pieces.append(data)


class Answer:
    """Writes one answer: head, pieces, end. Without a length pieces go out chunked."""

    def __init__(self, request, writer):
        self.request = request
        self.writer = writer
        self.is_begun = False
        self.is_chunked = False
        self.has_body = True

    def begin(self, status, fields, length=None):
        self.writer.write(self.head(status, fields, length))

    def head(self, status, fields, length):
        request = self.request
        self.is_begun = True
        bodiless = status < 200 or status in (204, 304)
        self.has_body = not bodiless and request.method != "HEAD"
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = "Unknown"
        names = {name.lower() for name, _ in fields}
        lines = [f"HTTP/1.1 {status} {reason}"]
        for name, value in fields:
            line = f"{name}: {value}"
            if "\r" in line or "\n" in line or name.lower() in ("connection", "transfer-encoding"):
                continue
            lines.append(line)
        if "date" not in names:
            lines.append("Date: " + formatdate(usegmt=True))
        if "content-length" not in names and not bodiless:
            if length is not None:
                lines.append(f"Content-Length: {length}")
            elif request.version == "HTTP/1.1":
                self.is_chunked = self.has_body
                lines.append("Transfer-Encoding: chunked")
            else:
                request.keep_alive = False
        if not request.keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def put(self, data):
        if not data or not self.has_body:
            return
        if self.is_chunked:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.writer.write(data)

    def end(self):
        if self.is_chunked:
            self.writer.write(b"0\r\n\r\n")

    def whole(self, status, fields, body):
        head = self.head(status, fields, len(body))
        self.writer.write(head + body if self.has_body else head)


class Handler:
    """`handle(event, context)` or `handle(text)`, plain or async."""

    def __init__(self, call, pool):
        self.call = call
        self.pool = pool
        self.context = Context()
        self.is_async = is_async(call)
        self.takes_text = count_of(call) == 1

    async def answer(self, request, answer):
        body = await request.body(answer.writer)
        if self.takes_text:
            args = (body.decode("utf-8", "replace"),)
        else:
            args = (Event(request, body), self.context)
        if self.is_async:
            found = await self.call(*args)
        else:
            found = await asyncio.get_running_loop().run_in_executor(self.pool, self.call, *args)
        answer.whole(*read_result(found))


def read_result(found):
    """(status, fields, body) of what a handler returned, as the OpenFaaS templates read it."""
    status, fields, body = 200, {}, found
    if isinstance(found, tuple) and 1 <= len(found) <= 3:
        body = found[0]
        status = found[1] if len(found) > 1 else 200
        fields = found[2] if len(found) > 2 else {}
    elif isinstance(found, dict) and found.keys() & {"statusCode", "body", "headers"}:
        status = found.get("statusCode", 200)
        fields = found.get("headers") or {}
        body = found.get("body")
    kind = None
    if body is None:
        body = b""
    elif isinstance(body, (bytes, bytearray, memoryview)):
        body, kind = bytes(body), "application/octet-stream"
    elif isinstance(body, str):
        body, kind = body.encode("utf-8", "surrogateescape"), "text/plain; charset=utf-8"
    else:
        body, kind = json.dumps(body).encode(), "application/json"
    pairs = fields.items() if isinstance(fields, dict) else fields
    fields = [(str(name), str(value)) for name, value in pairs if name.lower() != "content-length"]
    if kind and not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", kind))
    return int(status), fields, body


class Wsgi:
    """A WSGI application (PEP 3333); its pieces are written as they come."""

    def __init__(self, call, pool):
        self.call = call
        self.pool = pool

    async def answer(self, request, answer):
        body = await request.body(answer.writer)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.pool, self.run, request, body, answer, loop)

    def run(self, request, body, answer, loop):
        """In a thread."""
        head = []

        def put(data):
            asyncio.run_coroutine_threadsafe(self.put(answer, head, data), loop).result()

        def start_response(status, fields, exc_info=None):
            if exc_info and answer.is_begun:
                raise exc_info[1].with_traceback(exc_info[2])
            if head and not exc_info:
                raise RuntimeError("start_response() was called twice")
            head[:] = [int(status.split(" ", 1)[0]), list(fields)]
            return put

        found = self.call(environ_of(request, body), start_response)
        try:
            if isinstance(found, (list, tuple)) and not answer.is_begun and len(found) <= 1:
                data = found[0] if found else b""
                loop.call_soon_threadsafe(answer.whole, *head, data)
                return
            for data in found:
                if data:
                    put(data)
            put(b"")
            loop.call_soon_threadsafe(answer.end)
        finally:
            if hasattr(found, "close"):
                found.close()

    async def put(self, answer, head, data):
        if not answer.is_begun:
            if not head:
                raise RuntimeError("start_response() was not called")
            answer.begin(*head)
        answer.put(data)
        await answer.writer.drain()


def environ_of(request, body):
    """The WSGI environ."""
    host, _, port = request.get("host").partition(":")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": request.version,
        "REMOTE_ADDR": request.get("x-forwarded-for").rpartition(",")[2].strip(),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.get("x-forwarded-proto") or "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in Fields(request.fields).items():
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ[key] = value
        elif key != "CONTENT_LENGTH" and "_" not in name:
            environ["HTTP_" + key] = value
    return environ


class Asgi:
    """An ASGI 3 application: http, lifespan, and, in a file of its own, websocket."""

    def __init__(self, call, pool):
        self.call = call
        self.state = {}
        self.sockets = set()
        self.events = asyncio.Queue()
        self.is_up = asyncio.Event()
        self.failed = ""

    async def start(self):
        """Lifespan; an application that knows nothing of it just runs."""

        async def send(message):
            if message["type"] == "lifespan.startup.failed":
                self.failed = message.get("message") or "the application did not start"
            self.is_up.set()

        async def run():
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
            with contextlib.suppress(Exception):
                await self.call(scope, self.events.get, send)
            self.is_up.set()

        self.events.put_nowait({"type": "lifespan.startup"})
        self.task = asyncio.ensure_future(run())
        await self.is_up.wait()
        if self.failed:
            sys.exit(self.failed)

    async def stop(self):
        self.events.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self.task], timeout=5)

    async def answer(self, request, answer):
        if "websocket" in request.get("upgrade").lower() and part("websocket").is_wanted(request):
            await part("websocket").answer(self, request, answer)
            return
        is_over = asyncio.Event()
        is_told = False  # that the body is over

        async def receive():
            nonlocal is_told
            if is_told:
                await is_over.wait()
                return {"type": "http.disconnect"}
            data = await request.piece(answer.writer)
            is_told = request.is_read
            return {"type": "http.request", "body": data, "more_body": not is_told}

        head = []

        async def send(message):
            if message["type"] == "http.response.start":
                fields = message.get("headers", ())
                pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in fields]
                head[:] = [message["status"], pairs]
            elif message["type"] == "http.response.body":
                data, more = message.get("body", b""), message.get("more_body", False)
                if not answer.is_begun and not more:
                    answer.whole(*head, bytes(data))
                    is_over.set()
                    return
                if not answer.is_begun:
                    answer.begin(*head)
                answer.put(bytes(data))
                if more:
                    await answer.writer.drain()
                else:
                    answer.end()
                    is_over.set()

        try:
            await self.call(scope_of(request, dict(self.state)), receive, send)
        finally:
            is_over.set()
        if not answer.is_begun:
            raise RuntimeError("the application sent no answer")


def scope_of(request, state):
    """The ASGI scope of one request."""
    host, _, port = request.get("host").partition(":")
    address = request.get("x-forwarded-for").rpartition(",")[2].strip()
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version[5:],
        "method": request.method,
        "scheme": request.get("x-forwarded-proto") or "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": "",
        "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in request.fields],
        "client": (address, 0) if address else None,
        "server": (host or "localhost", int(port) if port.isdigit() else 80),
        "state": state,
    }


class Server:
    """Connections from the gateway, one request at a time on each."""

    def __init__(self, app):
        self.app = app
        self.count = 0
        self.idle = set()
        self.is_leaving = False

    async def serve(self, reader, writer):
        self.count += 1
        try:
            if self.count <= MOST_CONNECTIONS:
                while not self.is_leaving and await self.one(reader, writer):
                    pass
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self.count -= 1
            writer.close()

    async def one(self, reader, writer):
        """Serve one request. May another follow?"""
        self.idle.add(writer)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_S)
        except (asyncio.TimeoutError, EOFError):  # noqa: UP041 (two before Python 3.11)
            return False
        finally:
            self.idle.discard(writer)
        answer = None
        try:
            request = Request(head[:-4], reader)
            answer = Answer(request, writer)
            await self.app.answer(request, answer)
            await writer.drain()
            if not request.is_read:  # closed with a body unread, the answer could be lost
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(request.drop(writer), DROP_S)
            return request.keep_alive and request.is_read
        except BadRequest as error:
            status, text = error.status, str(error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, (OSError, EOFError)) and (writer.is_closing() or reader.at_eof()):
                raise  # not the handler's: nobody is there any more
            traceback.print_exc()
            status, text = 500, "the function failed"
        if answer is None or not answer.is_begun:
            body = (text + "\n").encode()
            writer.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%b"
                % (status, HTTPStatus(status).phrase.encode(), len(body), body)
            )
            await writer.drain()
        return False

    def leave(self):
        """Idle connections go at once, the others after their answer."""
        self.is_leaving = True
        for writer in list(self.idle):
            writer.close()


def load(file, name):
    """The callable `name` of `file`; raises what its import raises."""
    # a cached module is told by second and size: a handler changed within one would stay old
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.dirname(file))
    stem = os.path.splitext(os.path.basename(file))[0]
    spec = importlib.util.spec_from_file_location(stem, file)
    module = sys.modules[stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} of {file} cannot be called")
    return found


def is_async(call):
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
        getattr(call, "__call__", None)  # noqa: B004 (its function is wanted, not a test)
    )


def count_of(call):
    """How many arguments it must get; 0 when nobody knows."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([it for it in parameters if it.kind in kinds and it.default is it.empty])


def interface_of(call):
    """Handler, Wsgi or Asgi."""
    if inspect.isclass(call) and not is_async(call):
        return Wsgi
    if count_of(call) == 3 and is_async(call):
        return Asgi
    if inspect.isroutine(call):
        names = list(inspect.signature(call).parameters)
        return Wsgi if names[1:2] == ["start_response"] else Handler
    if is_async(call) or hasattr(call, "router"):
        return Asgi
    return Wsgi


def framework_app(file, name):
    """The application that functions-framework makes of its target `name`; None if it is none."""
    with open(file, "rb") as source:
        text = source.read()
    if b"functions_framework" not in text or not re.search(
        rb"^(async )?def %b\b" % re.escape(name.encode()), text, re.MULTILINE
    ):
        return None
    try:
        from functions_framework import create_app
    except ImportError:
        return None  # the import of the file will say so
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.dirname(file))
    return create_app(name, file)


def part(name):
    """The file runtime_NAME.py beside this one."""
    sys.modules.setdefault("headrace_runtime", sys.modules[__name__])
    key = "headrace_" + name
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, f"{__file__[:-3]}_{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


def prepare(words):
    """What `serve` needs of `words`: a maker of the application. Raises what an import raises."""
    if words[0] in KINDS:
        return part(words[0]).prepare(*words[1:])
    call = framework_app(*words) or load(*words)
    kind = interface_of(call)
    return lambda pool: kind(call, pool)


class Stage:
    """Where an application is served: the loop and the threads."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.pool = ThreadPoolExecutor(int(os.environ.get("THREADS", 32)))

    def rehearse(self):
        """Serve one request to nobody: what the first one would have to wait for is there then."""
        reader = asyncio.StreamReader(limit=HEAD_BYTES, loop=self.loop)
        reader.feed_data(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reader.feed_eof()
        server = Server(Handler(lambda event, context: "", self.pool))
        self.loop.run_until_complete(server.serve(reader, Nobody()))

    def run(self, make):
        self.loop.run_until_complete(serve(make, self.pool))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Nobody:
    def write(self, data=b""):
        pass

    close = write

    async def drain(self):
        pass


async def serve(make, pool):
    """Answer on $SOCKET until TERM or INT."""
    path = os.environ["SOCKET"]
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_over.set)
    app = make(pool)
    if hasattr(app, "start"):
        await app.start()
    server = Server(app)
    listener = await asyncio.start_unix_server(server.serve, path, limit=HEAD_BYTES, backlog=1024)
    await is_over.wait()
    listener.close()
    for remove, what in ((os.unlink, path), (os.rmdir, os.path.dirname(path))):
        with contextlib.suppress(OSError):
            remove(what)
    server.leave()
    for it in list(getattr(app, "sockets", ())):
        it.leave()
    while server.count:
        await asyncio.sleep(0.01)
    if hasattr(app, "stop"):
        await app.stop()
    pool.shutdown(wait=False)


def tell(channel, state, why="", **more):
    with contextlib.suppress(OSError):
        return channel.send(json.dumps({"state": state, "why": why[:1000], **more}).encode())


def why_unfit():
    """What an import left behind that a fork would share or lose; "" – nothing."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"its import starts {threads - 1} thread{'s' * (threads > 2)}"
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        if file.read().strip():
            return "its import starts a process"
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > CHANNEL_FD and os.readlink("/proc/self/fd/" + name)[:7] == "socket:":
                return "its import opens a socket"
    return ""


def last_line(error):
    """As a traceback ends."""
    return "".join(traceback.format_exception_only(type(error), error)).strip().split("\n")[-1]


def zygote(words, count):
    """Keep `count` spare replicas that wait for their orders; in a replica: (maker of the
    application, stage)."""
    channel = socket.socket(fileno=CHANNEL_FD)
    os.set_inheritable(CHANNEL_FD, False)
    make = None
    if words:
        try:
            make = prepare(words)
        except BaseException as error:
            traceback.print_exc()
            tell(channel, "failed", last_line(error))
            sys.exit(1)
        unfit = why_unfit()
        if unfit:
            tell(channel, "unfit", unfit)
            sys.exit(0)
    gc.collect()
    gc.freeze()  # else a collection in a replica would copy all pages
    tell(channel, "ready")
    deaths = 0
    spares = set()  # of each a pipe that says when it took an order
    orders = select.poll()
    orders.register(channel, select.POLLIN)
    while deaths < MOST_DEATHS:
        while len(spares) < count:
            taken, take = os.pipe()
            if is_replica(channel):
                for fd in (taken, *spares):
                    os.close(fd)
                return wait_order(channel, take, make)
            os.close(take)
            spares.add(taken)
        for fd in select.select(spares, (), ())[0]:
            if os.read(fd, 1):
                deaths = 0
            else:  # it died, or the gateway did
                deaths += 1
                if is_over(channel, 0.05 * deaths):
                    os._exit(0)
            os.close(fd)
            spares.discard(fd)
        orders.poll(QUIET_MS)  # who was just born shall have the processor, unless another waits
    os._exit(1)


def is_over(channel, wait_s):
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(wait_s * 1000))


def is_replica(channel):
    """Fork twice, so that the replica's parent is the zygote's own. True in the replica. When there
    can be no process, the next order is refused."""
    while True:
        try:
            pid = os.fork()
            if pid:
                if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                    raise BlockingIOError("Resource temporarily unavailable")
                return False
        except OSError as error:
            data, fds, _, _ = socket.recv_fds(channel, ORDER_BYTES, 3)
            if not data:
                os._exit(0)
            for fd in fds:
                os.close(fd)
            tell(channel, "stillborn", str(error), id=json.loads(data)["id"])
            continue
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid:
            os._exit(0)
        return True


def wait_order(channel, take, make):
    """In a spare replica: warm up, unless somebody waits; then become what the order says."""
    stage = None
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(0):
        stage = Stage()
        stage.rehearse()
    data, fds, _, _ = socket.recv_fds(channel, ORDER_BYTES, 3)
    if not data:
        os._exit(0)
    os.write(take, b"x")
    os.close(take)
    order = json.loads(data)
    become(channel, order, fds)
    if stage is None or "THREADS" in order.get("env", {}):
        stage = Stage()
    return make or prepare(order["words"]), stage


def become(channel, order, fds):
    """What the order says of a replica: its pipes, group, environment, folder and limits."""
    os.setsid()
    os.dup2(fds[0], 1)
    os.dup2(fds[1], 2)
    tell(channel, "born", id=order["id"]) or os._exit(0)  # unheard it would be nobody's
    channel.close()
    if len(fds) > 2:
        os.write(fds[2], b"0")
    for fd in fds:
        os.close(fd)
    os.environ.update(order.get("env", {}))
    if order.get("nice"):
        os.setpriority(os.PRIO_PROCESS, 0, order["nice"])
    for name, value in order.get("limits", {}).items():
        number = getattr(resource, "RLIMIT_" + name.upper())
        most = resource.getrlimit(number)[1]
        value = value if most < 0 else min(value, most)
        resource.setrlimit(number, (value, value))
    if order.get("cwd"):
        os.chdir(order["cwd"])
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write("fn " + os.environ.get("FUNCTION_NAME", ""))
    if "numpy.random" in sys.modules:  # Python's own generator is seeded anew by os.fork()
        sys.modules["numpy.random"].seed()


def main(words):
    if words[0].startswith("zygote"):
        make, stage = zygote(words[1:], int(words[0].partition("=")[2] or 1))
    else:
        make, stage = prepare(words), Stage()
    stage.run(make)


if __name__ == "__main__":
    main(sys.argv[1:])

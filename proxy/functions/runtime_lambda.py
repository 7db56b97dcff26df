"""`lambda FILE.handler`: a Lambda Runtime API of our own, so that AWS' client runs unchanged.

The client is `PYTHON -m awslambdaric`, one for each request at once (`concurrency`, one by
default). It asks 127.0.0.1 for the next event and posts the result; an HTTP request becomes an
event of payload format 2.0 and the result an answer, as behind a function URL. Loaded by
runtime.py.
"""

# mypy: check-untyped-defs=False
import asyncio
import base64
import contextlib
import json
import os
import re
import sys
import time
import uuid
from urllib.parse import parse_qsl, unquote

from headrace_runtime import HEAD_BYTES, Server

VERSION = "/2018-06-01/runtime"
RESULT = re.compile(VERSION + r"/invocation/([0-9a-zA-Z-]+)/(response|error)")
MOST_CLIENTS = 32
CLOCK = "%d/%b/%Y:%H:%M:%S +0000"
START_S = 60.0
PAUSE_S = 1.0  # before a client that died early is started again
TEXTS = ("text/", "application/json", "application/xml", "application/javascript")


def prepare(python, file, handler):
    return lambda pool: Lambda(python, file, handler)


class Call:
    """One event on its way to a client and its result back."""

    def __init__(self, event, limit_s):
        self.id = str(uuid.uuid4())
        self.event = json.dumps(event).encode()
        self.deadline_ms = int((time.time() + limit_s) * 1000)
        self.result = asyncio.get_running_loop().create_future()
        self.client = None


class Lambda:
    def __init__(self, python, file, handler):
        env = os.environ
        self.python, self.file, self.handler = python, file, handler
        self.limit_s = int(env.get("FUNCTION_TIMEOUT_MS", 60_000)) / 1000
        many = int(env.get("FUNCTION_CONCURRENCY", 1))
        self.most = max(1, min(many, MOST_CLIENTS))
        self.calls = asyncio.Queue()
        self.running = {}  # id → Call
        self.is_up = asyncio.Event()
        self.is_leaving = False
        self.wrong = ""
        self.tasks = []

    async def start(self):
        self.servers = []
        for _ in range(self.most):
            client = Client(self)
            listener = await asyncio.start_server(
                Server(client).serve, "127.0.0.1", 0, limit=HEAD_BYTES
            )
            self.servers.append(listener)
            client.address = "{}:{}".format(*listener.sockets[0].getsockname())
            self.tasks.append(asyncio.ensure_future(client.live()))
        try:
            await asyncio.wait_for(self.is_up.wait(), START_S)
        except asyncio.TimeoutError:  # noqa: UP041 (two before Python 3.11)
            self.wrong = f"the client asked for no event within {START_S:g} s"
        if self.wrong:
            await self.stop()
            sys.exit(self.wrong)

    async def stop(self):
        self.is_leaving = True
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks, timeout=5)

    async def answer(self, request, answer):
        body = await request.body(answer.writer)
        call = Call(event_of(request, body), self.limit_s)
        self.running[call.id] = call
        self.calls.put_nowait(call)
        try:
            status, found = await asyncio.wait_for(call.result, self.limit_s)
        except asyncio.TimeoutError:  # noqa: UP041
            print(f"{call.id}: timed out after {self.limit_s:g} s", file=sys.stderr)
            if call.client is not None:
                call.client.kill()
            status, found = 504, b'{"message": "Endpoint request timed out"}'
        finally:
            self.running.pop(call.id, None)
        if status != 200:
            fields = [("Content-Type", "application/json"), ("X-Amz-Function-Error", "Unhandled")]
            answer.whole(status, fields, found)
            return
        answer.whole(*answer_of(found))


class Client:
    """One process of the client, and the Runtime API as it sees it."""

    def __init__(self, app):
        self.app = app
        self.address = ""
        self.process = None
        self.call = None

    async def live(self):
        """Keep the client running."""
        app = self.app
        folder = os.path.dirname(app.file) or "."
        stem = os.path.splitext(os.path.basename(app.file))[0]
        env = {key: it for key, it in os.environ.items() if key not in ("SOCKET", "PORT")}
        name = env.get("FUNCTION_NAME", "function")
        env.update(
            AWS_LAMBDA_RUNTIME_API=self.address,
            AWS_LAMBDA_FUNCTION_NAME=env.get("AWS_LAMBDA_FUNCTION_NAME", name),
            AWS_LAMBDA_FUNCTION_VERSION=env.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE=str(
                int(env.get("FUNCTION_MEMORY_BYTES", 128 << 20)) >> 20
            ),
            AWS_REGION=env.get("AWS_REGION", "local"),
            LAMBDA_TASK_ROOT=folder,
            PYTHONPATH=os.pathsep.join(filter(None, [folder, env.get("PYTHONPATH")])),
            _HANDLER=f"{stem}.{app.handler}",
        )
        argv = [app.python, "-m", "awslambdaric", f"{stem}.{app.handler}"]
        while not app.is_leaving:
            born_s = time.monotonic()
            try:
                self.process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=folder)
                code = await self.process.wait()
            except OSError as error:
                app.wrong = app.wrong or f"{app.python}: {error}"
                code = 127
            except asyncio.CancelledError:
                self.kill()
                raise
            self.end(502, f"the client exited with code {code}")
            if not app.is_up.is_set():
                app.wrong = app.wrong or (
                    f"{app.python} -m awslambdaric exited with code {code}: is it installed there?"
                )
                app.is_up.set()
                return
            if time.monotonic() - born_s < PAUSE_S:
                await asyncio.sleep(PAUSE_S)

    def kill(self):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def end(self, status, found):
        """The call that it has is over."""
        call, self.call = self.call, None
        if isinstance(found, str):
            found = json.dumps({"message": "Internal Server Error"}).encode()
        if call is not None and not call.result.done():
            call.result.set_result((status, found))

    async def answer(self, request, answer):
        """One request of the client."""
        app, path = self.app, request.path
        if request.method == "GET" and path == VERSION + "/invocation/next":
            app.is_up.set()
            self.end(502, "the client asked for the next event before the result of the last")
            await self.next(answer)
            return
        body = await request.body(answer.writer)
        match = RESULT.fullmatch(path) if request.method == "POST" else None
        if match and self.call is not None and match[1] == self.call.id:
            if match[2] == "error":
                print(body.decode("utf-8", "replace")[:4000], file=sys.stderr)
                self.end(502, "failed")
            else:
                self.end(200, body)
            answer.whole(202, JSON, b'{"status": "OK"}')
        elif request.method == "POST" and path == VERSION + "/init/error":
            with contextlib.suppress(ValueError, AttributeError):
                error = json.loads(body)
                app.wrong = f"{error.get('errorType')}: {error.get('errorMessage')}"
            answer.whole(202, JSON, b'{"status": "OK"}')
        else:
            what = "InvalidRequestID" if match else "InvalidRequest"
            text = json.dumps({"errorMessage": "no such request", "errorType": what})
            answer.whole(400 if match else 404, JSON, text.encode())

    async def next(self, answer):
        call = await self.app.calls.get()
        while call.id not in self.app.running:  # its time was over in the queue
            call = await self.app.calls.get()
        self.call, call.client = call, self
        name = os.environ.get("FUNCTION_NAME", "function")
        fields = [
            *JSON,
            ("Lambda-Runtime-Aws-Request-Id", call.id),
            ("Lambda-Runtime-Deadline-Ms", str(call.deadline_ms)),
            ("Lambda-Runtime-Invoked-Function-Arn",
             f"arn:aws:lambda:local:000000000000:function:{name}"),
            ("Lambda-Runtime-Trace-Id", f"Root=1-{int(time.time()):08x}-{call.id[-12:]:0>24}"),
        ]  # fmt: skip
        answer.whole(200, fields, call.event)


JSON = [("Content-Type", "application/json")]


def event_of(request, body):
    """The event of payload format 2.0."""
    headers, cookies = {}, []
    for name, value in request.fields:
        key = name.lower()
        if key == "cookie":
            cookies += [it.strip() for it in value.split(";") if it.strip()]
        else:
            headers[key] = headers[key] + "," + value if key in headers else value
    query = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        query[name] = query[name] + "," + value if name in query else value
    kind = headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    is_text = kind.startswith(TEXTS) or kind == "application/x-www-form-urlencoded"
    text, now = "", time.time()
    if body and is_text:
        try:
            text = body.decode()
        except ValueError:
            is_text = False
    if body and not is_text:
        text = base64.b64encode(body).decode()
    host = headers.get("host", "localhost")
    event = {
        "version": "2.0", "routeKey": "$default", "rawPath": unquote(request.path),
        "rawQueryString": request.query, "headers": headers,
        "requestContext": {
            "accountId": "anonymous", "apiId": os.environ.get("FUNCTION_NAME", "function"),
            "domainName": host, "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method, "path": unquote(request.path),
                "protocol": request.version,
                "sourceIp": headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
                or "127.0.0.1",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": headers.get("x-call-id") or str(uuid.uuid4()), "routeKey": "$default",
            "stage": "$default", "time": time.strftime(CLOCK, time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": bool(body) and not is_text,
    }  # fmt: skip
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = query
    if body:
        event["body"] = text
    return event


def answer_of(body):
    """(status, fields, body) of a result; without statusCode it is a JSON body."""
    malformed = 502, JSON, b'{"message": "Internal Server Error"}'
    try:
        found = json.loads(body)
    except ValueError:
        return malformed
    if not isinstance(found, dict) or "statusCode" not in found:
        return 200, JSON, found.encode() if isinstance(found, str) else body
    try:
        status = int(found["statusCode"])
        if not 200 <= status <= 599:
            raise ValueError
        fields = [(str(name), str(value)) for name, value in (found.get("headers") or {}).items()]
        for name, values in (found.get("multiValueHeaders") or {}).items():
            fields += [(str(name), str(value)) for value in values]
        fields += [("Set-Cookie", str(it)) for it in found.get("cookies") or ()]
        text = found.get("body")
        if text is None:
            text = ""
        elif not isinstance(text, str):
            text = json.dumps(text)
        content = text.encode()
        if found.get("isBase64Encoded"):
            content = base64.b64decode(text, validate=True)
    except (ValueError, TypeError, AttributeError):
        print(f"malformed result: {body[:200]!r}", file=sys.stderr)
        return malformed
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", "application/json"))
    return status, [it for it in fields if it[0].lower() != "content-length"], content

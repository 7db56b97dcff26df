"""`openwhisk FILE`: an OpenWhisk action, asked as a web action or by its own contract.

A `.py` file has `main(params) -> dict`; another file is an executable that speaks ActionLoop: a
JSON line of a call on its input, a JSON line of the result on its descriptor 3. `POST /run` with
{"value": …} is answered as action containers answer it (`/init` is done already); any other
request is a web action's: parameters from query, form or JSON, `__ow_…` beside them, and a result
{"statusCode", "headers", "body"}. One call at a time, unless the environment says
__OW_ALLOW_CONCURRENT and the function `concurrency`. Loaded by runtime.py.
"""

# mypy: check-untyped-defs=False
import asyncio
import base64
import contextlib
import json
import os
import sys
import time
import traceback
import uuid
from urllib.parse import parse_qsl, unquote

from headrace_runtime import BadRequest, load

RESULT_FD = 3
RESULT_BYTES = 64 << 20
END = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
TEXTS = ("text/", "application/json", "application/xml", "application/x-www-form-urlencoded")


def prepare(file):
    if file.endswith(".py"):
        call = load(file, os.environ.get("__OW_MAIN", "main"))
        return lambda pool: Action(Python(call, pool))
    if not os.access(file, os.X_OK):
        raise PermissionError(f"{file} is no .py file and cannot be executed")
    with contextlib.suppress(OSError):
        if os.open(os.devnull, os.O_RDONLY) != RESULT_FD:  # kept free for the executable's result
            os.fstat(RESULT_FD)
    return lambda pool: Action(Loop(file))


class ActionFailed(Exception):
    """The action has no result: its own fault."""


class Python:
    """main(params) -> dict."""

    def __init__(self, call, pool):
        self.call = call
        self.pool = pool

    async def start(self):
        pass

    async def run(self, message):
        for key, value in message.items():
            if key != "value":
                os.environ["__OW_" + key.upper()] = str(value)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.pool, self.call, message["value"])
        except Exception as error:
            traceback.print_exc()
            raise ActionFailed(str(error) or type(error).__name__) from None


class Loop:
    """An executable that speaks ActionLoop."""

    def __init__(self, file):
        self.file = file
        self.process = None

    async def start(self):
        taken, given = os.pipe()
        os.dup2(given, RESULT_FD, inheritable=True)
        if given != RESULT_FD:
            os.close(given)
        try:
            self.process = await asyncio.create_subprocess_exec(
                self.file, stdin=asyncio.subprocess.PIPE, pass_fds=(RESULT_FD,)
            )
        finally:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, RESULT_FD, inheritable=False)
            os.close(null)
        self.reader = asyncio.StreamReader(limit=RESULT_BYTES)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), os.fdopen(taken, "rb", 0)
        )

    async def run(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        try:
            await self.process.stdin.drain()
            line = await self.reader.readline()
        except (OSError, ValueError) as error:
            line = b""
            print(f"{self.file}: {error}", file=sys.stderr)
        if not line:
            sys.exit(f"{self.file} ended")
        try:
            return json.loads(line)
        except ValueError:
            raise ActionFailed("The action did not return a dictionary.") from None


class Action:
    def __init__(self, runner):
        self.runner = runner
        env = os.environ
        many = int(env.get("FUNCTION_CONCURRENCY", 1))
        is_many = env.get("__OW_ALLOW_CONCURRENT", "").lower() in ("1", "true", "yes")
        self.turns = asyncio.Semaphore(many if is_many and isinstance(runner, Python) else 1)
        self.limit_ms = int(env.get("FUNCTION_TIMEOUT_MS", 60_000))
        self.is_raw = env.get("raw_http", "").lower() in ("1", "true", "yes")
        self.name = f"/{env.get('FUNCTION_NAMESPACE', '_')}/{env.get('FUNCTION_NAME', 'action')}"

    async def start(self):
        await self.runner.start()

    async def run(self, message):
        """(status, result) of one call."""
        limit_s = float(message.get("deadline", 0)) / 1000 - time.time()
        async with self.turns:
            try:
                found = await asyncio.wait_for(self.runner.run(message), max(limit_s, 0.001))
            except asyncio.TimeoutError:  # noqa: UP041 (two before Python 3.11)
                # nobody can stop it but with the process
                asyncio.get_running_loop().call_later(0.1, os._exit, 1)
                print("the action did not return before its deadline", file=sys.stderr)
                return 504, {"error": "The action exceeded its time limits."}
            except ActionFailed as error:
                return 502, {"error": f"An error has occurred: {error}"}
        if not isinstance(found, (dict, list)):
            return 502, {"error": "The action did not return a dictionary or array."}
        return 200, found

    def message(self, value, activation):
        return {
            "value": value, "namespace": os.environ.get("FUNCTION_NAMESPACE", "_"),
            "action_name": self.name, "api_host": os.environ.get("__OW_API_HOST", ""),
            "api_key": os.environ.get("__OW_API_KEY", ""), "activation_id": activation,
            "transaction_id": uuid.uuid4().hex,
            "deadline": str(int(time.time() * 1000) + self.limit_ms),
        }  # fmt: skip

    async def answer(self, request, answer):
        body = await request.body(answer.writer)
        if request.method == "POST" and request.path in ("/init", "/run"):
            await self.contract(request, body, answer)
            return
        activation = request.get("x-call-id") or uuid.uuid4().hex
        params = self.params(request, body)
        status, found = await self.run(self.message(params, activation))
        status, fields, body = web_result(status, found)
        answer.whole(status, [*fields, ("X-OpenWhisk-Activation-Id", activation)], body)

    async def contract(self, request, body, answer):
        """`/init` and `/run` as the platform asks them."""
        json_field = [("Content-Type", "application/json")]
        if request.path == "/init":
            error = {"error": "Cannot initialize the action more than once."}
            answer.whole(403, json_field, json.dumps(error).encode())
            return
        try:
            asked = json.loads(body)
            value = asked["value"]
            if not isinstance(value, (dict, list)):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise BadRequest(400, 'the body is no {"value": {…}}') from None
        message = {**self.message(value, uuid.uuid4().hex), **asked}
        try:
            float(message["deadline"])
        except (TypeError, ValueError):
            raise BadRequest(400, "the deadline is no number") from None
        status, found = await self.run(message)
        for stream in (sys.stdout, sys.stderr):
            print(END, file=stream, flush=True)
        answer.whole(status, json_field, json.dumps(found).encode())

    def params(self, request, body):
        """What a web action gets."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        kind = request.get("content-type").partition(";")[0].strip().lower()
        more = {}
        if self.is_raw:
            more = {"__ow_query": request.query, "__ow_body": encoded(body, kind, is_raw=True)}
            query = {}
        elif kind == "application/json" and body:
            try:
                found = json.loads(body)
            except ValueError:
                raise BadRequest(400, "the body is no JSON") from None
            more = found if isinstance(found, dict) else {"__ow_body": found}
        elif kind == "application/x-www-form-urlencoded":
            more = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
        elif body:
            more = {"__ow_body": encoded(body, kind)}
        own = set(query) | (set() if "__ow_body" in more else set(more))
        if any(name.startswith("__ow_") for name in own):
            raise BadRequest(400, "a parameter has a reserved name")
        headers = {}
        for name, value in request.fields:
            key = name.lower()
            headers[key] = headers[key] + ", " + value if key in headers else value
        return {
            **query, **more, "__ow_method": request.method.lower(), "__ow_headers": headers,
            "__ow_path": unquote(request.path),
        }  # fmt: skip


def encoded(body, kind, is_raw=False):
    is_text = kind.startswith(TEXTS) and not (is_raw and kind == "application/json")
    return body.decode("utf-8", "replace") if is_text else base64.b64encode(body).decode()


def web_result(status, found):
    """(status, fields, body) of a web action's result."""
    if isinstance(found, dict) and "error" in found and status == 200:
        inner = found["error"]
        if not (isinstance(inner, dict) and inner.keys() & {"statusCode", "headers", "body"}):
            return json_answer(400, found)
        found, status = inner, 400
    if status > 400 or not isinstance(found, dict):
        return json_answer(status, found)
    if not found.keys() & {"statusCode", "headers", "body"}:
        return json_answer(status, found)
    fields = []
    for name, value in (found.get("headers") or {}).items():
        values = value if isinstance(value, list) else [value]
        fields += [(str(name), text_of(one)) for one in values]
    body = found.get("body")
    kind = next((value for name, value in fields if name.lower() == "content-type"), None)
    if body is None or body == "":
        return int(found.get("statusCode", 204 if status == 200 else status)), fields, b""
    status = int(found.get("statusCode", status))
    if not isinstance(body, str):
        if kind is None:
            fields.append(("Content-Type", "application/json"))
        return status, fields, json.dumps(body).encode()
    if kind is None:
        fields.append(("Content-Type", "text/html; charset=utf-8"))
    elif not kind.startswith(TEXTS) and "charset" not in kind:
        try:
            return status, fields, base64.b64decode(body, validate=True)
        except ValueError:
            return json_answer(400, {"error": "the body of a binary type is no base64"})
    return status, fields, body.encode()


def text_of(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def json_answer(status, found):
    return status, [("Content-Type", "application/json")], json.dumps(found).encode()

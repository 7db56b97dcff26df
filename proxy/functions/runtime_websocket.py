"""WebSockets of an ASGI application (RFC 6455): a tunnel that the gateway moves byte by byte.

Messages wait for the application one at a time; while it takes none nothing is read, so that the
client waits, too. A replica that is stopped says goodbye with 1001. Loaded by runtime.py when the
first one comes; standard library alone, Python 3.9 or newer.
"""

# mypy: check-untyped-defs=False
import asyncio
import base64
import contextlib
import hashlib
import os
import struct
import traceback

from headrace_runtime import BadRequest, scope_of

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MESSAGE_BYTES = int(os.environ.get("MAX_MESSAGE_BYTES", 16 << 20))
# of silence, before a ping: it keeps the tunnel from being cut as idle; silent as long again: gone
PING_S = float(os.environ.get("WEBSOCKET_PING_S", 20))
CLOSE_S = 5.0  # for the client's own goodbye
OPCODES = MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, BAD_FRAME, NO_CODE, CUT, BAD_TEXT, TOO_BIG, FAILED = (
    1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011,
)  # fmt: skip


class BadFrame(Exception):
    """What the client must not send; `code` closes the connection."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class WebSocket:
    """One connection, between the application and the client."""

    def __init__(self, request, answer, state):
        self.request = request
        self.answer = answer
        self.writer = answer.writer
        self.scope = scope_of(request, state)
        wanted = request.get("sec-websocket-protocol").split(",")
        secure = {"https": "wss", "http": "ws"}
        self.scope.update(
            type="websocket",
            scheme=secure.get(self.scope["scheme"], "ws"),
            subprotocols=[it.strip() for it in wanted if it.strip()],
            extensions={"websocket.http.response": {}},
        )
        del self.scope["method"]
        self.key = key_of(request)
        self.message = {"type": "websocket.connect"}  # that waits to be received
        self.is_there, self.is_taken = asyncio.Event(), asyncio.Event()
        self.writing = asyncio.Lock()
        self.reading = None
        self.is_accepted = self.is_closed = False
        self.head = None  # of a refusal that the application writes itself
        self.end = None  # the message that tells of the end, from when on there is one
        self.heard_s = 0.0

    # -- what the application calls ---------------------------------------------------------------
    async def receive(self):
        """The next message; what came before the end comes before it."""
        while self.message is None:
            if self.end is not None:
                return self.end
            self.is_there.clear()
            await self.is_there.wait()
        message, self.message = self.message, None
        self.is_taken.set()
        return message

    async def send(self, message):
        kind = message["type"]
        if self.end is not None:
            raise ConnectionResetError("the client has left")
        if not self.is_accepted:
            return await self.decide(kind, message)
        if kind == "websocket.send" and not self.is_closed:
            text = message.get("text")
            if text is not None:
                await self.write(TEXT, text.encode())
            else:
                await self.write(BINARY, bytes(message["bytes"]))
        elif kind == "websocket.close" and not self.is_closed:
            code = message.get("code", NORMAL)
            await self.close(code, message.get("reason") or "")
            self.finish(code, message.get("reason") or "")
        else:
            raise RuntimeError(f'"{kind}" now')
        return None

    async def decide(self, kind, message):
        """Before the connection is one: accepted, or an answer as HTTP has it."""
        if kind == "websocket.accept":
            await self.accept(message)
        elif kind == "websocket.close":
            self.refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            self.head = message["status"], pairs_of(message)
        elif kind == "websocket.http.response.body" and self.head:
            if not self.answer.is_begun:
                self.answer.begin(*self.head)
            self.answer.put(bytes(message.get("body", b"")))
            await self.writer.drain()
            if not message.get("more_body"):
                self.answer.end()
                self.finish(CUT)
        else:
            raise RuntimeError(f'"{kind}" before "websocket.accept"')

    # -- the handshake ----------------------------------------------------------------------------
    async def accept(self, message):
        mark = hashlib.sha1(self.key + GUID, usedforsecurity=False).digest()
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", base64.b64encode(mark).decode()),
        ]
        if message.get("subprotocol"):
            fields.append(("Sec-WebSocket-Protocol", message["subprotocol"]))
        lines = ["HTTP/1.1 101 Switching Protocols"]
        for name, value in fields + pairs_of(message):
            if "\r" not in name + value and "\n" not in name + value:
                lines.append(f"{name}: {value}")
        self.is_accepted = self.answer.is_begun = True
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        self.reading = asyncio.ensure_future(self.read_all())
        await self.writer.drain()

    def refuse(self, status, fields, body):
        self.answer.whole(status, fields, body)
        self.finish(CUT)

    # -- out --------------------------------------------------------------------------------------
    async def write(self, opcode, data):
        n = len(data)
        if n < 126:
            head = struct.pack("!BB", 0x80 | opcode, n)
        elif n < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, n)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, n)
        self.writer.write(head + data)
        async with self.writing:  # before Python 3.11 only one may wait
            await self.writer.drain()

    async def close(self, code, reason=""):
        """Our goodbye, once."""
        if not self.is_closed:
            self.is_closed = True
            data = b"" if code == NO_CODE else struct.pack("!H", code) + cut(reason.encode(), 123)
            with contextlib.suppress(OSError):
                await self.write(CLOSE, data)

    def finish(self, code, reason=""):
        """Nothing comes any more; the application hears it behind what has come."""
        if self.end is None:
            self.end = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.is_there.set()
            self.is_taken.set()

    def leave(self):
        """The replica is to stop."""
        if self.is_accepted and self.end is None:
            self.going = asyncio.ensure_future(self.close(GOING_AWAY))
            self.finish(GOING_AWAY)

    # -- in ---------------------------------------------------------------------------------------
    async def read_all(self):
        """Until the client's goodbye, its silence, or what it must not send."""
        loop = asyncio.get_running_loop()
        self.heard_s = loop.time()
        watching = asyncio.ensure_future(self.watch(loop))
        try:
            await self.read_messages()
        except BadFrame as error:
            await self.close(error.code)
            self.finish(error.code)
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                # what is left unread could cost our last word
                await asyncio.wait_for(self.drop(), CLOSE_S)
        except (OSError, EOFError):
            self.finish(CUT)
        finally:
            watching.cancel()
            self.finish(CUT)

    async def drop(self):
        while await self.request.reader.read(65536):
            pass

    async def watch(self, loop):
        asked_s = 0.0
        while True:
            await asyncio.sleep(PING_S)
            if loop.time() - self.heard_s < PING_S:
                continue
            # asked, and silent since: that alone counts, for we may have slept long ourselves
            if asked_s > self.heard_s and self.message is None:
                self.finish(CUT)
                self.writer.close()
                return
            if not self.is_closed:
                asked_s = loop.time()
                with contextlib.suppress(OSError):
                    await self.write(PING, b"")

    async def read_messages(self):
        whole, kind = bytearray(), MORE
        while True:
            is_last, opcode, data = await self.frame(MESSAGE_BYTES - len(whole))
            if opcode == CLOSE:
                code, reason = read_close(data)
                await self.close(code)
                self.finish(code, reason)
                return
            if opcode == PING:
                if not self.is_closed:
                    await self.write(PONG, data)
                continue
            if opcode == PONG:
                continue
            if (opcode == MORE) == (kind == MORE):  # a beginning within, or a rest of nothing
                raise BadFrame(BAD_FRAME)
            kind = kind or opcode
            whole += data
            if is_last:
                message = message_of(kind, bytes(whole))
                whole, kind = bytearray(), MORE
                while self.message is not None and self.end is None:
                    self.is_taken.clear()
                    await self.is_taken.wait()
                if self.end is None:
                    self.message = message
                    self.is_there.set()

    async def frame(self, room):
        """(is_last, opcode, data) of the next one, that has at most `room` bytes."""
        reader = self.request.reader
        first, second = await reader.readexactly(2)
        opcode, n = first & 15, second & 127
        is_last = first >> 7
        if first & 0x70 or not second & 128 or opcode not in OPCODES:  # RFC 6455 §5.1, §5.2
            raise BadFrame(BAD_FRAME)
        if opcode >= CLOSE and (n > 125 or not is_last):
            raise BadFrame(BAD_FRAME)
        if n == 126:
            n = struct.unpack("!H", await reader.readexactly(2))[0]
        elif n == 127:
            n = struct.unpack("!Q", await reader.readexactly(8))[0]
        if opcode < CLOSE and n > room:
            raise BadFrame(TOO_BIG)
        mask = await reader.readexactly(4)
        data = await reader.readexactly(n)
        self.heard_s = asyncio.get_running_loop().time()
        return is_last, opcode, unmasked(data, mask)


def is_wanted(request):
    """Does the client ask for a WebSocket? (RFC 6455 §4.2.1)"""
    tokens = [it.strip().lower() for it in request.get("upgrade").split(",")]
    options = [it.strip().lower() for it in request.get("connection").split(",")]
    return (
        request.method == "GET"
        and request.version == "HTTP/1.1"
        and request.is_read
        and "websocket" in tokens
        and "upgrade" in options
    )


def key_of(request):
    """Raises BadRequest."""
    key = request.get("sec-websocket-key").encode("latin-1")
    try:
        is_right = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_right = False
    if not is_right:
        raise BadRequest(400, "bad Sec-WebSocket-Key")
    return key


def pairs_of(message):
    fields = message.get("headers") or ()
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in fields]


def unmasked(data, mask):
    n = len(data)
    stream = (mask * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(n, "little")


def message_of(kind, data):
    """Raises BadFrame."""
    if kind == BINARY:
        return {"type": "websocket.receive", "bytes": data, "text": None}
    try:
        return {"type": "websocket.receive", "bytes": None, "text": data.decode()}
    except UnicodeDecodeError:
        raise BadFrame(BAD_TEXT) from None


def read_close(data):
    """(code, reason) of a goodbye. Raises BadFrame (RFC 6455 §7.4)."""
    if not data:
        return NO_CODE, ""
    if len(data) == 1:
        raise BadFrame(BAD_FRAME)
    code = struct.unpack("!H", data[:2])[0]
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise BadFrame(BAD_FRAME)
    try:
        return code, data[2:].decode()
    except UnicodeDecodeError:
        raise BadFrame(BAD_TEXT) from None


def cut(data, n):
    """At most n bytes of UTF-8, and no half of a letter."""
    return data[:n].decode("utf-8", "ignore").encode()


async def answer(app, request, answer):
    """The whole life of one; app is an Asgi of runtime.py."""
    request.keep_alive = False
    if request.get("sec-websocket-version") != "13":
        answer.whole(426, [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")], b"")
        return
    it = WebSocket(request, answer, dict(app.state))
    app.sockets.add(it)
    try:
        await app.call(it.scope, it.receive, it.send)
        if not answer.is_begun:
            raise RuntimeError("the application neither accepted nor refused the WebSocket")
        if it.is_accepted:
            await it.close(NORMAL)
    except Exception as error:
        if not answer.is_begun:
            raise
        if it.end is None or not isinstance(error, OSError):  # else: it did not know who has left
            traceback.print_exc()
        if it.is_accepted:
            await it.close(FAILED)
    finally:
        app.sockets.discard(it)
        it.finish(NORMAL)
        if it.reading is not None:
            await asyncio.wait((it.reading,), timeout=CLOSE_S)
            it.reading.cancel()

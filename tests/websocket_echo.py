"""A WebSocket server that answers each message with itself, on a loop and a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping, Request
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

READ_BYTES = 1 << 16


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each message back as soon as it is parsed, so that what is thought of this server does not
    hang on how its bytes were cut on their way; then all is read, since a reset would take back
    what was said. It agrees to permessage-deflate and to the first subprotocol."""
    websocket = WSConnection(ConnectionType.SERVER)
    message: list[str | bytes] = []
    with contextlib.suppress(OSError):
        while websocket.state is not ConnectionState.CLOSED:
            read = await reader.read(READ_BYTES)
            if not read:
                break
            try:
                websocket.receive_data(read)
                for event in websocket.events():
                    writer.write(answer(websocket, event, message))
            except RemoteProtocolError as wrong:
                writer.write(websocket.send(wrong.event_hint))
                break
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            while await reader.read(READ_BYTES):
                pass
    writer.close()


def answer(websocket: WSConnection, event: object, message: list[str | bytes]) -> bytes:
    """What is said to an event; the pieces of a message wait in `message` until it is whole."""
    match event:
        case Request():
            chosen = event.subprotocols[0] if event.subprotocols else None
            agreed = AcceptConnection(subprotocol=chosen, extensions=[PerMessageDeflate()])
            return websocket.send(agreed)
        case Message():
            message.append(event.data)
            if event.message_finished:
                whole = type(event.data)().join(message)
                message.clear()
                return websocket.send(Message(data=whole))
        case Ping() | CloseConnection():
            if websocket.state is not ConnectionState.CLOSED:
                return websocket.send(event.response())
    return b""


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port where it listens."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    is_up = threading.Event()
    end = asyncio.Event()

    async def run() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls) as server:
            ports.append(server.sockets[0].getsockname()[1])
            is_up.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert is_up.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(10)
    loop.close()

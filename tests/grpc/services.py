"""A gRPC server for tests: real grpcio, messages are bytes, methods say what they do.

`Server` runs in threads of this process; `Calls` has a caller for each method. `ends_with_process`
servers are processes of their own: `python services.py PORT NAME`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


class Methods:
    """What the server does, and what it saw: `seen` has a line of each call."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.seen: list[dict[str, Any]] = []
        self.cancelled = threading.Event()

    def note(self, context: grpc.ServicerContext, method: str) -> None:
        self.seen.append(
            {
                "method": method,
                "metadata": dict(context.invocation_metadata()),
                "left_s": context.time_remaining(),
                "peer": context.peer(),
            }
        )

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """What came; metadata `x-…` goes back in front and behind."""
        self.note(context, "Echo")
        sent = [it for it in context.invocation_metadata() if it[0].startswith("x-")]
        context.send_initial_metadata(sent)
        behind = [("x-end.of_it", "end"), ("x-end-bin", b"\x00\xff"), *sent]
        context.set_trailing_metadata(behind)
        return request

    def name_of(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Who answers."""
        self.note(context, "Name")
        return self.name.encode()

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """No message, a status: trailers only."""
        self.note(context, "Fail")
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü%")
        raise AssertionError

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Takes as many seconds as the message says."""
        self.note(context, "Slow")
        context.add_callback(self.cancelled.set)
        until_s = time.monotonic() + float(request)
        while time.monotonic() < until_s and context.is_active():
            time.sleep(0.01)
        return b"done"

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Messages: "number size"."""
        self.note(context, "Count")
        number, size = (int(word) for word in request.split())
        for at in range(number):
            yield b"%d:" % at + bytes(size)

    def sum(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """How many messages and bytes came."""
        self.note(context, "Sum")
        number = total = 0
        for message in requests:
            number += 1
            total += len(message)
        return b"%d %d" % (number, total)

    def refuse(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Says no after the first message, while the client still sends."""
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        raise AssertionError

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each message at once, until "bye"."""
        self.note(context, "Chat")
        context.add_callback(self.cancelled.set)
        for message in requests:
            yield b"you said " + message
            if message == b"bye":
                return


class Server:
    """A server on a free port of 127.0.0.1; `credentials` for TLS, `more` adds services."""

    def __init__(
        self,
        methods: Methods | None = None,
        credentials: grpc.ServerCredentials | None = None,
        port: int = 0,
        options: list[tuple[str, Any]] | None = None,
        threads: int = 32,
        more: Callable[[grpc.Server], None] = lambda _server: None,
    ) -> None:
        self.methods = m = methods or Methods()
        self.server = grpc.server(ThreadPoolExecutor(threads), options=OPTIONS + (options or []))
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "Echo": unary(m.echo),
            "Name": unary(m.name_of),
            "Fail": unary(m.fail),
            "Slow": unary(m.slow),
            "Count": grpc.unary_stream_rpc_method_handler(m.count),
            "Sum": grpc.stream_unary_rpc_method_handler(m.sum),
            "Refuse": grpc.stream_unary_rpc_method_handler(m.refuse),
            "Chat": grpc.stream_stream_rpc_method_handler(m.chat),
        }
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Test", handlers)]
        )
        more(self.server)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self.server.add_insecure_port(address)
        else:
            self.port = self.server.add_secure_port(address, credentials)
        self.server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self, grace_s: float | None = None) -> None:
        self.server.stop(grace_s).wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Calls:
    """A channel to 127.0.0.1:port, and its methods."""

    def __init__(
        self,
        port: int,
        credentials: grpc.ChannelCredentials | None = None,
        options: list[tuple[str, Any]] | None = None,
    ) -> None:
        # a channel of its own: grpcio shares connections between channels that are alike
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), *(options or [])]
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            options.append(("grpc.ssl_target_name_override", "a.test"))
            self.channel = grpc.secure_channel(address, credentials, options)
        c = self.channel
        self.echo = c.unary_unary("/test.Test/Echo")
        self.name = c.unary_unary("/test.Test/Name")
        self.fail = c.unary_unary("/test.Test/Fail")
        self.slow = c.unary_unary("/test.Test/Slow")
        self.count = c.unary_stream("/test.Test/Count")
        self.sum = c.stream_unary("/test.Test/Sum")
        self.refuse = c.stream_unary("/test.Test/Refuse")
        self.chat = c.stream_stream("/test.Test/Chat")
        self.unknown = c.unary_unary("/test.Test/Unknown")

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


class OwnProcess:
    """The same server in a process of its own, which can be killed."""

    def __init__(self, port: int = 0, name: str = "one") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(port), name], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def keys_of(folder: Path) -> tuple[bytes, bytes]:
    """(key, certificate) of a.test, also as key.pem and cert.pem in the folder."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=a.test"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=DNS:a.test", "-keyout",
         str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()


def code_of(error: grpc.RpcError) -> str:
    """The name of its status."""
    return error.code().name  # type: ignore[attr-defined]


def main() -> None:
    """Serve until killed; the port is told on stdout."""
    server = Server(Methods(sys.argv[2]), port=int(sys.argv[1]))
    print(server.port, flush=True)
    server.server.wait_for_termination()


if __name__ == "__main__":
    main()

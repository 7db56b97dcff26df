"""The service of gRPC's interoperability cases, with grpcio; written from their public description
(grpc/doc/interop-test-descriptions.md). Messages are ours: a `Want` of JSON, NUL, then the payload.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

NAME = "grpc.testing.TestService"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
STATUS_OF = {it.value[0]: it for it in grpc.StatusCode}
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


def request(
    payload: int = 0,
    sizes: Sequence[int] = (),
    status: tuple[int, str] | None = None,
    pause_s: float = 0,
    is_compressed: bool = False,
) -> bytes:
    """A message: so many zeros, and what is wanted: answers of these sizes, or a status."""
    want = {"sizes": list(sizes), "status": status, "pause_s": pause_s, "zip": is_compressed}
    return json.dumps(want).encode() + b"\0" + bytes(payload)


def read(message: bytes) -> tuple[dict[str, Any], int]:
    """(what is wanted, size of the payload)."""
    want, _, payload = message.partition(b"\0")
    return json.loads(want), len(payload)


class TestService:
    """The methods; `cancelled` is set when a client leaves a call."""

    __test__ = False  # for pytest

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def begin(self, context: grpc.ServicerContext) -> None:
        """Echoes the metadata that custom_metadata sends."""
        found = dict(context.invocation_metadata())
        context.add_callback(self.cancelled.set)
        if INITIAL in found:
            context.send_initial_metadata([(INITIAL, found[INITIAL])])
        if TRAILING in found:
            context.set_trailing_metadata([(TRAILING, found[TRAILING])])

    def end(self, want: dict[str, Any], context: grpc.ServicerContext) -> None:
        if want["status"]:
            code, words = want["status"]
            context.set_code(STATUS_OF[code])
            context.set_details(words)

    def empty(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    def unary(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.begin(context)
        want, _ = read(message)
        if want["zip"]:
            context.set_compression(grpc.Compression.Gzip)
        self.end(want, context)
        return bytes(sum(want["sizes"]))

    def streaming_input(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self.begin(context)
        return b"%d" % sum(read(it)[1] for it in messages)

    def streaming_output(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.begin(context)
        yield from self.answers(message, context)

    def full_duplex(
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        self.begin(context)
        for message in messages:
            yield from self.answers(message, context)

    def answers(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        want, _ = read(message)
        if want["zip"]:
            context.set_compression(grpc.Compression.Gzip)
        for size in want["sizes"]:
            time.sleep(want["pause_s"])
            yield bytes(size)
        self.end(want, context)


def serve(
    service: TestService, credentials: grpc.ServerCredentials | None
) -> tuple[grpc.Server, int]:
    """A running server on a free port of 127.0.0.1."""
    server = grpc.server(ThreadPoolExecutor(32), options=UNBOUNDED)
    handlers = {
        "EmptyCall": grpc.unary_unary_rpc_method_handler(service.empty),
        "UnaryCall": grpc.unary_unary_rpc_method_handler(service.unary),
        "StreamingInputCall": grpc.stream_unary_rpc_method_handler(service.streaming_input),
        "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(service.streaming_output),
        "FullDuplexCall": grpc.stream_stream_rpc_method_handler(service.full_duplex),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, handlers)])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


class TestClient:
    """A caller for each method of the service on a channel."""

    __test__ = False

    def __init__(self, channel: grpc.Channel) -> None:
        def at(method: str, make: Callable[..., Any], service: str = NAME) -> Any:
            return make(f"/{service}/{method}")

        self.empty = at("EmptyCall", channel.unary_unary)
        self.unary = at("UnaryCall", channel.unary_unary)
        self.streaming_input = at("StreamingInputCall", channel.stream_unary)
        self.streaming_output = at("StreamingOutputCall", channel.unary_stream)
        self.full_duplex = at("FullDuplexCall", channel.stream_stream)
        self.unknown_method = at("UnimplementedCall", channel.unary_unary)
        self.unknown_service = at(
            "UnimplementedCall", channel.unary_unary, "grpc.testing.UnimplementedService"
        )

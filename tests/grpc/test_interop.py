"""gRPC's interoperability cases with grpcio at both ends, in cleartext and over TLS."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from gateway import Gateway, wait_for
from interop_service import INITIAL, TRAILING, UNBOUNDED, TestClient, TestService, request, serve
from services import keys_of

CONF = """
    log_format sizes "$http_x_case $request_length $bytes_sent"; access_log logs/sizes.log sizes;
    client_max_body_size 0; large_client_header_buffers 4 16k;
    server { listen %%PORT%% SSL; http2 on; KEYS
        location / { grpc_pass SCHEME://127.0.0.1:UPSTREAM; } }
"""
LARGE, ANSWER = 271828, 314159
ASKED, ANSWERED = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
LIMIT_S = 60


class Pair:
    """A gateway between a client and a service."""

    def __init__(self, folder: Path, is_tls: bool) -> None:
        self.service = TestService()
        key, certificate = keys_of(folder) if is_tls else (b"", b"")
        credentials = grpc.ssl_server_credentials([(key, certificate)]) if is_tls else None
        self.server, port = serve(self.service, credentials)
        keys = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
        text = CONF.replace("SSL", "ssl" if is_tls else "").replace("UPSTREAM", str(port))
        text = text.replace("KEYS", keys if is_tls else "")
        self.gateway = Gateway(folder, text.replace("SCHEME", "grpcs" if is_tls else "grpc"))
        self.gateway.start()
        address, options = f"127.0.0.1:{self.gateway.port}", list(UNBOUNDED)
        if is_tls:
            options.append(("grpc.ssl_target_name_override", "a.test"))
            trusted = grpc.ssl_channel_credentials(certificate)
            self.channel = grpc.secure_channel(address, trusted, options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.client = TestClient(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.gateway.stop()
        self.server.stop(None).wait()


@pytest.fixture(scope="module", params=[False, True], ids=["cleartext", "TLS"])
def pair(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Pair]:
    it = Pair(tmp_path_factory.mktemp("interop"), request.param)
    yield it
    it.close()
    assert "Traceback" not in it.gateway.said
    assert "[alert]" not in it.gateway.said


@pytest.fixture
def client(pair: Pair) -> TestClient:
    return pair.client


def failed(call) -> tuple[str, str]:
    """(status, message) of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def test_empty_unary(client: TestClient) -> None:
    assert client.empty(b"", timeout=LIMIT_S) == b""


def test_large_unary(client: TestClient) -> None:
    assert client.unary(request(LARGE, [ANSWER]), timeout=LIMIT_S) == bytes(ANSWER)


def test_concurrent_large_unary(client: TestClient) -> None:
    with ThreadPoolExecutor(50) as pool:
        calls = pool.map(
            lambda _: client.unary(request(LARGE, [ANSWER]), timeout=LIMIT_S), range(100)
        )
        assert {len(it) for it in calls} == {ANSWER}


def test_client_streaming(client: TestClient) -> None:
    found = client.streaming_input(iter([request(it) for it in ASKED]), timeout=LIMIT_S)
    assert found == b"74922"


def test_server_streaming(client: TestClient) -> None:
    found = client.streaming_output(request(0, ANSWERED), timeout=LIMIT_S)
    assert tuple(len(it) for it in found) == ANSWERED


def test_ping_pong(client: TestClient) -> None:
    to_send: queue.Queue[bytes | None] = queue.Queue()
    answers = client.full_duplex(iter(to_send.get, None), timeout=LIMIT_S)
    for asked, answered in zip(ASKED, ANSWERED, strict=True):
        to_send.put(request(asked, [answered]))
        assert len(next(answers)) == answered
    to_send.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_empty_stream(client: TestClient) -> None:
    answers = client.full_duplex(iter([]), timeout=LIMIT_S)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_status_code_and_message(client: TestClient) -> None:
    status = 2, "test status message"
    asked = request(status=status)
    assert failed(lambda: client.unary(asked, timeout=LIMIT_S)) == ("UNKNOWN", status[1])
    stream = client.full_duplex(iter([asked]), timeout=LIMIT_S)
    assert failed(lambda: list(stream)) == ("UNKNOWN", status[1])


def test_special_status_message(client: TestClient) -> None:
    asked = request(status=(2, SPECIAL))
    assert failed(lambda: client.unary(asked, timeout=LIMIT_S)) == ("UNKNOWN", SPECIAL)


def test_unimplemented_method(client: TestClient) -> None:
    assert failed(lambda: client.unknown_method(b"", timeout=LIMIT_S))[0] == "UNIMPLEMENTED"


def test_unimplemented_service(client: TestClient) -> None:
    assert failed(lambda: client.unknown_service(b"", timeout=LIMIT_S))[0] == "UNIMPLEMENTED"


def test_custom_metadata(client: TestClient) -> None:
    sent = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]
    asked = request(LARGE, [ANSWER])
    answer, unary = client.unary.with_call(asked, metadata=sent, timeout=LIMIT_S)
    assert len(answer) == ANSWER
    stream = client.full_duplex(iter([asked]), metadata=sent, timeout=LIMIT_S)
    assert [len(it) for it in stream] == [ANSWER]
    for call in (unary, stream):
        assert sent[0] in list(call.initial_metadata())
        assert sent[1] in list(call.trailing_metadata())


def test_cancel_after_begin(client: TestClient, pair: Pair) -> None:
    pair.service.cancelled.clear()
    held = threading.Event()

    def nothing() -> Iterator[bytes]:
        held.wait(LIMIT_S)
        yield from ()

    call = client.streaming_input.future(nothing())
    call.cancel()
    held.set()
    assert call.code() == grpc.StatusCode.CANCELLED


def test_cancel_after_first_response(client: TestClient, pair: Pair) -> None:
    pair.service.cancelled.clear()
    to_send: queue.Queue[bytes | None] = queue.Queue()
    answers = client.full_duplex(iter(to_send.get, None), timeout=LIMIT_S)
    to_send.put(request(ASKED[0], [ANSWERED[0]]))
    assert len(next(answers)) == ANSWERED[0]
    answers.cancel()
    assert failed(lambda: list(answers))[0] == "CANCELLED"
    wait_for(pair.service.cancelled.is_set, LIMIT_S, "the server hears of it")
    to_send.put(None)


def test_timeout_on_sleeping_server(client: TestClient) -> None:
    asked = request(ASKED[0], [ANSWERED[0]], pause_s=2)
    stream = client.full_duplex(iter([asked]), timeout=0.001)
    assert failed(lambda: list(stream))[0] == "DEADLINE_EXCEEDED"


COMPRESSED_MOST = 20_000  # bytes that LARGE zeros come to, and to spare


def passed(pair: Pair, case: str) -> tuple[int, int]:
    """Bytes of that call, as the gateway counted them: its request, its answer."""

    def line() -> str | None:
        lines = pair.gateway.log("sizes.log")
        return next((it for it in lines if it.startswith(f"{case} ")), None)

    wait_for(line, LIMIT_S)
    asked, answered = str(line()).split()[1:]
    return int(asked), int(answered)


def named(case: str) -> dict[str, object]:
    """What a call is told by in the log, and its time limit."""
    return {"metadata": [("x-case", case)], "timeout": LIMIT_S}


def test_client_compressed_unary(client: TestClient, pair: Pair) -> None:
    asked = request(LARGE, [ANSWER])
    found = client.unary(asked, compression=grpc.Compression.Gzip, **named("client-unary"))
    assert len(found) == ANSWER
    up, down = passed(pair, "client-unary")
    assert up < COMPRESSED_MOST                               # it passed as it came
    assert down > ANSWER


def test_server_compressed_unary(client: TestClient, pair: Pair) -> None:
    asked = request(LARGE, [ANSWER], is_compressed=True)
    assert len(client.unary(asked, **named("server-unary"))) == ANSWER
    up, down = passed(pair, "server-unary")
    assert up > LARGE
    assert down < COMPRESSED_MOST


def test_client_compressed_streaming(client: TestClient, pair: Pair) -> None:
    asked = iter([request(it) for it in ASKED])
    found = client.streaming_input(
        asked, compression=grpc.Compression.Gzip, **named("client-streaming")
    )
    assert found == b"74922"
    assert passed(pair, "client-streaming")[0] < COMPRESSED_MOST


def test_server_compressed_streaming(client: TestClient, pair: Pair) -> None:
    asked = request(0, ANSWERED, is_compressed=True)
    found = client.streaming_output(asked, **named("server-streaming"))
    assert tuple(len(it) for it in found) == ANSWERED
    assert passed(pair, "server-streaming")[1] < COMPRESSED_MOST

"""What goes wrong with calls: deadlines, cancels, servers that die or leave, our own errors."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from gateway import wait_for
from h2client import H2Client
from services import Calls, Methods, OwnProcess, Server, code_of, keys_of

PASS = "server { listen %%PORT%%; http2 on; location / { grpc_pass grpc://ADDRESS; MORE } }"


def conf(address: str, more: str = "") -> str:
    return PASS.replace("ADDRESS", address).replace("MORE", more)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as it:
        yield it


def test_the_deadline_reaches_the_server_and_is_kept(headrace, server: Server) -> None:
    with Calls(headrace(conf(server.address)).port) as calls:
        calls.echo(b"", timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            calls.slow(b"30", timeout=2)
    assert code_of(caught.value) == "DEADLINE_EXCEEDED"
    assert 0 < server.methods.seen[1]["left_s"] < 5
    assert server.methods.cancelled.wait(10)


def test_the_gateway_ends_a_call_whose_deadline_is_over(headrace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:    # takes connections, says nothing
        gateway = headrace(conf(f"127.0.0.1:{silent.getsockname()[1]}"))
        with H2Client(gateway.port) as client:
            found = client.get("/test.Test/Echo", method="POST", body=bytes(5), fields=[
                ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "200m"),
            ])  # fmt: skip
    assert found.status == 200
    assert found.get("grpc-status") == "4"


def test_a_deadline_holds_in_the_line_of_an_upstream(headrace, server: Server) -> None:
    gateway = headrace(f"""
        upstream u {{ server {server.address} max_conns=1; queue size=10 wait=1h; }}
        server {{ listen %%PORT%%; http2 on; location / {{ grpc_pass u; }} }}""")
    with Calls(gateway.port) as calls, H2Client(gateway.port) as client:
        running = calls.slow.future(b"30", timeout=60)
        wait_for(lambda: server.methods.seen)
        found = client.get("/test.Test/Echo", method="POST", body=bytes(5), fields=[
            ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "200m"),
        ])  # fmt: skip
        running.cancel()
    assert (found.status, found.get("grpc-status")) == (200, "4")
    assert len(server.methods.seen) == 1


def test_a_cancel_reaches_the_server(headrace, server: Server) -> None:
    with Calls(headrace(conf(server.address)).port) as calls:
        call = calls.slow.future(b"30")
        wait_for(lambda: server.methods.seen)
        call.cancel()
        assert server.methods.cancelled.wait(10)
        assert calls.echo(b"still", timeout=10) == b"still"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("return 401;", "UNAUTHENTICATED"),
        ("return 403;", "PERMISSION_DENIED"),
        ("return 404;", "UNIMPLEMENTED"),
        ("return 429;", "UNAVAILABLE"),
        ("return 503;", "UNAVAILABLE"),
        ("return 400;", "INTERNAL"),
        ("return 500;", "UNKNOWN"),
        ("client_max_body_size 10;", "RESOURCE_EXHAUSTED"),
    ],
)
def test_errors_of_ours_are_statuses_of_grpc(
    headrace, server: Server, more: str, code: str
) -> None:
    gateway = headrace(conf(server.address, more))
    with Calls(gateway.port) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.echo(bytes(100), timeout=10)
    assert code_of(caught.value) == code


def test_who_is_not_there_is_unavailable_and_the_log_says_502(headrace) -> None:
    gateway = headrace(
        "log_format it '$status'; access_log logs/a.log it;" + conf("127.0.0.1:1"))
    with Calls(gateway.port) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.echo(b"", timeout=10)
    assert code_of(caught.value) == "UNAVAILABLE"
    assert "connect() failed" in caught.value.details()
    wait_for(lambda: (gateway.prefix / "logs/a.log").read_text() == "502\n")


def test_an_error_page_still_answers(headrace) -> None:
    more = "error_page 502 = /other;"
    text = conf("127.0.0.1:1", more).replace(
        "} }", """}
        location = /other { add_header grpc-status 9; add_header grpc-message mine;
                            default_type application/grpc; return 204; } }""", 1)  # fmt: skip
    with Calls(headrace(text).port) as calls, pytest.raises(grpc.RpcError) as caught:
        calls.echo(b"", timeout=10)
    assert (code_of(caught.value), caught.value.details()) == ("FAILED_PRECONDITION", "mine")


def test_other_clients_get_http(headrace) -> None:
    with H2Client(headrace(conf("127.0.0.1:1")).port) as client:
        assert client.get("/a/b").status == 502
        typed = [("content-type", "application/grpc")]
        assert client.get("/a", method="POST", body=b"", fields=typed).status == 502


def test_an_early_error_arrives_while_the_client_still_sends(headrace, server: Server) -> None:
    def messages() -> Iterator[bytes]:
        while not is_over.is_set():
            yield bytes(100_000)

    is_over = threading.Event()
    gateway = headrace("client_max_body_size 0;" + conf(server.address))
    with Calls(gateway.port) as calls:
        with pytest.raises(grpc.RpcError) as caught:
            calls.refuse(messages(), timeout=20)
        is_over.set()
        assert (code_of(caught.value), caught.value.details()) == ("RESOURCE_EXHAUSTED", "enough")
        assert calls.echo(b"on", timeout=10) == b"on"


def test_a_server_that_is_killed_in_a_stream(headrace) -> None:
    with OwnProcess() as server, Calls(headrace(conf(server.address)).port) as calls:
        to_send: list[bytes] = [b"one"]
        is_over = threading.Event()

        def messages() -> Iterator[bytes]:
            yield from to_send
            is_over.wait(20)

        answers = calls.chat(messages(), timeout=20)
        assert next(answers) == b"you said one"
        server.kill()
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        is_over.set()
        assert code_of(caught.value) == "UNAVAILABLE"
        again = OwnProcess(server.port)
        try:
            assert calls.echo(b"again", timeout=10) == b"again"
        finally:
            again.kill()


def test_a_server_that_leaves_ends_its_calls_first(headrace) -> None:
    """GOAWAY while a call runs: that one is answered, the next ones go to the other server."""
    one, two = Server(Methods("one")), Server(Methods("two"))
    text = """upstream u { server ONE; server TWO; keepalive 4; }
              server { listen %%PORT%%; http2 on; location / { grpc_pass u; } }"""
    gateway = headrace(text.replace("ONE", one.address).replace("TWO", two.address))
    try:
        with Calls(gateway.port) as calls:
            assert {calls.name(b"", timeout=10) for _ in range(4)} == {b"one", b"two"}
            running = [calls.slow.future(b"1.5", timeout=20) for _ in range(4)]
            wait_for(lambda: len([it for it in one.methods.seen if it["method"] == "Slow"]) == 2)
            stopped = one.server.stop(10)
            found = {calls.name(b"", timeout=10) for _ in range(20)}
            assert found == {b"two"}
            assert [it.result() for it in running] == [b"done"] * 4
            stopped.wait()
    finally:
        one.close()
        two.close()


def test_calls_are_balanced_one_by_one(headrace) -> None:
    servers = [Server(Methods(str(n))) for n in range(3)]
    lines = " ".join(f"server {it.address};" for it in servers)
    gateway = headrace(f"""upstream u {{ {lines} keepalive 4; }}
        server {{ listen %%PORT%%; http2 on; location / {{ grpc_pass u; }} }}""")
    try:
        with Calls(gateway.port) as calls:
            found = [calls.name(b"", timeout=10) for _ in range(30)]
        assert sorted(found) == [b"0"] * 10 + [b"1"] * 10 + [b"2"] * 10
    finally:
        for server in servers:
            server.close()


def test_a_stalled_reader_stops_nobody_else(headrace, server: Server) -> None:
    """Its stream waits; others of the same connection to the server go on, and it is whole."""
    text = f"""upstream u {{ server {server.address}; keepalive 4; }}
        server {{ listen %%PORT%%; http2 on; location / {{ grpc_pass u; }} }}"""
    with Calls(headrace(text).port, options=[("grpc.http2.lookahead_bytes", 16384)]) as calls:
        stalled = calls.count(b"200 100000", timeout=60)
        next(stalled)
        time.sleep(0.3)
        assert [calls.echo(b"%d" % n, timeout=10) for n in range(50)] == [
            b"%d" % n for n in range(50)]  # fmt: skip
        assert len(list(stalled)) == 199
    assert len({it["peer"] for it in server.methods.seen}) == 1


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> tuple[bytes, bytes]:
    """(key, certificate) of a.test."""
    return keys_of(tmp_path)


def test_tls_on_both_sides(headrace, keys: tuple[bytes, bytes], tmp_path: Path) -> None:
    text = f"""server {{ listen %%PORT%% ssl; http2 on; ssl_certificate {tmp_path}/cert.pem;
        ssl_certificate_key {tmp_path}/key.pem; client_max_body_size 0;
        location / {{ grpc_pass grpcs://ADDRESS; grpc_ssl_verify on; grpc_ssl_name a.test;
                      grpc_ssl_trusted_certificate {tmp_path}/cert.pem; }}
        location /test.Test/Name {{ grpc_pass grpcs://ADDRESS; grpc_ssl_verify on;
             grpc_ssl_name b.test; grpc_ssl_trusted_certificate {tmp_path}/cert.pem; }} }}"""
    with Server(credentials=grpc.ssl_server_credentials([keys])) as server:
        gateway = headrace(text.replace("ADDRESS", server.address))
        trusted = grpc.ssl_channel_credentials(keys[1])
        with Calls(gateway.port, trusted) as calls:
            message = bytes(range(256)) * 8192
            assert calls.echo(message, timeout=30) == message
            assert len(list(calls.count(b"10 1000", timeout=10))) == 10
            assert calls.sum(iter([message] * 3), timeout=30) == b"3 %d" % (3 * len(message))
            assert list(calls.chat(iter([b"a", b"bye"]), timeout=10)) == [
                b"you said a", b"you said bye"]  # fmt: skip
            with pytest.raises(grpc.RpcError) as caught:
                calls.name(b"", timeout=10)
            assert code_of(caught.value) == "UNAVAILABLE"

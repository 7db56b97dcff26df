"""grpc.health.v1: peers of an upstream and replicas of a function are asked how they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from gateway import Gateway, wait_for
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from services import Calls, Methods, Server, code_of, keys_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CONF = """
    upstream u { zone u 256k; server ADDRESS_A; server ADDRESS_B; CHECK; }
    server { listen %%PORT%%; http2 on; location / { grpc_pass PASS://u; } }
"""


class Healthy(Server):
    """A server that says its name and how it is; `set` changes that."""

    def __init__(self, name: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.health = health.HealthServicer()
        super().__init__(Methods(name), credentials, more=self.add_health)

    def add_health(self, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)

    def set(self, status: int, service: str = "") -> None:
        self.health.set(service, status)


@pytest.fixture
def pair() -> Iterator[tuple[Healthy, Healthy]]:
    with Healthy("a") as a, Healthy("b") as b:
        yield a, b


def conf(pair: tuple[Server, Server], check: str, scheme: str = "grpc") -> str:
    text = CONF.replace("ADDRESS_A", pair[0].address).replace("ADDRESS_B", pair[1].address)
    return text.replace("CHECK", check).replace("PASS", scheme)


def who(gateway: Gateway) -> set[str]:
    """Whose answers come, or which status."""
    found = set()
    with Calls(gateway.port) as calls:
        for _ in range(10):
            try:
                found.add(calls.name(b"", timeout=10).decode())
            except grpc.RpcError as error:
                found.add(code_of(error))
    return found


def test_who_is_not_serving_gets_no_calls(headrace, pair) -> None:
    a, b = pair
    gateway = headrace(conf(pair, "health_check type=grpc interval=50ms"))
    assert who(gateway) == {"a", "b"}
    a.set(NOT_SERVING)
    wait_for(lambda: who(gateway) == {"b"}, 30)
    assert f'peer {a.address} of upstream "u" is unhealthy: it is not serving' in gateway.said
    b.close()
    wait_for(lambda: who(gateway) == {"UNAVAILABLE"}, 30)
    a.set(SERVING)
    wait_for(lambda: who(gateway) == {"a"}, 30)


def test_a_service_of_its_own_decides(headrace, pair) -> None:
    a, b = pair
    a.set(SERVING, "test.Test")                               # b knows nothing of it
    gateway = headrace(
        conf(pair, "health_check type=grpc grpc_service=test.Test interval=50ms mandatory")
    )
    wait_for(lambda: who(gateway) == {"a"}, 30)
    b.set(SERVING, "test.Test")
    a.set(NOT_SERVING, "test.Test")
    wait_for(lambda: who(gateway) == {"b"}, 30)
    assert f'peer {b.address} of upstream "u" is healthy' in gateway.said


def test_a_server_without_the_service_may_be_known_by_its_status(headrace) -> None:
    with Server(Methods("a")) as a, Healthy("b") as b:
        gateway = headrace(
            conf((a, b), "health_check type=grpc grpc_status=12 interval=50ms mandatory")
        )
        wait_for(lambda: who(gateway) == {"a"}, 30)


def test_over_tls(headrace, tmp_path: Path) -> None:
    server = grpc.ssl_server_credentials([keys_of(tmp_path)])
    with Healthy("a", server) as a, Healthy("b", server) as b:
        gateway = headrace(conf((a, b), "health_check type=grpc tls interval=50ms mandatory",
                                "grpcs"))  # fmt: skip
        wait_for(lambda: who(gateway) == {"a", "b"}, 30)
        a.set(NOT_SERVING)
        wait_for(lambda: who(gateway) == {"b"}, 30)


def test_a_replica_gets_calls_when_it_says_that_it_serves(headrace, tmp_path: Path) -> None:
    sign = tmp_path / "serve"
    gateway = headrace(f"""
        function greeter {{
            command {sys.executable} {Path(__file__).with_name("waiting_service.py")} $PORT {sign};
            ready grpc service=test.Test interval=20ms; http_version 2; min_scale 1; timeout 60s;
        }}
        server {{ listen %%PORT%%; http2 on; location / {{ function_pass greeter; }} }}""")
    with Calls(gateway.port) as calls:
        call = calls.name.future(b"", timeout=60)
        wait_for(lambda: sign.with_suffix(".asked").exists(), 30)
        assert not call.done()
        assert "ready (" not in gateway.said
        sign.touch()
        assert call.result() == b"waited"

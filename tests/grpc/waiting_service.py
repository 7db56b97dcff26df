"""A gRPC server that says it serves once a file is there: `waiting_service.py PORT FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from services import Methods, Server


class Health(health_pb2_grpc.HealthServicer):
    """Notes in FILE.asked that it was asked, and tells whether FILE is there."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def Check(self, request, context: grpc.ServicerContext):  # noqa: N802
        self.sign.with_suffix(".asked").touch()
        if request.service != "test.Test":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        response = health_pb2.HealthCheckResponse
        is_here = self.sign.exists()
        return response(status=response.SERVING if is_here else response.NOT_SERVING)


def main() -> None:
    health = Health(Path(sys.argv[2]))
    server = Server(
        Methods("waited"),
        port=int(sys.argv[1]),
        more=lambda it: health_pb2_grpc.add_HealthServicer_to_server(health, it),
    )
    server.server.wait_for_termination()


if __name__ == "__main__":
    main()

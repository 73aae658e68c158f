"""Where Serve's proxy listens. It refuses to know for what."""

from __future__ import annotations

import socket
from typing import Any

from serve_app.errors import ConfigurationError

GRPC_SERVICE = "serve_app.rpc.tessera_pb2_grpc.add_UpscalerServicer_to_server"


def grpc_options(port: int) -> dict[str, Any]:
    """What Serve's gRPC proxy has to know. It listens on every address of the machine."""
    return {"port": port, "grpc_servicer_functions": [GRPC_SERVICE]}


def reached(host: str, port: int) -> str:
    """The URL by which this machine itself reaches a server."""
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def check_port(host: str, port: int) -> None:
    """Ray Serve would say it late and at length.

    Raises:
        ConfigurationError: if the port is taken or the host is not this machine's.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}. Choose another: make run PORT=8001",
                field="port",
            ) from None

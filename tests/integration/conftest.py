"""The real application on a Ray of its own: a free port, a temporary folder, ended by its own handle."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.app import APP_NAME, build_app
from serve_app.deployments.listening import grpc_options
from serve_app.settings import Settings


@dataclass(frozen=True)
class Application:
    """A running application.

    Attributes:
        url: Where it listens, without a slash at the end.
        handle: Its ingress, as a pipeline on the same cluster gets it.
        settings: What it was built with.
    """

    url: str
    handle: DeploymentHandle
    settings: Settings

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=300)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


GRPC_PORT = free_port()


@pytest.fixture(scope="session")
def cluster_port() -> Iterator[int]:
    """A local Ray with Serve's proxy on a free port of the loopback."""
    folder = tempfile.mkdtemp(prefix="tessera-")  # short: sockets lie in it
    port = free_port()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": port}, grpc_options=grpc_options(GRPC_PORT)
    )
    yield port
    serve.shutdown()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def application(cluster_port: int, tmp_path_factory: pytest.TempPathFactory) -> Application:
    """The whole graph on the embedded model, with the default settings."""
    state = tmp_path_factory.mktemp("state")
    jobs = {"database_url": f"sqlite:///{state}/jobs.db", "blobs_url": str(state / "blobs")}
    settings = Settings.parse({"requests": {"pictures_at_once": 20}, "jobs": jobs})
    serve.run(build_app(settings), name=APP_NAME)
    url = f"http://127.0.0.1:{cluster_port}"
    return Application(url, serve.get_app_handle(APP_NAME), settings)

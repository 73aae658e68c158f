"""A Ray of a benchmark's own: on a free port of the loopback, in a temporary folder, ended with its context."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve


@contextmanager
def local_cluster(cpus: int) -> Iterator[None]:
    """Starts Ray and Serve in this process's name; inside another such context it is that one.

    Args:
        cpus: What Ray believes to have; reservations, not cores.
    """
    if ray.is_initialized():
        yield
        return
    folder = tempfile.mkdtemp(prefix="t", dir="/tmp")  # short: Ray's sockets lie in it
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=folder,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

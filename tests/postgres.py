"""A real PostgreSQL for tests: started in a temporary folder, on a free port of loopback, ended with them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = "postgres"  # the server refuses to run as root


def _program(name: str) -> str:
    """Debian keeps the server's programs beside the path, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    place = str(found[-1]) if found else shutil.which(name)
    if place is None:
        raise RuntimeError(f"{name} is missing; install the Debian package postgresql")
    return place


def _run(*command: str) -> None:
    owned = ["runuser", "-u", _OWNER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*owned, *command], capture_output=True, text=True, timeout=60, cwd="/", check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")


@contextmanager
def postgres() -> Iterator[str]:
    """Gives the URL of a server, without a database's name: add `/NAME` of one that `fresh` made."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _OWNER)
        data = str(folder / "data")
        _run(_program("initdb"), "-D", data, "-A", "trust", "-U", _OWNER, "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        control = _program("pg_ctl")
        _run(control, "-D", data, "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            yield f"postgresql://{_OWNER}@127.0.0.1:{port}"
        finally:
            _run(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh(server: str) -> str:
    """Makes an empty database; gives its URL."""
    name = f"t{uuid.uuid4().hex}"
    port = server.rsplit(":", 1)[1]
    where = ["-h", "127.0.0.1", "-p", port, "-U", _OWNER]
    _run(_program("createdb"), *where, name)
    return f"{server}/{name}"

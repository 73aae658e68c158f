"""A real PostgreSQL for tests: started in a temporary folder, on a free port of loopback, ended with them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
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


class Server:
    """A server in a folder; it may be killed and started again.

    Attributes:
        url: Without a database's name: add `/NAME` of one that `fresh` made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql://{_OWNER}@127.0.0.1:{self._port}"
        if os.geteuid() == 0:
            shutil.chown(folder, _OWNER)
        _run(_program("initdb"), "-D", str(self._data), "-A", "trust", "-U", _OWNER, "--no-sync")

    def start(self) -> None:
        """Starts it, once those that a dead one left behind are gone."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off"
        log = str(self._folder / "log")
        ends = time.monotonic() + 60
        while True:
            try:
                _run(
                    _program("pg_ctl"),
                    "-D",
                    str(self._data),
                    "-l",
                    log,
                    "-w",
                    "-o",
                    options,
                    "start",
                )
                return
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.5)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends it."""
        _run(_program("pg_ctl"), "-D", str(self._data), "-m", "immediate", "-w", "stop")


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs, and is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Gives the URL of a server, without a database's name: add `/NAME` of one that `fresh` made."""
    with serving() as server:
        yield server.url


def fresh(server: str) -> str:
    """Makes an empty database; gives its URL."""
    name = f"t{uuid.uuid4().hex}"
    port = server.rsplit(":", 1)[1]
    where = ["-h", "127.0.0.1", "-p", port, "-U", _OWNER]
    _run(_program("createdb"), *where, name)
    return f"{server}/{name}"

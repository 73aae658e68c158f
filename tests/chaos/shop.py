"""An application in processes of its own, which are killed one by one or all at once.

`python -m tests.chaos.shop SETTINGS PORT FOLDER` runs one until it is told to stop.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import ray
from ray import serve

from serve_app.testing_app import PacedSettings, build_paced_app
from tests.integration.conftest import free_port

NAME = "tessera"
TITLES = {
    "runner": f"ServeReplica:{NAME}:JobRunner",
    "denoiser": f"ServeReplica:{NAME}:Denoiser",
    "gateway": f"ServeReplica:{NAME}:Gateway",
    "controller": "ServeController",
    "proxy": "ProxyActor",
}
ROOT = Path(__file__).parents[2]


class Shop:
    """A running application.

    Args:
        settings: Of it.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, settings: PacedSettings) -> None:
        self._settings = settings
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="tessera-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self, limit_s: float = 120) -> None:
        """Starts it, and waits until it takes requests."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        written = self._folder / "settings.json"
        written.write_text(self._settings.model_dump_json())
        ready = self._folder / "ready"
        command = [sys.executable, "-m", "tests.chaos.shop", str(written), str(self._port)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, str(self._folder)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
        ends = time.monotonic() + limit_s
        while not ready.exists():
            assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
            assert time.monotonic() < ends, "the application did not start"
            time.sleep(0.1)

    def processes(self, victim: str) -> list[psutil.Process]:
        """The processes of one part, by their titles."""
        return [one for one in self._all() if TITLES[victim] in _title(one)]

    def kill(self, victim: str, chance: random.Random, limit_s: float = 90) -> None:
        """Kills one process of a part, as soon as there is one."""
        ends = time.monotonic() + limit_s
        while not (found := self.processes(victim)):
            assert time.monotonic() < ends, f"there is no {victim} any more"
            time.sleep(0.1)
        os.kill(chance.choice(found).pid, signal.SIGKILL)

    def cut_power(self) -> None:
        """Kills everything at once."""
        everything = self._all()
        for one in everything:
            one.suspend()  # so that none has time to notice
        for one in everything:
            one.kill()
        psutil.wait_procs(everything, timeout=30)
        assert self._process is not None
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        """Ends it in order, and what is left of it by force."""
        if self._process is not None:
            everything = self._all()
            self._process.send_signal(signal.SIGINT)
            psutil.wait_procs(everything, timeout=40)
            for one in everything:
                if one.is_running():
                    one.kill()
            self._process.wait(30)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[psutil.Process]:
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def main(settings_file: str, port: str, folder: str) -> None:
    """Runs an application until it is told to stop."""
    settings = PacedSettings.model_validate_json(Path(settings_file).read_text())
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=256 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
        serve.run(build_paced_app(settings), name=NAME)
        (Path(folder) / "ready").touch()
        threading.Event().wait()
    except KeyboardInterrupt:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measures the memory of the whole application while it makes large results: `python -m benchmarks.memory`.

It starts the real graph with denoisers that give each crop back, on a Ray of its own, sends photo-like pictures
through HTTP, and samples, ten times a second, what all processes and the object store hold above what they
held idle. Shared pages count once. It writes the table of docs/measurements/memory.md.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import ray
from ray import serve
from ray.serve import Application

from benchmarks.quality import insert
from serve_app.app import OBJECT_STORE_BYTES
from serve_app.testing import photo_like, png_bytes
from serve_app.testing_app import PacedSettings, build_paced_app

REPORT = Path(__file__).parents[1] / "docs" / "measurements" / "memory.md"
SOURCES = ((2500, 2500), (5000, 5000))  # px; x4 they are 100 and 400 MP
FORMATS = ("png", "tiff", "jpeg")
TIMEOUT_S = 1800
EVERY_S = 0.1
MIB = 2**20


@dataclass(frozen=True)
class Use:
    """Bytes held: by each process for itself, by name, and by the object store for all."""

    processes: dict[str, int]
    store: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.processes.values()) + self.store


def held(root: psutil.Process) -> Use:
    """What a process and all that it started hold now; the caller's own process is the client, and left out."""
    found: dict[str, int] = {}
    store = 0
    for process in root.children(recursive=True):
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            name = _name(process)
            fields = dict(line.split(":") for line in rollup.splitlines()[1:])
            private = sum(
                int(fields[key].split()[0]) * 1024
                for key in ("Pss_Anon", "Pss_File")
                if key in fields
            )
            if name == "raylet":
                store = _store_bytes(process.pid)
        except (OSError, psutil.Error):
            continue
        found[name] = found.get(name, 0) + private
    return Use(found, store)


def _name(process: psutil.Process) -> str:
    title = " ".join(process.cmdline())
    for part in ("Gateway", "Preprocess", "Denoiser", "Postprocess", "ProxyActor"):
        if part in title:
            return part
    if "serve_app.imaging" in title:
        return "decoder"
    return "raylet" if process.name() == "raylet" else "Ray itself"


def _store_bytes(pid: int) -> int:
    """What the store's file in shared memory takes; it has no name any more, but the raylet has it open."""
    seen: dict[tuple[int, int], int] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()).startswith("/dev/shm/"):
            status = entry.stat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


class Sampler:
    """Samples until it is stopped, and keeps the sample that was highest.

    Attributes:
        peak: That sample.
    """

    def __init__(self) -> None:
        self.peak = held(psutil.Process())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> Use:
        """Ends the sampling; gives the peak."""
        self._ended.set()
        self._thread.join()
        return self.peak

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            now = held(psutil.Process())
            if now.total > self.peak.total:
                self.peak = now


@dataclass(frozen=True)
class Run:
    """One result and what it took."""

    megapixels: int
    output_format: str
    seconds: float
    file_bytes: int
    idle: Use
    peak: Use

    @property
    def above_idle(self) -> int:
        """Bytes at the peak above those before."""
        return self.peak.total - self.idle.total


@contextmanager
def application(graph: Application | None = None) -> Iterator[str]:
    """A Ray of its own with a graph, by default the one with denoisers that compute nothing; gives its URL."""
    folder = tempfile.mkdtemp(prefix="tessera-")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
    )
    settings = PacedSettings.model_validate(
        {
            "pace": 0,
            "images": {"result_pixels": 400_000_000, "upload_bytes": 256 * MIB},
            "requests": {"timeout_s": TIMEOUT_S},
        }
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(graph or build_paced_app(settings))
        yield f"http://127.0.0.1:{port}"
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def measure(url: str, source: bytes, megapixels: int, output_format: str) -> Run:
    """Makes one result."""
    time.sleep(3)
    idle, sampler = held(psutil.Process()), Sampler()
    form = {"scale": "4", "steps": "1", "output_format": output_format}
    started, size = time.monotonic(), 0
    try:
        with httpx.stream(
            "POST", f"{url}/v1/upscale", files={"image": source}, data=form, timeout=TIMEOUT_S
        ) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code}: {answer.read()[:500]!r}")
            size = sum(len(part) for part in answer.iter_bytes())
    finally:
        peak = sampler.stop()
    return Run(megapixels, output_format, time.monotonic() - started, size, idle, peak)


def table(runs: list[Run]) -> str:
    """The runs as Markdown."""
    names = sorted({name for run in runs for name in run.peak.processes})
    rows = [
        "| result | file | s | above idle, MiB | object store | " + " | ".join(names) + " |",
        "|---" * (5 + len(names)) + "|",
    ]
    for run in runs:
        parts = [run.peak.store - run.idle.store] + [
            run.peak.processes.get(name, 0) - run.idle.processes.get(name, 0) for name in names
        ]
        cells = [
            f"{run.megapixels} MP {run.output_format}",
            f"{run.file_bytes / MIB:.0f} MiB",
            f"{run.seconds:.0f}",
            f"{run.above_idle / MIB:.0f}",
            *(f"{part / MIB:.0f}" for part in parts),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a sixteenth of each side, no report")
    parser.add_argument("--formats", default=",".join(FORMATS), help="fewer write no report")
    options = parser.parse_args()
    small, formats = options.small, options.formats.split(",")
    runs = []
    for output_format in formats:
        for sides in SOURCES:
            height, width = (side // 16 for side in sides) if small else sides
            source = png_bytes(photo_like(height, width))
            with (
                application() as url
            ):  # a fresh one each: a heap that once grew hides the next peak
                measure(url, png_bytes(photo_like(64, 64)), 0, output_format)  # code is loaded
                run = measure(url, source, round(height * width * 16 / 1e6), output_format)
            runs.append(run)
            print(f"{table([run])}\n\n{ratios(runs)}", flush=True)
            if not small and formats == list(FORMATS):
                found = f"{table(runs)}\n\n{ratios(runs)}"
                REPORT.write_text(insert(REPORT.read_text(), "memory", found))


def ratios(runs: list[Run]) -> str:
    """What 400 MP take over what 100 MP take, for each format of which both were measured."""
    by = {(run.output_format, run.megapixels): run.above_idle for run in runs}
    found = ", ".join(
        f"{by[name, 400] / by[name, 100]:.2f} ({name.upper()})"
        for name in FORMATS
        if (name, 400) in by and (name, 100) in by
    )
    return f"Memory of 400 MP over that of 100 MP: {found or 'not measured'}."


if __name__ == "__main__":
    main()

"""Looks for what requests leave behind: `python -m benchmarks.leaks`, for docs/measurements/memory.md.

The whole application with the embedded model serves one small picture after another. Between, once all is
quiet, it is counted what its processes hold, which descriptors are open and which files are left; then again
after callers that went away and pictures that were refused. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.memory import MIB, application, held
from serve_app.app import build_app
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes

_QUIET_S = 5.0
_GONE_AFTER_S = (0.1, 0.5, 1.0, 2.0)


def descriptors() -> int:
    """Open files, sockets and pipes of all processes that this one has started."""
    count = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            count += process.num_fds()
    return count


def left_files(ours: set[Path]) -> int:
    """New folders and files of Tessera's, for temporary ones and in shared memory; also other servers'."""
    return len(seen() - ours)


def seen() -> set[Path]:
    """What there is now."""
    folders = (Path(tempfile.gettempdir()), Path("/dev/shm"))
    return {path for folder in folders for path in folder.glob("tessera-*")}


def row(name: str, before: set[Path], columns: list[str]) -> str:
    """One line of the table, once all is quiet."""
    time.sleep(_QUIET_S)
    use = held(psutil.Process())
    cells = [f"{use.processes.get(column, 0) / MIB:.0f}" for column in columns]
    cells += [f"{use.store / MIB:.0f}", str(descriptors()), str(left_files(before))]
    return f"| {name} | {' | '.join(cells)} |"


def upscale(url: str, image: bytes, timeout_s: float = 300) -> int:
    """One request; its status, or 0 where the caller went away first."""
    try:
        answer = httpx.post(
            f"{url}/v1/upscale", files={"image": image}, data={"scale": "4"}, timeout=timeout_s
        )
    except httpx.TimeoutException:
        return 0
    return answer.status_code


def main() -> None:
    """Serves and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--side-px", type=int, default=160)
    options = parser.parse_args()
    image = png_bytes(photo_like(options.side_px, options.side_px))
    columns = ["Gateway", "Preprocess", "Denoiser", "Postprocess", "ProxyActor", "decoder"]
    with application(build_app(Settings())) as url:
        upscale(url, image)
        before = seen()
        heads = [*(f"{name}, MiB" for name in columns), "object store, MiB", "descriptors", "files"]
        print(f"| after | {' | '.join(heads)} |\n{'|---' * (1 + len(heads))}|", flush=True)
        print(row("1 request", before, columns), flush=True)
        for number in range(2, options.requests + 1):
            if upscale(url, image) != 200:
                raise RuntimeError(f"request {number} failed")
            if number % 10 == 0:
                print(row(f"{number} requests", before, columns), flush=True)
        for gone_s in _GONE_AFTER_S:
            upscale(url, image, gone_s)
        print(row(f"{len(_GONE_AFTER_S)} callers gone", before, columns), flush=True)
        for length in (0, 100, len(image) // 2, len(image) - 20):
            if upscale(url, image[:length]) not in (400, 415, 422):
                raise RuntimeError("a cut picture was not refused")
        print(row("4 cut pictures", before, columns), flush=True)


if __name__ == "__main__":
    main()

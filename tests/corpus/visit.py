"""Sends the corpus through real HTTP to a real application whose denoisers give each tile back.

So a picture enlarged once must come back as it was. It watches what the application's processes hold and
whether they are still the same ones. It refuses to know what the files are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import numpy as np
import psutil
import pyvips
from ray import serve

from serve_app.testing_app import PacedSettings, build_paced_app
from tests.corpus.case import LIMITS, OK, Case
from tests.corpus.judge import Samples, fault

APP_NAME = "hostile"
AT_ONCE = 4
HANGS_S = 90.0
"""A file that takes longer has hung; the slowest, a line of 300 tiles, took 23 s on two busy cores."""
FORM = {"scale": "1", "steps": "1", "fidelity": "0", "color_fix": "none", "output_format": "png"}


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its status (0 if there was no answer), what is wrong with it, and the time."""

    case: Case
    status: int
    fault: str | None
    took_s: float


@contextmanager
def hostile_application(port: int) -> Iterator[str]:
    """Runs the application on the Ray of this process; gives its address."""
    settings = PacedSettings.model_validate(
        {
            "pace": 0,
            "images": LIMITS.model_dump(),
            "requests": {"timeout_s": 60},
            "deployments": {"denoiser_cpus": 0.1},
        }
    )
    serve.run(build_paced_app(settings), name=APP_NAME, route_prefix=f"/{APP_NAME}")
    try:
        yield f"http://127.0.0.1:{port}/{APP_NAME}"
    finally:
        serve.delete(APP_NAME)


def send_all(url: str, cases: Sequence[Case]) -> list[Outcome]:
    """Sends every file, some at once."""
    with httpx.Client(timeout=HANGS_S) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda case: _send(client, url, case), cases))


def _send(client: httpx.Client, url: str, case: Case) -> Outcome:
    began = time.monotonic()
    file = (case.filename, case.data, case.media_type)
    try:
        form = FORM | ({"animated": "true"} if case.animated else {})
        if case.kind == "rare layout":  # whose samples are compared as they stand
            form["color_profile"] = "srgb"
        answer = client.post(f"{url}/v1/upscale", files={"image": file}, data=form)
    except httpx.HTTPError as error:
        return Outcome(case, 0, f"{case.id}: {error!r}", time.monotonic() - began)
    took_s = time.monotonic() - began
    return Outcome(case, answer.status_code, _fault(case, answer), took_s)


def _fault(case: Case, answer: httpx.Response) -> str | None:
    if answer.status_code == OK:
        return fault(case, OK, *_samples(answer.content))
    if answer.headers["content-type"] != "application/problem+json":
        return f"{case.id}: {answer.status_code} is no problem document"
    found = fault(case, answer.status_code)
    return None if found is None else f"{found}: {answer.json()['detail']}"


def _samples(data: bytes) -> tuple[Samples, Samples | None]:
    """Colour and alpha of a result, 0 to 255, by a decoder other than the tests of formats use."""
    image = pyvips.Image.pngload_buffer(data)
    samples = image.numpy().reshape(image.height, image.width, image.bands).astype(np.float64)
    if image.format == "ushort":
        samples /= 257
    colour = np.broadcast_to(samples[:, :, :-1] if image.hasalpha() else samples, _rgb(samples))
    return colour, samples[:, :, -1] if image.hasalpha() else None


def _rgb(samples: Samples) -> tuple[int, int, int]:
    return (samples.shape[0], samples.shape[1], 3)


def replicas() -> dict[int, str]:
    """The application's deployments by the process ids of their replicas."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith(f"ray::ServeReplica:{APP_NAME}:"):
                found[process.pid] = title.split(":")[4].split(".")[0].rstrip()  # titles are padded
    return found


@dataclass
class Memory:
    """What the application's processes hold together, their decoders included; in bytes of their own share."""

    idle_bytes: int = 0
    peak_bytes: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self, every_s: float = 0.3) -> Iterator[None]:
        """Samples until the context ends."""
        self.idle_bytes = self.peak_bytes = _held(replicas())
        thread = threading.Thread(target=self._watch, args=(replicas, every_s))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self, found: Callable[[], dict[int, str]], every_s: float) -> None:
        pids = found()
        while not self._over.wait(every_s):
            self.peak_bytes = max(self.peak_bytes, _held(pids))


def _held(pids: dict[int, str]) -> int:
    total = 0
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    total += each.memory_full_info().pss
    return total

"""Tessera as a Hugging Face Space, in one process and without Ray: `python app.py`.

The composition root: it chooses the model, loads it, and puts the page before it. On ZeroGPU each picture is
one loan of a GPU, for as many seconds as its plan says; elsewhere the same lines compute in this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

try:  # before torch, which it prepares for a GPU that comes and goes
    from spaces import GPU  # type: ignore[attr-defined,import-not-found,unused-ignore]
except ImportError:  # not on the hub
    GPU = None

import torch
from choice import WAITING, choose
from lent import LentUpscaler
from loading import load
from price import Price
from studio import Said, Studio

from serve_app.contracts import UpscaleRequest
from serve_app.models.cost import StepCost
from serve_app.ui.backend import Offer
from serve_app.ui.files import Shelf
from serve_app.ui.memory import MemoryBackend
from serve_app.ui.page import build_page, mounted

EXAMPLES = Path(__file__).parent / "examples"
KEPT_S = 6 * 3600
EVENTS_AT_ONCE = 32
"""Events of each kind that run together: they wait for the picture at work, and compute nothing."""
EVENTS_WAITING = 128

LENT = GPU is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
CHOICE = choose(os.environ, gpu=torch.cuda.is_available(), lent=LENT)
INFO, OPENED = load(CHOICE.settings, LENT)
STUDIO = Studio(OPENED)
PRICE = Price(INFO, StepCost.read(CHOICE.settings.model), CHOICE.settings, LENT)


def on_gpu(task: Callable[..., Any]) -> Callable[..., Any]:
    """Has a GPU lent to a function for each call, where they are lent."""
    return task if GPU is None else GPU(duration=PRICE.seconds)(task)


@on_gpu
def compute(request: UpscaleRequest) -> Iterator[Said]:
    """Computes a picture where the GPU is."""
    yield from STUDIO.upscale(request)


def main() -> None:
    """Serves the page until the process ends; Gradio reads its port from GRADIO_SERVER_PORT."""
    settings = CHOICE.settings
    if not LENT:
        STUDIO.open()
    upscaler = LentUpscaler(compute, INFO, WAITING, PRICE.heard)
    backend = MemoryBackend(upscaler, settings, PRICE.plan)
    offer = Offer(models=(INFO,), presets=settings.requests.presets)
    shelf = Shelf(KEPT_S)
    examples = sorted(EXAMPLES.glob("*.jpg"))
    page = build_page(backend, offer, shelf, examples, KEPT_S, notice=CHOICE.words)
    page.queue(max_size=EVENTS_WAITING, default_concurrency_limit=EVENTS_AT_ONCE)
    page.launch(max_file_size=settings.images.upload_bytes, **mounted(shelf))


if __name__ == "__main__":
    main()

"""The product as the quality benchmarks run it: one engine, many requests, each through the whole story.

An arm of a benchmark may change what the model says of itself (its tiles) or a tile's task on its way to the
engine; nothing else is replaced. This module knows neither measures nor pictures.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cv2
import numpy as np
from PIL import Image

from serve_app.contracts import UpscaleParams, UpscaleRequest, UpscaleResult
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import TOP_LEVEL, Pixels
from serve_app.local import build_engine, conduct
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import Settings

Change = Callable[[TileTask, TileInputs], TileTask]
SEED = 1


class Product(AbstractContextManager["Product"]):
    """Tessera with the embedded model in this process.

    Args:
        threads: CPU threads of a step.
    """

    def __init__(self, threads: int = 1) -> None:
        self._settings = Settings.model_validate({"engine": {"threads": threads}})
        self._engine = build_engine(self._settings)
        self.info = read_model_info(find_model(self._settings.model.source, None))

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def upscale(
        self,
        source: Pixels,
        change: Change | None = None,
        told: dict[str, Any] | None = None,
        **params: Any,
    ) -> Pixels:
        """Upscales one picture through the product.

        Args:
            source: (h, w, 3), [0, 1]; sent as a PNG of 8 bits.
            change: Called with each tile's task on its way to the engine.
            told: What the model says of itself, where it differs.
            params: Of the request; scale 4, seed 1 and 16 bits where not given.

        Returns:
            (H, W, 3), [0, 1], as read from the answer's 16-bit PNG.
        """
        result = self.answer(as_png(source), change, told, **params)
        found = cv2.imdecode(np.frombuffer(result.image, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16:
            raise RuntimeError("the answer is not a 16-bit PNG")
        if found.ndim == 2:  # a gray source's result is stored gray
            found = np.repeat(found[..., None], 3, axis=2)
        return np.ascontiguousarray(found[..., 2::-1]).astype(np.float32) / np.float32(TOP_LEVEL)

    def answer(
        self,
        image: bytes,
        change: Change | None = None,
        told: dict[str, Any] | None = None,
        **params: Any,
    ) -> UpscaleResult:
        """The whole answer to one encoded picture; see `upscale`."""
        engine: Any = self._engine if change is None else _Changed(self._engine, change)
        conductor = conduct(self.info.model_copy(update=told or {}), engine, self._settings)
        asked = UpscaleParams(**({"scale": 4, "seed": SEED, "bit_depth": 16} | params))
        request = UpscaleRequest(image=image, params=asked, request_id="quality", timeout_s=3600)
        return asyncio.run(conductor.upscale(request))


class _Changed:
    """An engine whose tasks are changed first."""

    def __init__(self, engine: Any, change: Change) -> None:
        self._engine, self._change = engine, change
        self.alive = True

    def denoise(self, task: TileTask, inputs: TileInputs) -> Any:
        return self._engine.denoise(self._change(task, inputs), inputs)


def as_png(picture: Pixels) -> bytes:
    """Encodes a picture, [0, 1], as a PNG of 8 bits."""
    buffer = io.BytesIO()
    levels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(levels).save(buffer, "png")
    return buffer.getvalue()

"""Fakes for the seams and factories for pictures, shipped so that whoever builds on Tessera can use them.

Nothing here is imported by the product. It refuses to know test frameworks.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow
from PIL import Image

from serve_app.contracts import (
    ModelInfo,
    OutputFormat,
    Progress,
    ProgressCallback,
    UpscaleRequest,
    UpscaleResult,
    resolve,
)
from serve_app.errors import UnsupportedImage

Pixels = npt.NDArray[np.uint8]

FAKE_MODEL = ModelInfo(
    name="fake",
    description="Enlarges by repeating pixels.",
    license="Apache-2.0",
    tile_px=256,
    overlap_px=32,
    align_px=16,
)
FAKE_SEED = 7


class FakeUpscaler:
    """An `Upscaler` that enlarges by repeating pixels, and does as it is told.

    Args:
        error: Raised by each call instead of a result; a sequence is used up one a call, None meaning success.
        progress: Reported by each call before it waits at the gate.
        gate: Each call waits here before it ends; None does not wait.
        models: What can be asked for, the default first.
        is_ready: What `ready()` says.

    Attributes:
        requests: Every request so far.
        started: Set when a call has reported its progress.
        cancelled: Set when a call was cancelled.
        running: Calls in progress now.
        most_running: The most calls in progress at once so far.
    """

    def __init__(
        self,
        error: BaseException | Sequence[BaseException | None] | None = None,
        progress: Sequence[Progress] = (),
        gate: asyncio.Event | None = None,
        models: Sequence[ModelInfo] = (FAKE_MODEL,),
        is_ready: bool = True,
    ) -> None:
        self.error = error
        self.progress = list(progress)
        self.gate = gate
        self.model_infos = list(models)
        self.is_ready = is_ready
        self.requests: list[UpscaleRequest] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """Records the request, reports, waits, then raises or answers as scripted."""
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for report in self.progress:
                if on_progress is not None:
                    on_progress(report)
            self.started.set()
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if (error := self._next_error()) is not None:
                raise error
            return self._enlarge(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1

    async def models(self) -> list[ModelInfo]:
        """The models that it was given."""
        return self.model_infos

    async def ready(self) -> bool:
        """What it was told to say."""
        return self.is_ready

    def _next_error(self) -> BaseException | None:
        if self.error is None or isinstance(self.error, BaseException):
            return self.error
        call = len(self.requests) - 1
        return self.error[call] if call < len(self.error) else None

    def _enlarge(self, request: UpscaleRequest) -> UpscaleResult:
        try:
            source = np.asarray(Image.open(io.BytesIO(request.image)).convert("RGB"))
        except OSError:
            raise UnsupportedImage("The upload is not a picture.", field="image") from None
        params = resolve(request.params, self.model_infos[0], FAKE_SEED)
        factor = round(params.scale or 1)
        result = source.repeat(factor, axis=0).repeat(factor, axis=1)
        return UpscaleResult(
            image=encode(result, params.output_format),
            media_type=params.output_format.media_type,
            width=result.shape[1],
            height=result.shape[0],
            source_width=source.shape[1],
            source_height=source.shape[0],
            tiles=2,
            tiles_retried=1,
            params=params,
            timings_s={"prepare": 0.0123, "denoise": 1.5, "finish": 0.25},
            request_id=request.request_id,
        )


def photo_like(height: int, width: int, seed: int = 0) -> Pixels:
    """Draws a picture with what a photograph has: gradients, edges, texture and flat areas.

    Args:
        height: Rows, px.
        width: Columns, px.
        seed: Another seed is another picture.

    Returns:
        RGB of shape (height, width, 3), 0 to 255.
    """
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    tint = draw.uniform(40, 200, (2, 3))
    picture = tint[0] * (1 - y[..., None]) + tint[1] * y[..., None]
    for _ in range(6):
        center_y, center_x, radius = draw.uniform((0, 0, 0.05), (1, 1, 0.3))
        picture[(y - center_y) ** 2 + (x - center_x) ** 2 < radius**2] = draw.uniform(0, 255, 3)
    stripes = 40 * np.sin(x * draw.uniform(60, 120) + y * draw.uniform(20, 60))
    grain = draw.normal(0, 12, (height, width))
    textured = (x + y < 0.8)[..., None]
    picture = picture + textured * (stripes + grain)[..., None]
    pixels: Pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


def encode(pixels: Pixels, output_format: OutputFormat, **options: Any) -> bytes:
    """Encodes pixels of shape (height, width) or (height, width, 1 to 4) with Pillow's defaults."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, output_format.value, **options)
    return file.getvalue()


def png_bytes(pixels: Pixels) -> bytes:
    """Encodes pixels as PNG, without loss."""
    return encode(pixels, OutputFormat.PNG)


def jpeg_bytes(pixels: Pixels, quality: int = 92) -> bytes:
    """Encodes pixels as JPEG; `quality` is 1 to 100."""
    return encode(pixels, OutputFormat.JPEG, quality=quality)


def webp_bytes(pixels: Pixels, quality: int = 92) -> bytes:
    """Encodes pixels as WebP with loss; `quality` is 1 to 100."""
    return encode(pixels, OutputFormat.WEBP, quality=quality)

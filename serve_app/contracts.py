"""The shared words: what a caller asks for, what comes back, and the one call that all doors make.

What a caller may give stands in `params`; a model's defaults and its narrower limits come from its
`tessera.json` (`ModelInfo`). This module refuses to know pixels, tensors, processes and protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pydantic import Field

from serve_app.choices import ColorFix, ColorProfile, OutputFormat, Priority
from serve_app.fidelity_report import FidelityReport
from serve_app.model_info import (
    UPSCALE,
    ControlInfo,
    Defaults,
    Limits,
    ModelInfo,
    ResidualCache,
)
from serve_app.params import (
    MAX_SEED,
    Contract,
    ControlParams,
    UpscaleParams,
    allowed_range,
)
from serve_app.resolve import ResolvedControl, ResolvedParams, resolve

__all__ = [
    "DEFAULT_TENANT",
    "MAX_SEED",
    "TENANT_PATTERN",
    "UPSCALE",
    "ColorFix",
    "ColorProfile",
    "Contract",
    "ControlInfo",
    "ControlParams",
    "Defaults",
    "FidelityReport",
    "Limits",
    "ModelInfo",
    "OutputFormat",
    "Priority",
    "Progress",
    "ProgressCallback",
    "ResidualCache",
    "ResolvedControl",
    "ResolvedParams",
    "UpscaleParams",
    "UpscaleRequest",
    "UpscaleResult",
    "Upscaler",
    "allowed_range",
    "resolve",
]


DEFAULT_TENANT = "default"
TENANT_PATTERN = "^[A-Za-z0-9._-]{1,64}$"


class UpscaleRequest(Contract):
    """One picture and what to do with it.

    `image` is the encoded file; `control_images` are the pictures that the caller gives for controls, by their
    names. `timeout_s` bounds the whole request; None leaves it to the server's setting. Within a class of
    priority the tenants share the denoisers alike.
    """

    image: bytes = Field(repr=False)
    control_images: dict[str, bytes] = Field(default_factory=dict, repr=False)
    params: UpscaleParams = UpscaleParams()
    priority: Priority = Priority.INTERACTIVE
    tenant: str = Field(DEFAULT_TENANT, pattern=TENANT_PATTERN)
    request_id: str = Field(min_length=1, max_length=200)
    timeout_s: float | None = Field(None, gt=0)


class Progress(Contract):
    """How far a request is. `steps_total` counts the denoising steps of all tiles together."""

    stage: str = Field(description="prepare, denoise or finish")
    tiles_done: int
    tiles_total: int
    steps_done: int
    steps_total: int


class UpscaleResult(Contract):
    """The encoded result and what was done to make it. Sizes in px, timings in seconds by stage."""

    image: bytes = Field(repr=False)
    media_type: str
    width: int
    height: int
    source_width: int
    source_height: int
    tiles: int
    tiles_retried: int
    params: ResolvedParams
    timings_s: dict[str, float]
    request_id: str
    report: FidelityReport | None = None
    frames: int = 1


ProgressCallback = Callable[[Progress], None]


class Upscaler(Protocol):
    """The one call that every door makes; implemented in process, over Ray, and by fakes in `testing`."""

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """Upscales one picture.

        Args:
            request: The picture and its parameters.
            on_progress: Called on the event loop, never after this call has ended.

        Raises:
            TesseraError: any branch of the tree. Cancelling the call frees its tiles within a step.
        """
        ...

    async def models(self) -> list[ModelInfo]:
        """The models that can be asked for, the default first."""
        ...

    async def ready(self) -> bool:
        """True only when a denoiser has loaded and warmed its model."""
        ...

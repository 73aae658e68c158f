"""The shared words: what a caller asks for, what comes back, and the one call that all doors make.

What a caller may give stands in `params`; a model's defaults and its narrower limits come from its
`tessera.json` (`ModelInfo`). This module refuses to know pixels, tensors, processes and protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from pydantic import Field, model_validator

from serve_app.errors import InvalidParameter
from serve_app.params import MAX_SEED, Contract, OutputFormat, UpscaleParams, allowed_range

__all__ = [
    "MAX_SEED",
    "Contract",
    "Defaults",
    "Limits",
    "ModelInfo",
    "OutputFormat",
    "Progress",
    "ProgressCallback",
    "ResolvedParams",
    "UpscaleParams",
    "UpscaleRequest",
    "UpscaleResult",
    "Upscaler",
    "allowed_range",
    "resolve",
]


class Limits(Contract):
    """A model's narrower ranges, inclusive: `{"steps": [1, 16]}`."""

    scale: tuple[float, float] = (1, 8)
    steps: tuple[int, int] = (1, 100)
    guidance_scale: tuple[float, float] = (0, 30)
    control_scale: tuple[float, float] = (0, 2)


class Defaults(Contract):
    """A model's own choice for each parameter that a caller leaves open."""

    scale: float = Field(4, ge=1, le=8)
    steps: int = Field(28, ge=1, le=100)
    strength: float = Field(1, gt=0, le=1)
    guidance_scale: float = Field(3.5, ge=0, le=30)
    control_scale: float = Field(0.6, ge=0, le=2)
    control_start: float = Field(0, ge=0, le=1)
    control_end: float = Field(1, ge=0, le=1)
    true_cfg_scale: float = Field(1, ge=1, le=20)
    output_format: OutputFormat = OutputFormat.PNG
    quality: int = Field(92, ge=1, le=100)


class ModelInfo(Contract):
    """A model folder's `tessera.json`: everything that may be known of a model without loading a weight."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    description: str
    license: str
    tile_px: int = Field(gt=0, description="Side of the square tile that the model denoises.")
    overlap_px: int = Field(ge=0, description="Least overlap of two neighbouring tiles.")
    align_px: int = Field(
        gt=0, description="Tile origins and sizes are multiples of this: one transformer token."
    )
    native_scale: float = Field(
        4, ge=1, le=8, description="The enlargement that the ControlNet was trained for."
    )
    takes_prompt: bool = False
    takes_true_cfg: bool = False
    backprojection_rounds: int = Field(
        3, ge=0, le=10, description="Rounds that tie the result to its source."
    )
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    components: dict[str, str] = Field(
        default_factory=dict,
        description="Where a component lives when not in this folder: SOURCE[@REVISION][:SUBFOLDER].",
    )

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        for name in ("tile_px", "overlap_px"):
            if getattr(self, name) % self.align_px:
                raise ValueError(f"{name} must be a multiple of align_px ({self.align_px})")
        if self.overlap_px * 3 > self.tile_px:
            raise ValueError("overlap_px must be at most a third of tile_px")
        return self


class ResolvedParams(Contract):
    """`UpscaleParams` with every gap filled: what is really run, and enough to run it again."""

    model: str
    scale: float | None
    width: int | None
    height: int | None
    steps: int
    strength: float
    guidance_scale: float
    control_scale: float
    control_start: float
    control_end: float
    prompt: str
    negative_prompt: str
    true_cfg_scale: float
    seed: int
    output_format: OutputFormat
    quality: int


def resolve(params: UpscaleParams, model: ModelInfo, drawn_seed: int) -> ResolvedParams:
    """Fills the gaps with the model's defaults and checks what the model takes.

    Args:
        params: What the caller asked for.
        model: The model that will run it.
        drawn_seed: The seed to use if the caller gave none, 0 to 2**63-1.

    Raises:
        InvalidParameter: a value outside the model's limits, or a parameter that it does not take.
    """
    if (params.prompt or params.negative_prompt) and not model.takes_prompt:
        field = "prompt" if params.prompt else "negative_prompt"
        raise InvalidParameter(
            f"{field}: the model {model.name} reads no prompts",
            field=field,
            allowed="absent or empty",
        )
    if (params.true_cfg_scale or 1) > 1 and not model.takes_true_cfg:
        raise InvalidParameter(
            f"true_cfg_scale: the model {model.name} does not take it",
            field="true_cfg_scale",
            allowed="1",
        )
    given = params.model_dump(exclude_none=True)
    chosen = model.defaults.model_dump() | {"model": model.name, "seed": drawn_seed} | given
    if "width" in given or "height" in given:
        chosen["scale"] = None
    for name in Limits.model_fields:
        low, high = getattr(model.limits, name)
        if chosen[name] is not None and not low <= chosen[name] <= high:
            raise InvalidParameter(
                f"{name}: {chosen[name]:g} is outside what {model.name} takes, {low:g} to {high:g}",
                field=name,
                allowed=f"{low:g} to {high:g}",
            )
    if chosen["control_start"] >= chosen["control_end"]:
        raise InvalidParameter(
            "control_start: must be below control_end",
            field="control_start",
            allowed=f"below {chosen['control_end']:g}",
        )
    gaps = {"width": None, "height": None, "prompt": "", "negative_prompt": ""}
    return ResolvedParams.model_validate(gaps | chosen)


class UpscaleRequest(Contract):
    """One picture and what to do with it.

    `image` is the encoded file. `timeout_s` bounds the whole request; None leaves it to the server's setting.
    """

    image: bytes = Field(repr=False)
    params: UpscaleParams = UpscaleParams()
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

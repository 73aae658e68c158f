"""What a model says of itself in its `tessera.json`: defaults, limits, controls. Part of `contracts`.

It may be read without loading a weight, by every process.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from serve_app.choices import ColorFix, OutputFormat
from serve_app.params import Contract

UPSCALE = "upscale"
"""The control that every model has: the source itself."""


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
    fidelity: float = Field(0.5, ge=0, le=1)
    color_fix: ColorFix = ColorFix.WAVELET
    denoise: float = Field(0, ge=0, le=1)


class ControlInfo(Contract):
    """A control that a model offers. Several may share one ControlNet-Union, told apart by `mode`."""

    picture: Literal["source", "canny", "depth", "given"] = Field(
        description="What the ControlNet reads: made from the source, or given by the caller."
    )
    component: str = Field("controlnet", description="Folder of its ControlNet in the model.")
    mode: int | None = Field(None, ge=0, description="`control_mode` of a ControlNet-Union.")
    scale: float = Field(0.6, ge=0, le=2)
    start: float = Field(0, ge=0, le=1)
    end: float = Field(1, ge=0, le=1)


class ResidualCache(Contract):
    """How far a tile may drift before its step is computed in full; see `diffusion.cache`."""

    threshold: float = Field(gt=0)


class ModelInfo(Contract):
    """A model folder's `tessera.json`: everything that may be known of a model without loading a weight."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    description: str
    license: str
    revision: str | None = Field(
        None,
        description="Which release of it: stated, or found from its pinned source or its files.",
    )
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
    judges_tiles: bool = Field(
        True, description="A tile that shows nothing of its source is computed again."
    )
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    controls: dict[str, ControlInfo] = Field(
        default_factory=lambda: {UPSCALE: ControlInfo(picture="source")},
        description="What can be asked for by name; `upscale` takes scale and window from `defaults`.",
    )
    loras: tuple[str, ...] = Field(
        (),
        description="Adapters that the server offers; filled at start from its folder of adapters.",
    )
    residual_cache: ResidualCache | None = Field(
        None, description="Set where skipping steps of little change was measured for this model."
    )
    components: dict[str, str] = Field(
        default_factory=dict,
        description="Where a component lives when not in this folder: SOURCE[@REVISION][:SUBFOLDER].",
    )

    @model_validator(mode="after")
    def _has_upscale(self) -> Self:
        if UPSCALE not in self.controls or self.controls[UPSCALE].picture != "source":
            raise ValueError(f"controls must hold {UPSCALE!r} with the picture 'source'")
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> Self:
        for name in ("tile_px", "overlap_px"):
            if getattr(self, name) % self.align_px:
                raise ValueError(f"{name} must be a multiple of align_px ({self.align_px})")
        if self.overlap_px * 3 > self.tile_px:
            raise ValueError("overlap_px must be at most a third of tile_px")
        return self

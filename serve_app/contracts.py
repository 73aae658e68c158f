"""The shared words: what a caller asks for, what comes back, and the one call that all doors make.

What a caller may give stands in `params`; a model's defaults and its narrower limits come from its
`tessera.json` (`ModelInfo`). This module refuses to know pixels, tensors, processes and protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pydantic import Field

from serve_app.errors import InvalidParameter
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
    ColorFix,
    ColorProfile,
    Contract,
    ControlParams,
    OutputFormat,
    Priority,
    UpscaleParams,
    allowed_range,
)

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


class ResolvedControl(Contract):
    """A control as it is run: its scale inside the window [start, end] of the steps, 0 outside."""

    name: str
    scale: float
    start: float
    end: float


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
    controls: tuple[ResolvedControl, ...]
    lora: str
    lora_scale: float
    prompt: str
    negative_prompt: str
    true_cfg_scale: float
    seed: int
    output_format: OutputFormat
    quality: int
    preset: str
    fidelity: float | None = Field(description="None: the model's, lowered for a noisy source.")
    color_fix: ColorFix
    denoise: float
    bit_depth: int | None = Field(description="None: the source's, where the format holds it.")
    color_profile: ColorProfile
    keep_metadata: bool
    keep_gps: bool
    max_pixels: int | None
    animated: bool = False

    @property
    def all_controls(self) -> tuple[ResolvedControl, ...]:
        """`upscale` first, then the others in the caller's order."""
        main = ResolvedControl(
            name=UPSCALE,
            scale=self.control_scale,
            start=self.control_start,
            end=self.control_end,
        )
        return main, *self.controls

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to be encoded, once each: the prompt, and the negative one where it acts."""
        acting = (self.prompt, self.negative_prompt if self.true_cfg_scale > 1 else "")
        return tuple(dict.fromkeys(text for text in acting if text))


_OUTPUT_GAPS: dict[str, Any] = {
    "preset": "",
    "bit_depth": None,
    "color_profile": ColorProfile.SOURCE,
    "keep_metadata": True,
    "keep_gps": False,
    "max_pixels": None,
    "animated": False,
}


def resolve(params: UpscaleParams, model: ModelInfo, drawn_seed: int) -> ResolvedParams:
    """Fills the gaps with the model's defaults and checks what the model takes.

    Args:
        params: What the caller asked for.
        model: The model that will run it.
        drawn_seed: The seed to use if the caller gave none, 0 to 2**63-1.

    Raises:
        InvalidParameter: a value outside the model's limits, or a parameter that it does not take.
    """
    _check_offered(params, model)
    given = params.model_dump(exclude_none=True, exclude={"controls"})
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
    gaps: dict[str, Any] = {"width": None, "height": None, "prompt": "", "negative_prompt": ""}
    gaps |= {"lora": "", "lora_scale": 1.0}
    gaps |= _OUTPUT_GAPS
    chosen["fidelity"] = params.fidelity  # the model's own is lowered for a noisy source
    if not chosen.get("lora"):
        chosen.pop(
            "lora_scale", None
        )  # without an adapter it says nothing, and must not part batches
    controls = [_resolve_control(control, model) for control in params.controls or ()]
    return ResolvedParams.model_validate(gaps | chosen | {"controls": controls})


def _resolve_control(control: ControlParams, model: ModelInfo) -> ResolvedControl:
    known = model.controls[control.name].model_dump(include={"scale", "start", "end"})
    found = ResolvedControl(**known | control.model_dump(exclude_none=True))
    if found.start >= found.end:
        raise InvalidParameter(
            f"controls: {found.name}: start must be below end",
            field="controls",
            allowed=f"below {found.end:g}",
        )
    return found


def _check_offered(params: UpscaleParams, model: ModelInfo) -> None:
    """Refuses what the model does not offer at all."""
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
    names = [control.name for control in params.controls or ()]
    others = [name for name in model.controls if name != UPSCALE]
    for name in names:
        if name not in others or names.count(name) > 1:
            raise InvalidParameter(
                f"controls: {name!r} is given twice"
                if name in others
                else f"controls: the model {model.name} offers no control {name!r} beside {UPSCALE}",
                field="controls",
                allowed=f"each once: {', '.join(others)}" if others else "absent or empty",
            )
    if params.lora and params.lora not in model.loras:
        raise InvalidParameter(
            f"lora: there is no adapter {params.lora!r}",
            field="lora",
            allowed=", ".join(model.loras) or "absent or empty",
        )


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

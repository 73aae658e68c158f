"""What is really run: what a caller asked for, and the model's defaults in the gaps. Part of `contracts`.

What the model does not take is refused here; the ranges that hold for every model were judged before, in
`params`. It refuses to know presets and the picture.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from serve_app.choices import ColorFix, ColorProfile, OutputFormat
from serve_app.errors import InvalidParameter
from serve_app.model_info import UPSCALE, Limits, ModelInfo
from serve_app.params import Contract, ControlParams, UpscaleParams


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
    face_safe: bool = False

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
    "face_safe": False,
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

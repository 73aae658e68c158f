"""Presets: parameters under a name, for people who know their picture but not the parameters.

A preset fills what a caller left open, before the model's defaults do. The shipped ones touch only what every
model takes. It refuses to know models. Why each value: docs/presets.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from serve_app.choices import ColorFix
from serve_app.errors import InvalidParameter
from serve_app.params import UpscaleParams

SHIPPED: dict[str, UpscaleParams] = {
    "photo": UpscaleParams(color_fix=ColorFix.WAVELET),
    "art": UpscaleParams(fidelity=0.3, denoise=0.2, color_fix=ColorFix.WAVELET),
    "text": UpscaleParams(fidelity=1, control_scale=1, color_fix=ColorFix.WAVELET),
    "faithful": UpscaleParams(fidelity=1, denoise=0, color_fix=ColorFix.WAVELET),
    "creative": UpscaleParams(fidelity=0.1, color_fix=ColorFix.WAVELET),
}
"""No `steps`, `guidance_scale`, `control_end` or lower `strength`: what they do depends on the model. At one
step, an earlier end of control is no control at all."""


def _with_shipped(value: Any) -> Any:
    """Adds to the shipped presets; null takes one away."""
    if not isinstance(value, Mapping):
        return value
    return {name: preset for name, preset in {**SHIPPED, **value}.items() if preset is not None}


def _no_nesting(preset: UpscaleParams) -> UpscaleParams:
    if preset.preset is not None:
        raise ValueError("a preset does not name another")
    return preset


PresetName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,49}$")]
Presets = Annotated[
    dict[PresetName, Annotated[UpscaleParams, AfterValidator(_no_nesting)]],
    BeforeValidator(_with_shipped),
]


def with_preset(params: UpscaleParams, presets: Mapping[str, UpscaleParams]) -> UpscaleParams:
    """Fills the gaps of a request from the preset that it names; what the caller gave wins.

    A preset's size gives way to the caller's, whichever way either is given, and so does an end of the
    preset's window of control that the caller's other end contradicts.

    Args:
        params: What the caller asked for.
        presets: Those that the server offers, by name.

    Raises:
        InvalidParameter: there is no such preset.
    """
    if not params.preset:
        return params
    if params.preset not in presets:
        known = ", ".join(presets)
        raise InvalidParameter(
            f"preset: there is no preset {params.preset!r}; allowed: {known or 'none'}",
            field="preset",
            allowed=f"one of {known}" if known else "absent or empty",
        )
    given = _given(params)
    filled = _given(presets[params.preset])
    if given.keys() & {"scale", "width", "height"}:
        filled = {n: v for n, v in filled.items() if n not in ("scale", "width", "height")}
    merged = filled | given
    if merged.get("control_start", 0) >= merged.get("control_end", 1):
        for name in ("control_start", "control_end"):
            if name not in given:
                merged.pop(name, None)
    return UpscaleParams.model_validate(merged)


def _given(params: UpscaleParams) -> dict[str, Any]:
    return {n: v for n in UpscaleParams.model_fields if (v := getattr(params, n)) is not None}

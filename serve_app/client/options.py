"""The parameters of a picture by name, so that editors and type checkers know them.

They are those of `UpscaleParams`, which says what each means and checks it; a test holds this list to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict


class Options(TypedDict, total=False):
    """What may be asked for; see `contracts.UpscaleParams`. What is absent is the model's own default."""

    model: str
    scale: float
    width: int
    height: int
    steps: int
    strength: float
    guidance_scale: float
    control_scale: float
    control_start: float
    control_end: float
    controls: Sequence[dict[str, Any]]
    lora: str
    lora_scale: float
    prompt: str
    negative_prompt: str
    true_cfg_scale: float
    seed: int
    output_format: str
    quality: int
    preset: str
    fidelity: float
    color_fix: str
    denoise: float
    bit_depth: int
    color_profile: str
    keep_metadata: bool
    keep_gps: bool
    max_pixels: int
    animated: bool
    face_safe: bool

"""The controls of a request: presets, and a drawer for those who know their parameters.

What is left as the model or the preset has it is not sent. It refuses to know what happens to a request.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from serve_app.contracts import OutputFormat, UpscaleParams
from serve_app.ui.backend import Offer

NO_PRESET = "none"
BY_SCALE, BY_SIZE = "Scale", "Target size"
_SLIDERS = {
    # name: label, least, most, step, what it does
    "steps": ("Steps", 1, 100, 1, "Denoising steps of each tile."),
    "strength": ("Creativity", 0.05, 1, 0.05, "Strength: lower stays nearer to the source."),
    "fidelity": ("Fidelity", 0, 1, 0.05, "How firmly the result is tied to its source."),
    "control_scale": ("Control", 0, 2, 0.05, "How strongly the ControlNet holds the source."),
    "control_start": ("Control from", 0, 1, 0.05, "Share of the steps at which control begins."),
    "control_end": ("Control until", 0, 1, 0.05, "Share of the steps at which control ends."),
    "guidance_scale": ("Guidance", 0, 30, 0.5, "Between soft and sharp."),
    "denoise": ("Denoise the source", 0, 1, 0.05, "Noise and JPEG blocks taken out first."),
    "quality": ("Quality", 1, 100, 1, "Of JPEG, WebP, AVIF and JPEG XL."),
}
_LIMITED = ("steps", "guidance_scale", "control_scale")


class Form:
    """The components, made where a `Blocks` is open.

    Args:
        offer: What can be asked for; the default model's values and ranges are the controls'.
    """

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._model = model = offer.models[0]
        base = self._baseline(NO_PRESET)
        made: dict[str, Any] = {}
        with gr.Row():
            made["preset"] = gr.Dropdown(
                [NO_PRESET, *offer.presets], value=NO_PRESET, label="Preset", min_width=120
            )
            formats = [kind.value for kind in OutputFormat]
            made["output_format"] = gr.Dropdown(
                formats, value=base["output_format"], label="Format", min_width=120
            )
        made["scale"] = gr.Slider(
            *model.limits.scale,
            base["scale"],
            step=0.5,
            label="Scale",
            info="Times as wide and high.",
        )
        with gr.Accordion("Advanced", open=False):
            self._advanced(made, base)
        self.made = made
        self.names = list(made)
        self._wire()

    def _advanced(self, made: dict[str, Any], base: Mapping[str, Any]) -> None:
        model = self._model
        made["by"] = gr.Radio([BY_SCALE, BY_SIZE], value=BY_SCALE, label="Size by")
        with gr.Row():
            for name in ("width", "height"):
                label = f"Fit in {name}, px"
                made[name] = gr.Number(None, label=label, precision=0, visible=False)
        for name, (label, least, most, step, info) in _SLIDERS.items():
            ends = getattr(model.limits, name) if name in _LIMITED else (least, most)
            made[name] = gr.Slider(*ends, base[name], step=step, label=label, info=info)
        reads, steers = model.takes_prompt, model.takes_prompt and model.takes_true_cfg
        made["prompt"] = gr.Textbox("", label="Prompt", lines=2, visible=reads)
        made["negative_prompt"] = gr.Textbox("", label="Negative prompt", lines=2, visible=steers)
        made["true_cfg_scale"] = gr.Slider(
            1,
            20,
            base["true_cfg_scale"],
            step=0.5,
            label="Weight of the negative prompt",
            visible=steers,
        )
        made["face_safe"] = gr.Checkbox(
            False, label="Gentle with faces", info="Half the creativity where a face is found."
        )
        with gr.Row():
            made["seed"] = gr.Textbox(
                "", label="Seed", info="Empty draws one.", max_lines=1, scale=3, min_width=120
            )
            self._dice = gr.Button("Draw a seed", scale=1, min_width=120)

    @property
    def inputs(self) -> list[Any]:
        """What `read` wants the values of, in order."""
        return list(self.made.values())

    @property
    def changes(self) -> list[Any]:
        """The events after which a plan may be another."""
        return [component.change for component in self.made.values()]

    def _wire(self) -> None:
        private = {"api_visibility": "private", "show_progress": "hidden"}
        sizes = [self.made[name] for name in ("scale", "width", "height")]
        self.made["by"].change(_show_sizes, self.made["by"], sizes, **private)
        self._dice.click(lambda: str(secrets.randbelow(2**31)), None, self.made["seed"], **private)
        preset = self.made["preset"]
        moved = [self.made[name] for name in self._baseline(NO_PRESET)]
        preset.input(self.moved, preset, moved, preprocess=False, **private)

    def moved(self, preset: str) -> list[Any]:
        """The controls' values after a preset was chosen: its own over the model's."""
        return list(self._baseline(preset).values())

    def read(self, values: Sequence[Any]) -> UpscaleParams:
        """The parameters that a person set.

        Args:
            values: Of the components in `inputs`.

        Raises:
            InvalidParameter: naming the field at fault.
        """
        found = dict(zip(self.names, values, strict=True))
        by, preset = found.pop("by"), found.pop("preset") or NO_PRESET
        base = self._baseline(preset)
        sizes = ("width", "height")
        dropped = ("scale",) if by == BY_SIZE else sizes
        found |= {name: found[name] or None for name in sizes}  # a field left empty says 0
        given = {
            name: value
            for name, value in found.items()
            if value not in (None, "") and value != base.get(name) and name not in dropped
        }
        if preset != NO_PRESET:
            given["preset"] = preset
        return UpscaleParams.parse(given)

    def _baseline(self, preset: str) -> dict[str, Any]:
        """What holds where a person leaves a control alone."""
        defaults = self._model.defaults.model_dump(mode="json")
        base = {n: defaults[n] for n in ("scale", "output_format", "true_cfg_scale", *_SLIDERS)}
        chosen = self._offer.presets.get(preset, UpscaleParams())
        given = chosen.model_dump(mode="json", exclude_none=True)
        base["face_safe"] = False
        return base | {name: value for name, value in given.items() if name in base}


def _show_sizes(by: str) -> list[Any]:
    sized = by == BY_SIZE
    return [gr.update(visible=not sized), gr.update(visible=sized), gr.update(visible=sized)]

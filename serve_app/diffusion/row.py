"""A tile between its encoding and its decoding: its tensors, and what each of its steps is to do.

Knows no batch and no schedule; `at` gives a step its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from weakref import WeakValueDictionary

import torch

from serve_app.contracts import ResolvedParams
from serve_app.diffusion.cache import History, computed_steps
from serve_app.diffusion.latents import starting_latents
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.network import Moment
from serve_app.diffusion.prompts import Arrays, Prompt
from serve_app.diffusion.sigmas import control_scales, make_sigmas
from serve_app.diffusion.step import Control, Networks, Row
from serve_app.errors import TileFailed
from serve_app.fidelity.garbage import Summary, fault_of
from serve_app.levels import Levels
from serve_app.tiling.geometry import Tile


@dataclass(slots=True)
class TileRow:
    """One tile's state.

    Attributes:
        latents: (N, C) float32, as they are now.
        sigmas: The noise levels of all steps, and 0.
        controls: For each step, those that act.
        params: Of the request.
        prompt: With what each step is conditioned.
        negative: And against what, where true classifier-free guidance is on.
        histories: Of a tile that may skip steps, see `choose_steps`.
        due: For each step whether it is computed; all are where steps are not chosen.
        hold: How firmly its source is held, 0 to 1 of what the model does by default; 0 is never judged.
        means: Of its enlarged source, by which the result is judged; see `fidelity.garbage`.
    """

    latents: torch.Tensor
    sigmas: Sequence[float]
    controls: Sequence[tuple[Control, ...]]
    params: ResolvedParams
    prompt: Prompt
    negative: Prompt | None
    histories: tuple[History, History] | None = None
    due: list[bool] = field(default_factory=list)
    hold: float = 0
    means: Summary | None = None

    @classmethod
    def begin(
        cls,
        model: FluxModel,
        tile: Tile,
        params: ResolvedParams,
        pictures: Sequence[torch.Tensor],
        prompts: tuple[Prompt, Prompt | None],
    ) -> TileRow:
        """Lays down the starting latents.

        Args:
            model: The model.
            tile: Where it lies on the canvas, px.
            params: Of the request.
            pictures: The encoded pictures of `params.all_controls`, each (N, C).
            prompts: The prompt, and the negative one or None.
        """
        source = pictures[0]
        sigmas = make_sigmas(model.scheduler_config, params.steps, params.strength, len(source))
        return cls(
            latents=starting_latents(model, source, tile, params.seed, sigmas[0]),
            sigmas=sigmas,
            controls=_acting(model, params, pictures),
            params=params,
            prompt=prompts[0],
            negative=prompts[1],
            hold=_hold(model, params),
        )

    def fault(self, tile: Levels | None) -> str | None:
        """What is wrong with the decoded tile, which is None where it is no number; None is nothing."""
        if tile is None:
            return "came out as NaN"
        return None if self.means is None else fault_of(tile, self.means, self.hold)

    def at(self, step: int) -> Row:
        """What a step is to do with this tile."""
        return Row(
            latents=self.latents,
            sigma=self.sigmas[step],
            next_sigma=self.sigmas[step + 1],
            guidance=self.params.guidance_scale,
            controls=self.controls[step],
            prompt=self.prompt,
            negative=self.negative,
            true_cfg=self.params.true_cfg_scale,
            histories=self.histories,
            due=self.due[step] if self.due else True,
        )

    def choose_steps(self, networks: Networks, threshold: float) -> None:
        """Lets steps be skipped: called before the first one, with the tile's own adapter in use."""
        self.histories = History(), History()
        rows = [self.at(step) for step in range(len(self.controls))]
        changes = networks.changes([Moment(row.sigma, row.guidance, row.prompt) for row in rows])
        self.due = computed_steps(changes, [row.conditions for row in rows], threshold)


class Prompts:
    """The prompts of tiles on the device: one object for equal embeddings, as long as anything uses it.

    So what is made of a prompt is found again for the next tile, see `network.Moment`.

    Args:
        model: Gives the empty prompt, the device and the type.
    """

    def __init__(self, model: FluxModel) -> None:
        self._model = model
        self._known: WeakValueDictionary[bytes, Prompt] = WeakValueDictionary()

    def tokens(self, params: ResolvedParams, arrays: Sequence[Arrays]) -> int:
        """How long the prompts are; see `of`.

        Raises:
            TileFailed: they are not equally long.
        """
        lengths = {len(sequence) for sequence, _ in arrays}
        if not params.prompt or (params.true_cfg_scale > 1 and not params.negative_prompt):
            lengths.add(self._model.null_prompt.sequence.shape[1])
        if len(lengths) > 1:
            raise TileFailed(f"prompts of {sorted(lengths)} tokens cannot be computed together")
        return lengths.pop()

    def of(self, params: ResolvedParams, arrays: Sequence[Arrays]) -> tuple[Prompt, Prompt | None]:
        """The prompt, and the negative one where true classifier-free guidance is on.

        Args:
            params: Of the request.
            arrays: The embeddings of `params.texts`.
        """
        known = {"": self._model.null_prompt}
        known |= zip(params.texts, map(self._on_device, arrays), strict=True)
        guided = params.true_cfg_scale > 1
        return known[params.prompt], known[params.negative_prompt] if guided else None

    def _on_device(self, arrays: Arrays) -> Prompt:
        key = b"".join(blake2b(array.tobytes(), digest_size=16).digest() for array in arrays)
        found = self._known.get(key)
        if found is None:
            found = Prompt.from_arrays(arrays, self._model.device, self._model.dtype)
            self._known[key] = found
        return found


def _hold(model: FluxModel, params: ResolvedParams) -> float:
    usual = model.info.defaults
    shorter = params.control_start > usual.control_start or params.control_end < usual.control_end
    if not model.info.judges_tiles or not usual.control_scale or shorter:
        return 0
    return min(params.control_scale / usual.control_scale, 1)


def _acting(
    model: FluxModel, params: ResolvedParams, pictures: Sequence[torch.Tensor]
) -> list[tuple[Control, ...]]:
    """For each step the controls whose scale is not 0."""
    scaled = [
        (
            model.info.controls[control.name],
            picture,
            control_scales(params.steps, control.scale, control.start, control.end),
        )
        for control, picture in zip(params.all_controls, pictures, strict=True)
    ]
    return [
        tuple(
            Control(info.component, picture, scales[step], info.mode)
            for info, picture, scales in scaled
            if scales[step]
        )
        for step in range(params.steps)
    ]

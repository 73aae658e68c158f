"""One denoising step of one batch, each row with its own noise level, guidance, controls and prompts.

Nothing here is shared between rows but the weights and the tile's size, so a row's result does not depend on
its company beyond rounding. Every pass through a network has one of few static sizes: rows that have nothing to
do in it are left out, and what remains is filled up with repeats of its first row.

Source: diffusers 0.42, the loop of `FluxControlNetPipeline.__call__` with `FluxMultiControlNetModel`; the Euler
step of `FlowMatchEulerDiscreteScheduler.step`, over a batch and without the scheduler's mutable index.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from serve_app.diffusion.cache import History, relative_change
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.network import Moment, Walk
from serve_app.diffusion.prompts import Prompt

Residuals = Sequence[torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class Control:
    """What one ControlNet is to do for one row.

    Attributes:
        component: Which ControlNet.
        latents: The encoded control picture, (N, C) float32.
        scale: Of its residuals, not 0.
        mode: A ControlNet-Union's `control_mode`.
    """

    component: str
    latents: torch.Tensor
    scale: float
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a step: N tokens of C channels.

    Attributes:
        latents: (N, C) float32.
        sigma: The present noise level.
        next_sigma: The level after the step.
        guidance: For networks that embed it.
        controls: Those that act at this step; their residuals are added up.
        prompt: As long as every other row's.
        negative: Another prompt as long turns true classifier-free guidance on.
        true_cfg: Its scale; read where there is a negative prompt.
        histories: Past residuals of the pass with the prompt and of the one with the negative; None keeps none.
        due: Whether the stack is computed; else the histories stand in for it.
    """

    latents: torch.Tensor
    sigma: float
    next_sigma: float
    guidance: float
    controls: tuple[Control, ...]
    prompt: Prompt
    negative: Prompt | None = None
    true_cfg: float = 1.0
    histories: tuple[History, History] | None = None
    due: bool = True

    @property
    def conditions(self) -> Hashable:
        """What the stack depends on besides noise level, prompts and latents."""
        return self.guidance, *((c.component, c.mode, c.scale) for c in self.controls)


class Networks:
    """A model's transformer and ControlNets, ready to be walked through.

    Args:
        model: The model.
        sizes: The static batch sizes, rising.
        modulations: See `Walk`.
    """

    def __init__(self, model: FluxModel, sizes: Sequence[int], modulations: bool = True) -> None:
        self.sizes = tuple(sizes)
        self.transformer = Walk(model.transformer, model.dtype, modulations)
        self.controlnets = {
            name: Walk(module, model.dtype, modulations)
            for name, module in model.controlnets.items()
        }

    @torch.inference_mode()
    def changes(self, moments: Sequence[Moment]) -> list[float]:
        """How much each moment changes the first block's modulation, against the moment before; the first 0."""
        signals = [self.transformer.signal(moment) for moment in moments]
        return [0.0, *(relative_change(new, old) for old, new in pairwise(signals))]


@torch.inference_mode()
def denoise_step(
    networks: Networks, rows: Sequence[Row], area: tuple[int, int], size: int
) -> torch.Tensor:
    """Runs one step.

    Args:
        networks: The model's.
        rows: B rows.
        area: Height and width of their tiles in latents.
        size: The static size that they are filled up to, at least B.

    Returns:
        The rows' latents after the step, (B, N, C) float32.
    """
    step = _Step(networks, area, size)
    due = [row for row in rows if row.due]
    added = step.control(due)
    velocity = step.velocity(rows, added, negative=False)
    guided = [index for index, row in enumerate(rows) if row.negative is not None]
    if guided:
        picked = [index for index, row in enumerate(due) if row.negative is not None]
        theirs = _each(added, lambda residual: residual[step.filled(picked)])
        negative = step.velocity([rows[index] for index in guided], theirs, negative=True)
        scale = _column([rows[index].true_cfg for index in guided], velocity)
        velocity[guided] = negative + scale * (velocity[guided] - negative)
    change = _column([row.next_sigma - row.sigma for row in rows], velocity)
    return torch.stack([row.latents for row in rows]) + change * velocity


@dataclass(frozen=True, slots=True)
class _Step:
    """What is common to the passes of one step; a pass over no row at all is left out."""

    networks: Networks
    area: tuple[int, int]
    size: int

    def filled(self, picked: list[int]) -> list[int]:
        """Indices filled up to the next static size with the first of them."""
        fitting = [size for size in self.networks.sizes if len(picked) <= size < self.size]
        missing = min(fitting, default=self.size) - len(picked)
        return [*picked, *picked[:1] * missing]

    def control(self, rows: Sequence[Row]) -> Residuals:
        """What the ControlNets add after each of the transformer's blocks, for the filled-up rows.

        All rows' first controls come first, then the second, so that each row's sum has one order.
        """
        transformer = self.networks.transformer
        total = transformer.spread([], [])
        for place in range(max((len(row.controls) for row in rows), default=0)):
            acting = {i: row.controls[place] for i, row in enumerate(rows) if row.controls[place:]}
            for component in dict.fromkeys(control.component for control in acting.values()):
                picked = [i for i, control in acting.items() if control.component == component]
                double, single = self.one_controlnet(component, rows, picked, place)
                total = _sum(total, transformer.spread(double, single))
        return total

    def one_controlnet(
        self, component: str, rows: Sequence[Row], picked: list[int], place: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The scaled residuals of one ControlNet, run for the picked rows and 0 for the others."""
        taking = [rows[i] for i in self.filled(picked)]
        controls = [row.controls[place] for row in taking]
        walk = self.networks.controlnets[component]
        moments = [
            Moment(row.sigma, row.guidance, row.prompt, control.mode)
            for row, control in zip(taking, controls, strict=True)
        ]
        latents = torch.stack([row.latents for row in taking])
        pictures = torch.stack([control.latents for control in controls])
        double, single = walk.control(latents, pictures, walk.conditioning(moments, self.area))
        everyone = self.filled(list(range(len(rows))))

        def scaled(found: torch.Tensor) -> torch.Tensor:
            found = found * _column([control.scale for control in controls], found)
            if len(picked) == len(rows):
                return found
            spread = found.new_zeros(len(everyone), *found.shape[1:])
            spread[picked] = found[: len(picked)]
            return spread

        return [scaled(found) for found in double], [scaled(found) for found in single]

    def velocity(self, rows: Sequence[Row], added: Residuals, negative: bool) -> torch.Tensor:
        """One pass of the transformer over rows: (rows, N, C) float32.

        Args:
            rows: Those that are due have their stack computed, together; the others' histories stand in for it.
            added: What the ControlNets add, for the due rows filled up.
            negative: Whether it is the pass with the negative prompts.
        """
        walk = self.networks.transformer
        moments = [Moment(row.sigma, row.guidance, _prompt(row, negative)) for row in rows]
        filled = self.filled(list(range(len(rows))))
        own = [index for index, row in enumerate(rows) if row.due]
        due = self.filled(own)
        hidden = walk.embed(torch.stack([rows[i].latents for i in filled]))
        given = walk.conditioning([moments[i] for i in filled], self.area)
        if due == filled:
            after = walk.blocks(hidden, given, added)
        else:
            after = hidden.clone()
            if due:
                stacked = walk.blocks(hidden[due], given.rows(due), added)
                after[own] = stacked[: len(own)]
        for index, row in enumerate(rows):
            if row.histories is None:
                continue
            history = row.histories[negative]
            if row.due:
                conditions = walk.version, row.conditions
                history.add(row.sigma, after[index] - hidden[index], conditions)
            else:
                after[index] += history.at(row.sigma)
        return walk.velocity(after, given)[: len(rows)]


def _prompt(row: Row, negative: bool) -> Prompt:
    return row.negative if negative and row.negative is not None else row.prompt


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Numbers for rows, as (B, 1, 1) of a tensor's device and type."""
    return torch.tensor(values, dtype=torch.float32).to(like.device, like.dtype)[:, None, None]


def _sum(one: Residuals, other: Residuals) -> list[torch.Tensor | None]:
    pairs = zip(one, other, strict=True)
    return [b if a is None else a if b is None else a + b for a, b in pairs]


def _each(
    residuals: Residuals, change: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor | None]:
    """Changes each residual once; blocks that share one go on sharing it."""
    changed = {id(r): change(r) for r in {id(r): r for r in residuals if r is not None}.values()}
    return [None if r is None else changed[id(r)] for r in residuals]

"""One denoising step of one batch, each row with its own noise level, guidance, control scale and prompt.

Nothing here is shared between rows but the weights and the tile's size, so a row's result does not depend
on its company beyond rounding.

Source: diffusers 0.42, the loop of `FluxControlNetPipeline.__call__`; the Euler step of
`FlowMatchEulerDiscreteScheduler.step`, over a batch and without the scheduler's mutable index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Prompt

_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Batch:
    """The rows of one step; B rows of N tokens of C channels, float32 unless said otherwise.

    Attributes:
        latents: (B, N, C).
        control: (B, N, C), the encoded control pictures.
        sigma: (B,), the present noise levels.
        next_sigma: (B,), the levels after the step.
        guidance: (B,), for models that embed it.
        control_scale: (B,); 0 leaves the ControlNet out of a row.
        prompts: B prompts.
        negatives: B prompts or None; None turns true classifier-free guidance off for the row.
        true_cfg: (B,); read where a row has a negative prompt.
        token_ids: (N, 3), in the model's dtype.
    """

    latents: torch.Tensor
    control: torch.Tensor
    sigma: torch.Tensor
    next_sigma: torch.Tensor
    guidance: torch.Tensor
    control_scale: torch.Tensor
    prompts: list[Prompt]
    negatives: list[Prompt | None]
    true_cfg: torch.Tensor
    token_ids: torch.Tensor


@torch.inference_mode()
def denoise_step(model: FluxModel, batch: Batch) -> torch.Tensor:
    """Runs one step.

    Args:
        model: The model.
        batch: The rows.

    Returns:
        The rows' latents after the step, (B, N, C) float32.
    """
    dtype = model.dtype
    shared: dict[str, Any] = {
        "hidden_states": batch.latents.to(dtype),
        "timestep": (batch.sigma * _TRAIN_TIMESTEPS).to(dtype) / _TRAIN_TIMESTEPS,
        "guidance": batch.guidance,
        "img_ids": batch.token_ids,
        "return_dict": False,
    }
    shared |= _prompt_inputs(batch.prompts, dtype)
    residuals = _control(model, batch, shared)
    velocity = _velocity(model, shared, residuals)
    guided = [row for row, negative in enumerate(batch.negatives) if negative is not None]
    if guided:
        velocity[guided] = _guide(model, batch, shared, residuals, velocity[guided], guided)
    return batch.latents + (batch.next_sigma - batch.sigma)[:, None, None] * velocity


def _control(
    model: FluxModel, batch: Batch, shared: dict[str, Any]
) -> tuple[list[torch.Tensor] | None, list[torch.Tensor] | None]:
    """The ControlNet's residuals for the double and the single blocks."""
    if not bool(batch.control_scale.any()):
        return None, None
    embeds = model.controlnet.config.guidance_embeds
    double, single = model.controlnet(
        **shared | {"guidance": shared["guidance"] if embeds else None},
        controlnet_cond=batch.control.to(model.dtype),
        conditioning_scale=batch.control_scale.to(model.dtype)[:, None, None],
    )
    return double, single


def _velocity(
    model: FluxModel,
    shared: dict[str, Any],
    residuals: tuple[list[torch.Tensor] | None, list[torch.Tensor] | None],
) -> torch.Tensor:
    embeds = model.transformer.config.guidance_embeds
    velocity: torch.Tensor = model.transformer(
        **shared | {"guidance": shared["guidance"] if embeds else None},
        controlnet_block_samples=residuals[0],
        controlnet_single_block_samples=residuals[1],
    )[0]
    return velocity.float()


def _guide(
    model: FluxModel,
    batch: Batch,
    shared: dict[str, Any],
    residuals: tuple[list[torch.Tensor] | None, list[torch.Tensor] | None],
    velocity: torch.Tensor,
    rows: list[int],
) -> torch.Tensor:
    """True classifier-free guidance: only the rows that ask for it run a second time.

    Like the pipeline, the negative pass takes the positive pass's residuals.
    """
    negatives = [prompt for prompt in batch.negatives if prompt is not None]
    inputs = shared | {
        "hidden_states": shared["hidden_states"][rows],
        "timestep": shared["timestep"][rows],
        "guidance": shared["guidance"][rows],
        **_prompt_inputs(negatives, model.dtype),
    }
    picked = [None if group is None else [r[rows] for r in group] for group in residuals]
    negative = _velocity(model, inputs, (picked[0], picked[1]))
    return negative + batch.true_cfg[rows, None, None] * (velocity - negative)


def _prompt_inputs(prompts: list[Prompt], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    sequence = torch.cat([prompt.sequence for prompt in prompts])
    return {
        "encoder_hidden_states": sequence,
        "pooled_projections": torch.cat([prompt.pooled for prompt in prompts]),
        "txt_ids": torch.zeros(sequence.shape[1], 3, device=sequence.device, dtype=dtype),
    }

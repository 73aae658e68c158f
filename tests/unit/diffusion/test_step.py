"""A row's step does not depend on its company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from serve_app.diffusion.latents import token_ids
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Prompt
from serve_app.diffusion.step import Batch, denoise_step

TOLERANCE = 1e-5
ROWS = 5
SIDE = 8  # latents


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int) -> Prompt:
    return Prompt(random(seed, 1, 6, 32), random(seed + 50, 1, 32))


@pytest.fixture
def batch(tiny: FluxModel) -> Batch:
    """Rows that share nothing: two are guided by a negative prompt, one is without control."""
    return Batch(
        latents=random(1, ROWS, 16, 64),
        control=random(2, ROWS, 16, 64),
        sigma=torch.tensor([1.0, 0.8, 0.6, 0.3, 0.1]),
        next_sigma=torch.tensor([0.9, 0.5, 0.55, 0.0, 0.05]),
        guidance=torch.tensor([1.0, 3.5, 7.0, 0.0, 30.0]),
        control_scale=torch.tensor([0.6, 0.0, 1.0, 2.0, 0.1]),
        prompts=[prompt(seed) for seed in range(ROWS)],
        negatives=[None, prompt(20), None, prompt(21), None],
        true_cfg=torch.tensor([1.0, 4.0, 1.0, 2.0, 1.0]),
        token_ids=token_ids(SIDE, SIDE, tiny.device, tiny.dtype),
    )


def rows(batch: Batch, picked: list[int]) -> Batch:
    columns = ("latents", "control", "sigma", "next_sigma", "guidance", "control_scale", "true_cfg")
    return replace(
        batch,
        prompts=[batch.prompts[row] for row in picked],
        negatives=[batch.negatives[row] for row in picked],
        **{name: getattr(batch, name)[picked] for name in columns},
    )


def greatest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


def test_rows_that_share_nothing_equal_their_solo_steps(tiny: FluxModel, batch: Batch):
    together = denoise_step(tiny, batch)
    assert together.dtype == torch.float32
    for row in range(ROWS):
        alone = denoise_step(tiny, rows(batch, [row]))
        assert greatest(together[row] - alone[0]) < TOLERANCE
        assert greatest(alone[0] - batch.latents[row]) > 1e-2


def test_the_order_of_rows_makes_no_difference(tiny: FluxModel, batch: Batch):
    order = [3, 1, 4, 0, 2]
    moved = denoise_step(tiny, rows(batch, order))
    assert greatest(moved - denoise_step(tiny, batch)[order]) < TOLERANCE


@pytest.mark.parametrize("company", [[], [0]])
def test_a_control_scale_of_zero_is_no_controlnet(
    tiny: FluxModel, batch: Batch, company: list[int]
):
    """Alone, where the ControlNet is not run, and beside a row that runs it."""
    picked = [1, *company]
    one = denoise_step(tiny, rows(batch, picked))[0]
    other_control = replace(batch, control=random(99, ROWS, 16, 64))
    assert greatest(one - denoise_step(tiny, rows(other_control, picked))[0]) < TOLERANCE
    assert greatest(one - denoise_step(tiny, rows(batch, [1]))[0]) < TOLERANCE


@pytest.mark.parametrize(
    ("field", "row", "value"),
    [
        ("sigma", 0, 0.7),
        ("next_sigma", 0, 0.2),
        ("guidance", 0, 9.0),
        ("control_scale", 0, 0.1),
        ("true_cfg", 1, 1.5),
    ],
)
def test_each_number_acts_on_its_own_row_alone(
    tiny: FluxModel, batch: Batch, field: str, row: int, value: float
):
    column = getattr(batch, field).clone()
    column[row] = value
    change = denoise_step(tiny, replace(batch, **{field: column})) - denoise_step(tiny, batch)
    others = [other for other in range(ROWS) if other != row]
    assert greatest(change[row]) > 1e-3
    assert greatest(change[others]) < TOLERANCE


@pytest.mark.parametrize(("field", "row"), [("prompts", 0), ("negatives", 3)])
def test_a_prompt_acts_on_its_own_row_alone(tiny: FluxModel, batch: Batch, field: str, row: int):
    prompts = list(getattr(batch, field))
    prompts[row] = prompt(40)
    change = denoise_step(tiny, replace(batch, **{field: prompts})) - denoise_step(tiny, batch)
    others = [other for other in range(ROWS) if other != row]
    assert greatest(change[row]) > 1e-3
    assert greatest(change[others]) < TOLERANCE


def test_a_true_cfg_of_one_is_no_guidance(tiny: FluxModel, batch: Batch):
    one = replace(batch, true_cfg=torch.ones(ROWS))
    none = replace(batch, negatives=[None] * ROWS)
    assert greatest(denoise_step(tiny, one) - denoise_step(tiny, none)) < TOLERANCE


def test_a_row_of_nan_spoils_no_other(tiny: FluxModel, batch: Batch):
    latents = batch.latents.clone()
    latents[2] = torch.nan
    spoilt = denoise_step(tiny, replace(batch, latents=latents))
    others = [0, 1, 3, 4]
    assert spoilt[2].isnan().all()
    assert greatest(spoilt[others] - denoise_step(tiny, batch)[others]) < TOLERANCE


def test_the_batch_is_not_changed(tiny: FluxModel, batch: Batch):
    before = batch.latents.clone(), batch.control.clone()
    denoise_step(tiny, batch)
    assert torch.equal(batch.latents, before[0])
    assert torch.equal(batch.control, before[1])

"""Which steps are computed; a skipped one is right with a ControlNet, where diffusers' own cache is not."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.diffusion.cache import History, computed_steps, relative_change
from serve_app.diffusion.latents import token_ids
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.step import Control, Networks, Row, denoise_step


def which(changes: list[float], threshold: float, conditions: str = "") -> str:
    given: list[Hashable] = list(conditions or "a" * len(changes))
    return "".join("x" if now else "." for now in computed_steps(changes, given, threshold))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.05, "xxxxxxxx"), (0.1, "xxxxxxxx"), (0.15, "x.x.x.xx"), (0.25, "x..x..xx"), (9.0, "x......x")],
)  # fmt: skip
def test_steps_are_skipped_until_the_changes_add_up(threshold: float, expected: str):
    assert which([0.1] * 8, threshold) == expected


def test_a_great_change_is_computed_at_once():
    assert which([0, 0.01, 0.5, 0.01, 0.01, 0.01], 0.1) == "x.x..x"


def test_one_step_and_two_are_computed():
    assert which([0.0], 1.0) == "x"
    assert which([0.0, 0.0], 1.0) == "xx"


def test_another_condition_is_computed():
    assert which([0.01] * 9, 1.0, "aaabbbcca") == "x..x..x.x"


def test_a_change_that_is_no_number_is_computed():
    assert which([0, torch.nan, 0.0, 0.0, 0.0], 1.0) == "xx..x"


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ab")), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(CHANGES, st.floats(0.01, 2))
def test_between_two_computed_steps_little_changes(
    steps: list[tuple[float, str]], threshold: float
):
    changes, conditions = [step[0] for step in steps], [step[1] for step in steps]
    computed = computed_steps(changes, conditions, threshold)
    assert len(computed) == len(steps)
    assert computed[0]
    assert computed[-1]
    places = [place for place, now in enumerate(computed) if now]
    for one, other in pairwise(places):
        skipped = range(one + 1, other)
        assert sum(changes[place] for place in skipped) < threshold
        assert {conditions[place] for place in skipped} <= {conditions[one]}


def test_the_relative_change():
    assert relative_change(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])) == 1.5


def test_a_residual_is_carried_on_along_a_straight_line():
    history = History()
    history.add(0.8, torch.tensor([1.0]), "a")
    assert history.at(0.7).item() == 1.0  # of one point nothing else is known
    history.add(0.6, torch.tensor([2.0]), "a")
    assert history.at(0.6).item() == 2.0
    assert history.at(0.5).item() == pytest.approx(2.5)
    history.add(0.5, torch.tensor([1.0]), "a")
    assert history.at(0.4).item() == pytest.approx(0.0)


def test_a_step_tried_again_replaces_itself():
    history = History()
    for sigma, residual in ((0.8, 1.0), (0.6, 5.0), (0.6, 2.0)):
        history.add(sigma, torch.tensor([residual]), "a")
    assert history.at(0.4).item() == pytest.approx(3.0)


def test_under_other_conditions_the_past_is_forgotten():
    history = History()
    for sigma, residual, condition in ((0.8, 1.0, "a"), (0.6, 2.0, "b")):
        history.add(sigma, torch.tensor([residual]), condition)
    assert history.at(0.4).item() == 2.0


# Against diffusers' own cache

SIGMA = 0.9
AREA = (8, 8)


def random(seed: int) -> torch.Tensor:
    return torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(seed))


def theirs(model: FluxModel, transformer: FluxTransformer2DModel, scale: float) -> torch.Tensor:
    """The velocity as `FluxControlNetPipeline` asks for it."""
    shared = {
        "hidden_states": random(1),
        "timestep": torch.tensor([SIGMA]),
        "guidance": torch.tensor([3.5]),
        "encoder_hidden_states": model.null_prompt.sequence,
        "pooled_projections": model.null_prompt.pooled,
        "txt_ids": torch.zeros(model.null_prompt.sequence.shape[1], 3),
        "img_ids": token_ids(*AREA, model.device, model.dtype),
        "return_dict": False,
    }
    double, single = model.controlnets["controlnet"](
        **shared, controlnet_cond=random(2), conditioning_scale=scale
    )
    found: torch.Tensor = transformer(
        **shared, controlnet_block_samples=double, controlnet_single_block_samples=single
    )[0]
    return found


def ours(model: FluxModel, scale: float) -> torch.Tensor:
    """The velocity of a step whose stack is skipped, after the same step computed."""
    networks, histories = Networks(model, (1,)), (History(), History())
    controls = (Control("controlnet", random(2)[0], scale),) if scale else ()
    for due in (True, False):
        row = Row(
            random(1)[0], SIGMA, SIGMA - 1, 3.5, controls, model.null_prompt,
            histories=histories, due=due,
        )  # fmt: skip
        moved = denoise_step(networks, [row], AREA, 1)
    return random(1) - moved


@torch.inference_mode()
@pytest.mark.parametrize("scale", [0.0, 0.6])
def test_a_skipped_step_adds_control_once_where_first_block_cache_adds_it_again(
    tiny: FluxModel, tiny_flux_folder: Path, scale: float
):
    """With the same input twice, a cache that is right gives the same output twice."""
    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux_folder, subfolder="transformer")
    apply_first_block_cache(transformer, FirstBlockCacheConfig(threshold=1e9))  # skips all it can
    with transformer.cache_context("cond"):
        first = theirs(tiny, transformer, scale)
        again = theirs(tiny, transformer, scale)
    assert (first - theirs(tiny, tiny.transformer, scale)).abs().max() < 1e-5
    double_counted = (again - first).abs().max().item()
    assert (double_counted > 0.1) == (scale > 0)

    assert (ours(tiny, scale) - first).abs().max() < 1e-5

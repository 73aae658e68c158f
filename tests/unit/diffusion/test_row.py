"""A tile's state: what each step is to do with it, and which of its steps are computed."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.contracts import ControlParams, ResolvedParams, UpscaleParams, resolve
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Arrays, Prompt
from serve_app.diffusion.row import Prompts, TileRow
from serve_app.diffusion.step import Networks, denoise_step
from serve_app.tiling.geometry import Tile
from tests.tiny_flux import TILE_PX

TILE = Tile(16, 24, TILE_PX, TILE_PX)


def resolved(model: FluxModel, **asked: Any) -> ResolvedParams:
    return resolve(UpscaleParams(**asked), model.info, drawn_seed=3)


def begin(model: FluxModel, **asked: Any) -> TileRow:
    params = resolved(model, **asked)
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.randn(16, 64, generator=generator) for _ in params.all_controls]
    return TileRow.begin(model, TILE, params, pictures, (model.null_prompt, None))


def test_each_step_has_its_own_row(union: FluxModel) -> None:
    row = begin(union, steps=4, control_scale=0.7, control_end=0.5, strength=0.6,
                controls=(ControlParams(name="canny", scale=0.3, start=0.5),))  # fmt: skip
    steps = [row.at(step) for step in range(4)]
    assert [(c.component, c.mode, c.scale) for s in steps for c in s.controls] == [
        *[("controlnet", None, 0.7)] * 2,
        *[("union", 0, 0.3)] * 2,
    ]
    assert [s.sigma for s in steps[1:]] == [s.next_sigma for s in steps[:-1]]
    assert 0 < steps[0].sigma < 1
    assert steps[-1].next_sigma == 0
    assert all(s.due for s in steps)
    assert row.at(0).latents is row.latents


def test_a_control_of_scale_0_never_acts(union: FluxModel) -> None:
    row = begin(union, steps=3, control_scale=0.0)
    assert [row.at(step).controls for step in range(3)] == [(), (), ()]


def test_without_a_cache_nothing_is_remembered(union: FluxModel) -> None:
    assert begin(union, steps=3).at(0).histories is None


def computed(row: TileRow, networks: Networks, threshold: float) -> str:
    row.choose_steps(networks, threshold)
    return "".join(".x"[row.at(step).due] for step in range(len(row.controls)))


def test_a_threshold_chooses_steps_and_control_windows_force_them(union: FluxModel) -> None:
    networks = Networks(union, (1, 2))
    row = begin(union, steps=12)
    assert computed(row, networks, 1e-9) == "x" * 12
    assert computed(row, networks, 1e9) == "x..........x"
    few = computed(row, networks, 1.0)
    assert 2 < few.count("x") < 12
    window = begin(union, steps=12, control_start=0.25, control_end=0.75)
    assert computed(window, networks, 1e9) == "x..x.....x.x"


def test_the_choice_knows_no_pixels_and_no_company(union: FluxModel) -> None:
    networks = Networks(union, (1, 2))
    first = computed(begin(union, steps=20), networks, 1.0)
    assert "." in first
    other = begin(union, steps=20, seed=99)
    other.latents = torch.full_like(other.latents, torch.nan)
    assert computed(other, networks, 1.0) == first


def test_all_steps_of_a_cached_tile_stay_near_the_uncached_ones(union: FluxModel) -> None:
    """And a small threshold changes nothing at all."""
    networks = Networks(union, (1, 2))

    def result(threshold: float | None) -> torch.Tensor:
        row = begin(union, steps=24)
        if threshold is not None:
            row.choose_steps(networks, threshold)
        for step in range(24):
            (row.latents,) = denoise_step(networks, [row.at(step)], (8, 8), 1)
        return row.latents

    plain, little, much = result(None), result(0.7), result(1e9)
    assert torch.equal(result(1e-9), plain)
    assert 0 < (little - plain).abs().mean() < 0.5 * (much - plain).abs().mean()


# Prompts


def arrays(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return rng.random((6, 32), np.float32), rng.random(32, np.float32)


def test_equal_embeddings_are_one_prompt_while_it_is_used(tiny: FluxModel) -> None:
    prompts = Prompts(tiny)
    params = resolved(tiny, prompt="a house")
    one, none = prompts.of(params, [arrays(1)])
    assert none is None
    assert torch.equal(one.sequence[0], torch.from_numpy(arrays(1)[0]))
    assert prompts.of(params, [arrays(1)])[0] is one
    assert prompts.of(params, [arrays(2)])[0] is not one
    del one
    gc.collect()
    assert len(prompts._known) == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("", None)),
        ({"prompt": "a"}, ("a", None)),
        ({"prompt": "a", "negative_prompt": "b"}, ("a", None)),
        ({"prompt": "a", "negative_prompt": "b", "true_cfg_scale": 2}, ("a", "b")),
        ({"negative_prompt": "b", "true_cfg_scale": 2}, ("", "b")),
        ({"prompt": "a", "true_cfg_scale": 2}, ("a", "")),
        ({"prompt": "a", "negative_prompt": "a", "true_cfg_scale": 2}, ("a", "a")),
    ],
    ids=str,
)
def test_each_text_finds_its_embeddings(
    tiny: FluxModel, asked: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    params = resolved(tiny, **asked)
    given = {text: arrays(ord(text)) for text in params.texts}

    def named(prompt: Prompt | None) -> str | None:
        if prompt is None or prompt is tiny.null_prompt:
            return None if prompt is None else ""
        found = prompt.pooled[0].numpy()
        return next(text for text, (_, pooled) in given.items() if np.array_equal(found, pooled))

    prompt, negative = Prompts(tiny).of(params, list(given.values()))
    assert (named(prompt), named(negative)) == expected

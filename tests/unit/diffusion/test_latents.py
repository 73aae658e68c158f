"""Pixels to tokens and back; the starting latents follow the place, the seed and the strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetPipeline

from serve_app.diffusion.latents import (
    as_levels,
    decode_tiles,
    encode_controls,
    pack,
    starting_latents,
    token_ids,
    unpack,
)
from serve_app.diffusion.loader import FluxModel
from serve_app.levels import TOP_LEVEL, Levels
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Tile
from tests.tiny_flux import TILE_PX

TILE = Tile(64, 96, TILE_PX, TILE_PX)
TOKENS = (TILE_PX // 8) ** 2


def control(seed: int) -> Levels:
    rng = np.random.default_rng(seed)
    return rng.integers(0, TOP_LEVEL + 1, (TILE_PX, TILE_PX, 3), dtype=np.uint16)


def test_unpacking_undoes_packing():
    latents = torch.randn(2, 16, 6, 10)
    assert pack(latents).shape == (2, 15, 64)
    assert torch.equal(unpack(pack(latents), 6, 10), latents)


def test_unpacking_equals_the_pipelines():
    tokens = torch.randn(2, 24, 64)
    theirs = FluxControlNetPipeline._unpack_latents(tokens, height=64, width=96, vae_scale_factor=8)
    assert torch.equal(unpack(tokens, 8, 12), theirs)


def test_token_ids_equal_the_pipelines(tiny: FluxModel):
    theirs = FluxControlNetPipeline._prepare_latent_image_ids(1, 4, 6, tiny.device, tiny.dtype)
    assert torch.equal(token_ids(8, 12, tiny.device, tiny.dtype), theirs)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pictures_are_encoded_row_by_row_alike(tiny: FluxModel, size: int):
    pictures = [control(seed) for seed in range(3)]
    together = encode_controls(tiny, pictures, size)
    assert together.shape == (3, TOKENS, 64)
    assert together.dtype == torch.float32
    for row, picture in enumerate(pictures):
        assert torch.allclose(together[row], encode_controls(tiny, [picture], 1)[0], atol=1e-5)


def test_encoding_is_the_vaes_mean_scaled_as_the_pipeline_scales(tiny: FluxModel):
    pixels = torch.from_numpy(control(0).astype(np.float32) / TOP_LEVEL * 2 - 1)
    mean = tiny.vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist.mean
    expected = pack((mean - tiny.vae.config.shift_factor) * tiny.vae.config.scaling_factor)
    assert torch.allclose(encode_controls(tiny, [control(0)], 1), expected, atol=1e-5)


def test_encoding_draws_no_random_number(tiny: FluxModel):
    assert torch.equal(
        encode_controls(tiny, [control(0)], 1), encode_controls(tiny, [control(0)], 1)
    )


@pytest.mark.parametrize("size", [3, 4])
def test_tiles_are_decoded_row_by_row_alike(tiny: FluxModel, size: int):
    tokens = torch.randn(3, TOKENS, 64)
    together = decode_tiles(tiny, tokens, TILE, size)
    assert together.shape == (3, TILE_PX, TILE_PX, 3)
    assert together.dtype == torch.float32
    for row in range(3):
        assert torch.allclose(
            together[row], decode_tiles(tiny, tokens[[row]], TILE, 1)[0], atol=1e-5
        )


def test_decoding_equals_the_pipelines(tiny: FluxModel):
    tokens = torch.randn(1, TOKENS, 64)
    latents = FluxControlNetPipeline._unpack_latents(tokens, TILE_PX, TILE_PX, tiny.vae_scale)
    scaled = latents / tiny.vae.config.scaling_factor + tiny.vae.config.shift_factor
    theirs = tiny.vae.decode(scaled, return_dict=False)[0].permute(0, 2, 3, 1)
    assert torch.allclose(decode_tiles(tiny, tokens, TILE, 1), theirs, atol=1e-5)


def test_nan_latents_stay_nan_and_alone(tiny: FluxModel):
    tokens = torch.randn(2, TOKENS, 64)
    tokens[1, 3] = torch.nan
    decoded = decode_tiles(tiny, tokens, TILE, 2)
    assert decoded[0].isfinite().all()
    assert decoded[1].isnan().any()
    good, bad = as_levels(decoded)
    assert bad is None
    assert good is not None
    assert good.dtype == np.uint16


def test_levels_span_the_range_and_are_clipped():
    pixels = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).expand(1, 1, 3, 5).permute(0, 1, 3, 2)
    (levels,) = as_levels(pixels)
    assert levels is not None
    assert levels[0, :, 0].tolist() == [0, 0, round(TOP_LEVEL / 2), TOP_LEVEL, TOP_LEVEL]


@pytest.mark.parametrize(("size", "batches"), [(1, [1, 1, 1]), (2, [2, 2]), (4, [4])])
def test_every_batch_of_pictures_has_the_size_asked_for(
    tiny: FluxModel, monkeypatch: pytest.MonkeyPatch, size: int, batches: list[int]
):
    seen: list[int] = []
    encode = tiny.vae.encode
    monkeypatch.setattr(tiny.vae, "encode", lambda x: (seen.append(len(x)), encode(x))[1])
    encode_controls(tiny, [control(seed) for seed in range(3)], size)
    assert seen == batches


def field(tiny: FluxModel, seed: int) -> torch.Tensor:
    return pack(torch.from_numpy(noise(seed, TILE.shrunk(tiny.vae_scale), 16))[None])[0]


def test_at_full_strength_they_are_the_noise_of_their_place(tiny: FluxModel):
    source = torch.full((TOKENS, 64), torch.nan)  # has no say
    assert torch.equal(starting_latents(tiny, source, TILE, 5, 1.0), field(tiny, 5))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.97])
def test_below_full_strength_they_are_the_noised_source(tiny: FluxModel, sigma: float):
    source = torch.randn(TOKENS, 64)
    expected = sigma * field(tiny, 5) + (1 - sigma) * source
    assert torch.allclose(starting_latents(tiny, source, TILE, 5, sigma), expected)


def test_neighbours_start_from_the_same_noise_where_they_overlap(tiny: FluxModel):
    source = torch.zeros(TOKENS, 64)
    right = Tile(TILE.top, TILE.left + 16, TILE_PX, TILE_PX)
    side = TILE_PX // tiny.vae_scale
    one, other = (
        unpack(starting_latents(tiny, source, tile, 5, 1.0)[None], side, side)[0]
        for tile in (TILE, right)
    )
    assert torch.equal(one[:, :, 4:], other[:, :, :4])

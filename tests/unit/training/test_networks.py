import math

import numpy as np
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.flux.pipeline_flux_controlnet import FluxControlNetPipeline

from training.autoencoder import psnr, to_tensor
from training.autoencoder_start import build_autoencoder
from training.flow import GUIDANCE_NEUTRAL, Rows, draw_rows, exaggerate
from training.networks import pack, token_ids, unpack
from training.pairs import Pairs
from training.start import FitBatch, build_networks, fit


def _pairs(count: int = 48) -> Pairs:
    generator = torch.Generator().manual_seed(1)
    controls = torch.randn(count, 16, 16, 16, generator=generator)
    originals = controls + 0.5 * torch.randn(count, 16, 16, 16, generator=generator)
    return Pairs(originals.bfloat16(), controls.bfloat16())


def test_pack_is_the_pipelines_and_unpack_undoes_it() -> None:
    latents = torch.randn(2, 16, 6, 4)
    tokens = pack(latents)
    assert torch.equal(tokens, FluxControlNetPipeline._pack_latents(latents, 2, 16, 6, 4))
    assert torch.equal(unpack(tokens, 6, 4), latents)


def test_the_start_is_about_noise_minus_control() -> None:
    pair = build_networks(0)
    rows = draw_rows(_pairs(), 48, torch.Generator().manual_seed(2))
    fit(pair, FitBatch(**vars(rows)))
    pure = rows.sigma == 1
    with torch.no_grad():
        velocity = pair(rows.noisy, rows.control, rows.sigma, rows.guidance)
    error = (velocity - rows.velocity)[pure].square().mean()
    plain = (rows.noisy - rows.control - rows.velocity)[pure].square().mean()
    assert error < 1.6 * plain


def test_heads_start_by_looking_at_a_neighbour() -> None:
    pair = build_networks(0)
    attention = pair.transformer.transformer_blocks[0].attn
    tokens = torch.randn(1, 81, 256, generator=torch.Generator().manual_seed(3))
    rotary = pair.transformer.pos_embed(token_ids(9, 9))
    with torch.no_grad():
        query, key = (
            apply_rotary_emb(norm(project(tokens).unflatten(-1, (8, 32))), rotary, sequence_dim=1)
            for project, norm in (
                (attention.to_q, attention.norm_q),
                (attention.to_k, attention.norm_k),
            )
        )
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(32)
    favourite = scores[0, 0, 40].argmax()
    assert favourite == 40 - 9  # the first head looks one row up


def test_neutral_guidance_asks_for_the_original() -> None:
    original, control = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    neutral = exaggerate(original, control, torch.full((2,), GUIDANCE_NEUTRAL))
    assert torch.equal(neutral, original)


def test_rows_lie_on_the_straight_path() -> None:
    rows: Rows = draw_rows(_pairs(), 10, torch.Generator().manual_seed(4))
    level = rows.sigma[:, None, None, None]
    picture = rows.noisy - level * rows.velocity
    noise = picture + rows.velocity
    assert torch.allclose((1 - level) * picture + level * noise, rows.noisy, atol=1e-5)


def test_autoencoder_starts_close_to_its_input() -> None:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    smooth = np.stack([np.add.outer(ramp // 2, ramp // 2)] * 3, axis=-1)
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    crops = np.concatenate([np.stack([smooth] * 12), noise])
    torch.manual_seed(0)
    model = build_autoencoder(crops)
    pixels = to_tensor(crops[:1])
    with torch.no_grad():
        decoded = model.decode(model.encode(pixels).latents).sample
    assert psnr(decoded[..., 4:-4, 4:-4], pixels[..., 4:-4, 4:-4]) > 18

"""Norms that read finished modulations compute what diffusers' compute, and can be had back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
)

from serve_app.diffusion.modulation import Modulations


@pytest.fixture
def transformer(tiny_flux_folder: Path) -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(tiny_flux_folder, subfolder="transformer").eval()


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


EMBEDDING = random(1, 1, 32)
HIDDEN = random(2, 1, 16, 32)


def kinds(transformer: FluxTransformer2DModel) -> list[type]:
    block = transformer.transformer_blocks[0]
    single = transformer.single_transformer_blocks[0]
    return [type(m) for m in (block.norm1, block.norm1_context, single.norm, transformer.norm_out)]


def test_each_norm_reads_its_part(transformer: FluxTransformer2DModel) -> None:
    double, single = transformer.transformer_blocks[1], transformer.single_transformer_blocks[0]
    theirs = [
        *double.norm1(HIDDEN, emb=EMBEDDING),
        *double.norm1_context(HIDDEN, emb=EMBEDDING),
        *single.norm(HIDDEN, emb=EMBEDDING),
        transformer.norm_out(HIDDEN, EMBEDDING),
    ]
    made = Modulations(transformer)
    parts = made.split(made.make(EMBEDDING))
    assert [part.shape[1] // 32 for part in parts] == [12, 12, 3, 3, 2]
    ours = [
        *double.norm1(HIDDEN, emb=parts[1]),
        *double.norm1_context(HIDDEN, emb=parts[1]),
        *single.norm(HIDDEN, emb=parts[2]),
        transformer.norm_out(HIDDEN, parts[-1]),
    ]
    assert len(ours) == len(theirs) == 13
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our, their)


def test_given_the_embedding_they_do_what_they_did(transformer: FluxTransformer2DModel) -> None:
    block = transformer.transformer_blocks[0]
    before = block.norm1(HIDDEN, emb=EMBEDDING), transformer.norm_out(HIDDEN, EMBEDDING)
    Modulations(transformer)
    after = block.norm1(HIDDEN, emb=EMBEDDING), transformer.norm_out(HIDDEN, EMBEDDING)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert torch.equal(before[1], after[1])


def test_weights_and_names_stay_and_restoring_gives_the_classes_back(
    transformer: FluxTransformer2DModel,
) -> None:
    names = list(transformer.state_dict())
    modules = [name for name, _ in transformer.named_modules()]
    made = Modulations(transformer)
    assert AdaLayerNormZero not in kinds(transformer)
    assert list(transformer.state_dict()) == names
    assert [name for name, _ in transformer.named_modules()] == modules
    made.restore()
    assert kinds(transformer) == [
        AdaLayerNormZero,
        AdaLayerNormZero,
        AdaLayerNormZeroSingle,
        AdaLayerNormContinuous,
    ]


def test_preparing_twice_does_no_harm(transformer: FluxTransformer2DModel) -> None:
    once = Modulations(transformer).make(EMBEDDING)
    twice = Modulations(transformer)
    assert torch.equal(twice.make(EMBEDDING), once)
    twice.restore()
    assert AdaLayerNormZero in kinds(transformer)


def test_an_exchanged_linear_layer_takes_part(transformer: FluxTransformer2DModel) -> None:
    """As adapters exchange it, after the norms' classes were."""
    made = Modulations(transformer)
    before = made.make(EMBEDDING)
    norm = transformer.single_transformer_blocks[0].norm
    norm.linear = torch.nn.Linear(32, 96)
    change = (made.make(EMBEDDING) - before)[0].nonzero().flatten()
    assert (change.min().item(), change.max().item()) == (2 * 12 * 32, 2 * 12 * 32 + 95)

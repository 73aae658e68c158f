"""The walk computes what diffusers' forward computes, and what it keeps it computes once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxControlNetModel

from serve_app.diffusion.latents import token_ids
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.diffusion.network import Kept, Moment, Walk
from serve_app.diffusion.prompts import Prompt
from serve_app.errors import ConfigurationError
from tests.tiny_flux import FLUX_SHAPE

TOLERANCE = 1e-5
SIDE = 8  # latents
AREA = (SIDE, SIDE)
SIGMAS = [0.9, 0.31, 0.05]
GUIDANCE = [1.0, 3.5, 8.0]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PROMPTS = [Prompt(random(n, 1, 6, 32), random(n + 50, 1, 32)) for n in range(3)]


def moments(mode: int | None = None) -> list[Moment]:
    rows = zip(SIGMAS, GUIDANCE, PROMPTS, strict=True)
    return [Moment(sigma, guidance, prompt, mode) for sigma, guidance, prompt in rows]


def shared(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What `FluxControlNetPipeline` passes to both networks."""
    return {
        "hidden_states": random(7, 3, 16, 64).to(dtype),
        "timestep": (torch.tensor(SIGMAS) * 1000).to(dtype) / 1000,
        "guidance": torch.tensor(GUIDANCE),
        "img_ids": token_ids(*AREA, torch.device("cpu"), dtype),
        "txt_ids": torch.zeros(6, 3, dtype=dtype),
        "encoder_hidden_states": torch.cat([prompt.sequence for prompt in PROMPTS]).to(dtype),
        "pooled_projections": torch.cat([prompt.pooled for prompt in PROMPTS]).to(dtype),
        "return_dict": False,
    }


@pytest.fixture(params=[True, False], ids=["modulations in advance", "modulations by the blocks"])
def in_advance(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def walk(tiny: FluxModel, in_advance: bool) -> Walk:
    return Walk(tiny.transformer, torch.float32, in_advance)


def greatest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


@torch.inference_mode()
def predict(walk: Walk, rows: list[Moment], added: list[torch.Tensor | None] | None = None) -> Any:
    given = walk.conditioning(rows, AREA)
    hidden = walk.embed(random(7, 3, 16, 64)[: len(rows)])
    return walk.velocity(walk.blocks(hidden, given, added or walk.spread([], [])), given)


def test_a_transformer_equals_diffusers(tiny: FluxModel, walk: Walk) -> None:
    with torch.inference_mode():
        theirs = tiny.transformer(**shared())[0]
    assert theirs.std() > 0.1
    assert greatest(predict(walk, moments()) - theirs) < TOLERANCE


@pytest.mark.parametrize("name", ["controlnet", "union"])
def test_a_controlnet_equals_diffusers(union: FluxModel, in_advance: bool, name: str) -> None:
    module, mode = union.controlnets[name], 1 if name == "union" else None
    with torch.inference_mode():
        theirs = module(
            **shared(),
            controlnet_cond=random(8, 3, 16, 64),
            controlnet_mode=None if mode is None else torch.full((3, 1), mode),
        )
        walk = Walk(module, torch.float32, in_advance)
        given = walk.conditioning(moments(mode), AREA)
        ours = walk.control(random(7, 3, 16, 64), random(8, 3, 16, 64), given)
    for our, their in zip(ours, theirs, strict=True):
        assert len(our) == len(their) == 1
        assert their[0].std() > 0.01
        assert greatest(our[0] - their[0]) < TOLERANCE


@pytest.mark.parametrize(("double", "single"), [(1, 1), (2, 1), (1, 0), (0, 2), (2, 2)])
def test_residuals_are_added_where_diffusers_adds_them(
    tiny: FluxModel, walk: Walk, double: int, single: int
) -> None:
    doubles = [random(20 + n, 3, 16, 32) for n in range(double)]
    singles = [random(30 + n, 3, 16, 32) for n in range(single)]
    with torch.inference_mode():
        theirs = tiny.transformer(
            **shared(),
            controlnet_block_samples=doubles or None,
            controlnet_single_block_samples=singles or None,
        )[0]
    assert greatest(predict(walk, moments(), walk.spread(doubles, singles)) - theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("blocks", "residuals", "expected"),
    [(19, 5, "0000111122223333444"), (5, 2, "00011"), (3, 3, "012"), (2, 1, "00"), (4, 3, "0011")],
)
def test_few_residuals_serve_runs_of_blocks(
    tiny: FluxModel, blocks: int, residuals: int, expected: str
) -> None:
    """FLUX.1-dev's 19 double blocks and its upscaler's 5 among them."""
    walk = Walk(tiny.transformer, torch.float32)
    walk._doubles, walk._blocks = blocks, [None] * blocks
    laid = walk.spread([torch.tensor(n) for n in range(residuals)], [])
    assert "".join(str(int(found)) for found in laid if found is not None) == expected


def test_in_bfloat16_it_rounds_where_the_pipeline_rounds(tiny_flux_folder: Path) -> None:
    model = load_model(tiny_flux_folder, torch.device("cpu"), torch.bfloat16)
    with torch.inference_mode():
        theirs = model.transformer(**shared(torch.bfloat16))[0].float()
        rows = [
            moment._replace(prompt=Prompt(p.sequence.bfloat16(), p.pooled.bfloat16()))
            for moment, p in zip(moments(), PROMPTS, strict=True)
        ]
        ours = predict(Walk(model.transformer, torch.bfloat16), rows)
    assert greatest(ours - theirs) < 0.05 * theirs.std()


def test_a_network_that_reads_pixels_is_refused() -> None:
    module = FluxControlNetModel(**FLUX_SHAPE, conditioning_embedding_channels=16)
    with pytest.raises(ConfigurationError, match="pixels"):
        Walk(module, torch.float32)


# What is kept


@pytest.fixture
def calls(tiny: FluxModel) -> Iterator[list[str]]:
    """The parts whose result depends on shape, prompt, noise level and guidance alone, as they are called."""
    found: list[str] = []
    handles = [
        getattr(tiny.transformer, name).register_forward_hook(
            lambda *_, name=name: found.append(name)
        )
        for name in ("pos_embed", "context_embedder", "time_text_embed")
    ]
    norm = tiny.transformer.transformer_blocks[1].norm1.linear
    handles.append(norm.register_forward_hook(lambda *_: found.append("modulation")))
    yield found
    for handle in handles:
        handle.remove()


def test_nothing_is_computed_twice(tiny: FluxModel, calls: list[str]) -> None:
    walk = Walk(tiny.transformer, torch.float32)
    first = predict(walk, moments())
    assert [calls.count(name) for name in ("pos_embed", "context_embedder", "modulation")] == [
        1,
        3,
        3,
    ]
    calls.clear()
    assert torch.equal(predict(walk, moments()), first)
    assert calls == []


def test_what_depends_on_something_is_computed_again(tiny: FluxModel, calls: list[str]) -> None:
    walk = Walk(tiny.transformer, torch.float32)
    (moment, *_) = moments()
    predict(walk, [moment])
    for other, expected in {
        moment._replace(sigma=0.5): {"time_text_embed", "modulation"},
        moment._replace(guidance=9.0): {"time_text_embed", "modulation"},
        moment._replace(prompt=PROMPTS[1]): {"time_text_embed", "modulation", "context_embedder"},
    }.items():
        calls.clear()
        predict(walk, [other])
        assert set(calls) == expected


def test_other_weights_use_nothing_made_of_these(tiny: FluxModel, calls: list[str]) -> None:
    walk = Walk(tiny.transformer, torch.float32)
    predict(walk, moments())
    walk.version = ("turbo", 1.0)
    calls.clear()
    predict(walk, moments())
    assert set(calls) == {"context_embedder", "time_text_embed", "modulation"}
    walk.version = None
    calls.clear()
    predict(walk, moments())
    assert calls == []


def test_the_bytes_kept_are_bounded() -> None:
    kept = Kept(limit_bytes=1000)
    for number in range(10):
        kept.get(number, lambda: torch.zeros(100))  # 400 bytes
        assert kept.held_bytes <= 1000
    computed: list[int] = []

    def note(number: int) -> torch.Tensor:
        computed.append(number)
        return torch.zeros(100)

    for number in (8, 9, 7, 9, 8):
        kept.get(number, lambda number=number: note(number))
    assert computed == [7, 8]  # the one used longest ago has gone


def test_one_value_over_the_bound_is_kept_alone() -> None:
    kept = Kept(limit_bytes=10)
    kept.get("a", lambda: torch.zeros(100))
    kept.get("b", lambda: torch.zeros(200))
    assert kept.held_bytes == 800


def test_the_bytes_of_kept_prompts_are_counted(tiny: FluxModel) -> None:
    walk = Walk(tiny.transformer, torch.float32)
    prompts = [Prompt(random(n, 1, 512, 32), random(n, 1, 32)) for n in range(4)]
    (moment, *_) = moments()
    for prompt in prompts:
        walk.conditioning([moment._replace(prompt=prompt)], AREA)
    held = sum(value.nbytes for value, _ in walk.kept._values.values())
    assert walk.kept.held_bytes == held + sum(prompt.sequence.nbytes for prompt in prompts)


def test_a_prompt_whose_value_has_gone_is_held_no_longer() -> None:
    kept = Kept(limit_bytes=1000)
    for number in range(10):
        kept.get(number, lambda: torch.zeros(25), key_bytes=300)  # 400 bytes
        assert kept.held_bytes == 400 * len(kept._values) <= 1000

"""A row's step does not depend on its company, and what a row has nothing to do with is not run for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.diffusion.cache import History
from serve_app.diffusion.loader import FluxModel, load_model
from serve_app.diffusion.prompts import Prompt
from serve_app.diffusion.step import Control, Networks, Row, denoise_step
from tests.tiny_flux import build_tiny_flux

TOLERANCE = 1e-5  # float32; of values about 1
TOLERANCE_BFLOAT16 = 0.1  # a value of 1 is rounded to 0.008 at some forty places
AREA = (8, 8)  # latents
SIZES = (1, 2, 4, 8)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int) -> Prompt:
    return Prompt(random(seed, 1, 6, 32), random(seed + 50, 1, 32))


def source(seed: int, scale: float) -> Control:
    return Control("controlnet", random(seed, 16, 64), scale)


def moded(seed: int, scale: float, mode: int) -> Control:
    return Control("union", random(seed, 16, 64), scale, mode)


ROWS = [
    Row(random(1, 16, 64), 1.0, 0.9, 1.0, (source(2, 0.6),), prompt(1)),
    Row(random(3, 16, 64), 0.8, 0.5, 3.5, (), prompt(2), prompt(20), 4.0),
    Row(random(4, 16, 64), 0.6, 0.55, 7.0, (source(5, 1.0), moded(6, 0.4, 0)), prompt(3)),
    Row(random(7, 16, 64), 0.3, 0.0, 0.0, (moded(8, 2.0, 1),), prompt(4), prompt(21), 2.0),
    Row(random(9, 16, 64), 0.1, 0.05, 30.0, (moded(10, 0.3, 2), moded(11, 0.7, 0)), prompt(5)),
]  # fmt: skip


@pytest.fixture(scope="module")
def networks(union: FluxModel) -> Networks:
    return Networks(union, SIZES)


def step(networks: Networks, rows: Sequence[Row], size: int = 8) -> torch.Tensor:
    return denoise_step(networks, rows, AREA, size)


def greatest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


# Company


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(range(5)), min_size=1, max_size=8), st.data())
def test_a_row_in_any_company_and_slot_equals_itself_alone(
    networks: Networks, picked: list[int], data: st.DataObject
):
    size = data.draw(st.sampled_from([size for size in SIZES if size >= len(picked)]))
    together = step(networks, [ROWS[n] for n in picked], size)
    assert together.dtype == torch.float32
    for slot, number in enumerate(picked):
        alone = step(networks, [ROWS[number]], 1)[0]
        assert greatest(together[slot] - alone) < TOLERANCE
        assert greatest(alone - ROWS[number].latents) > 1e-2


def test_in_bfloat16_company_changes_no_more_than_rounding(tmp_path: Path):
    build_tiny_flux(tmp_path, takes_prompt=False, with_text_encoders=False, with_union=True)
    model = load_model(tmp_path, torch.device("cpu"), torch.bfloat16)
    networks = Networks(model, SIZES)

    def rounded(given: Prompt) -> Prompt:
        return Prompt(given.sequence.bfloat16(), given.pooled.bfloat16())

    rows = [
        replace(row, prompt=rounded(row.prompt), negative=row.negative and rounded(row.negative))
        for row in ROWS
    ]
    together = step(networks, rows)
    for slot, row in enumerate(rows):
        assert greatest(together[slot] - step(networks, [row], 1)[0]) < TOLERANCE_BFLOAT16


@pytest.mark.parametrize("spoilt", range(5))
def test_a_row_of_nan_spoils_no_other(networks: Networks, spoilt: int):
    rows = list(ROWS)
    rows[spoilt] = replace(ROWS[spoilt], latents=torch.full((16, 64), torch.nan))
    found, clean = step(networks, rows), step(networks, ROWS)
    assert found[spoilt].isnan().all()
    others = [row for row in range(5) if row != spoilt]
    assert torch.equal(found[others], clean[others])


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"sigma": 0.7}),
        (0, {"next_sigma": 0.2}),
        (0, {"guidance": 9.0}),
        (0, {"controls": (source(2, 0.1),)}),
        (0, {"controls": (source(12, 0.6),)}),
        (3, {"controls": (moded(8, 2.0, 2),)}),
        (0, {"prompt": prompt(40)}),
        (1, {"negative": prompt(41)}),
        (1, {"true_cfg": 1.5}),
    ],
)
def test_each_word_acts_on_its_own_row_alone(
    networks: Networks, number: int, change: dict[str, Any]
):
    rows = list(ROWS)
    rows[number] = replace(rows[number], **change)
    changed = step(networks, rows) - step(networks, ROWS)
    others = [other for other in range(5) if other != number]
    assert greatest(changed[number]) > 1e-3
    assert greatest(changed[others]) < TOLERANCE


def test_a_true_cfg_of_one_is_no_guidance(networks: Networks):
    guided = replace(ROWS[1], true_cfg=1.0)
    plain = replace(ROWS[1], negative=None)
    assert greatest(step(networks, [guided]) - step(networks, [plain])) < TOLERANCE


def test_the_rows_are_not_changed(networks: Networks):
    before = [row.latents.clone() for row in ROWS]
    step(networks, ROWS)
    assert all(torch.equal(row.latents, old) for row, old in zip(ROWS, before, strict=True))


# What is run, and at which sizes


@pytest.fixture
def passes(union: FluxModel) -> Iterator[list[tuple[str, int]]]:
    """Each pass through a network's blocks: its name and batch size."""
    found: list[tuple[str, int]] = []
    modules = {"transformer": union.transformer, **union.controlnets}
    handles = [
        module.transformer_blocks[0].register_forward_hook(
            lambda _m, _a, kwargs, _o, name=name: found.append(
                (name, len(kwargs["hidden_states"]))
            ),
            with_kwargs=True,
        )
        for name, module in modules.items()
    ]
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("picked", "size", "expected"),
    [
        ([0], 1, [("controlnet", 1), ("transformer", 1)]),
        ([0], 4, [("controlnet", 1), ("transformer", 1)]),
        ([1], 1, [("transformer", 1), ("transformer", 1)]),
        ([0, 0, 0], 4, [("controlnet", 4), ("transformer", 4)]),
        ([0, 2, 1, 1, 1], 8, [("controlnet", 2), ("union", 1), ("transformer", 8), ("transformer", 4)]),
        ([4], 1, [("union", 1), ("union", 1), ("transformer", 1)]),
        ([0, 3], 2, [("controlnet", 1), ("union", 1), ("transformer", 2), ("transformer", 1)]),
    ],
)  # fmt: skip
def test_rows_with_nothing_to_do_are_left_out(
    networks: Networks,
    passes: list[tuple[str, int]],
    picked: list[int],
    size: int,
    expected: list[tuple[str, int]],
):
    step(networks, [ROWS[n] for n in picked], size)
    assert passes == expected


def test_with_one_size_every_pass_has_it(union: FluxModel, passes: list[tuple[str, int]]):
    step(Networks(union, (4,)), ROWS[:4], 4)
    assert {size for _, size in passes} == {4}


# Histories


def remembering(row: Row, **changes: Any) -> Row:
    return replace(row, histories=(History(), History()), **changes)


@pytest.mark.parametrize("number", range(5))
def test_a_step_that_is_carried_on_to_its_own_noise_level_is_the_computed_one(
    networks: Networks, number: int
):
    """So control acts exactly once, and the negative pass has a history of its own."""
    row = remembering(ROWS[number])
    computed = step(networks, [row], 1)
    assert torch.equal(computed, step(networks, [ROWS[number]], 1))
    assert greatest(step(networks, [replace(row, due=False)], 1) - computed) < TOLERANCE


def test_rows_that_skip_leave_the_batch(networks: Networks, passes: list[tuple[str, int]]):
    rows = [remembering(row) for row in ROWS]
    step(networks, rows)
    passes.clear()
    due = [True, False, True, False, True]
    mixed = [replace(row, due=now) for row, now in zip(rows, due, strict=True)]
    together = step(networks, mixed)
    assert passes == [
        ("controlnet", 2),
        ("union", 1),
        ("union", 2),
        ("transformer", 4),
    ]
    for slot, row in enumerate(ROWS):
        assert greatest(together[slot] - step(networks, [row], 1)[0]) < TOLERANCE


def test_where_all_skip_no_block_runs(networks: Networks, passes: list[tuple[str, int]]):
    rows = [remembering(row) for row in ROWS]
    step(networks, rows)
    passes.clear()
    step(networks, [replace(row, due=False) for row in rows])
    assert passes == []


def test_other_control_other_guidance_and_another_adapter_forget_the_past(union: FluxModel):
    networks = Networks(union, SIZES)
    row = remembering(ROWS[0])
    history = row.histories[0] if row.histories else History()

    def points(**changes: Any) -> int:
        step(networks, [replace(row, **changes)], 1)
        return len(history._points)

    assert points() == 1
    assert points(sigma=0.9) == 2
    assert points(sigma=0.8) == 2
    assert points(sigma=0.7, controls=(source(2, 0.5),)) == 1
    assert points(sigma=0.6, controls=(source(2, 0.5),)) == 2
    assert points(sigma=0.5, guidance=2.0, controls=(source(2, 0.5),)) == 1
    networks.transformer.version = ("turbo", 1.0)
    assert points(sigma=0.4, guidance=2.0, controls=(source(2, 0.5),)) == 1


def test_a_history_holds_no_view_of_a_batch(networks: Networks):
    rows = [remembering(row) for row in ROWS]
    step(networks, rows)
    for row in rows:
        assert row.histories is not None
        residual = row.histories[0].at(row.sigma)
        assert residual.untyped_storage().nbytes() == residual.nbytes

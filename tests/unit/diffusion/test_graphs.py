"""A recording is fed by copies, told apart by shape, and its results outlive the next replay.

What is recorded here runs again at each replay on the tensors that it knows, as a CUDA graph does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from serve_app.diffusion import graphs
from serve_app.diffusion.graphs import Replayed
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.network import Moment, Walk


class Recorder:
    """Keeps the memory of inputs and results as a graph does, on any device."""

    def __init__(self) -> None:
        self.recordings = 0

    def __call__(self, compute: Callable[[], Any]) -> Callable[[], Any]:
        self.recordings += 1
        results = compute()

        def replay() -> Any:
            for old, new in zip(results, compute(), strict=True):
                old.copy_(new)
            return results

        return replay


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def listed(control: Callable[..., Any]) -> Callable[..., list[torch.Tensor]]:
    return lambda *given: [tensor for kind in control(*given) for tensor in kind]


def one(blocks: Callable[..., torch.Tensor]) -> Callable[..., list[torch.Tensor]]:
    return lambda *given: [blocks(*given)]


def passed(hidden: torch.Tensor, added: list[torch.Tensor | None]) -> list[torch.Tensor]:
    for more in added:
        hidden = hidden if more is None else hidden + more
    return [hidden, hidden * 2]


def test_replays_compute_on_new_inputs(recorder: Recorder):
    replayed = Replayed(passed, record=recorder)
    for seed in range(3):
        torch.manual_seed(seed)
        hidden, more = torch.randn(2, 3), torch.randn(2, 3)
        found = replayed(hidden, [more, None, more])
        torch.testing.assert_close(found, passed(hidden, [more, None, more]))
    assert recorder.recordings == 1


def test_results_outlive_the_next_replay(recorder: Recorder):
    replayed = Replayed(passed, record=recorder)
    first = replayed(torch.ones(2), [])
    replayed(torch.zeros(2), [])
    assert first[0].tolist() == [1, 1]


def test_inputs_are_left_alone(recorder: Recorder):
    replayed = Replayed(lambda x: [x.add_(1)], record=recorder)
    given = torch.zeros(2)
    replayed(given)
    assert given.tolist() == [0, 0]


@pytest.mark.parametrize(
    "other",
    [
        (torch.ones(3, 2), [torch.ones(3, 2), None]),
        (torch.ones(2, 2, dtype=torch.float64), [torch.ones(2, 2), None]),
        (torch.ones(2, 2), [None, torch.ones(2, 2)]),
        (torch.ones(2, 2), [torch.ones(2, 2)]),
    ],
    ids=["batch", "type", "places", "number"],
)
def test_another_shape_is_another_recording(recorder: Recorder, other: tuple[Any, Any]):
    replayed = Replayed(passed, record=recorder)
    replayed(torch.ones(2, 2), [torch.ones(2, 2), None])
    torch.testing.assert_close(replayed(*other), passed(*other))
    assert recorder.recordings == 2


def test_tensors_that_are_one_are_told_from_tensors_that_are_two(recorder: Recorder):
    replayed = Replayed(passed, record=recorder)
    one = torch.ones(2)
    assert replayed(torch.zeros(2), [one, one])[0].tolist() == [2, 2]
    assert replayed(torch.zeros(2), [one, one * 5])[0].tolist() == [6, 6]
    assert recorder.recordings == 2


def test_another_state_is_another_recording(recorder: Recorder):
    on = False
    replayed = Replayed(lambda x: [x * 2 if on else x], lambda: on, recorder)
    assert replayed(torch.ones(1))[0].item() == 1
    on = True
    assert replayed(torch.ones(1))[0].item() == 2
    on = False
    assert replayed(torch.ones(1))[0].item() == 1
    assert recorder.recordings == 2


@torch.inference_mode()
def test_a_networks_passes_are_replayed_for_any_noise_level_and_residuals(
    tiny: FluxModel, recorder: Recorder
):
    transformer = copy.deepcopy(tiny.transformer)
    controlnet = copy.deepcopy(tiny.controlnets["controlnet"])
    main, side = (Walk(net, torch.float32) for net in (transformer, controlnet))
    blocks, control = (
        Replayed(p, record=recorder) for p in (one(main.blocks), listed(side.control))
    )
    for seed, sigma in enumerate((0.9, 0.5, 0.1)):
        torch.manual_seed(seed)
        latents, picture = torch.randn(2, 16, 64), torch.randn(2, 16, 64)
        moments = [Moment(sigma, 3.5, tiny.null_prompt), Moment(sigma / 2, 1.0, tiny.null_prompt)]
        given, theirs = main.conditioning(moments, (8, 8)), side.conditioning(moments, (8, 8))
        found = control(latents, picture, theirs)
        torch.testing.assert_close(found, listed(side.control)(latents, picture, theirs))
        added = main.spread(found[:1], found[1:])
        hidden = main.embed(latents)
        (replayed,) = blocks(hidden, given, added)
        torch.testing.assert_close(replayed, main.blocks(hidden, given, added))
    assert recorder.recordings == 2


def test_all_networks_are_recorded_into_one_pool(monkeypatch: pytest.MonkeyPatch):
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    monkeypatch.setattr(graphs, "_CudaRecorder", make)
    walks = [SimpleNamespace(blocks=passed, control=passed) for _ in range(2)]
    graphs.replay_passes(walks, lambda: None)
    for walk in walks:
        walk.blocks(torch.ones(2), [])
        walk.control(torch.ones(2), [])
    assert [recorder.recordings for recorder in made] == [4]


def test_without_a_gpu_there_is_nothing_to_record_with():
    if torch.cuda.is_available():
        replayed = Replayed(passed)
        hidden = torch.ones(2, device="cuda")
        torch.testing.assert_close(replayed(hidden, []), passed(hidden, []))
    else:
        with pytest.raises((RuntimeError, AssertionError)):
            Replayed(passed)(torch.ones(2), [])

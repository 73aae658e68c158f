"""What makes the networks faster or smaller leaves what they compute as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel

from serve_app.diffusion.acceleration import accelerate, compile_blocks
from serve_app.diffusion.loader import FluxModel
from serve_app.errors import ConfigurationError
from serve_app.settings import EngineSettings
from tests.tiny_flux import FLUX_SHAPE

CPU = torch.device("cpu")


def inputs(network: Any, rows: int) -> dict[str, Any]:
    shape, generator = network.config, torch.Generator().manual_seed(0)

    def noise(*sides: int) -> torch.Tensor:
        return torch.randn(rows, *sides, generator=generator)

    given = {
        "hidden_states": noise(16, shape.in_channels),
        "encoder_hidden_states": noise(4, shape.joint_attention_dim),
        "pooled_projections": noise(shape.pooled_projection_dim),
        "timestep": torch.full((rows,), 0.5),
        "guidance": torch.full((rows,), 3.5),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(4, 3),
        "return_dict": False,
    }
    if isinstance(network, FluxControlNetModel):
        given["controlnet_cond"] = noise(16, shape.in_channels)
    return given


@torch.inference_mode()
def answer(network: Any, rows: int = 1) -> torch.Tensor:
    found = network(**inputs(network, rows))[0]
    return found[0] if isinstance(found, list) else found


def networks(model: FluxModel) -> tuple[Any, dict[str, Any]]:
    return copy.deepcopy(model.transformer), copy.deepcopy(model.controlnets)


def applied(model: FluxModel, **chosen: Any) -> list[Any]:
    transformer, controlnets = networks(model)
    accelerate(transformer, controlnets, EngineSettings(**chosen), CPU, model.null_prompt)
    return [transformer, *controlnets.values()]


def plain(model: FluxModel) -> list[Any]:
    return [model.transformer, *model.controlnets.values()]


def test_a_controlnet_has_repeated_blocks_that_diffusers_does_not_name():
    """Should this fail, diffusers names them now and ours need not."""
    assert not FluxControlNetModel._repeated_blocks
    assert FluxTransformer2DModel._repeated_blocks


def randomised(kind: type, **shape: int) -> Any:
    network: Any = kind(**FLUX_SHAPE | shape).eval().requires_grad_(False)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return network


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """Counts what was compiled since the test began."""
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    yield lambda: counted["unique_graphs"] - before
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", [FluxTransformer2DModel, FluxControlNetModel])
def test_blocks_share_what_is_compiled_for_a_batch_size(kind: type, graphs: Callable[[], int]):
    network = randomised(kind, num_layers=4, num_single_layers=4)
    expected = [answer(network, rows) for rows in (1, 2)]
    compile_blocks([network], backend="eager")
    found = [answer(network, rows) for rows in (1, 2, 1)]
    assert graphs() <= 6  # at two batch sizes: double blocks, the first single block, the others
    torch.testing.assert_close(found[:2], expected)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])  # inductor needs a C++ compiler here
def test_a_compiled_block_computes_the_same(graphs: Callable[[], int], backend: str):
    network = randomised(FluxControlNetModel, num_layers=1, num_single_layers=0)
    expected = answer(network)
    compile_blocks([network], backend)
    torch.testing.assert_close(answer(network), expected, rtol=1e-4, atol=1e-5)
    assert graphs() == 1


def test_the_native_attention_backend_computes_the_same(tiny: FluxModel):
    for network, original in zip(applied(tiny, attention="native"), plain(tiny), strict=True):
        assert network.transformer_blocks[0].attn.processor._attention_backend is not None
        torch.testing.assert_close(answer(network), answer(original))


def test_an_unknown_attention_backend_is_refused(tiny: FluxModel):
    with pytest.raises(ConfigurationError) as caught:
        applied(tiny, attention="fastest")
    assert caught.value.field == "engine.attention"
    assert "native" in caught.value.detail


def test_offloaded_blocks_compute_the_same(tiny: FluxModel):
    for network, original in zip(applied(tiny, offload=True), plain(tiny), strict=True):
        hooked = [
            block
            for block in [*network.transformer_blocks, *network.single_transformer_blocks]
            if hasattr(block, "_diffusers_hook")
        ]
        assert len(hooked) == len(network.transformer_blocks) + len(
            network.single_transformer_blocks
        )
        torch.testing.assert_close(answer(network), answer(original))


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"cuda_graphs": True}, "engine.cuda_graphs"),
        ({"compile": True, "offload": True}, "engine.compile"),
        ({"quantization": "fp8"}, "engine.quantization"),
    ],
)
def test_what_cannot_be_had_here_is_refused(tiny: FluxModel, chosen: dict[str, Any], field: str):
    with pytest.raises(ConfigurationError) as caught:
        applied(tiny, **chosen)
    assert caught.value.field == field


def test_nothing_asked_for_changes_nothing(tiny: FluxModel):
    for network, original in zip(applied(tiny), plain(tiny), strict=True):
        assert not any(hasattr(m, "_diffusers_hook") for m in network.modules())
        torch.testing.assert_close(answer(network), answer(original))

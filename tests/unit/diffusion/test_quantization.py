"""fp8 is let in by its distance, on networks that really lose what their weights lose."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from diffusers import FluxControlNetModel

from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.quantization import MOST_DISTANCE, quantize_networks
from serve_app.errors import ConfigurationError
from tests.tiny_flux import FLUX_SHAPE

CPU = torch.device("cpu")


def rounded_to(kind: torch.dtype):
    """Weights in another type and back: what weight-only quantisation loses."""

    def quantize(block: Any) -> None:
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = module.weight.to(kind).to(module.weight.dtype)

    return quantize


def without_half(block: Any) -> None:
    for module in block.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data[::2] = 0


def quantized(model: FluxModel, quantize: Any) -> tuple[float, Any]:
    transformer = copy.deepcopy(model.transformer)
    controlnets = [copy.deepcopy(net) for net in model.controlnets.values()]
    distance = quantize_networks(transformer, controlnets, CPU, CPU, model.null_prompt, quantize)
    return distance, transformer


def test_nothing_lost_is_no_distance(tiny: FluxModel):
    distance, _ = quantized(tiny, lambda block: None)
    assert distance == 0


def test_less_precise_weights_are_further_off(tiny: FluxModel):
    fine, _ = quantized(tiny, rounded_to(torch.bfloat16))
    coarse, network = quantized(tiny, rounded_to(torch.float8_e4m3fn))
    assert 0 < fine < 0.01
    assert fine < coarse <= MOST_DISTANCE
    changed = network.transformer_blocks[0].attn.to_q.weight
    assert not torch.equal(changed, tiny.transformer.transformer_blocks[0].attn.to_q.weight)


def test_a_network_that_lost_too_much_is_refused_with_the_distance(tiny: FluxModel):
    with pytest.raises(ConfigurationError) as caught:
        quantized(tiny, without_half)
    assert caught.value.field == "engine.quantization"
    off = re.search(r"off by (\d\.\d+), more than", caught.value.detail)
    assert off is not None
    assert float(off[1]) > MOST_DISTANCE


def test_nan_is_refused(tiny: FluxModel):
    def broken(block: Any) -> None:
        next(block.parameters()).data.fill_(float("nan"))

    with pytest.raises(ConfigurationError, match="off by nan"):
        quantized(tiny, broken)


def test_the_passes_are_those_of_diffusers(tiny: FluxModel):
    """The probe's unquantised velocity, had by emptying the quantised pass, is what the networks compute."""
    from serve_app.diffusion.quantization import _Probe

    probe = _Probe(tiny.transformer.config.in_channels, CPU, tiny.null_prompt)
    controlnet = next(iter(tiny.controlnets.values()))
    union = FluxControlNetModel(**FLUX_SHAPE | {"num_layers": 1, "num_mode": 2}).eval()
    for weight in union.controlnet_blocks.parameters():
        torch.nn.init.normal_(weight)
    shared = {
        "hidden_states": probe._latents,
        "encoder_hidden_states": tiny.null_prompt.sequence,
        "pooled_projections": tiny.null_prompt.pooled,
        "timestep": torch.tensor([0.7]),
        "guidance": torch.tensor([3.5]),
        "img_ids": token_grid(),
        "txt_ids": torch.zeros(tiny.null_prompt.sequence.shape[1], 3),
        "return_dict": False,
    }
    with torch.inference_mode():
        for network, mode in ((controlnet, None), (union, torch.zeros(1, 1, dtype=torch.long))):
            double, single = network(**shared, controlnet_cond=probe._picture, controlnet_mode=mode)
            ours = probe.control(network, CPU, lambda block: None)
            expected = tiny.transformer(
                **shared, controlnet_block_samples=double, controlnet_single_block_samples=single
            )[0]
            added = ([ours[0]], [ours[1]])
            found = probe.velocity(tiny.transformer, CPU, lambda block: None, added)
            torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def token_grid() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return torch.stack([torch.zeros(8, 8), rows, columns], dim=-1).reshape(64, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_without_its_hardware_is_refused_and_says_why(
    tiny: FluxModel, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # torchao asks it
    transformer = copy.deepcopy(tiny.transformer).to(dtype)
    prompt = type(tiny.null_prompt)(
        tiny.null_prompt.sequence.to(dtype), tiny.null_prompt.pooled.to(dtype)
    )
    with pytest.raises(ConfigurationError) as caught:
        quantize_networks(transformer, [], CPU, CPU, prompt)
    assert caught.value.field == "engine.quantization"
    assert re.search("bfloat16" if dtype is torch.float32 else "torchao|CUDA", caught.value.detail)

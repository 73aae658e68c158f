"""Makes the networks faster or smaller as the settings say, and puts them on the device.

Attention backend, fp8, offload and compilation act on diffusers' own blocks, in this order; what walks through
the blocks does not notice. Each is off unless asked for. What it refuses to know: batches, tiles and files.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch

from serve_app.diffusion.prompts import Prompt
from serve_app.diffusion.quantization import quantize_networks
from serve_app.errors import ConfigurationError
from serve_app.settings import EngineSettings

_REPEATED = ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
_SHAPES = (
    64  # compiled variants of a block: batch sizes, tile sizes, text lengths, adapters on and off
)


def accelerate(
    transformer: Any,
    controlnets: dict[str, Any],
    engine: EngineSettings,
    device: torch.device,
    null_prompt: Prompt,
) -> None:
    """Applies the settings in place and moves the networks to the device.

    Args:
        transformer: `FluxTransformer2DModel` in host memory.
        controlnets: `FluxControlNetModel`s in host memory.
        engine: What to apply.
        device: Where steps run.
        null_prompt: What fp8's quality gate is fed.

    Raises:
        ConfigurationError: a setting that this machine, or the model, cannot have.
    """
    networks = [transformer, *controlnets.values()]
    _check_together(engine, device)
    if engine.attention:
        _set_attention(networks, engine.attention)
    if engine.quantization == "fp8":
        home = torch.device("cpu") if engine.offload else device
        quantize_networks(transformer, list(controlnets.values()), device, home, null_prompt)
    for network in networks:
        if engine.offload:
            _offload(network, device)
        else:
            network.to(device)
    if engine.compile:
        compile_blocks(networks)


def _check_together(engine: EngineSettings, device: torch.device) -> None:
    if engine.cuda_graphs and (device.type != "cuda" or engine.offload):
        raise ConfigurationError(
            "engine.cuda_graphs: needs a CUDA device and no offload", field="engine.cuda_graphs"
        )
    if engine.compile and engine.offload:
        raise ConfigurationError(
            "engine.compile: not with offload, whose hooks cannot be compiled",
            field="engine.compile",
        )


def compile_blocks(networks: Iterable[Any], backend: str = "inductor") -> None:
    """Compiles each repeated block in place; the work is done at the first call with a shape.

    Args:
        networks: diffusers' networks, on their device.
        backend: One of `torch.compile`'s.
    """
    torch._dynamo.config.recompile_limit = max(_SHAPES, torch._dynamo.config.recompile_limit)
    for network in networks:
        # diffusers 0.42 names no repeated blocks for a ControlNet, and then refuses
        network._repeated_blocks = network._repeated_blocks or _REPEATED
        network.compile_repeated_blocks(backend=backend, fullgraph=True, dynamic=False)


def _set_attention(networks: Iterable[Any], backend: str) -> None:
    for network in networks:
        try:
            network.set_attention_backend(backend)
        except (ValueError, RuntimeError, ImportError, OSError) as error:
            raise ConfigurationError(
                f"engine.attention: {backend}: {error}", field="engine.attention"
            ) from error


def _offload(network: Any, device: torch.device) -> None:
    """Keeps a network's blocks in host memory until they run; on CUDA the next one is fetched meanwhile.

    The blocks are called one by one and not by the network's own forward, from which diffusers would learn
    their order; so their order is told here.
    """
    from diffusers.hooks import HookRegistry, apply_group_offloading

    lists = {
        name: getattr(network, name) for name in ("transformer_blocks", "single_transformer_blocks")
    }
    for name in lists:
        setattr(network, name, torch.nn.ModuleList())
    network.to(device)
    for name, blocks in lists.items():
        setattr(network, name, blocks)
    blocks = [block for each in lists.values() for block in each]
    streams = device.type == "cuda"
    holder = torch.nn.Module()
    holder.blocks = torch.nn.ModuleList(blocks)
    apply_group_offloading(holder, device, num_blocks_per_group=1, use_stream=streams)
    if streams:
        hooks = [
            HookRegistry.check_if_exists_or_initialize(block).get_hook("group_offloading")
            for block in blocks
        ]
        for hook, following in pairwise(hooks):
            hook.next_group = following.group
            following.group.onload_self = False

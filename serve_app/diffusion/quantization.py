"""fp8 for the networks' blocks, with a quality gate: a replica whose velocities drift too far refuses to start.

Block by block: a block goes to the device, computes its part of a fixed probe tile as it is, is quantised
and computes it again. So two passes run side by side, one never quantised, one quantised throughout, and no
more than one unquantised block is on the device. What they end in, the velocity, is compared.
What it refuses to know: pictures, and what a distance looks like in them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from serve_app.diffusion.prompts import Prompt
from serve_app.errors import ConfigurationError

MOST_DISTANCE = 0.1
"""Largest relative RMS difference of the probe's velocities: three bits of mantissa cost a few hundredths.
Not yet measured with FLUX.1-dev's weights."""

_PROBE_SIDE = 8  # tokens
_PROBE_LEVEL, _PROBE_GUIDANCE = 0.7, 3.5
_ROUND = 16  # fp8 products take sides that are multiples of this

Twins = list[torch.Tensor]  # the same tensor in the pass as it is and in the quantised one
logger = logging.getLogger("tessera.quantization")


@torch.inference_mode()
def quantize_networks(
    transformer: Any,
    controlnets: Sequence[Any],
    device: torch.device,
    home: torch.device,
    null_prompt: Prompt,
    quantize: Callable[[Any], None] | None = None,
) -> float:
    """Quantises the blocks of all networks in place.

    Args:
        transformer: `FluxTransformer2DModel`.
        controlnets: `FluxControlNetModel`s.
        device: Where the probe is computed.
        home: Where a block stays after its turn.
        null_prompt: The probe's prompt, on the device.
        quantize: Quantises one block on the device; None is fp8 through torchao.

    Returns:
        The distance of the probe's velocities, relative, at most `MOST_DISTANCE`.

    Raises:
        ConfigurationError: fp8 cannot be had here, or the distance is larger.
    """
    quantize = quantize or _fp8(null_prompt.sequence.dtype)
    probe = _Probe(transformer.config.in_channels, device, null_prompt)
    added: tuple[list[list[Twins]], list[list[Twins]]] = ([], [])
    for network in controlnets:
        for kind, found in enumerate(probe.control(network, home, quantize)):
            added[kind].append(found)
    plain, rough = probe.velocity(transformer, home, quantize, added)
    distance = float((rough - plain).norm() / plain.norm())
    logger.info("quantization.gate", extra={"distance": distance, "most": MOST_DISTANCE})
    if not distance <= MOST_DISTANCE:  # NaN is no quality either
        raise _refused(f"the probe's velocity is off by {distance:.3f}, more than {MOST_DISTANCE}")
    return distance


class _Probe:
    """A fixed tile of noise, and how it passes through a network twice."""

    def __init__(self, channels: int, device: torch.device, prompt: Prompt) -> None:
        dtype = prompt.sequence.dtype
        generator = torch.Generator().manual_seed(0)
        shape = (2, 1, _PROBE_SIDE**2, channels)
        self._latents, self._picture = torch.randn(shape, generator=generator).to(device, dtype)
        self._prompt = prompt
        self._device = device

    def control(
        self, network: Any, home: torch.device, quantize: Callable[[Any], None]
    ) -> tuple[list[Twins], list[Twins]]:
        """A ControlNet's residuals for the double and for the single blocks."""
        _without_blocks(network, lambda part: part.to(self._device))
        hidden = network.x_embedder(self._latents) + network.controlnet_x_embedder(self._picture)
        states = self._through(network, hidden, home, quantize, [])
        outs = [*network.controlnet_blocks, *network.controlnet_single_blocks]
        found = [[out(twin) for twin in twins] for out, twins in zip(outs, states, strict=True)]
        doubles = len(network.transformer_blocks)
        return found[:doubles], found[doubles:]

    def velocity(
        self,
        network: Any,
        home: torch.device,
        quantize: Callable[[Any], None],
        added: tuple[list[list[Twins]], list[list[Twins]]],
    ) -> Twins:
        """The transformer's velocities, float32."""
        _without_blocks(network, lambda part: part.to(self._device))
        sums = [
            *_laid_out(added[0], len(network.transformer_blocks)),
            *_laid_out(added[1], len(network.single_transformer_blocks)),
        ]
        hidden = network.x_embedder(self._latents)
        last = self._through(network, hidden, home, quantize, sums)[-1]
        embedding = self._embedding(network)
        return [network.proj_out(network.norm_out(twin, embedding)).float() for twin in last]

    def _through(
        self,
        network: Any,
        hidden: torch.Tensor,
        home: torch.device,
        quantize: Callable[[Any], None],
        added: Sequence[Twins],
    ) -> list[Twins]:
        """Each block's image tokens, as they are and quantised; quantises the blocks on the way."""
        context = network.context_embedder(self._prompt.sequence)
        if getattr(network, "union", False):
            mode = network.controlnet_mode_embedder(
                torch.zeros(1, 1, dtype=torch.long).to(self._device)
            )
            context = torch.cat([mode, context], dim=1)
        ids = _places(context.shape[1]).to(hidden)
        given = {
            "temb": self._embedding(network),
            "image_rotary_emb": network.pos_embed(ids),
        }
        contexts, hiddens = [context, context], [hidden, hidden]
        states = []
        for index, block in enumerate(
            [*network.transformer_blocks, *network.single_transformer_blocks]
        ):
            block.to(self._device)
            for twin in (0, 1):
                if twin:
                    quantize(block)
                contexts[twin], hiddens[twin] = block(
                    hidden_states=hiddens[twin], encoder_hidden_states=contexts[twin], **given
                )
                if added:
                    hiddens[twin] = hiddens[twin] + added[index][twin]
            block.to(home)
            states.append(list(hiddens))
        return states

    def _embedding(self, network: Any) -> torch.Tensor:
        numbers = [_PROBE_LEVEL, *([_PROBE_GUIDANCE] if network.config.guidance_embeds else [])]
        scaled = [torch.tensor([1000 * number]).to(self._latents) for number in numbers]
        embedding: torch.Tensor = network.time_text_embed(*scaled, self._prompt.pooled)
        return embedding


def _places(text_tokens: int) -> torch.Tensor:
    """What the rotary embedding is made of: nothing for a text token, row and column for an image token."""
    at = torch.arange(_PROBE_SIDE**2)
    grid = torch.stack([at * 0, at // _PROBE_SIDE, at % _PROBE_SIDE], dim=1)
    return torch.cat([grid.new_zeros(text_tokens, 3), grid])


def _without_blocks(network: Any, act: Callable[[Any], object]) -> None:
    for name, part in network.named_children():
        if name not in ("transformer_blocks", "single_transformer_blocks"):
            act(part)


def _laid_out(found: Sequence[list[Twins]], blocks: int) -> list[Twins]:
    """The sum of the ControlNets' residuals for each block, as diffusers spreads few over many."""
    sums: list[Twins] = [[torch.zeros(()), torch.zeros(())] for _ in range(blocks)]
    for residuals in found:
        run = -(-blocks // len(residuals)) if residuals else 1
        for index in range(blocks if residuals else 0):
            twins = residuals[index // run]
            sums[index] = [
                one.to(more) + more for one, more in zip(sums[index], twins, strict=True)
            ]
    return sums


def _fp8(dtype: torch.dtype) -> Callable[[Any], None]:
    """Dynamic fp8 of torchao's, one scale for each row, for a block's attention and MLP."""
    if dtype is not torch.bfloat16:
        raise _refused(f"fp8 needs engine.dtype bfloat16, not {dtype}")
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError as error:
        raise _refused(
            f"torchao is missing: pip install 'tessera-upscaler[gpu]' ({error})"
        ) from error
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())

    def quantize(block: Any) -> None:
        try:
            quantize_(block, config, filter_fn=_is_heavy)
        except (AssertionError, RuntimeError) as error:
            raise _refused(str(error)) from error

    return quantize


def _is_heavy(module: Any, path: str) -> bool:
    """Linear layers of attention and MLP; modulations are made rarely and steer everything."""
    return (
        isinstance(module, torch.nn.Linear)
        and not path.startswith("norm")
        and module.in_features % _ROUND == module.out_features % _ROUND == 0
    )


def _refused(why: str) -> ConfigurationError:
    field = "engine.quantization"
    return ConfigurationError(f"{field}: {why}", field=field, allowed="none")

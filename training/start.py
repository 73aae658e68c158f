"""How the transformer and its ControlNet start: already a fair upscaler, before any gradient.

A linear path: noise and control travel in separate channels of the residual stream, and the output
is fitted by least squares, so the first velocity is about "noise minus the resized picture".
Attention starts local: with constant queries and keys, rotary embeddings make a head look at one
neighbour. (Fitting each block's random features to the missing detail was tried too: it overfits.)
Sources: Su et al. 2021 (RoFormer); d'Ascoli et al. 2021 (ConViT), for a local start.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxSingleTransformerBlock
from torch import Tensor, nn

from training.config import CONTROLNET, TOKEN_CHANNELS, TRANSFORMER
from training.networks import FluxPair, pack

_GATE = 0.25
_MODULATION_GAIN = 0.2
_QUERY_GAIN = 0.3  # position decides at first where a head looks
_FEATURE_GAIN = 4.0  # of what the MLPs read: enough for them to bend
_NOISE_GAIN = 0.1  # of the noise channels in what blocks read: at pure noise they tell nothing
_ANCHOR_CHANNELS = 8
_ANCHOR = 6.0  # constant channels keep the LayerNorms nearly linear
_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
_NOISE = slice(0, TOKEN_CHANNELS)
_CONTROL = slice(TOKEN_CHANNELS, 2 * TOKEN_CHANNELS)
_ANCHORS = slice(-_ANCHOR_CHANNELS, None)
_RIDGE = 1e-3


@dataclass(frozen=True)
class FitBatch:
    """Data to fit on.

    Attributes:
        noisy: latents at ``sigma``, shape (batch, channels, height, width).
        control: latents of the control picture, same shape.
        sigma: noise levels, shape (batch,).
        guidance: detail guidance, shape (batch,).
        velocity: what to predict, noise minus picture.
    """

    noisy: Tensor
    control: Tensor
    sigma: Tensor
    guidance: Tensor
    velocity: Tensor


def build_networks(seed: int) -> FluxPair:
    """Make the pair with its linear, local start; :func:`fit` finishes it with data."""
    torch.manual_seed(seed)
    pair = FluxPair(FluxTransformer2DModel(**TRANSFORMER), FluxControlNetModel(**CONTROLNET))
    with torch.no_grad():
        for module in pair.modules():
            _start_module(module)
        _start_embedders(pair)
    return pair


@torch.no_grad()
def fit(pair: FluxPair, batch: FitBatch) -> float:
    """Fit the last layer to the velocity.

    Args:
        pair: networks fresh from :func:`build_networks`.
        batch: data to fit on.

    Returns:
        Mean squared error of the velocity.
    """
    inputs = (batch.noisy, batch.control, batch.sigma, batch.guidance)
    features = _inputs_of(pair.transformer.proj_out, pair, inputs)
    features = features.reshape(-1, features.shape[-1]).double()
    targets = pack(batch.velocity).reshape(-1, TOKEN_CHANNELS).double()
    solution = _least_squares(features, targets)
    pair.transformer.proj_out.weight.copy_(solution[:-1].T)
    pair.transformer.proj_out.bias.copy_(solution[-1])
    return float((_with_one(features) @ solution - targets).square().mean())


def _inputs_of(layer: nn.Module, pair: FluxPair, inputs: tuple[Tensor, ...]) -> Tensor:
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    for part in zip(*(torch.split(tensor, 16) for tensor in inputs), strict=True):
        pair(*part)
    hook.remove()
    return torch.cat(seen)


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)


def _least_squares(features: Tensor, targets: Tensor) -> Tensor:
    features = _with_one(features)
    gram = features.T @ features
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(gram, features.T @ targets)
    return solution


def _start_embedders(pair: FluxPair) -> None:
    identity = torch.eye(TOKEN_CHANNELS)
    for network in (pair.transformer, pair.controlnet):
        network.x_embedder.weight.zero_()
        network.x_embedder.weight[_NOISE] = identity
        network.x_embedder.bias.zero_()
        network.x_embedder.bias[_ANCHORS] = _ANCHOR * torch.tensor([1.0, -1.0]).repeat(
            _ANCHOR_CHANNELS // 2
        )
    pair.controlnet.controlnet_x_embedder.weight[_CONTROL] = identity
    blocks = [*pair.controlnet.controlnet_blocks, *pair.controlnet.controlnet_single_blocks]
    for index, block in enumerate(blocks):
        width = len(block.weight)
        block.weight.copy_(0.5 * torch.eye(width) if index else torch.eye(width))
        block.weight[_NOISE] = 0
        block.weight[_ANCHORS] = 0
        if index:
            block.weight[_CONTROL] = 0


def _start_module(module: Any) -> None:
    name = type(module).__name__
    if name.startswith("AdaLayerNorm"):
        module.linear.weight.mul_(_MODULATION_GAIN)
        module.linear.bias.zero_()
        parts = module.linear.bias.view(-1, module.linear.weight.shape[1])
        gates = {"AdaLayerNormZero": (2, 5), "AdaLayerNormZeroSingle": (2,)}.get(name, ())
        for gate in gates:
            parts[gate] = _GATE
            module.linear.weight.view(len(parts), *parts.shape[1:], -1)[gate] *= _MODULATION_GAIN
    elif isinstance(module, FluxAttention):
        _start_attention(module)
    elif isinstance(module, FluxSingleTransformerBlock):
        _start_reader(module.proj_mlp, _FEATURE_GAIN)
        module.proj_out.weight.mul_(_QUERY_GAIN)
        _spare_path(module.proj_out)
    elif isinstance(module, FeedForward):
        _start_reader(module.net[0].proj, _FEATURE_GAIN)
        _spare_path(module.net[-1])


def _start_reader(layer: nn.Linear, gain: float) -> None:
    """What a block reads: no anchors, little noise, the rest at a gain."""
    layer.weight.mul_(gain)
    layer.weight[:, _NOISE] *= _NOISE_GAIN
    layer.weight[:, _ANCHORS] = 0


def _spare_path(layer: nn.Linear) -> None:
    """What a block writes at first: nothing onto noise, control and anchors."""
    layer.bias.zero_()
    layer.weight[: _CONTROL.stop] = 0
    layer.weight[_ANCHORS] = 0


def _start_attention(attention: FluxAttention) -> None:
    dims, rotary = attention.head_dim, TRANSFORMER["axes_dims_rope"]
    for projection in (attention.to_q, attention.to_k):
        _start_reader(projection, _QUERY_GAIN)
        projection.bias.zero_()
    _start_reader(attention.to_v, 1.0)
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.fill_(2.2)
    for head in range(attention.heads):
        for axis, offset in enumerate(_NEIGHBOURS[head % len(_NEIGHBOURS)]):
            for index in range(2):
                angle = offset * 10000.0 ** (-2 * index / rotary[1 + axis])
                at = head * dims + rotary[0] + axis * rotary[1] + 2 * index
                attention.to_q.bias[at] = 1.5 * math.cos(angle)
                attention.to_q.bias[at + 1] = 1.5 * math.sin(angle)
                attention.to_k.bias[at] = 1.5
    if hasattr(attention, "to_out"):
        _spare_path(attention.to_out[0])

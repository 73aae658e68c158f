"""AdaLN modulations made once: a network's norms learn to read finished shifts, scales and gates.

A norm of diffusers' FLUX makes its modulation from the embedding of (noise level, guidance, pooled prompt) at
every step. Here its class is exchanged for one that also takes the modulation itself. Its weights keep their
place in the tree, so adapters and state dicts do not notice; given the embedding, it does what it always did.

Source: diffusers 0.42, the order of the parts in `AdaLayerNormZero`, `...ZeroSingle` and `...Continuous`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
)


def _is_embedding(emb: torch.Tensor, hidden: torch.Tensor) -> bool:
    return emb.shape[1] == hidden.shape[2]


def _modulated(
    norm: Any, hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    result: torch.Tensor = norm(hidden) * (1 + scale[:, None]) + shift[:, None]
    return result


class _Zero(AdaLayerNormZero):  # type: ignore[misc]
    """The image's norm of a double block: the first half of the block's modulation is its own."""

    _half = 0

    def forward(self, x: torch.Tensor, *args: Any, emb: Any = None, **kwargs: Any) -> Any:
        if _is_embedding(emb, x):
            return super().forward(x, *args, emb=emb, **kwargs)
        shift, scale, *rest = emb.chunk(2, dim=1)[self._half].chunk(6, dim=1)
        return _modulated(self.norm, x, shift, scale), *rest


class _ZeroContext(_Zero):
    """The text's norm of a double block."""

    _half = 1


class _ZeroSingle(AdaLayerNormZeroSingle):  # type: ignore[misc]
    """The norm of a single block."""

    def forward(self, x: torch.Tensor, emb: Any = None) -> Any:
        if _is_embedding(emb, x):
            return super().forward(x, emb=emb)
        shift, scale, gate = emb.chunk(3, dim=1)
        return _modulated(self.norm, x, shift, scale), gate


class _Continuous(AdaLayerNormContinuous):  # type: ignore[misc]
    """The output norm."""

    def forward(self, x: torch.Tensor, conditioning_embedding: torch.Tensor) -> Any:
        if _is_embedding(conditioning_embedding, x):
            return super().forward(x, conditioning_embedding)
        scale, shift = conditioning_embedding.chunk(2, dim=1)
        return _modulated(self.norm, x, shift, scale)


def _groups(module: Any) -> Iterator[dict[Any, type]]:
    """For each block in the order of the walk, then a transformer's output norm: the norms' new classes."""
    for block in module.transformer_blocks:
        yield {block.norm1: _Zero, block.norm1_context: _ZeroContext}
    for block in module.single_transformer_blocks:
        yield {block.norm: _ZeroSingle}
    if hasattr(module, "norm_out"):
        yield {module.norm_out: _Continuous}


class Modulations:
    """The modulated norms of one network.

    Args:
        module: `FluxTransformer2DModel` or `FluxControlNetModel`; until `restore` its norms have other classes.
    """

    def __init__(self, module: Any) -> None:
        self._groups = list(_groups(module))
        self._norms = list(chain.from_iterable(self._groups))
        for norm, kind in chain.from_iterable(group.items() for group in self._groups):
            norm.__class__ = kind

    def restore(self) -> None:
        """Gives the norms their own classes back."""
        for norm in self._norms:
            own = (kind for kind in type(norm).__mro__ if kind.__module__ != __name__)
            norm.__class__ = next(own)

    def make(self, embedding: torch.Tensor) -> torch.Tensor:
        """All modulations of one embedding (1, width), side by side."""
        return torch.cat([norm.linear(norm.silu(embedding)) for norm in self._norms], dim=1)

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Rows of `make` (B, all) to one (B, n * width) for each block, then the output norm's."""
        widths = [sum(norm.linear.out_features for norm in group) for group in self._groups]
        return [part.contiguous() for part in torch.split(rows, widths, dim=1)]

"""LoRA adapters by name, changed between two steps without a restart.

Each linear layer of the transformer gets room for one adapter, once, before anything is compiled. Using one
fills that room: no module, address or shape changes, so compiled blocks are not made again; and a layer whose
adapter is off computes what it always did, bit for bit. A file is read and checked whole before a layer is
touched, so one that does not fit costs the request that named it and nothing else.

Knows no request and no batch: rows with different adapters are the scheduler's to keep apart.

Source: Hu et al., "LoRA" (arXiv 2106.09685); diffusers 0.42, `FluxLoraLoaderMixin` (the file formats); peft
0.21, `LoraConfig` (what alpha, its pattern and `use_rslora` mean).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from serve_app.errors import TileFailed
from serve_app.models.loras import find_loras, room_rank

logger = logging.getLogger("tessera.adapters")

NO_ADAPTER = ("", 1.0)
_KEPT = 4  # in host memory; one of rank 64 for FLUX.1-dev weighs 0.7 GB
_LOW_RANK = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")


class Factors(NamedTuple):
    """One layer's adapter: `scaling * up @ down` is what it adds to the weight.

    Attributes:
        down: (rank, in).
        up: (out, rank).
        scaling: Alpha over rank, as a rule.
    """

    down: torch.Tensor
    up: torch.Tensor
    scaling: float


class AdaptedLinear(nn.Linear):
    """A linear layer with room for one adapter. Off, it computes exactly what the plain layer does.

    Args:
        plain: Gives its weight and bias.
        rank: The room's.
    """

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        super().__init__(
            plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta"
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.down = _parameter(plain.weight.new_zeros(rank, plain.in_features))
        self.up = _parameter(plain.weight.new_zeros(plain.out_features, rank))
        self.on = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See `nn.Linear`."""
        result = super().forward(x)
        return result + F.linear(F.linear(x, self.down), self.up) if self.on else result

    def hold(self, factors: Factors | None, scale: float) -> None:
        """Fills the room; None empties it."""
        self.down.zero_()
        self.up.zero_()
        if factors is not None:
            rank = factors.down.shape[0]
            self.down[:rank].copy_(factors.down, non_blocking=True)
            self.up[:, :rank].copy_(factors.up, non_blocking=True).mul_(factors.scaling * scale)


class Adapters:
    """The adapters of a folder, on one transformer.

    Args:
        transformer: `FluxTransformer2DModel`, on its device, neither quantised nor compiled yet. Without
            adapters in the folder nothing of it is changed.
        folder: `ModelSettings.loras`.

    Attributes:
        version: The adapter in use and its scale: what is computed of the weights may be kept by this.
        on: Whether the adapters' path is on: what the layers do may be recorded by this.

    Raises:
        ConfigurationError: if the folder cannot be read.
    """

    def __init__(self, transformer: nn.Module, folder: str | None) -> None:
        self._files = find_loras(folder)
        self._layers = _make_room(transformer, self._files)
        self._load = lru_cache(_KEPT)(self._read)
        self._held = NO_ADAPTER
        self.version = NO_ADAPTER
        self.on = False

    @property
    def names(self) -> tuple[str, ...]:
        """What can be used."""
        return tuple(self._files)

    @torch.no_grad()
    def use(self, name: str, scale: float) -> None:
        """Makes the transformer's next calls use an adapter. Costs a copy where it is not the last one used.

        Args:
            name: One of `names`; "" is none.
            scale: How strongly it acts, 0 to 2.

        Raises:
            TileFailed: the adapter is missing, broken or does not fit; what was in use stays.
        """
        wanted = (name, scale) if name else NO_ADAPTER
        if wanted == self.version:
            return
        if name and wanted != self._held:
            factors = self._load(name)
            if factors is None:
                raise TileFailed(  # the reason may name files of the server
                    f"the adapter {name!r} cannot be used; the server's log has the reason",
                    field="lora",
                )
            self._held = NO_ADAPTER  # until all layers hold it
            for path, layer in self._layers.items():
                layer.hold(factors.get(path), scale)
            self._held = wanted
        self._switch(bool(name))
        self.version = wanted

    def rehearse(self) -> Iterator[None]:
        """Yields with the adapters' path off and, where there are any, with it on and empty: to warm both."""
        yield
        if self._files:
            self._switch(True)
            try:
                yield
            finally:
                self._switch(False)

    def _switch(self, on: bool) -> None:
        self.on = on
        for layer in self._layers.values():
            layer.on = on

    def _read(self, name: str) -> dict[str, Factors] | None:
        """None where it cannot be used: kept like any other, so a tile more does not read it again."""
        try:
            factors = _read_factors(self._files[name])
            for path, found in factors.items():
                _check_fit(path, found, self._layers)
            return {path: _ready(f, self._layers[path].down) for path, f in factors.items()}
        except Exception:  # diffusers' converters of five formats raise what they like
            logger.warning("adapters.unusable", extra={"lora": name}, exc_info=True)
            return None


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _make_room(transformer: nn.Module, files: Mapping[str, Path]) -> dict[str, AdaptedLinear]:
    """Exchanges the linear layers; returns them by their paths."""
    if not files:
        return {}
    rank = room_rank(files.values())
    plain = {path: m for path, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    layers = {path: AdaptedLinear(layer, rank) for path, layer in plain.items()}
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(transformer.get_submodule(parent), name, layer)
    return layers


def _read_factors(file: Path) -> dict[str, Factors]:
    """Reads any format that diffusers reads: its own, kohya's, XLabs' and others.

    Raises:
        Exception: whatever the converters raise for a file that they cannot read.
    """
    from diffusers.loaders import FluxLoraLoaderMixin
    from diffusers.utils import convert_unet_state_dict_to_peft

    with safe_open(file, framework="pt") as tensors:
        if any("dora_scale" in key for key in tensors.keys()):  # noqa: SIM118
            raise ValueError("it is a DoRA adapter")  # diffusers would read it as if it were none
    tensors, alphas, metadata = FluxLoraLoaderMixin.lora_state_dict(
        str(file.parent),
        weight_name=file.name,
        local_files_only=True,
        use_safetensors=True,
        return_alphas=True,
        return_lora_metadata=True,
    )
    own = _inside(tensors)
    if len(own) < len(tensors):  # the text encoders are not here, and serve requests without it
        logger.warning("adapters.text_encoder_ignored", extra={"file": file.name})
    if not any(".lora_A." in key for key in own):
        own = convert_unet_state_dict_to_peft(own)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in own.items():
        match = _LOW_RANK.fullmatch(key)
        if match is None:
            raise ValueError(f"{key} is no low-rank weight")
        halves.setdefault(match["layer"], {})[match["half"]] = tensor
    if not halves:
        raise ValueError("it holds nothing for the transformer")
    scaling = _Scaling(_inside(alphas or {}), _inside(metadata or {}))
    return {
        path: Factors(half["A"], half["B"], scaling.of(path, half["A"].shape[0]))
        for path, half in halves.items()
    }


def _inside(named: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to the transformer, by its name there."""
    prefix = "transformer."
    return {
        key.removeprefix(prefix): value for key, value in named.items() if key.startswith(prefix)
    }


class _Scaling:
    """How strongly each layer's adapter acts: alpha over rank, or 1 where the file states no alpha."""

    def __init__(self, alphas: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if metadata.get("use_dora"):
            raise ValueError("it is a DoRA adapter")
        self._alphas = {
            key.split(".lora_A.")[0].removesuffix(".alpha"): float(alpha)
            for key, alpha in alphas.items()
        }
        self._metadata = metadata

    def of(self, path: str, rank: int) -> float:
        if not self._metadata:
            return self._alphas.get(path, rank) / rank
        patterns = self._metadata.get("alpha_pattern", {})
        alphas = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", path))
        alpha: float = next(alphas, self._metadata.get("lora_alpha", rank))
        return alpha / (rank**0.5 if self._metadata.get("use_rslora") else rank)


def _check_fit(path: str, factors: Factors, layers: Mapping[str, AdaptedLinear]) -> None:
    if path not in layers:
        raise ValueError(f"the model has no linear layer {path}")
    room, rank = layers[path], factors.down.shape[0]
    shapes = tuple(factors.down.shape), tuple(factors.up.shape)
    if shapes != ((rank, room.in_features), (room.out_features, rank)):
        raise ValueError(f"{path}: {shapes} do not fit ({room.out_features}, {room.in_features})")
    if rank > room.down.shape[0]:
        raise ValueError(f"{path}: rank {rank} is over {room.down.shape[0]}")


def _ready(factors: Factors, room: torch.Tensor) -> Factors:
    """In the room's type, and in memory from which its device copies fastest."""

    def ready(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to(room.dtype)
        return tensor.pin_memory() if room.is_cuda else tensor

    return factors._replace(down=ready(factors.down), up=ready(factors.up))

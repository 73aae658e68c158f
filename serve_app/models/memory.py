"""Plans a replica's GPU memory before a weight is loaded: what it needs, part by part, against what is free.

Weights are read off the files' headers. The rest follows rules that a test holds to the live tensors of the
full-size networks: a step's peak is inside one block, the autoencoder's at the last resolution of its decoder.
What it refuses to know: torch, and how memory is measured; it is told the bytes that are free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from serve_app.choices import Priority
from serve_app.errors import ConfigurationError
from serve_app.model_info import ModelInfo
from serve_app.models.flops import Config, image_tokens
from serve_app.models.loras import room_rank
from serve_app.settings import EngineSettings

GIB = 2**30

_BLOCK_UNITS = 18  # live tensors of (tokens, width) at a block's peak; 17.2 counted
_VAE_UNITS = (
    3.5  # of (pixels, second width) at the decoder's peak; 3.0 counted, and room for a convolution
)
_CONTEXT_BYTES = 1 * GIB  # libraries' workspaces and kept embeddings
_OFFLOADED_BLOCKS = 2  # the one that runs and the one that is on its way
_LANES = len(Priority)  # each keeps the state of up to `max_batch` tiles on the device
_BLOCK_LISTS = ("transformer_blocks.", "single_transformer_blocks.")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by what takes them, and what each setting would give back, in words."""

    parts: Mapping[str, int]
    remedies: Sequence[str]

    @property
    def need(self) -> int:
        """Bytes altogether."""
        return sum(self.parts.values())

    def check(self, free: int) -> None:
        """Refuses to start what will not fit.

        Args:
            free: Bytes of the card that are not taken.

        Raises:
            ConfigurationError: with the numbers and with what can be changed.
        """
        if self.need > free:
            parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in self.parts.items())
            raise ConfigurationError(
                f"engine: needs {self.need / GIB:.1f} GiB of GPU memory and {free / GIB:.1f} GiB are free: "
                f"{parts}. What helps: {'; '.join(self.remedies)}",
                field="engine",
                allowed=f"what fits {free / GIB:.1f} GiB",
            )


def plan_memory(
    info: ModelInfo,
    parts: Mapping[str, Path],
    itemsize: int,
    engine: EngineSettings,
    text_tokens: int,
    loras: Sequence[Path] = (),
) -> MemoryPlan:
    """Plans a replica.

    Args:
        info: The model.
        parts: The folders of `transformer`, `vae` and each ControlNet, by component.
        itemsize: Bytes of a number in the type that the weights are cast to.
        engine: Batch, cache, quantisation and offload.
        text_tokens: Length of the prompts.
        loras: Files of the adapters; the transformer gets room for the largest.

    Raises:
        ConfigurationError: if a part's files cannot be read.
    """
    networks = [name for name in parts if name != "vae"]
    needs = {name: _weights(parts[name], itemsize, engine) for name in networks}
    needs["vae"] = _weights(parts["vae"], itemsize, EngineSettings())
    if loras:
        needs["lora"] = room_rank(loras) * _edges(parts["transformer"]) * itemsize
    config = read_config(parts["transformer"])
    tokens = image_tokens(info.tile_px, info.tile_px, info.align_px)
    controlnets = [read_config(parts[control.component]) for control in info.controls.values()]
    row = _row(config, tokens, text_tokens, itemsize, controlnets)
    if engine.residual_cache:
        histories = _LANES * engine.max_batch * (2 if info.takes_true_cfg else 1)
        needs["residual cache"] = 2 * histories * tokens * _width(config) * itemsize
    if engine.cuda_graphs:
        needs["graphs' own pool"] = engine.max_batch * row
    vae = _vae_row(read_config(parts["vae"]), info.tile_px, itemsize)
    step = f"{engine.max_batch} tiles of {info.tile_px} px in a step"
    if vae * engine.vae_batch > row * engine.max_batch:
        step = f"{engine.vae_batch} tiles of {info.tile_px} px in the autoencoder"
    needs[step] = max(vae * engine.vae_batch, row * engine.max_batch)
    needs["context"] = _CONTEXT_BYTES
    return MemoryPlan(needs, list(_remedies(engine, row, vae)))


def read_config(folder: Path) -> dict[str, Any]:
    """A part's `config.json`.

    Raises:
        ConfigurationError: if it cannot be read.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder.name}: config.json cannot be read: {error}", field=folder.name
        ) from error
    return config


def _remedies(engine: EngineSettings, row: int, vae: int) -> Iterator[str]:
    if engine.max_batch > 1:
        yield f"engine.max_batch: each tile less gives {row / GIB:.2f} GiB"
    if engine.vae_batch > 1:
        yield f"engine.vae_batch: each tile less gives {vae / GIB:.2f} GiB"
    if engine.cuda_graphs:
        yield "engine.cuda_graphs: false"
    if engine.quantization == "none":
        yield "engine.quantization: fp8 halves the networks' weights"
    if not engine.offload:
        yield "engine.offload: true keeps the networks' blocks in host memory"
    yield "a larger card"


def _weights(folder: Path, itemsize: int, engine: EngineSettings) -> int:
    """Bytes of a part's weights on the device."""
    outside, blocks = 0, dict[str, int]()
    for name, shape in _tensors(folder):
        if not name.startswith(_BLOCK_LISTS):
            outside += prod(shape) * itemsize
            continue
        quantised = engine.quantization == "fp8" and _is_heavy(name, shape)
        block = ".".join(name.split(".")[:2])
        blocks[block] = blocks.get(block, 0) + prod(shape) * (1 if quantised else itemsize)
    if engine.offload:
        return outside + _OFFLOADED_BLOCKS * max(blocks.values(), default=0)
    return outside + sum(blocks.values())


def _is_heavy(name: str, shape: list[int]) -> bool:
    """What `diffusion.quantization` acts on: attention and MLP, not the modulations."""
    return (
        len(shape) == 2
        and not name.split(".")[2].startswith("norm")
        and not any(side % 16 for side in shape)
    )


def _tensors(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each weight in the files of a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigurationError(f"{folder.name}: no weights in {folder}", field=folder.name)
    for file in files:
        yield from ((name, facts["shape"]) for name, facts in _header(file).items())


def _edges(folder: Path) -> int:
    """Numbers that an adapter of rank 1 holds: one for each input and output of the linear layers."""
    return sum(sum(shape) for _, shape in _tensors(folder) if len(shape) == 2)


def _header(file: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors. Source: the format's own description."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header: dict[str, Any] = json.loads(opened.read(min(length, 100 * 2**20)))
        header.pop("__metadata__", None)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{file}: {error}", field=file.parent.name) from error
    return header


def _row(
    config: Config, tokens: int, text_tokens: int, itemsize: int, controlnets: Sequence[Config]
) -> int:
    """Bytes of one more tile in a step: a block's peak, the controls' residuals, what tiles keep."""
    width = _width(config)
    residuals = 2 * max(map(_blocks, controlnets), default=0)  # as they come and scaled
    if len(controlnets) > 1:
        residuals += 2 * _blocks(config)  # sums are laid out over all blocks, then made anew
    block = _BLOCK_UNITS * (tokens + text_tokens) * width
    kept = _LANES * (1 + len(controlnets)) * tokens * int(config["in_channels"]) * 4
    return (block + residuals * tokens * width) * itemsize + kept


def _vae_row(config: Config, tile_px: int, itemsize: int) -> int:
    widths = config.get("block_out_channels") or config["decoder_block_out_channels"]
    return int(_VAE_UNITS * tile_px**2 * widths[min(1, len(widths) - 1)] * itemsize)


def _blocks(config: Config) -> int:
    return int(config["num_layers"]) + int(config["num_single_layers"])


def _width(config: Config) -> int:
    return int(config["num_attention_heads"]) * int(config["attention_head_dim"])

"""A walk through diffusers' FLUX networks that computes once what does not change from step to step.

The modules, their weights and the blocks' own code stay diffusers'; so compiled blocks, LoRA layers, attention
backends and hooks on blocks keep working. Computed once and kept, bounded in bytes: the rotary embedding of a
tile and text size, a prompt's embedded context, and the AdaLN modulations of a (noise level, guidance, pooled
prompt). Knows no step, no row's history and no schedule.

Source: diffusers 0.42, `FluxTransformer2DModel.forward`, `FluxControlNetModel.forward`: the order of the calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch

from serve_app.diffusion.latents import token_ids
from serve_app.diffusion.modulation import Modulations
from serve_app.diffusion.prompts import Prompt
from serve_app.errors import ConfigurationError

_TRAIN_TIMESTEPS = 1000
_KEPT_BYTES = 256 * 2**20  # FLUX.1-dev: 2 MB of modulations for a noise level, 7 MB for a prompt


class Moment(NamedTuple):
    """What a row's conditioning depends on, its tile's size aside.

    Attributes:
        sigma: The present noise level.
        guidance: Read by networks that embed it.
        prompt: Its embeddings; the same object for the same prompt, else they are embedded again.
        mode: A ControlNet-Union's `control_mode`; None for any other network.
    """

    sigma: float
    guidance: float
    prompt: Prompt
    mode: int | None = None


class Conditioning(NamedTuple):
    """What the blocks read besides the image tokens, for B rows.

    Attributes:
        context: The embedded prompts, (B, text tokens, width).
        modulations: For each block, then for a transformer's output norm: (B, n * width), or where they are not
            made in advance the embedding itself, (B, width).
        rope: Cosines and sines, each (text tokens + image tokens, head width).
    """

    context: torch.Tensor
    modulations: list[torch.Tensor]
    rope: tuple[torch.Tensor, torch.Tensor]

    def rows(self, picked: list[int]) -> Conditioning:
        """Some of the rows, in the order given."""
        parts = [part[picked] for part in self.modulations]
        return Conditioning(self.context[picked], parts, self.rope)


class Kept:
    """The results last used, bounded in bytes."""

    def __init__(self, limit_bytes: int = _KEPT_BYTES) -> None:
        self._limit = limit_bytes
        self._values: OrderedDict[Hashable, tuple[torch.Tensor, int]] = OrderedDict()
        self.held_bytes = 0

    def get(
        self, key: Hashable, compute: Callable[[], torch.Tensor], key_bytes: int = 0
    ) -> torch.Tensor:
        """The value of a key, computed where it is not kept.

        Args:
            key: What the value depends on.
            compute: Computes it.
            key_bytes: Of tensors that the key itself keeps alive.
        """
        if key not in self._values:
            value = compute()
            self._values[key] = value, value.nbytes + key_bytes
            self.held_bytes += self._values[key][1]
            while self.held_bytes > self._limit and len(self._values) > 1:
                self.held_bytes -= self._values.popitem(last=False)[1][1]
        self._values.move_to_end(key)
        return self._values[key][0]


class Walk:
    """One network, and what was computed of it once.

    Args:
        module: `FluxTransformer2DModel` or `FluxControlNetModel`.
        dtype: Of its steps.
        modulations: Make them in advance; False leaves that to each block at every step, as it must be where a
            block's weights are on the device only while the block runs.

    Attributes:
        version: Names the weights; a change of adapter sets it, and nothing made of other weights is used.
    """

    def __init__(self, module: Any, dtype: torch.dtype, modulations: bool = True) -> None:
        if getattr(module, "input_hint_block", None) is not None:
            raise ConfigurationError("a ControlNet that reads pixels, not latents", field="model")
        self._module = module
        self._dtype = dtype
        self._doubles = len(module.transformer_blocks)
        self._blocks = [*module.transformer_blocks, *module.single_transformer_blocks]
        self._made = Modulations(module) if modulations else None
        self.version: Hashable = None
        self.kept = Kept()

    def embed(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, N, C) to image tokens (B, N, width)."""
        tokens: torch.Tensor = self._module.x_embedder(latents.to(self._dtype))
        return tokens

    def conditioning(self, moments: Sequence[Moment], area: tuple[int, int]) -> Conditioning:
        """What B rows are conditioned on.

        Args:
            moments: One for each row; their prompts are equally long.
            area: Height and width of the tile in latents.
        """
        context = torch.cat([self._context(moment) for moment in moments])
        rope = self._rope(area, context.shape[1])
        rows = torch.cat([self._modulation(moment) for moment in moments])
        if self._made is not None:
            return Conditioning(context, self._made.split(rows), rope)
        return Conditioning(context, [rows] * (len(self._blocks) + 1), rope)

    def blocks(
        self, hidden: torch.Tensor, given: Conditioning, added: Sequence[torch.Tensor | None]
    ) -> torch.Tensor:
        """Runs a transformer's blocks.

        Args:
            hidden: (B, N, width).
            given: The rows' conditioning.
            added: What is added after each block, (B, N, width) or None; see `spread`.
        """
        context = given.context
        for index, block in enumerate(self._blocks):
            context, hidden = _run(block, hidden, context, given.modulations[index], given.rope)
            residual = added[index]
            hidden = hidden if residual is None else hidden + residual
        return hidden

    def control(
        self, latents: torch.Tensor, pictures: torch.Tensor, given: Conditioning
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """A ControlNet's residuals for the double and for the single blocks, unscaled.

        Args:
            latents: (B, N, C).
            pictures: The encoded control pictures, (B, N, C).
            given: The rows' conditioning.
        """
        module = self._module
        hidden = self.embed(latents) + module.controlnet_x_embedder(pictures.to(self._dtype))
        context, found = given.context, []
        outs = [*module.controlnet_blocks, *module.controlnet_single_blocks]
        for index, (block, out) in enumerate(zip(self._blocks, outs, strict=True)):
            context, hidden = _run(block, hidden, context, given.modulations[index], given.rope)
            found.append(out(hidden))
        return found[: self._doubles], found[self._doubles :]

    def spread(
        self, double: Sequence[torch.Tensor], single: Sequence[torch.Tensor]
    ) -> list[torch.Tensor | None]:
        """Lays a ControlNet's residuals out over this network's blocks: one for each block, or None."""
        singles = len(self._blocks) - self._doubles
        return [*_stretch(double, self._doubles), *_stretch(single, singles)]

    def velocity(self, hidden: torch.Tensor, given: Conditioning) -> torch.Tensor:
        """A transformer's last image tokens (B, N, width) to the velocity (B, N, C) in float32."""
        normed = self._module.norm_out(hidden, given.modulations[-1])
        velocity: torch.Tensor = self._module.proj_out(normed).float()
        return velocity

    def signal(self, moment: Moment) -> torch.Tensor:
        """What noise level, guidance and prompt do to the first block: its modulation, (1, n * width)."""
        row = self._modulation(moment)
        return row if self._made is None else self._made.split(row)[0]

    def _context(self, moment: Moment) -> torch.Tensor:
        def compute() -> torch.Tensor:
            embedded: torch.Tensor = self._module.context_embedder(moment.prompt.sequence)
            if moment.mode is None:
                return embedded
            mode = torch.tensor([[moment.mode]], device=embedded.device)
            return torch.cat([self._module.controlnet_mode_embedder(mode), embedded], dim=1)

        key = ("context", self.version, moment.prompt, moment.mode)
        return self.kept.get(key, compute, moment.prompt.sequence.nbytes)

    def _rope(self, area: tuple[int, int], text: int) -> tuple[torch.Tensor, torch.Tensor]:
        def compute() -> torch.Tensor:
            ids = token_ids(*area, self._module.device, self._dtype)
            return torch.stack(self._module.pos_embed(torch.cat([ids.new_zeros(text, 3), ids])))

        cosines, sines = self.kept.get(("rope", area, text), compute)
        return cosines, sines

    def _modulation(self, moment: Moment) -> torch.Tensor:
        """All modulations of a row side by side, or its plain embedding where none are made in advance."""

        def compute() -> torch.Tensor:
            embedding = self._embedding(moment)
            return embedding if self._made is None else self._made.make(embedding)

        pooled = moment.prompt.pooled
        key = ("modulation", self.version, moment.sigma, moment.guidance, pooled)
        return self.kept.get(key, compute)

    def _embedding(self, moment: Moment) -> torch.Tensor:
        """Of noise level, guidance and pooled prompt, (1, width); rounded wherever the pipeline rounds."""
        pooled = moment.prompt.pooled
        sigma = torch.tensor([moment.sigma], device=pooled.device)
        numbers = [(sigma * _TRAIN_TIMESTEPS).to(self._dtype) / _TRAIN_TIMESTEPS]
        if self._module.config.guidance_embeds:
            numbers.append(torch.tensor([moment.guidance], device=pooled.device).to(self._dtype))
        scaled = [number * _TRAIN_TIMESTEPS for number in numbers]
        embedding: torch.Tensor = self._module.time_text_embed(*scaled, pooled)
        return embedding


def _run(
    block: Any, hidden: torch.Tensor, context: torch.Tensor, temb: torch.Tensor, rope: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """One block, called as diffusers calls it: (context, hidden)."""
    found: tuple[torch.Tensor, torch.Tensor] = block(
        hidden_states=hidden, encoder_hidden_states=context, temb=temb, image_rotary_emb=rope
    )
    return found


def _stretch(found: Sequence[torch.Tensor], blocks: int) -> list[torch.Tensor | None]:
    """Few residuals over many blocks: each serves a run of them, the shortest that leaves none without."""
    run = -(-blocks // len(found)) if found else 1
    return [found[index // run] if found else None for index in range(blocks)]

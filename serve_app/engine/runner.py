"""The runner: keeps each tile's tensors and computes what the scheduler chose. It never chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from serve_app.contracts import UpscaleParams, resolve
from serve_app.diffusion.latents import (
    decode_tiles,
    encode_controls,
    starting_latents,
    token_ids,
)
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.prompts import Prompt
from serve_app.diffusion.sigmas import control_scales, make_sigmas
from serve_app.diffusion.step import Batch, denoise_step
from serve_app.engine.task import Entry, TileTask
from serve_app.errors import TesseraError, TileFailed
from serve_app.tiling.geometry import Tile
from serve_app.tiling.levels import TOP_LEVEL, Levels


@dataclass(slots=True)
class _Row:
    """One tile's tensors; `latents` and `control` are (tokens, channels) float32."""

    latents: torch.Tensor
    control: torch.Tensor
    sigmas: list[float]
    control_scales: list[float]
    prompt: Prompt
    negative: Prompt | None


class FluxRunner:
    """Computes tiles with a loaded model; satisfies `engine.Runner`.

    Args:
        model: The loaded model.
        threads: CPU threads of a step.
    """

    def __init__(self, model: FluxModel, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._rows: dict[int, _Row] = {}
        self._sigmas = lru_cache(256)(self._make_sigmas)
        self._token_ids = lru_cache(16)(self._make_token_ids)

    def plan(self, task: TileTask) -> int:
        """The steps of a task."""
        return task.params.steps

    def open(self) -> None:
        """Sets the calling thread's threads and computes one gray tile, so that no caller pays for warming."""
        torch.set_num_threads(self._threads)
        side = self._model.info.tile_px
        params = resolve(UpscaleParams(), self._model.info, drawn_seed=0)
        entry = Entry(-1, TileTask("warm-up", 0, Tile(0, 0, side, side), params), steps=1)
        self.encode([entry], [np.full((side, side, 3), TOP_LEVEL // 2, np.uint16)])
        self.step([entry])
        self.decode([entry])
        self.drop(entry.id)

    def encode(self, entries: Sequence[Entry], controls: Sequence[Levels]) -> None:
        """Encodes control pictures and lays down the starting latents."""
        encoded = encode_controls(self._model, controls)
        rows = [
            self._row(entry.task, control) for entry, control in zip(entries, encoded, strict=True)
        ]
        self._rows |= {entry.id: row for entry, row in zip(entries, rows, strict=True)}

    def step(self, entries: Sequence[Entry]) -> None:
        """Runs each entry's next step, all in one batch."""
        rows = [self._rows[entry.id] for entry in entries]
        latents = denoise_step(self._model, self._batch(entries, rows))
        for row, new in zip(rows, latents, strict=True):
            row.latents = new

    def decode(self, entries: Sequence[Entry]) -> list[Levels | TesseraError]:
        """Decodes finished tiles; one that came out as NaN is an error of its own."""
        tokens = torch.stack([self._rows[entry.id].latents for entry in entries])
        pixels = decode_tiles(self._model, tokens, entries[0].task.tile)
        finite = pixels.isfinite().flatten(1).all(1).tolist()
        levels = ((pixels / 2 + 0.5).clamp(0, 1).nan_to_num() * TOP_LEVEL).round()
        arrays = levels.to(torch.int32).to(torch.uint16).cpu().numpy()
        return [
            array if good else TileFailed(f"tile {entry.task.index} came out as NaN")
            for entry, array, good in zip(entries, arrays, finite, strict=True)
        ]

    def drop(self, entry_id: int) -> None:
        """Frees an entry's tensors."""
        self._rows.pop(entry_id, None)

    def _row(self, task: TileTask, control: torch.Tensor) -> _Row:
        params = task.params
        sigmas = self._sigmas(params.steps, params.strength, control.shape[0])
        window = (params.control_start, params.control_end)
        return _Row(
            latents=starting_latents(self._model, control, task.tile, params.seed, sigmas[0]),
            control=control,
            sigmas=sigmas,
            control_scales=control_scales(params.steps, params.control_scale, *window),
            prompt=self._prompt(params.prompt),
            negative=self._prompt(params.negative_prompt) if params.true_cfg_scale > 1 else None,
        )

    def _batch(self, entries: Sequence[Entry], rows: Sequence[_Row]) -> Batch:
        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self._model.device)

        at = [entry.steps_done for entry in entries]
        params = [entry.task.params for entry in entries]
        return Batch(
            latents=torch.stack([row.latents for row in rows]),
            control=torch.stack([row.control for row in rows]),
            sigma=column([row.sigmas[i] for row, i in zip(rows, at, strict=True)]),
            next_sigma=column([row.sigmas[i + 1] for row, i in zip(rows, at, strict=True)]),
            guidance=column([p.guidance_scale for p in params]),
            control_scale=column([row.control_scales[i] for row, i in zip(rows, at, strict=True)]),
            prompts=[row.prompt for row in rows],
            negatives=[row.negative for row in rows],
            true_cfg=column([p.true_cfg_scale for p in params]),
            token_ids=self._token_ids(entries[0].task.tile.height, entries[0].task.tile.width),
        )

    def _prompt(self, text: str) -> Prompt:
        if not text:
            return self._model.null_prompt
        if self._model.prompt_encoder is None:
            raise TileFailed(f"the model {self._model.info.name} has no text encoders")
        return self._model.prompt_encoder.encode(text)

    def _make_sigmas(self, steps: int, strength: float, tokens: int) -> list[float]:
        return make_sigmas(self._model.scheduler_config, steps, strength, tokens)

    def _make_token_ids(self, height: int, width: int) -> torch.Tensor:
        scale = self._model.vae_scale
        return token_ids(height // scale, width // scale, self._model.device, self._model.dtype)

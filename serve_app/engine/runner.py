"""The runner: keeps each tile's tensors and computes what the scheduler chose. It never chooses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch

from serve_app.contracts import UPSCALE, ControlParams, UpscaleParams, resolve
from serve_app.diffusion.graphs import replay_passes
from serve_app.diffusion.latents import as_levels, decode_tiles, encode_controls
from serve_app.diffusion.loader import FluxModel
from serve_app.diffusion.row import Prompts, TileRow
from serve_app.diffusion.step import Networks, denoise_step
from serve_app.engine.scheduler import static_sizes
from serve_app.engine.task import Bucket, Entry, Kind, TileInputs, TileTask
from serve_app.errors import GarbageTile, TesseraError
from serve_app.fidelity.garbage import means_of
from serve_app.levels import TOP_LEVEL, Levels
from serve_app.settings import EngineSettings
from serve_app.tiling.geometry import Tile


class FluxRunner:
    """Computes tiles with a loaded model; satisfies `engine.Runner`.

    Args:
        model: The loaded model.
        settings: `max_batch`, `vae_batch`, `exact` and `residual_cache` are read here.
        threads: CPU threads of a step.
    """

    def __init__(self, model: FluxModel, settings: EngineSettings, threads: int) -> None:
        self._model = model
        self._threads = threads
        sizes = static_sizes(settings.max_batch, settings.exact)
        vae_sizes = static_sizes(settings.vae_batch, settings.exact)
        self._sizes = {Kind.STEP: sizes, Kind.ENCODE: vae_sizes, Kind.DECODE: vae_sizes}
        self._networks = Networks(model, sizes, modulations=not model.offloaded)
        if settings.cuda_graphs:
            walks = (self._networks.transformer, *self._networks.controlnets.values())
            replay_passes(walks, lambda: model.adapters.on)
        self._eager = model.device.type == "cpu" and not settings.compile  # sizes need no warming
        self._cache = model.info.residual_cache if settings.residual_cache else None
        self.rows_skipped = 0
        self._rows: dict[int, TileRow] = {}
        self._prompts = Prompts(model)

    def plan(self, task: TileTask, inputs: TileInputs) -> tuple[int, Bucket]:
        """The steps of a task, and the bucket of its size, text length and adapter.

        Raises:
            TileFailed: its prompts are not equally long.
        """
        size, asked = (task.tile.height, task.tile.width), task.params
        tokens = self._prompts.tokens(asked, inputs.prompts)
        return asked.steps, Bucket(*size, tokens, asked.lora, asked.lora_scale)

    def open(self) -> dict[tuple[Kind, int], float]:
        """Sets the thread's threads, and runs gray tiles at every batch size.

        Returns:
            The seconds of each kind of work at each size, once warm.
        """
        torch.set_num_threads(self._threads)
        others = tuple(ControlParams(name=n) for n in self._model.info.controls if n != UPSCALE)
        asked = [UpscaleParams(controls=others or None)]
        if not self._eager:  # each combination of networks has a graph of its own
            asked += [UpscaleParams(), UpscaleParams(control_scale=0)]
        for params in (p for _ in self._model.adapters.rehearse() for p in asked):
            self._warm(params, 1 if self._eager else None)
        return self._warm(UpscaleParams())

    def encode(self, entries: Sequence[Entry], inputs: Sequence[TileInputs], size: int) -> None:
        """Encodes control pictures, `size` at once, and lays down the starting latents."""
        pictures = [picture for given in inputs for picture in given.controls]
        encoded = iter(encode_controls(self._model, pictures, size))
        rows: dict[int, TileRow] = {}
        for entry, given in zip(entries, inputs, strict=True):
            task, own = entry.task, [next(encoded) for _ in given.controls]
            prompts = self._prompts.of(task.params, given.prompts)
            row = rows[entry.id] = TileRow.begin(self._model, task.tile, task.params, own, prompts)
            row.means = means_of(given.controls[0])
        self._rows |= rows

    def step(self, entries: Sequence[Entry], size: int) -> None:
        """Runs each entry's next step, all in one batch filled up to `size`."""
        bucket, scale = entries[0].bucket, self._model.vae_scale
        self._model.adapters.use(bucket.lora, bucket.lora_scale)
        self._networks.transformer.version = self._model.adapters.version
        rows = [self._rows[entry.id] for entry in entries]
        for row in rows:
            if self._cache and not row.due:
                row.choose_steps(self._networks, self._cache.threshold)
        steps = [row.at(entry.steps_done) for row, entry in zip(rows, entries, strict=True)]
        area = bucket.height // scale, bucket.width // scale
        latents = denoise_step(self._networks, steps, area, size)
        for row, new in zip(rows, latents, strict=True):
            row.latents = new
        self.rows_skipped += sum(not step.due for step in steps)

    def decode(self, entries: Sequence[Entry], size: int) -> list[Levels | TesseraError]:
        """Decodes finished tiles; a NaN, or what shows nothing of its source, is an error of its own."""
        rows = [self._rows[entry.id] for entry in entries]
        tokens = torch.stack([row.latents for row in rows])
        tiles = as_levels(decode_tiles(self._model, tokens, entries[0].task.tile, size))
        faults = map(TileRow.fault, rows, tiles)
        return [
            GarbageTile(f"tile {entry.task.index} {fault}") if tile is None or fault else tile
            for entry, tile, fault in zip(entries, tiles, faults, strict=True)
        ]

    def probe(self) -> None:
        """Has the accelerator add a number; waits for everything before it, too."""
        torch.ones(1, device=self._model.device).add_(1).item()

    def drop(self, entry_id: int) -> None:
        """Frees an entry's tensors."""
        self._rows.pop(entry_id, None)

    def _warm(self, asked: UpscaleParams, most: int | None = None) -> dict[tuple[Kind, int], float]:
        """Computes gray tiles, each kind of work at `most` of its sizes; returns the seconds of each."""
        side, params = self._model.info.tile_px, resolve(asked, self._model.info, drawn_seed=0)
        task = TileTask("warm-up", 0, Tile(0, 0, side, side), params)
        gray = np.full((side, side, 3), TOP_LEVEL // 2, np.uint16)
        inputs = TileInputs([gray] * len(params.all_controls))
        count = max(chain.from_iterable(self._sizes.values()))
        entries = [Entry(-1 - n, task, *self.plan(task, inputs)) for n in range(count)]
        self.encode(entries, [inputs] * count, self._sizes[Kind.ENCODE][0])
        work: dict[Kind, Callable[[list[Entry], int], object]] = {
            Kind.ENCODE: lambda some, size: self.encode(some, [inputs] * size, size),
            Kind.STEP: self.step,
            Kind.DECODE: self.decode,
        }
        seconds: dict[tuple[Kind, int], float] = {}
        for kind, size in [(k, n) for k in work for n in self._sizes[k][:most]]:
            self.probe()
            start = time.perf_counter()
            work[kind](entries[:size], size)
            self.probe()
            seconds[kind, size] = time.perf_counter() - start
        for entry in entries:
            self.drop(entry.id)
        return seconds

"""Three ways to schedule tiles on one model, each a Ray Serve deployment of one replica: who runs in a and b.

    Tessera     the product's denoiser: steps are batched, and who takes part is decided before each
    serve.batch tiles that arrived together are encoded, denoised to the end and decoded together
    sequential  one request at a time, first come first served, a tile after the other, as the original Space

All three compute with the same runner and the same threads, so that only the scheduling differs. The two
rivals are helped where their like usually is not: rows of one batch may differ in every parameter, and a row
that has had its steps leaves the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from benchmarks.cluster import local_cluster
from serve_app.contracts import Priority, UpscaleParams, resolve
from serve_app.deployments.denoiser import Denoiser
from serve_app.deployments.handles import RayDenoiser
from serve_app.engine.scheduler import static_sizes
from serve_app.engine.task import Entry, Runner, TileInputs, TileTask
from serve_app.levels import Levels
from serve_app.local import build_runner
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import Settings
from serve_app.testing import photo_like
from serve_app.tiling.geometry import Tile

BATCH_WAIT_S = 0.05
_ONGOING = 1000


@dataclass(frozen=True)
class Work:
    """A tile's task and the reference of its crop, which lies in the object store already."""

    task: TileTask
    crop: Any


def make_work(name: str, tiles: int, params: UpscaleParams, priority: Priority) -> list[Work]:
    """One request of so many tiles, each with a crop of its own."""
    model = read_model_info(find_model("mini"))
    side = model.tile_px
    resolved = resolve(params, model, drawn_seed=0)
    found: list[Work] = []
    for index in range(tiles):
        crop = photo_like(side, side, seed=index).astype(np.uint16) * 257
        task = TileTask(name, index, Tile(0, index * side, side, side), resolved, priority)
        found.append(Work(task, ray.put(crop)))
    return found


class Contender(Protocol):
    """A way to have requests computed."""

    async def run(self, request: Sequence[Work]) -> None:
        """Returns when all tiles of the request are there."""
        ...


class Tessera:
    """The product's denoiser through the product's handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._denoiser = RayDenoiser(handle)

    async def run(self, request: Sequence[Work]) -> None:
        """Sends every tile, as a conductor would."""

        async def one(work: Work) -> None:
            await self._denoiser.denoise(work.task, [work.crop], [], lambda done: None)

        await asyncio.gather(*(one(work) for work in request))


class ByBatch:
    """`serve.batch` on the tiles of all requests."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def run(self, request: Sequence[Work]) -> None:
        """Sends every tile; the batches form at the replica."""

        async def one(work: Work) -> None:
            await self._handle.denoise.remote(work.task, work.crop)

        await asyncio.gather(*(one(work) for work in request))


class OneByOne:
    """A queue of whole requests."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def run(self, request: Sequence[Work]) -> None:
        """Sends the request."""
        tasks = [work.task for work in request]
        await self._handle.denoise.remote(tasks, *(work.crop for work in request))


class _OnOneThread:
    """A runner and the thread that owns it."""

    def __init__(self, settings: Settings) -> None:
        self._sizes = static_sizes(settings.engine.max_batch)
        self._vae_sizes = static_sizes(settings.engine.vae_batch)
        self._runner: Runner = build_runner(settings)
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._runner.open).result()

    async def compute(self, tasks: Sequence[TileTask], crops: Sequence[Levels], most: int) -> Any:
        """All tiles to the end, `most` together. Calls are served in their order."""

        def work() -> list[Any]:
            found: list[Any] = []
            for first in range(0, len(tasks), most):
                chosen = slice(first, first + most)
                found += self._to_the_end(tasks[chosen], crops[chosen])
            return found

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _to_the_end(self, tasks: Sequence[TileTask], crops: Sequence[Levels]) -> list[Any]:
        inputs = [TileInputs([crop]) for crop in crops]
        entries = [
            Entry(index, task, *self._runner.plan(task, given))
            for index, (task, given) in enumerate(zip(tasks, inputs, strict=True))
        ]
        for several in _split(list(zip(entries, inputs, strict=True)), self._vae_sizes[-1]):
            chosen, given_now = zip(*several, strict=True)
            self._runner.encode(chosen, given_now, _fit(self._vae_sizes, len(several)))
        while running := [entry for entry in entries if entry.steps_done < entry.steps]:
            self._runner.step(running, _fit(self._sizes, len(running)))
            for entry in running:
                entry.steps_done += 1
        tiles: list[Any] = []
        for finished in _split(entries, self._vae_sizes[-1]):
            tiles += self._runner.decode(finished, _fit(self._vae_sizes, len(finished)))
        for entry in entries:
            self._runner.drop(entry.id)
        return tiles


class BatchedDenoiser(_OnOneThread):
    """Request-level batching."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._most = settings.engine.max_batch
        self.batch.set_max_batch_size(self._most)

    async def denoise(self, task: TileTask, crop: Levels) -> Levels:
        """One tile, in whatever batch it falls."""
        tile: Levels = await self.batch((task, crop))
        return tile

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT_S)  # type: ignore[untyped-decorator]
    async def batch(self, calls: list[tuple[TileTask, Levels]]) -> list[Any]:
        """A sealed batch, to its end."""
        tasks, crops = zip(*calls, strict=True)
        tiles: list[Any] = await self.compute(tasks, crops, self._most)
        return tiles


class SequentialDenoiser(_OnOneThread):
    """One request at a time."""

    async def denoise(self, tasks: Sequence[TileTask], *crops: Levels) -> list[Any]:
        """A whole request, a tile after the other."""
        tiles: list[Any] = await self.compute(tasks, crops, 1)
        return tiles


def _split(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [items[first : first + most] for first in range(0, len(items), most)]


def _fit(sizes: Sequence[int], rows: int) -> int:
    return next(size for size in sizes if size >= rows)


@contextmanager
def contenders(settings: Settings) -> Iterator[dict[str, Contender]]:
    """Starts all three beside each other; who is not asked sleeps."""
    kinds: dict[str, tuple[type, Callable[[DeploymentHandle], Contender]]] = {
        "Tessera": (Denoiser, Tessera),
        "serve.batch": (BatchedDenoiser, ByBatch),
        "sequential": (SequentialDenoiser, OneByOne),
    }
    with local_cluster(cpus=4):
        apps = [
            serve.RunTarget(_deployment(deployed).bind(settings), f"rival-{number}", None)
            for number, (deployed, _) in enumerate(kinds.values())
        ]
        handles = serve.run_many(apps)
        adapters = [adapter for _, adapter in kinds.values()]
        yield {
            name: adapter(handle)
            for name, adapter, handle in zip(kinds, adapters, handles, strict=True)
        }


def _deployment(deployed: type) -> Any:
    options = {"num_cpus": 0.5}
    return serve.deployment(deployed, max_ongoing_requests=_ONGOING, ray_actor_options=options)

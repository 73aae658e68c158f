"""One tile's way through the denoisers: sent again where its replica dies, and where it comes out as garbage.

This module refuses to know how pictures are cut and joined.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from serve_app.contracts import MAX_SEED, ModelInfo, ResolvedParams, UpscaleRequest
from serve_app.engine.task import TileTask
from serve_app.errors import GarbageTile, ReplicaLost
from serve_app.ledger import Ledger
from serve_app.parts import PixelsRef, PromptRef, TileDenoiser
from serve_app.tiling.geometry import Tile

logger = logging.getLogger("tessera.upscale")

GARBAGE_RETRIES = 2
"""Seeds that are tried after the caller's before a tile is given up."""
FACE_SHARE = 0.5
"""Of the strength, in tiles that show a face: measured in docs/presets.md."""
_FIRST_RETRY_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way: what all of its tiles share."""

    request: UpscaleRequest
    params: ResolvedParams
    model: ModelInfo
    deadline: float  # the event loop's time, s

    def task(self, index: int, tile: Tile) -> TileTask:
        """A tile's task; its time left counts from now."""
        request = self.request
        left_s = max(self.deadline - asyncio.get_running_loop().time(), 0)
        return TileTask(
            request.request_id, index, tile, self.params, request.priority, request.tenant, left_s
        )


class TileSender:
    """Gets the tiles of one request computed.

    Args:
        denoiser: Crops to tiles.
        job: The request.
        prompts: Its embedded texts.
        ledger: Told of steps, tiles and what went wrong with them.
        most_retries: Times that a tile is sent again after its replica died.
        gentle: Tiles that are drawn with less strength.
    """

    def __init__(
        self,
        denoiser: TileDenoiser,
        job: Job,
        prompts: Sequence[PromptRef],
        ledger: Ledger,
        most_retries: int,
        gentle: frozenset[int] = frozenset(),
    ) -> None:
        self._denoiser = denoiser
        self._job = job
        self._prompts = prompts
        self._ledger = ledger
        self._most_retries = most_retries
        self._gentle = gentle

    async def send(self, index: int, tile: Tile, crops: Sequence[PixelsRef]) -> PixelsRef:
        """One tile. Garbage is tried with other seeds; then its own crop of the plain resize stands in."""
        found = None
        for attempt in range(1 + GARBAGE_RETRIES):
            try:
                found = await self._computed(index, tile, crops, attempt)
                break
            except GarbageTile as error:
                facts = {"tile": index, "attempt": attempt, "cause": error.detail}
                self._log("upscale.tile_garbage", facts)
                self._ledger.retried += attempt < GARBAGE_RETRIES
        if found is None:
            found = crops[0]
            self._ledger.replaced.append(index)
            self._log("upscale.tile_replaced", {"tile": index})
        self._ledger.done(index)
        return found

    async def _computed(
        self, index: int, tile: Tile, crops: Sequence[PixelsRef], attempt: int
    ) -> PixelsRef:
        """One tile with one seed: computed twice, it is the same tile."""
        params, changes = self._job.params, dict[str, Any]()
        if attempt:
            changes["seed"] = derived_seed(params.seed, index, attempt)
        if index in self._gentle:
            changes["strength"] = params.strength * FACE_SHARE
        params = params.model_copy(update=changes)

        def send() -> Awaitable[PixelsRef]:
            task = replace(self._job.task(index, tile), params=params)
            return self._denoiser.denoise(
                task, crops, self._prompts, lambda done: self._ledger.steps(index, done)
            )

        def on_retry(error: ReplicaLost) -> None:
            self._log("upscale.tile_retried", {"tile": index, "cause": error.detail})
            self._ledger.retried += 1

        return await again(send, self._most_retries, on_retry)

    def _log(self, action: str, facts: dict[str, object]) -> None:
        logger.warning(action, extra={"request_id": self._job.request.request_id, **facts})


async def again(
    send: Callable[[], Awaitable[T]], most: int, on_retry: Callable[[ReplicaLost], None]
) -> T:
    """Awaits what is sent, and sends it again while the replica dies under it, `most` times at most."""
    for attempt in range(most):
        try:
            return await send()
        except ReplicaLost as error:
            on_retry(error)
            await asyncio.sleep(_FIRST_RETRY_S * 2**attempt)
    return await send()


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure comes out alone."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def derived_seed(seed: int, index: int, attempt: int) -> int:
    """Another seed for a tile, the same whenever and wherever it is asked for: 0 to 2**63-1."""
    digest = hashlib.blake2b(f"{seed} {index} {attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) & MAX_SEED

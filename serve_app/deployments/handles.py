"""Adapters: Ray Serve handles as the conductor's three parts. Foreign errors are translated here, once.

Pixels are passed on as Ray object references. They are owned by the gateway that asked for them, so they
live while its request lives, and no picture passes through its event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from typing import Any

import ray
import ray.exceptions
from ray import ObjectRef, serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview

from serve_app.contracts import ModelInfo, ResolvedParams, UpscaleRequest
from serve_app.engine.task import TileTask
from serve_app.errors import Busy, ReplicaLost, TesseraError
from serve_app.imaging.frames import Frames
from serve_app.parts import Prepared
from serve_app.stages.finish import Finished

_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.TaskCancelledError,  # by the replica's end: our own cancelling is a CancelledError
    DeploymentUnavailableError,
)
_WELL = (DeploymentStatus.HEALTHY, DeploymentStatus.UPSCALING, DeploymentStatus.DOWNSCALING)
_READY_CACHE_S = 1.0
_PROMPT_RETRIES = 3
_FIRST_RETRY_S = 0.2
_FULL_S = 1.0


def translate(error: BaseException) -> BaseException:
    """Turns what Ray raises into our tree; anything else is returned as it is."""
    if isinstance(error, ray.exceptions.RayTaskError):
        if isinstance(error.cause, ray.exceptions.ObjectLostError):  # an input went with its node
            return translate(error.cause)
        return error.cause if isinstance(error.cause, TesseraError) else error
    if isinstance(error, _LOST):
        return ReplicaLost(f"{type(error).__name__}: a replica was lost", retry_after_s=5)
    if isinstance(error, BackPressureError):
        return Busy("all queues are full", retry_after_s=5)
    return error


def accepts(deployment: DeploymentStatusOverview) -> bool:
    """Whether a replica runs, or all is well without one: scaled to zero, the first tile brings it."""
    return bool(deployment.replica_states.get("RUNNING", 0)) or deployment.status in _WELL


@asynccontextmanager
async def _stream(handle: DeploymentHandle, *args: Any) -> AsyncIterator[_Stream]:
    """A streaming call; leaving the block before its end cancels it at the replica."""
    response = handle.remote(*args)
    stream = _Stream()
    try:
        stream.refs = await response._to_object_ref_gen()
        yield stream
    except BaseException as error:
        response.cancel()
        translated = translate(error)
        if translated is error:
            raise
        raise translated from None


class _Stream:
    """The items of a streaming call, as references.

    The item that follows a replica's death is a reference to an error, which looks like any other until it is
    opened. So a deployment closes a stream of pixels with `None`, and that one is opened here.
    """

    refs: Any

    async def next(self) -> Any:
        """The next item's value."""
        return await (await anext(self.refs))

    async def rest(self) -> list[ObjectRef]:
        """The items left, unopened; raises what ended the stream early. They hold no error."""
        refs = [ref async for ref in self.refs]
        await refs[-1]
        return refs[:-1]


class RayPreparer:
    """The Preprocess deployment; satisfies `parts.Preparer`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._prepare = handle.options(method_name="prepare", stream=True)
        self._split = handle.options(method_name="split", stream=True)
        self._strip = handle.options(method_name="strip", stream=True)

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        """See `parts.Preparer`."""
        pictures = (request.image, request.control_images)
        async with _stream(self._prepare, *pictures, params, model) as stream:
            outline, faces = await stream.next(), await stream.next()
            source, *drawn = await stream.rest()
            return Prepared(outline, faces, source, drawn)

    async def split(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Frames | None:
        """See `parts.Preparer`. The pictures are references, which Ray resolves where `prepare` runs."""
        async with _stream(self._split, request.image, params, model) as stream:
            frames: Frames | None = await stream.next()
            pictures = await stream.rest()
            return None if frames is None else replace(frames, pictures=pictures)

    async def strip(
        self, prepared: Prepared, params: ResolvedParams, row: int
    ) -> list[tuple[ObjectRef, ...]]:
        """See `parts.Preparer`."""
        pictures = (prepared.source, *prepared.drawn)
        async with _stream(self._strip, prepared.outline.plan, params, row, *pictures) as stream:
            crops = iter(await stream.rest())
            return list(zip(*[crops] * len(params.all_controls), strict=True))


class RayPromptEmbedder:
    """The PromptEncoder deployment; satisfies `parts.PromptEmbedder`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(method_name="embed", stream=True)

    async def embed(self, text: str) -> ObjectRef:
        """See `parts.PromptEmbedder`. Sent again a few times while replicas die under it."""
        for attempt in range(_PROMPT_RETRIES):
            try:
                return await self._embed(text)
            except ReplicaLost:
                await asyncio.sleep(_FIRST_RETRY_S * 2**attempt)
        return await self._embed(text)

    async def _embed(self, text: str) -> ObjectRef:
        async with _stream(self._handle, text) as stream:
            [embeddings] = await stream.rest()
            return embeddings


class RayDenoiser:
    """The Denoiser deployment; satisfies `parts.TileDenoiser`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(method_name="denoise", stream=True)
        self._deployment = handle.deployment_id
        self._ready_at = float("-inf")

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[ObjectRef],
        prompts: Sequence[ObjectRef],
        on_steps: Callable[[int], None],
    ) -> ObjectRef:
        """See `parts.TileDenoiser`. A tile that a full engine refuses waits here, and may go to another."""
        while True:
            try:
                return await self._denoise(task, (*crops, *prompts), on_steps)
            except Busy:
                await asyncio.sleep(_FULL_S * random.uniform(0.5, 1.5))

    async def _denoise(
        self, task: TileTask, inputs: Sequence[ObjectRef], on_steps: Callable[[int], None]
    ) -> ObjectRef:
        async with _stream(self._handle, task, *inputs) as stream:
            done = 0
            while done < task.params.steps:
                done = (await stream.next()).done
                on_steps(done)
            [pixels] = await stream.rest()
            return pixels

    async def ready(self) -> bool:
        """Whether tiles may be sent; a yes from Ray Serve's controller is believed for a second."""
        if time.monotonic() - self._ready_at > _READY_CACHE_S:
            if not await asyncio.to_thread(self._ask):
                return False
            self._ready_at = time.monotonic()
        return True

    def _ask(self) -> bool:
        application = serve.status().applications.get(self._deployment.app_name)
        if application is None or self._deployment.name not in application.deployments:
            return False
        return accepts(application.deployments[self._deployment.name])


class RayFinisher:
    """The Postprocess deployment; satisfies `parts.Finisher`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(method_name="finish", stream=True)
        self._join = handle.options(method_name="join", stream=True)

    @asynccontextmanager
    async def begin(
        self, prepared: Prepared, params: ResolvedParams, model: ModelInfo
    ) -> AsyncIterator[RayFinishing]:
        """See `parts.Finisher`."""
        yield RayFinishing(self._handle, prepared, params, model)

    async def join(self, frames: Frames, params: ResolvedParams, model: ModelInfo) -> bytes:
        """See `parts.Finisher`."""
        async with _stream(self._join, frames, params, model) as stream:
            [image] = await stream.rest()
            joined: bytes = await image
            return joined


class RayFinishing:
    """Gathers references; they are held until the file is there, so that its making can be tried again."""

    def __init__(self, handle: DeploymentHandle, prepared: Prepared, *asked: Any) -> None:
        self._handle = handle
        self._source = prepared.source
        self._asked = (prepared.outline.plan, *asked)
        self._rows: list[Sequence[ObjectRef]] = []

    async def add(self, tiles: Sequence[ObjectRef]) -> None:
        """See `parts.Finishing`."""
        self._rows.append(tiles)

    async def end(self) -> Finished:
        """See `parts.Finishing`."""
        async with _stream(self._handle, *self._asked, self._source, self._rows) as stream:
            report = await stream.next()
            file = BytesIO()  # gives its bytes away without a copy
            while (piece := await stream.next()) is not None:
                file.write(piece)
            return Finished(file.getvalue(), report)

    async def keep(self) -> Finished:
        """See `parts.Finishing`."""
        async with _stream(self._handle, *self._asked, self._source, self._rows) as stream:
            report = await stream.next()
            pieces: Any = await stream.rest()
            return Finished(pieces, report)

"""The replica that runs jobs: a conductor like the gateway's, fed by the store instead of by callers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable
from contextlib import suppress

import numpy as np
import ray
from ray import ObjectRef
from ray.serve.handle import DeploymentHandle

from serve_app.contracts import ModelInfo, Upscaler
from serve_app.deployments.handles import (
    RayDenoiser,
    RayFinisher,
    RayPreparer,
    RayPromptEmbedder,
    translate,
)
from serve_app.fetch.client import Fetcher
from serve_app.fetch.poster import Poster
from serve_app.jobs.attempt import Attempt, Wrap
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.courier import Courier
from serve_app.jobs.patience import patiently
from serve_app.jobs.runner import Runner
from serve_app.jobs.store import Store
from serve_app.jobs.sweep import Sweeper
from serve_app.levels import Levels
from serve_app.settings import Settings
from serve_app.upscale import Conductor

logger = logging.getLogger("tessera.jobs")


class RayPixels:
    """Satisfies `jobs.checkpoints.Pixels` over Ray's object store."""

    async def read(self, ref: ObjectRef) -> Levels:
        """See `Pixels`."""
        try:
            found: Levels = await ref
        except Exception as error:
            raise translate(error) from None
        return found

    async def put(self, levels: Levels) -> ObjectRef:
        """See `Pixels`."""
        return ray.put(np.ascontiguousarray(levels))


class JobRunner:
    """Runs jobs for as long as it lives; nobody calls it but Ray Serve, and who wants it to stop.

    Args:
        settings: Of the whole application.
        model: The model that the denoisers hold.
        preprocess: Handle of `Preprocess`.
        prompts: Handle of `PromptEncoder`; None where the model takes no prompts.
        denoiser: Handle of `Denoiser`.
        postprocess: Handle of `Postprocess`.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelInfo,
        preprocess: DeploymentHandle,
        prompts: DeploymentHandle | None,
        denoiser: DeploymentHandle,
        postprocess: DeploymentHandle,
    ) -> None:
        self._settings = settings
        self._model = model
        preparer, finisher = RayPreparer(preprocess), RayFinisher(postprocess)
        embedder = None if prompts is None else RayPromptEmbedder(prompts)
        inner = RayDenoiser(denoiser)

        def conduct(wrap: Wrap) -> Upscaler:
            return Conductor([model], preparer, embedder, wrap(inner), finisher, settings.requests)

        self._conduct = conduct
        self._blobs = Blobs(settings.jobs.blobs_url, settings.jobs.blobs_options)
        self._fetcher = Fetcher(settings.fetch)
        self._runner: Runner | None = None
        self._stopped = False
        # Ray Serve 2.60 calls a constructor, plain as it is, on the event loop of the replica's own code.
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        jobs = self._settings.jobs
        store = await patiently(
            lambda: Store.open(jobs.database_url, most_attempts=jobs.most_attempts)
        )
        attempt = Attempt(
            store,
            self._blobs,
            self._fetcher,
            self._conduct,
            [self._model],
            RayPixels(),
            self._settings,
        )
        name = f"runner-{uuid.uuid4().hex[:12]}"
        self._runner = Runner(store, attempt, jobs, name)
        beside = [asyncio.create_task(Sweeper(store, self._blobs, jobs, name).run())]
        if jobs.webhooks.enabled:
            courier = Courier(store, Poster(jobs.webhooks), jobs.webhooks, name)
            beside.append(asyncio.create_task(courier.run()))
        logger.info("jobs.runner_started")
        try:
            await self._runner.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            await store.close()

    async def check_health(self) -> None:
        """Raises once the loop has ended on its own: Ray Serve then starts another replica."""
        if self._loop.done() and not self._stopped:
            self._loop.result()
            raise RuntimeError("the runner's loop has ended")

    async def stop(self) -> None:
        """Hands every lease back at once, and takes no more."""
        self._stopped = True
        if self._runner is not None:
            await self._runner.stop()
        else:  # the store was never there
            self._loop.cancel()
        with suppress(asyncio.CancelledError):
            await self._loop

    def __del__(self) -> Awaitable[None] | None:
        """Called by Ray Serve before the replica ends, and awaited; Python calls it once more, for nothing."""
        if not hasattr(self, "_loop") or self._loop.done():
            return None
        return self.stop()

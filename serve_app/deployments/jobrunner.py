"""The replica that runs jobs: a conductor like the gateway's, fed by the store instead of by callers."""

from __future__ import annotations

import asyncio
import uuid

import numpy as np
import ray
from ray.serve.handle import DeploymentHandle

from serve_app.contracts import ModelInfo, Upscaler
from serve_app.deployments.handles import RayDenoiser, RayFinisher, RayPreparer, RayPromptEmbedder
from serve_app.fetch.client import Fetcher
from serve_app.jobs.attempt import Attempt, Wrap
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.runner import Runner
from serve_app.jobs.store import Store
from serve_app.levels import Levels
from serve_app.settings import Settings
from serve_app.upscale import Conductor


class RayPixels:
    """Satisfies `jobs.checkpoints.Pixels` over Ray's object store."""

    async def read(self, ref: ray.ObjectRef) -> Levels:
        """See `Pixels`."""
        found: Levels = await ref
        return found

    async def put(self, levels: Levels) -> ray.ObjectRef:
        """See `Pixels`."""
        return ray.put(np.ascontiguousarray(levels))


class JobRunner:
    """Runs jobs for as long as it lives; takes no calls but those of Ray Serve.

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
        parts = (
            RayPreparer(preprocess),
            None if prompts is None else RayPromptEmbedder(prompts),
            RayDenoiser(denoiser),
            RayFinisher(postprocess),
        )

        def conduct(wrap: Wrap) -> Upscaler:
            preparer, embedder, inner, finisher = parts
            return Conductor([model], preparer, embedder, wrap(inner), finisher, settings.requests)

        self._conduct = conduct
        self._runner: Runner | None = None
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        jobs = self._settings.jobs
        store = await Store.open(jobs.database_url, most_attempts=jobs.most_attempts)
        blobs = Blobs(jobs.blobs_url, jobs.blobs_options)
        fetcher = Fetcher(self._settings.fetch)
        attempt = Attempt(store, blobs, fetcher, self._conduct, RayPixels(), self._settings)
        self._runner = Runner(store, attempt, jobs, name=f"runner-{uuid.uuid4().hex[:12]}")
        try:
            await self._runner.run()
        finally:
            await store.close()

    async def check_health(self) -> None:
        """Fails once the loop has ended on its own: Ray Serve then starts another replica."""
        if self._loop.done():
            self._loop.result()
            raise RuntimeError("the runner's loop has ended")

    async def __del__(self) -> None:
        """Called by Ray Serve before the replica ends: hands every lease back."""
        if self._runner is not None:
            await self._runner.stop()
            await self._loop

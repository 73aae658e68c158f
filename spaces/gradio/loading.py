"""Loads the model in the process that starts, and says how an upscaler is made of it where the GPU is.

On ZeroGPU the starting process has no GPU: weights that are sent there are kept aside and follow each loan.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from serve_app.contracts import ModelInfo, Upscaler
from serve_app.controls.depth import open_depth
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.local import (
    LocalDenoiser,
    LocalFinisher,
    LocalPreparer,
    LocalPromptEmbedder,
    build_runner,
)
from serve_app.models.catalog import find_model, read_model_info
from serve_app.settings import Settings
from serve_app.upscale import Conductor

Opened = Callable[[], AbstractAsyncContextManager[Upscaler]]


def load(settings: Settings, lent: bool) -> tuple[ModelInfo, Opened]:
    """Loads the networks.

    Args:
        settings: Of the model and the engine.
        lent: Whether the GPU is there only while a picture runs.

    Returns:
        The model's description, and what makes an upscaler of it.

    Raises:
        ConfigurationError: if the model or the device cannot be used.
    """
    folder = find_model(settings.model.source, settings.model.cache_dir)
    info = read_model_info(folder)
    if lent and info.takes_prompt:
        _store_null_prompt(settings)
    runner = build_runner(settings)
    depth = open_depth(settings.model)
    embedder = LocalPromptEmbedder(settings) if info.takes_prompt else None
    if embedder is not None and lent:
        embedder.open()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Upscaler]:
        engine = await asyncio.to_thread(Engine, runner, Scheduler(settings.engine))
        try:
            yield Conductor(
                [info],
                LocalPreparer(settings.images, depth),
                embedder,
                LocalDenoiser(engine, settings.engine.max_waiting),
                LocalFinisher(settings.images),
                settings.requests,
            )
        finally:
            await asyncio.to_thread(engine.close)

    return info, opened


def _store_null_prompt(settings: Settings) -> None:
    """Computes the empty prompt on the CPU, where it is not stored: here nothing computes on a GPU."""
    import torch

    from serve_app.diffusion.prompts import null_prompt

    folder = find_model(settings.model.source, settings.model.cache_dir)
    info = read_model_info(folder)
    place = torch.device("cpu"), torch.bfloat16
    null_prompt(folder, info, settings.prompts.tokens, *place, settings.model.cache_dir)

"""Opens the `Upscaler` that a command works with: a server's, or one in this process.

The in-process one is imported only when asked for, since it loads torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.client import HttpUpscaler, ServerUnreachable
from serve_app.contracts import Upscaler
from serve_app.settings import Settings


@asynccontextmanager
async def open_upscaler(server: str | None, model: str | None) -> AsyncIterator[Upscaler]:
    """Opens an `Upscaler` that is ready.

    Args:
        server: Base URL; None computes in this process.
        model: A shipped model's name or a folder's path, for this process; a server chooses by request.

    Raises:
        ServerUnreachable: the server cannot be reached or has no warm denoiser.
        ConfigurationError: the model cannot be used.
    """
    if server is not None:
        async with HttpUpscaler(server) as remote:
            if not await remote.ready():
                raise ServerUnreachable(f"{server} is not ready: no denoiser is warm yet.")
            yield remote
        return
    from serve_app.local import local_upscaler

    settings = Settings.parse({} if model is None else {"model": model})
    async with local_upscaler(settings) as local:
        yield local

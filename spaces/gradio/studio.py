"""Where pictures are computed: an upscaler on an event loop of its own, for callers that have none.

On ZeroGPU that is a forked process in which alone there is a GPU; threads do not survive a fork, so nothing
starts before the first picture. It refuses to know which model computes, and who lends the GPU.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

from serve_app.contracts import Progress, Upscaler, UpscaleRequest, UpscaleResult
from serve_app.errors import TesseraError, TileFailed

log = logging.getLogger("tessera.space")

Said = Progress | UpscaleResult | TesseraError | None
"""What is said of a picture; None is a sign of life. Errors are said, not raised: so they cross processes."""

_SIGN_OF_LIFE_S = 0.5


class Studio:
    """Computes pictures in whatever process calls it.

    Args:
        opened: Makes the upscaler, on the studio's loop.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Upscaler]]) -> None:
        self._opened = opened
        self._door = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered: AbstractAsyncContextManager[Upscaler] | None = None
        self._upscaler: Upscaler | None = None

    def open(self) -> None:
        """Starts the loop and the upscaler, where that was not done yet."""
        with self._door:
            if self._upscaler is None:
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="studio", daemon=True).start()
                self._entered = self._opened()  # kept: it is left when the process ends
                entering = asyncio.run_coroutine_threadsafe(_entered(self._entered), loop)
                self._upscaler = entering.result()

    def upscale(self, request: UpscaleRequest) -> Iterator[Said]:
        """Upscales one picture; leaving the iterator gives it up.

        Yields:
            How far it is; last the result, or the error that ended it.
        """
        self.open()
        assert self._loop is not None
        said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        work = asyncio.run_coroutine_threadsafe(self._work(request, said), self._loop)
        try:
            while True:
                try:
                    word = said.get(timeout=_SIGN_OF_LIFE_S)
                except queue.Empty:
                    word = None  # whoever wants to leave can do so only between two words
                yield word
                if isinstance(word, UpscaleResult | TesseraError):
                    return
        finally:
            work.cancel()

    async def _work(self, request: UpscaleRequest, said: queue.SimpleQueue[Said]) -> None:
        assert self._upscaler is not None
        try:
            said.put(await self._upscaler.upscale(request, said.put))
        except TesseraError as error:
            said.put(error)
        except Exception as error:
            log.exception("space.failed", extra={"request_id": request.request_id})
            said.put(TileFailed(f"the picture failed: {type(error).__name__}"))


async def _entered(context: AbstractAsyncContextManager[Upscaler]) -> Upscaler:
    return await context.__aenter__()

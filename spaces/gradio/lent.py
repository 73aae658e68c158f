"""An `Upscaler` whose every call is one call of a function to which a GPU is lent.

The function may run in another process and gives an iterator (`studio.Said`). It refuses to know what lends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from serve_app.contracts import (
    ModelInfo,
    Progress,
    ProgressCallback,
    UpscaleRequest,
    UpscaleResult,
)
from serve_app.errors import Busy, TesseraError

log = logging.getLogger("tessera.space")

_RETRY_AFTER_S = 30


class LentUpscaler:
    """Satisfies `contracts.Upscaler`; one picture after the other.

    Args:
        lend: Computes a picture where the GPU is; a generator function.
        info: The model.
        most_waiting: Pictures that wait for the one at work.
        on_result: Told of each result.
    """

    def __init__(
        self,
        lend: Callable[[UpscaleRequest], Iterator[Any]],
        info: ModelInfo,
        most_waiting: int,
        on_result: Callable[[UpscaleResult], None] = lambda result: None,
    ) -> None:
        self._lend = lend
        self._info = info
        self._most = most_waiting + 1
        self._on_result = on_result
        self._inside = 0
        self._place = asyncio.Lock()

    async def models(self) -> list[ModelInfo]:
        """The one model."""
        return [self._info]

    async def ready(self) -> bool:
        """See `contracts.Upscaler`."""
        return True

    async def upscale(
        self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
    ) -> UpscaleResult:
        """See `contracts.Upscaler`."""
        if self._inside >= self._most:
            detail = f"{self._inside} pictures wait here already"
            raise Busy(detail, retry_after_s=_RETRY_AFTER_S)
        self._inside += 1
        try:
            async with self._place:
                return await self._call(request, on_progress or (lambda progress: None))
        finally:
            self._inside -= 1

    async def _call(self, request: UpscaleRequest, on_progress: ProgressCallback) -> UpscaleResult:
        loop, gone = asyncio.get_running_loop(), threading.Event()

        def tell(progress: Progress) -> None:
            if not gone.is_set():
                on_progress(progress)

        def listen() -> UpscaleResult | TesseraError | None:
            end: UpscaleResult | TesseraError | None = None
            with closing(self._lend(request)) as said:  # type: ignore[type-var]
                for word in said:
                    if gone.is_set():
                        return None
                    if isinstance(word, Progress):
                        loop.call_soon_threadsafe(tell, word)
                    elif word is not None:
                        end = word
            return end

        listening = asyncio.ensure_future(asyncio.to_thread(listen))
        try:
            end = await asyncio.shield(listening)
        except asyncio.CancelledError:
            gone.set()
            await asyncio.wait([listening])  # the place is free when the GPU is
            raise
        except Exception as error:  # the lender's own: no quota left, time over
            log.warning("space.not_lent", extra={"cause": repr(error)})
            raise Busy(_words_of(error), retry_after_s=_RETRY_AFTER_S) from error
        finally:
            gone.set()
        if isinstance(end, UpscaleResult):
            self._on_result(end)
            return end
        raise end or Busy("the GPU was taken away", retry_after_s=_RETRY_AFTER_S)


def _words_of(error: Exception) -> str:
    told = [str(getattr(error, name, "") or "") for name in ("title", "message")]
    return ": ".join(filter(None, told)) or f"no GPU was lent: {type(error).__name__}"

"""The parts that a conductor conducts, as protocols; `local` satisfies them here, `deployments` over Ray.

Pixels pass between them as opaque references, which nobody here opens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from serve_app.contracts import ModelInfo, ResolvedParams, UpscaleRequest
from serve_app.engine.task import TileTask
from serve_app.imaging.frames import Frames
from serve_app.stages.finish import Finished
from serve_app.stages.prepare import Faces, Outline

PixelsRef = Any  # pixels here, or a reference to pixels elsewhere; only carried from part to part
PromptRef = Any  # a prompt's embeddings, likewise


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture ready to be cut.

    Attributes:
        outline: Its size and its plan.
        faces: Which tiles show one.
        source: The decoded source, for the strips and the finish.
        drawn: The whole picture of each control but `upscale`, in the request's order.
    """

    outline: Outline
    faces: Faces
    source: PixelsRef
    drawn: Sequence[PixelsRef]


class Preparer(Protocol):
    """Bytes to crops."""

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        """Decodes the request's pictures; raises RequestError where it cannot."""
        ...

    async def split(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Frames | None:
        """Splits a moving picture into what `prepare` takes as pictures; None for a still one."""
        ...

    async def strip(
        self, prepared: Prepared, params: ResolvedParams, row: int
    ) -> Sequence[Sequence[PixelsRef]]:
        """Cuts a row of tiles: for each, from the left, one crop for each of the request's controls."""
        ...


class PromptEmbedder(Protocol):
    """Texts to embeddings."""

    async def embed(self, text: str) -> PromptRef:
        """Embeds a text; equal texts are computed once in a while only."""
        ...


class TileDenoiser(Protocol):
    """Crops to tiles."""

    async def denoise(
        self,
        task: TileTask,
        crops: Sequence[PixelsRef],
        prompts: Sequence[PromptRef],
        on_steps: Callable[[int], None],
    ) -> PixelsRef:
        """Computes one tile; raises ReplicaLost where the same task may be sent again.

        `on_steps` hears how many steps are done. Cancelling the call frees the tile's place within a step.
        """
        ...

    async def ready(self) -> bool:
        """True only when a model is loaded and warm."""
        ...


class Finishing(Protocol):
    """One result in the making."""

    async def add(self, tiles: Sequence[PixelsRef]) -> None:
        """Takes the next row of tiles; rows come from top to bottom. May wait until it has room."""
        ...

    async def end(self) -> Finished:
        """Makes the file of all rows; raises ReplicaLost where it may be called again."""
        ...

    async def keep(self) -> Finished:
        """As `end`, but what it gives for the file is for `Finisher.join` alone: a reference, over Ray."""
        ...


class Finisher(Protocol):
    """Tiles to bytes."""

    def begin(
        self, prepared: Prepared, params: ResolvedParams, model: ModelInfo
    ) -> AbstractAsyncContextManager[Finishing]:
        """Begins a result; leaving the block before its end gives it up."""
        ...

    async def join(self, frames: Frames, params: ResolvedParams, model: ModelInfo) -> bytes:
        """Joins kept files, the pictures of `frames`; raises ReplicaLost where it may be called again."""
        ...

"""The text encoders' deployment: a text in, its embeddings out.

It may scale to zero: the empty prompt is stored beside the model and needs no encoder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from serve_app.engine.task import PromptArrays
from serve_app.local import LocalPromptEmbedder
from serve_app.settings import Settings


class PromptEncoder:
    """Holds CLIP and T5. A replica is running, for Ray, only once they are loaded.

    Args:
        settings: Of the model and its text encoders.
    """

    def __init__(self, settings: Settings) -> None:
        self._embedder = LocalPromptEmbedder(settings)
        self._embedder.open()

    async def embed(self, text: str) -> AsyncIterator[PromptArrays | None]:
        """Embeds a text.

        Yields:
            The embeddings, which the caller passes on unopened, and None at the end.
        """
        yield await self._embedder.embed(text)
        yield None

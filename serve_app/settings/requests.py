"""How many requests at once, how long each, and the operator's presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.presets import SHIPPED, Presets
from serve_app.settings.group import Group

Dialect = Literal["openai", "replicate", "sdwebui"]


class RequestSettings(Group):
    """How one request is carried through the graph."""

    pictures_at_once: int = Field(
        32,
        gt=0,
        description="Pictures in progress at one gateway; one more is answered 429, so memory is bounded.",
    )
    retry_after_s: float = Field(
        5, gt=0, description="Seconds that a 429 asks a caller to wait: a small picture's time."
    )
    timeout_s: float = Field(
        900, gt=0, description="Seconds for a whole request when the caller gives none."
    )
    tiles_at_once: int = Field(
        16,
        gt=0,
        description="Tiles of one picture at the denoisers together; feeds several replicas, floods none.",
    )
    tile_retries: int = Field(
        3, ge=0, description="Times that a tile is sent again after its replica died."
    )
    progress_interval_s: float = Field(
        0.2,
        ge=0,
        description="Least seconds between two progress reports of one tile; each costs a message.",
    )
    dialects: tuple[Dialect, ...] = Field(
        ("openai", "replicate", "sdwebui"),
        description="Other tools' protocols that are spoken besides: docs/dialects.md.",
    )
    presets: Presets = Field(
        SHIPPED,
        description="Parameters under a name, beside the shipped ones; null takes one away: docs/presets.md.",
    )

"""What a server tells of jobs, pictures and plans, as frozen records.

They hold what callers use; what a newer server adds is passed over. They refuse to know who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serve_app.contracts import ModelInfo, UpscaleParams

ENDED = ("succeeded", "failed", "cancelled")
"""States of a job, and of an item, in which nothing more happens by itself."""


class Record(BaseModel):
    """A frozen record that passes over what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Offer(Record):
    """What can be asked for, the default model first."""

    models: tuple[ModelInfo, ...]
    presets: Mapping[str, UpscaleParams] = {}


class Plan(Record):
    """What a picture will cost; sizes in px, None where nobody knows."""

    model: str
    source_width: int
    source_height: int
    width: int
    height: int
    frames: int = 1
    tiles: int
    steps: int
    tflop: float | None = None
    estimated_s: float | None = None
    queue_position: int | None = None


class Result(Record):
    """A finished picture. `details` hold its report, parameters, timings and tiles."""

    media_type: str
    width: int
    height: int
    size_bytes: int = 0
    details: Mapping[str, Any] = {}


class Item(Record):
    """One picture of a job; `error` says why its last attempt failed, as a problem document does."""

    number: int
    name: str
    status: str
    tiles_done: int = 0
    tiles_total: int = 0
    error: Mapping[str, Any] | None = None
    result: Result | None = None


class Job(Record):
    """A job; `counts` has the number of items in each state, and `total`."""

    id: str
    status: str
    counts: Mapping[str, int] = Field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it unless a person asks."""
        return self.status in ENDED

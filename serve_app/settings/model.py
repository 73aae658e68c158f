"""Which model runs, and what embeds its prompts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from serve_app.settings.group import Group


class ModelSettings(Group):
    """Which model, and where its parts lie."""

    source: str = Field(
        "mini",
        min_length=1,
        description="A shipped model's name, a folder, a hub id `OWNER/NAME@REVISION`, or an fsspec URL.",
    )
    cache_dir: str | None = Field(
        None,
        description="Where sources from elsewhere are kept on this node; None is the user's cache folder.",
    )
    loras: str | None = Field(
        None,
        description="Folder of LoRA adapters, each offered by its file's name; None offers none.",
    )


def named_model(value: Any) -> Any:
    """A plain string still names the source."""
    return {"source": value} if isinstance(value, str) else value


class PromptSettings(Group):
    """The text encoders, for models that take prompts."""

    tokens: Literal[128, 256, 512] = Field(
        512,
        description="Length of T5's sequence: 512 as FLUX.1-dev was trained; fewer cost less a step.",
    )
    device: str = Field("cpu", description="Where the encoders run; prompts are few and cached.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Type of their weights: T5-XXL takes 9.5 GB in bfloat16."
    )
    cached: int = Field(64, gt=0, description="Prompts remembered, 8 MB each at 512 tokens.")
    cpus: float = Field(1, ge=0, description="CPUs reserved for a replica.")
    gpus: float = Field(
        0, ge=0, description="GPUs reserved for a replica; a slice such as 0.2 does."
    )
    min_replicas: int = Field(0, ge=0, description="0: encoders are loaded at the first prompt.")
    max_replicas: int = Field(1, gt=0, description="One encodes several prompts a second.")

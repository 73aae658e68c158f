"""How tiles are batched and computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.settings.group import Group


class EngineSettings(Group):
    """The accelerator and the batches that run on it."""

    device: str = Field(
        "auto", description="`auto` is cuda where there is one, else cpu; or a torch device name."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of weights and steps; `auto` is bfloat16 on cuda, float32 on cpu (measured faster).",
    )
    max_batch: int = Field(
        2,
        gt=0,
        description="Tiles denoised together in one step; on a CPU 2 cost what 1 does for each tile, 4 more.",
    )
    vae_batch: int = Field(
        1,
        gt=0,
        description="Tiles encoded or decoded together; on a CPU 4 take twice the time per tile that 1 takes.",
    )
    max_waiting: int = Field(
        64, gt=0, description="Tiles waiting for a place in one engine; one more is refused."
    )
    batch_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the accelerator's time that priority `batch` keeps while others wait.",
    )
    interactive_slowdown: float = Field(
        1.1,
        ge=1,
        description="How much longer an interactive step may take so that batch tiles ride along.",
    )
    exact: bool = Field(
        False,
        description="Bit-equal results whatever shares the batch: every step runs at `max_batch`.",
    )
    residual_cache: bool = Field(
        False,
        description="Skip steps of little change, for models that state how far; changes results a little.",
    )
    compile: bool = Field(
        False, description="Compile the networks' blocks; minutes at start, needs a C++ compiler."
    )
    attention: str | None = Field(
        None,
        description="An attention backend of diffusers, such as `_native_cudnn`; None is its own.",
    )
    quantization: Literal["none", "fp8"] = Field(
        "none",
        description="`fp8` needs torchao and a GPU with it, and passes a quality gate at start.",
    )
    cuda_graphs: bool = Field(False, description="Replay each batch size as one CUDA graph.")
    offload: bool = Field(
        False, description="Keep blocks in host memory until they run, for cards of 24 GB; slower."
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads of a step; None divides the process's cores among the denoiser replicas.",
    )

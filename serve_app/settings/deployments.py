"""The size of the Ray Serve graph, and how it follows its load."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serve_app.settings.group import Group


class Autoscaling(Group):
    """Denoiser replicas that follow the backlog of tiles."""

    min_replicas: int = Field(0, ge=0, description="0 gives the last GPU back when nobody asks.")
    max_replicas: int = Field(4, gt=0, description="Most GPUs to take.")
    look_back_s: float = Field(
        5,
        gt=0,
        description="Seconds over which the backlog is averaged; short, tiles take seconds.",
    )
    upscale_delay_s: float = Field(
        2, ge=0, description="Seconds that a backlog lasts before replicas are added."
    )
    downscale_delay_s: float = Field(
        300,
        ge=0,
        description="Seconds of less work before one is given back; loading FLUX is slow.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas must be at most max_replicas")
        return self


class DeploymentSettings(Group):
    """The size of the Ray Serve deployments."""

    gateway_cpus: float = Field(
        0.1, ge=0, description="CPUs that Ray reserves for a gateway; it only passes messages on."
    )
    preprocess_cpus: float = Field(
        0.2,
        ge=0,
        description="CPUs reserved for a preprocess replica; small, so that all fits two cores.",
    )
    postprocess_cpus: float = Field(
        0.2,
        ge=0,
        description="CPUs reserved for a postprocess replica; small, so that all fits two cores.",
    )
    denoiser_cpus: float = Field(
        0.5, ge=0, description="CPUs reserved for a denoiser; its threads are `engine.threads`."
    )
    denoiser_gpus: float = Field(
        0,
        ge=0,
        description="GPUs of a denoiser replica; 0 runs on the CPU, 1 is usual on a cluster.",
    )
    denoiser_replicas: int = Field(
        1,
        gt=0,
        description="Denoiser replicas: one for each GPU; on a laptop 2, see configs/local.yaml.",
    )
    denoiser_autoscaling: Autoscaling | None = Field(
        None, description="Follow the backlog instead of keeping `denoiser_replicas`."
    )
    drain_s: float = Field(
        120,
        gt=0,
        description="Seconds that a replica told to stop has for its work; then its tiles go to others.",
    )
    cpu_stage_replicas: int = Field(
        1,
        gt=0,
        description="Replicas of preprocess and of postprocess; one feeds several denoisers.",
    )

"""Settings: frozen groups whose every field states its unit, default and reason.

They are the `args` of the Ray Serve application (`configs/*.yaml`) and the defaults of the CLI. An unknown
name or a bad value fails at start with the field's name. What a caller may choose for one request is in
`contracts`; what a model chooses for itself is in its `tessera.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.errors import ConfigurationError


class Group(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageLimits(Group):
    """What a picture may weigh, judged from its header before a pixel is decoded."""

    upload_bytes: int = Field(
        64 * 2**20,
        gt=0,
        description="Bytes of one uploaded file; holds a 50 MP PNG of a photograph.",
    )
    source_pixels: int = Field(
        50_000_000,
        gt=0,
        description="Pixels of a source; today's largest common camera sensors stay under it.",
    )
    result_pixels: int = Field(
        200_000_000,
        gt=0,
        description="Pixels of a result; 2.4 GB as 32-bit colour while it is put together.",
    )


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
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads of a step; None divides the process's cores among the denoiser replicas.",
    )


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
    cpu_stage_replicas: int = Field(
        1,
        gt=0,
        description="Replicas of preprocess and of postprocess; one feeds several denoisers.",
    )


class Settings(Group):
    """Everything that can be set when the application starts."""

    model: str = Field(
        "mini", description="A model shipped in serve_app/models by name, or a model folder's path."
    )
    images: ImageLimits = ImageLimits()
    requests: RequestSettings = RequestSettings()
    engine: EngineSettings = EngineSettings()
    deployments: DeploymentSettings = DeploymentSettings()

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Reads settings that came from a file or a command line.

        Raises:
            ConfigurationError: naming the field at fault.
        """
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in fault["loc"])
            raise ConfigurationError(f"{name}: {fault['msg']}", field=name) from None

"""Settings: frozen groups whose every field states its unit, default and reason.

They are the `args` of the Ray Serve application (`configs/*.yaml`) and the defaults of the CLI. An unknown
name or a bad value fails at start with the field's name. What a caller may choose for one request is in
`contracts`; what a model chooses for itself is in its `tessera.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from serve_app.errors import ConfigurationError
from serve_app.fetch.settings import FetchSettings
from serve_app.presets import SHIPPED, Presets


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
    metadata_bytes: int = Field(
        8 * 2**20,
        gt=0,
        description="Bytes of one colour profile, EXIF or XMP block; scanners' profiles reach 2 MB.",
    )
    decode_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds to decode one file; 50 MP take 1 to 10. Then the decoder is replaced.",
    )
    decode_memory_bytes: int = Field(
        3 * 2**30,
        ge=2**29,
        description="Address space of the decoder's process, the decoded picture included.",
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
    presets: Presets = Field(
        SHIPPED,
        description="Parameters under a name, beside the shipped ones; null takes one away: docs/presets.md.",
    )


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


def _named_model(value: Any) -> Any:
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


class Settings(Group):
    """Everything that can be set when the application starts."""

    model: Annotated[ModelSettings, BeforeValidator(_named_model)] = ModelSettings()
    prompts: PromptSettings = PromptSettings()
    images: ImageLimits = ImageLimits()
    fetch: FetchSettings = FetchSettings()
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

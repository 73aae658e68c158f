"""The JSON that Stable Diffusion web UI's clients send and read, as far as it is about upscaling.

Source: the interface of AUTOMATIC1111's `/sdapi/v1`, as its public clients use it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Extras(BaseModel):
    """What both upscaling requests share; other members are passed over."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    resize_mode: Literal[0, 1] = Field(0, description="0: by a factor; 1: to fit a size.")
    upscaling_resize: float = Field(2, description="The factor, 1 to 8.")
    upscaling_resize_w: int = Field(512, description="px; the result fits inside.")
    upscaling_resize_h: int = Field(512, description="px; the result fits inside.")
    upscaler_1: str = Field("None", description="A model's name; `None` is the default model.")


class SingleImage(Extras):
    """The body of `extra-single-image`."""

    image: str = Field(description="A picture in base64, alone or as a `data:` URL.")


class FileData(BaseModel):
    """One picture of a batch."""

    model_config = ConfigDict(extra="ignore")

    data: str = Field(description="A picture in base64, alone or as a `data:` URL.")
    name: str = ""


class BatchImages(Extras):
    """The body of `extra-batch-images`."""

    imageList: list[FileData] = Field(min_length=1, max_length=32)  # noqa: N815  the dialect's name


class SingleAnswer(BaseModel):
    """One result."""

    html_info: str
    image: str = Field(description="A PNG in base64.")


class BatchAnswer(BaseModel):
    """The results, in the order of what was sent."""

    html_info: str
    images: list[str] = Field(description="PNGs in base64.")


class UpscalerItem(BaseModel):
    """A model."""

    name: str
    model_name: str | None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None


class ModelItem(BaseModel):
    """A model as a checkpoint."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class SamplerItem(BaseModel):
    """How steps are taken."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class ProgressState(BaseModel):
    """What runs now."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = Field(description="Pictures that have not ended.")
    job_timestamp: str = "0"
    job_no: int = Field(0, description="Pictures that have ended.")
    sampling_step: int = Field(description="Steps done of the pictures at work, or tiles in a job.")
    sampling_steps: int


class ProgressAnswer(BaseModel):
    """How far this tenant's requests of this dialect are."""

    progress: float = Field(ge=0, le=1)
    eta_relative: float = Field(description="Seconds left at the pace so far.")
    state: ProgressState
    current_image: str | None = Field(None, description="A small JPEG in base64.")
    textinfo: str | None = None


class Options(BaseModel):
    """The few options that there are; others are passed over."""

    model_config = ConfigDict(extra="ignore")

    sd_model_checkpoint: str | None = Field(None, description="A model's name.")


class OptionsAnswer(BaseModel):
    """The options as they stand."""

    sd_model_checkpoint: str
    samples_format: str = "png"


class Scripts(BaseModel):
    """Extensions: none."""

    txt2img: list[str] = []
    img2img: list[str] = []


class Nothing(BaseModel):
    """It was done."""


class SdError(BaseModel):
    """An error as this dialect's clients read it."""

    error: str
    detail: str
    body: str = ""
    errors: str


def sd_error(title: str, detail: str) -> dict[str, Any]:
    """An error's members."""
    return SdError(error=title, detail=detail, errors=detail).model_dump()

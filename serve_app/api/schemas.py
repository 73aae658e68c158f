"""The JSON that leaves the HTTP door, with examples for /docs.

What comes in is `UpscaleParams` in `contracts`; it is not written twice. These records hold no behaviour
and refuse to know status codes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from serve_app.contracts import FidelityReport, ModelInfo, ResolvedParams, UpscaleParams
from serve_app.settings import ImageLimits

EXAMPLE_PARAMS: JsonDict = {
    "model": "mini",
    "scale": 4,
    "width": None,
    "height": None,
    "steps": 8,
    "strength": 1,
    "guidance_scale": 3.5,
    "control_scale": 0.6,
    "control_start": 0,
    "control_end": 1,
    "controls": [],
    "lora": "",
    "lora_scale": 1,
    "prompt": "",
    "negative_prompt": "",
    "true_cfg_scale": 1,
    "seed": 42,
    "output_format": "png",
    "quality": 92,
    "preset": "",
    "fidelity": None,
    "color_fix": "wavelet",
    "denoise": 0,
    "bit_depth": None,
    "color_profile": "source",
    "keep_metadata": True,
    "keep_gps": False,
    "max_pixels": None,
    "animated": False,
    "face_safe": False,
}


EXAMPLE_REPORT: JsonDict = {
    "lr_psnr_db": 46.2,
    "color_error_mean": 0.31,
    "color_error_p99": 1.4,
    "edge_agreement": 0.004,
    "seam_energy": 1.01,
    "fidelity": 1.0,
    "noise": 0.003,
    "blocking": 0.02,
    "tiles_retried": 0,
    "tiles_replaced": 0,
    "warnings": [],
}


class Answer(BaseModel):
    """A frozen record of something sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UpscaleAnswer(Answer):
    """The result as JSON, and the data of the stream's `result` event."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "image_base64": "iVBORw0KGgo...",
                "media_type": "image/png",
                "width": 1024,
                "height": 768,
                "source_width": 256,
                "source_height": 192,
                "tiles": 20,
                "tiles_retried": 0,
                "params": EXAMPLE_PARAMS,
                "timings_ms": {"prepare": 12.3, "denoise": 8120.4, "finish": 95.1},
                "request_id": "7f0f3f6c2f5a4c1e8a4a3c0d5b1e9f00",
                "report": EXAMPLE_REPORT,
                "frames": 1,
            }
        }
    )

    image_base64: str = Field(description="The encoded picture in base64.")
    media_type: str = Field(description="Media type of the encoded picture.")
    width: int = Field(description="Width of the result, px.")
    height: int = Field(description="Height of the result, px.")
    source_width: int = Field(description="Width of the source, upright, px.")
    source_height: int = Field(description="Height of the source, upright, px.")
    tiles: int = Field(description="Tiles that the picture was cut into.")
    tiles_retried: int = Field(description="Tiles that were computed again after a fault.")
    params: ResolvedParams = Field(description="Every parameter as it was run; send it to repeat.")
    timings_ms: dict[str, float] = Field(description="Time of each stage, ms.")
    request_id: str = Field(description="The id that the server's log knows this request by.")
    report: FidelityReport | None = Field(
        None, description="How faithful the result is to its source."
    )
    frames: int = Field(1, description="Frames of the result: more than 1 where it moves.")


class Problem(Answer):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:tessera:problem:invalid-parameter",
                "title": "Invalid parameter",
                "status": 422,
                "detail": "steps: Input should be greater than or equal to 1; allowed: 1 to 100",
                "request_id": "7f0f3f6c2f5a4c1e8a4a3c0d5b1e9f00",
                "field": "steps",
                "allowed": "1 to 100",
            }
        }
    )

    type: str = Field(description="A urn that names the kind of problem.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, for the person who can change it.")
    request_id: str = Field(description="The id that the server's log knows this request by.")
    field: str | None = Field(None, description="The parameter, part or header at fault.")
    allowed: str | None = Field(None, description="What would have been accepted.")
    retry_after_s: float | None = Field(
        None, description="Seconds after which another try makes sense."
    )


class ModelName(Answer):
    """A model in the words of OpenAI's clients."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Not known: 0.")
    owned_by: str = "tessera"


class ModelList(Answer):
    """The models that can be asked for, and what a picture may weigh."""

    object: Literal["list"] = "list"
    data: list[ModelName] = Field(description="Their names alone, for OpenAI's clients.")

    models: list[ModelInfo]
    default: str = Field(description="Name of the model that runs when none is asked for.")
    presets: dict[str, UpscaleParams] = Field(
        description="Parameters under a name; null leaves one open."
    )
    limits: ImageLimits


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """Whether a denoiser is warm; sent with 200 when it is, with 503 when not."""

    status: Literal["ready", "not ready"]

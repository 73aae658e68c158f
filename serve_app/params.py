"""The parameters that a caller may give, their ranges and how they are read. Part of `contracts`.

Ranges are enforced here and nowhere else. A parameter that is None means "the model's default".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from serve_app.choices import ColorFix, ColorProfile, OutputFormat
from serve_app.errors import InvalidParameter

MAX_SEED = 2**63 - 1


class Contract(BaseModel):
    """A frozen record that refuses unknown fields, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool)]


class ControlParams(Contract):
    """One more ControlNet beside `upscale`, by the name under which the model offers it."""

    name: str = Field(min_length=1, max_length=50)
    scale: Float | None = Field(None, ge=0, le=2, description="How strongly it holds.")
    start: Float | None = Field(
        None, ge=0, le=1, description="Fraction of the steps at which it begins."
    )
    end: Float | None = Field(
        None, ge=0, le=1, description="Fraction of the steps at which it ends."
    )


def _from_json(value: Any) -> Any:
    """A form sends a list as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("not a list, and not the JSON text of one") from None


class UpscaleParams(Contract):
    """What a caller may ask for. None everywhere means: the model's default."""

    model: str | None = Field(
        None, max_length=200, description="Name of the model; the server's first if absent."
    )
    scale: Float | None = Field(
        None, ge=1, le=8, description="Enlargement of each side; any number from 1 to 8."
    )
    width: Int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Fit the result inside this width, px; the aspect ratio is kept.",
    )
    height: Int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Fit the result inside this height, px; the aspect ratio is kept.",
    )
    steps: Int | None = Field(None, ge=1, le=100, description="Denoising steps for each tile.")
    strength: Float | None = Field(
        None,
        gt=0,
        le=1,
        description="1 starts from pure noise; lower starts from the noised source and stays nearer.",
    )
    guidance_scale: Float | None = Field(
        None, ge=0, le=30, description="Distilled guidance, for models that embed it."
    )
    control_scale: Float | None = Field(
        None, ge=0, le=2, description="How strongly the ControlNet holds the source."
    )
    control_start: Float | None = Field(
        None, ge=0, le=1, description="Fraction of the steps at which control begins."
    )
    control_end: Float | None = Field(
        None, ge=0, le=1, description="Fraction of the steps at which control ends."
    )
    controls: Annotated[tuple[ControlParams, ...], BeforeValidator(_from_json)] | None = Field(
        None,
        max_length=8,
        description="More ControlNets, each with `name` and, if wished, `scale`, `start`, `end`.",
    )
    lora: str | None = Field(
        None, max_length=200, description="Name of a LoRA adapter that the server offers."
    )
    lora_scale: Float | None = Field(
        None, ge=0, le=2, description="How strongly the adapter acts; 1 if absent."
    )
    prompt: str | None = Field(
        None, max_length=4000, description="What the picture shows, for models that read it."
    )
    negative_prompt: str | None = Field(
        None,
        max_length=4000,
        description="What to steer away from; acts when true_cfg_scale is above 1.",
    )
    true_cfg_scale: Float | None = Field(
        None,
        ge=1,
        le=20,
        description="Classifier-free guidance against the negative prompt; 1 is off.",
    )
    seed: Int | None = Field(
        None, ge=0, le=MAX_SEED, description="Seed of the noise; drawn and reported if absent."
    )
    output_format: OutputFormat | None = Field(None, description="File format of the result.")
    quality: Int | None = Field(
        None, ge=1, le=100, description="Quality of a JPEG, WebP, AVIF or JPEG XL result."
    )
    preset: str | None = Field(
        None,
        max_length=50,
        description="Name of a set of parameters that the server offers; what is given beside it wins.",
    )
    fidelity: Float | None = Field(
        None,
        ge=0,
        le=1,
        description="How firmly the result is tied to its source; lowered for noisy sources if absent.",
    )
    color_fix: ColorFix | None = Field(
        None, description="How the result's colours are brought back to the source's."
    )
    denoise: Float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much noise and blocking is taken out of the source before it is enlarged.",
    )
    bit_depth: Int | None = Field(
        None,
        ge=8,
        le=16,
        description="Bits of a sample, 8 or 16; the source's, where the format holds them, if absent.",
    )
    color_profile: ColorProfile | None = Field(
        None, description="Store the result in its source's colour profile, or in sRGB."
    )
    keep_metadata: bool | None = Field(
        None, description="Carry the source's EXIF and XMP over; true if absent."
    )
    keep_gps: bool | None = Field(
        None, description="Carry the place where the picture was taken over, too; false if absent."
    )
    max_pixels: Int | None = Field(
        None, ge=1, le=2**40, description="Most pixels of the result; lowers the server's limit."
    )

    animated: bool | None = Field(
        None,
        description="Enlarge all frames of a moving picture, not the first alone; false if absent.",
    )
    face_safe: bool | None = Field(
        None,
        description="Halve `strength` where a face is found, to stay nearer to the source; false if absent.",
    )

    @field_validator("bit_depth")
    @classmethod
    def _known_depth(cls, value: int | None) -> int | None:
        if value not in (None, 8, 16):
            raise ValueError(f"{value} bits are not written")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise ValueError("scale: give either scale or width/height, not both")
        if (
            self.control_start is not None
            and self.control_end is not None
            and self.control_start >= self.control_end
        ):
            raise ValueError("control_start: must be below control_end")
        return self

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Reads parameters that came from outside.

        Args:
            raw: Names and values; numbers may be strings, as forms send them.

        Raises:
            InvalidParameter: naming the field at fault and what is allowed.
        """
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            raise _first_fault(cls, error) from None


def _first_fault(cls: type[BaseModel], error: ValidationError) -> InvalidParameter:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:  # a rule between fields; its message begins with the field's name
        message = fault["msg"].removeprefix("Value error, ")
        return InvalidParameter(message, field=message.split(":")[0])
    name = str(fault["loc"][0])
    if name not in cls.model_fields:
        known = ", ".join(cls.model_fields)
        return InvalidParameter(f"{name}: no such parameter", field=name, allowed=f"one of {known}")
    allowed = allowed_range(cls, name)
    message = fault["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in fault["loc"])
    return InvalidParameter(f"{place}: {message}; allowed: {allowed}", field=name, allowed=allowed)


_IN_WORDS = {
    "output_format": "one of " + ", ".join(OutputFormat),
    "color_fix": "one of " + ", ".join(ColorFix),
    "color_profile": "one of " + ", ".join(ColorProfile),
    "bit_depth": "8 or 16",
    "keep_metadata": "true or false",
    "keep_gps": "true or false",
    "animated": "true or false",
    "face_safe": "true or false",
    "controls": "a list of at most 8 objects",
}


def allowed_range(cls: type[BaseModel], name: str) -> str:
    """Says in words what a field accepts, from its own declaration: `1 to 8`, `one of png, jpeg, webp`."""
    field = cls.model_fields[name]
    if name in _IN_WORDS:
        return _IN_WORDS[name]
    bounds = {
        key: getattr(rule, key)
        for rule in field.metadata
        for key in ("ge", "gt", "le")
        if hasattr(rule, key)
    }
    if "le" in bounds:
        low = f"{bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}"
        return f"{low} to {bounds['le']}"
    limit = next((rule.max_length for rule in field.metadata if hasattr(rule, "max_length")), None)
    return f"a text of at most {limit} characters"

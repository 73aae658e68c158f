"""The JSON that OpenAI's clients read about edited pictures.

Source: OpenAI's API reference of `/v1/images/edits`. It holds no behaviour.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from serve_app.api.schemas import Problem
from serve_app.contracts import OutputFormat


class TokenDetails(BaseModel):
    """Tokens by kind: none are counted."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(BaseModel):
    """Tokens: none are counted."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class EditedImage(BaseModel):
    """One result."""

    b64_json: str | None = Field(None, description="The encoded picture in base64.")
    url: str | None = Field(None, description="Where it lies, if `response_format` is `url`.")


class ImagesAnswer(BaseModel):
    """The results."""

    created: int = Field(description="Seconds since 1970.")
    data: list[EditedImage]
    output_format: OutputFormat
    size: str = Field(description="WIDTHxHEIGHT, px.")
    usage: Usage = Usage()


class ImageEvent(BaseModel):
    """A server-sent event: a small picture of what is there so far, or the result."""

    type: Literal["image_edit.partial_image", "image_edit.completed"]
    b64_json: str
    created_at: int = Field(description="Seconds since 1970.")
    background: Literal["auto"] = "auto"
    output_format: str
    quality: Literal["auto"] = "auto"
    size: str
    partial_image_index: int | None = None
    usage: Usage | None = None


class ErrorMembers(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """An error as this dialect's clients read it."""

    error: ErrorMembers


def openai_error(document: Problem) -> dict[str, Any]:
    """A problem document in this dialect's words."""
    kind = "invalid_request_error" if document.status < 500 else "server_error"
    if document.status == 429:
        kind = "rate_limit_error"
    members = ErrorMembers(
        message=document.detail,
        type=kind,
        param=document.field,
        code=document.type.rsplit(":", 1)[-1],
    )
    return ErrorAnswer(error=members).model_dump()

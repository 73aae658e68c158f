"""OpenAI's way to have a picture made from a picture: `POST /v1/images/edits`, and one model by its name.

It refuses to know how a form is read and a picture upscaled.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from serve_app.api.body import tenant_of
from serve_app.api.dialects.errand import Errands, Made
from serve_app.api.dialects.openai_form import edit_body, read_edit
from serve_app.api.dialects.openai_schemas import (
    EditedImage,
    ErrorAnswer,
    ImagesAnswer,
    openai_error,
)
from serve_app.api.dialects.openai_stream import EditStream
from serve_app.api.dialects.speaking import speaking
from serve_app.api.negotiation import EVENTS
from serve_app.api.openapi import UPSCALING, failures
from serve_app.api.presence import while_connected
from serve_app.api.problems import Problems
from serve_app.api.schemas import ModelName
from serve_app.contracts import OutputFormat, Upscaler, UpscaleRequest
from serve_app.errors import InvalidParameter, NotFound
from serve_app.settings import Settings


def openai_routes(
    upscaler: Upscaler, errands: Errands, settings: Settings, problems: Problems
) -> APIRouter:
    """The dialect; `GET /v1/models` is in `api.routes`."""
    router = APIRouter(tags=["dialect: OpenAI"], route_class=speaking(problems, openai_error))

    @router.post(
        "/v1/images/edits",
        response_model=ImagesAnswer,
        responses=_answers(),
        openapi_extra=edit_body(),
    )
    async def edit_image(request: Request) -> Any:
        """Upscales a picture; `prompt` counts where the model reads prompts. With `stream`, events."""
        tenant, request_id = tenant_of(request.headers), request.state.request_id
        edit = await read_edit(request, upscaler, settings.images.upload_bytes)
        if edit.as_url and not errands.keeps:
            raise InvalidParameter(
                "response_format: results are not kept here",
                field="response_format",
                allowed="b64_json",
            )

        def asked(number: int = 0) -> UpscaleRequest:
            name = f"{request_id}-{number}" if number else request_id
            return UpscaleRequest(
                image=edit.image, params=edit.params, tenant=tenant, request_id=name
            )

        if edit.stream:
            return EditStream(errands, asked(), edit.partial_images, problems)

        async def work() -> list[Made]:
            run = errands.run_seen if edit.as_url else errands.run
            return [await run(asked(number)) for number in range(edit.count)]

        made = await while_connected(request.receive, work())
        return ImagesAnswer(
            created=int(time.time()),
            data=[_said(one, str(request.base_url).rstrip("/"), edit.as_url) for one in made],
            output_format=OutputFormat(made[0].media_type.split("/")[1]),
            size=_size(made[0]),
        )

    @router.get("/v1/models/{name}", responses=failures(ErrorAnswer, 404, 422, 500))
    async def one_model(name: str) -> ModelName:
        """A model, by its name."""
        if name not in [model.name for model in await upscaler.models()]:
            raise NotFound(f"there is no model {name[:40]!r}", field="model")
        return ModelName(id=name)

    return router


def _said(made: Made, base: str, as_url: bool) -> EditedImage:
    if as_url:
        return EditedImage(url=f"{base}{made.path}")
    return EditedImage(b64_json=base64.b64encode(made.image).decode("ascii"))


def _size(made: Made) -> str:
    return f"{made.width}x{made.height}"


def _answers() -> dict[int | str, dict[str, Any]]:
    stream = {EVENTS: {"schema": {"type": "string"}}}
    done = {200: {"description": "The results, or events as they come.", "content": stream}}
    return done | failures(ErrorAnswer, *UPSCALING)

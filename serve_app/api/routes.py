"""The routes of the HTTP door, each a few lines: read, call the `Upscaler`, answer.

It refuses to know how bodies are parsed, errors are worded, and pictures are fetched and upscaled.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from serve_app.api.answers import json_response, picture_response
from serve_app.api.body import read_upload, tenant_of
from serve_app.api.events import EventStream
from serve_app.api.negotiation import Shape, choose
from serve_app.api.openapi import upscale_request, upscale_responses
from serve_app.api.presence import while_connected
from serve_app.api.problems import Problems
from serve_app.api.schemas import Health, ModelList, ModelName, Readiness
from serve_app.contracts import ProgressCallback, Upscaler, UpscaleRequest, UpscaleResult
from serve_app.fetch.client import Fetcher
from serve_app.presets import with_preset
from serve_app.settings import Settings


def upscale_routes(
    upscaler: Upscaler, fetcher: Fetcher, settings: Settings, problems: Problems
) -> APIRouter:
    """The main job: `POST /v1/upscale`."""
    router = APIRouter(tags=["upscale"])

    @router.post(
        "/v1/upscale",
        summary="Upscale one picture",
        response_class=Response,
        responses=upscale_responses(),
        openapi_extra=upscale_request(),
    )
    async def upscale(request: Request) -> Response:
        """Send a picture as a form's file, in base64 within JSON, or by URL; get it back enlarged.

        Controls that need a picture of yours take it as the file `control_image_NAME`, or within JSON in
        `control_images_base64`.
        Absent parameters take the model's defaults. `Accept: application/json` answers with JSON,
        `Accept: text/event-stream` with progress and then the same JSON.
        """
        request_id: str = request.state.request_id
        upload = await read_upload(request, settings.images.upload_bytes)
        accept = ",".join(request.headers.getlist("Accept"))
        params = with_preset(upload.params, settings.requests.presets)  # it may name the format
        choice = choose(accept, params.output_format)
        params = params.model_copy(update={"output_format": choice.output_format})
        tenant = tenant_of(request.headers)

        async def work(on_progress: ProgressCallback | None = None) -> UpscaleResult:
            image = upload.image
            if image is None:
                url = upload.image_url or ""
                image = await fetcher.fetch(url, settings.images.upload_bytes, request_id)
            asked = UpscaleRequest(
                image=image,
                control_images=upload.control_images,
                params=params,
                priority=upload.priority,
                tenant=tenant,
                request_id=request_id,
            )
            return await upscaler.upscale(asked, on_progress)

        if choice.shape is Shape.EVENTS:
            return EventStream(work, problems, request_id)
        result = await while_connected(request.receive, work())
        if choice.shape is Shape.JSON:
            return json_response(result)
        return picture_response(result, upload.filename)

    return router


def catalogue_routes(upscaler: Upscaler, settings: Settings) -> APIRouter:
    """What can be asked for: `GET /v1/models`."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="The models, their defaults and limits")
    async def models() -> ModelList:
        """The default model comes first; `limits` holds for pictures of every model."""
        found = await upscaler.models()
        return ModelList(
            data=[ModelName(id=model.name) for model in found],
            models=found,
            default=found[0].name,
            presets=settings.requests.presets,
            limits=settings.images,
        )

    return router


def operations_routes(upscaler: Upscaler, home: str = "docs") -> APIRouter:
    """What an operator and a load balancer ask."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Does the process answer?")
    async def healthz() -> Health:
        """Always 200 while the process answers; says nothing of the denoisers."""
        return Health()

    @router.get("/readyz", summary="Is a denoiser warm?", responses={503: {"model": Readiness}})
    async def readyz() -> Readiness:
        """200 once a denoiser has loaded and warmed its model, 503 before."""
        ready = await upscaler.ready()
        found = Readiness(status="ready" if ready else "not ready")
        # A response is returned as it is; the annotation is for the document.
        return JSONResponse(found.model_dump(), 200 if ready else 503)  # type: ignore[return-value]

    @router.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        """Leads a browser to the page, or to the documentation where there is none."""
        return RedirectResponse(home)

    return router

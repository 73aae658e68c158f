"""Stable Diffusion web UI's way to upscale: `/sdapi/v1/extra-single-image` and what its clients ask beside it.

Progress and interruption are of this process's requests, as a gateway is one process. It refuses to know how a
picture is upscaled.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request

from serve_app.api.body import decode_picture, tenant_of
from serve_app.api.dialects.errand import Errands, Made
from serve_app.api.dialects.sdwebui_schemas import (
    BatchAnswer,
    BatchImages,
    Extras,
    ModelItem,
    Nothing,
    Options,
    OptionsAnswer,
    ProgressAnswer,
    ProgressState,
    SamplerItem,
    Scripts,
    SdError,
    SingleAnswer,
    SingleImage,
    UpscalerItem,
    sd_error,
)
from serve_app.api.dialects.speaking import body_of, read_body, speaking, tenant_parameter
from serve_app.api.openapi import READING, UPSCALING, failures
from serve_app.api.presence import while_connected
from serve_app.api.problems import Problems
from serve_app.contracts import OutputFormat, Progress, UpscaleParams, Upscaler, UpscaleRequest
from serve_app.errors import InvalidParameter, WrongState
from serve_app.settings import Settings

NO_UPSCALER = "None"


@dataclass(eq=False)
class Run:
    """One request at work; `done` of `total` are steps, or tiles in a job, of the picture at hand."""

    tenant: str
    pictures: int
    ended: int = 0
    done: int = 0
    total: int = 0
    preview: bytes | None = None
    task: asyncio.Task[object] | None = None
    interrupted: bool = False

    def on_progress(self, progress: Progress) -> None:
        """See `contracts.ProgressCallback`."""
        self.done, self.total = progress.steps_done, progress.steps_total

    def on_preview(self, jpeg: bytes) -> None:
        """See `errand.OnPreview`."""
        self.preview = jpeg

    def next(self) -> None:
        """A picture has ended."""
        self.ended, self.done, self.preview = self.ended + 1, 0, None

    @property
    def fraction(self) -> float:
        """Of all pictures, 0 to 1."""
        return (self.ended + self.done / max(1, self.total)) / self.pictures


class Shop:
    """Runs this dialect's requests, and knows which run."""

    def __init__(self, errands: Errands, settings: Settings) -> None:
        self._errands = errands
        self._limit_bytes = settings.images.upload_bytes
        self._runs: dict[Run, float] = {}

    async def enlarge(
        self, request: Request, given: Extras, pictures: Sequence[tuple[str, str]]
    ) -> list[Made]:
        """Upscales a request's pictures one after the other.

        Args:
            request: Whose client may go away.
            given: How.
            pictures: Each with its field's name, in base64.

        Raises:
            TesseraError: the first picture's that failed; WrongState where it was interrupted.
        """
        tenant = tenant_of(request.headers)
        params = params_of(given)
        images = [decode_picture(text, name, self._limit_bytes) for name, text in pictures]
        run = Run(tenant, len(images))

        async def work() -> list[Made]:
            run.task = asyncio.current_task()
            try:
                return [await self._one(request, run, image, params) for image in images]
            except asyncio.CancelledError:
                if not run.interrupted:
                    raise
                raise WrongState("The request was interrupted.") from None

        self._runs[run] = time.monotonic()
        try:
            return await while_connected(request.receive, work())
        finally:
            del self._runs[run]

    async def _one(self, request: Request, run: Run, image: bytes, params: UpscaleParams) -> Made:
        request_id = request.state.request_id
        if run.pictures > 1:
            request_id = f"{request_id}-{run.ended}"
        asked = UpscaleRequest(image=image, params=params, tenant=run.tenant, request_id=request_id)
        made = await self._errands.run_seen(asked, run.on_progress, run.on_preview)
        run.next()
        return made

    def progress(self, tenant: str, *, with_image: bool) -> ProgressAnswer:
        """How far a tenant's requests are, taken together."""
        mine = [run for run in self._runs if run.tenant == tenant]
        pictures = sum(run.pictures for run in mine)
        state = ProgressState(
            interrupted=any(run.interrupted for run in mine),
            job="extras" if mine else "",
            job_count=sum(run.pictures - run.ended for run in mine),
            job_no=sum(run.ended for run in mine),
            sampling_step=sum(run.done for run in mine),
            sampling_steps=sum(run.total for run in mine),
        )
        if not mine:
            return ProgressAnswer(progress=0, eta_relative=0, state=state)
        fraction = min(1.0, sum(run.fraction * run.pictures for run in mine) / pictures)
        took_s = time.monotonic() - min(self._runs[run] for run in mine)
        eta_s = took_s / fraction * (1 - fraction) if fraction else 0.0
        previews = [run.preview for run in mine if run.preview is not None]
        shown = _text(previews[-1]) if previews and with_image else None
        return ProgressAnswer(
            progress=fraction, eta_relative=eta_s, state=state, current_image=shown
        )

    def interrupt(self, tenant: str) -> None:
        """Ends a tenant's requests; their tiles are free within a step."""
        for run in self._runs:
            if run.tenant == tenant and run.task is not None:
                run.interrupted = True
                run.task.cancel()


def params_of(given: Extras) -> UpscaleParams:
    """What a body asks for; raises InvalidParameter."""
    fields: dict[str, object] = {"output_format": OutputFormat.PNG}
    if given.resize_mode == 0:
        fields["scale"] = given.upscaling_resize
    else:
        fields |= {"width": given.upscaling_resize_w, "height": given.upscaling_resize_h}
    if given.upscaler_1 not in ("", NO_UPSCALER):
        fields["model"] = given.upscaler_1
    try:
        return UpscaleParams.parse(fields)
    except InvalidParameter as fault:
        named = {"scale": "upscaling_resize", "model": "upscaler_1"}
        sized = {"width": "upscaling_resize_w", "height": "upscaling_resize_h"}
        field = (named | sized).get(fault.field or "", fault.field)
        raise InvalidParameter(
            f"{field}: allowed: {fault.allowed}", field=field, allowed=fault.allowed
        ) from None


def sdwebui_routes(
    upscaler: Upscaler, errands: Errands, settings: Settings, problems: Problems
) -> APIRouter:
    """The dialect."""
    shop = Shop(errands, settings)
    router = APIRouter(
        prefix="/sdapi/v1",
        tags=["dialect: Stable Diffusion web UI"],
        route_class=speaking(problems, lambda found: sd_error(found.title, found.detail)),
    )
    work = {"responses": failures(SdError, *UPSCALING)}
    mine = {
        "responses": failures(SdError, *READING),
        "openapi_extra": {"parameters": tenant_parameter()},
    }
    limit_bytes = settings.images.upload_bytes

    @router.post("/extra-single-image", openapi_extra=body_of(SingleImage), **work)  # type: ignore[arg-type]
    async def extra_single_image(request: Request) -> SingleAnswer:
        """Upscales one picture; the answer comes when it is done."""
        given = await read_body(request, SingleImage, limit_bytes)
        (made,) = await shop.enlarge(request, given, [("image", given.image)])
        return SingleAnswer(html_info=_html([made]), image=_text(made.image))

    @router.post("/extra-batch-images", openapi_extra=body_of(BatchImages), **work)  # type: ignore[arg-type]
    async def extra_batch_images(request: Request) -> BatchAnswer:
        """Upscales some pictures, one after the other; all or none."""
        given = await read_body(request, BatchImages, limit_bytes)
        named = [(f"imageList.{at}.data", file.data) for at, file in enumerate(given.imageList)]
        made = await shop.enlarge(request, given, named)
        return BatchAnswer(html_info=_html(made), images=[_text(one.image) for one in made])

    @router.get("/progress", **mine)  # type: ignore[arg-type]
    async def progress(request: Request, skip_current_image: bool = False) -> ProgressAnswer:
        """Of your requests of this dialect."""
        return shop.progress(tenant_of(request.headers), with_image=not skip_current_image)

    @router.post("/interrupt", **mine)  # type: ignore[arg-type]
    async def interrupt(request: Request) -> Nothing:
        """Ends your requests of this dialect; each is answered with 409."""
        shop.interrupt(tenant_of(request.headers))
        return Nothing()

    _add_catalogue(router, upscaler, settings)
    return router


def _add_catalogue(router: APIRouter, upscaler: Upscaler, settings: Settings) -> None:
    """What clients look up at their start."""
    look_up = {"responses": failures(SdError, 500)}

    @router.get("/upscalers", **look_up)  # type: ignore[arg-type]
    async def upscalers() -> list[UpscalerItem]:
        """`None`, which is the default model, and the models."""
        found = await upscaler.models()
        models = [
            UpscalerItem(name=one.name, model_name=one.name, scale=one.defaults.scale)
            for one in found
        ]
        none = UpscalerItem(name=NO_UPSCALER, model_name=None, scale=found[0].defaults.scale)
        return [none, *models]

    @router.get("/sd-models", **look_up)  # type: ignore[arg-type]
    async def sd_models() -> list[ModelItem]:
        """The models."""
        names = [model.name for model in await upscaler.models()]
        return [ModelItem(title=name, model_name=name, filename=name) for name in names]

    @router.get("/samplers", **look_up)  # type: ignore[arg-type]
    async def samplers() -> list[SamplerItem]:
        """The one way in which steps are taken."""
        return [SamplerItem(name="Euler", aliases=["euler"], options={})]

    @router.get("/scripts", **look_up)  # type: ignore[arg-type]
    async def scripts() -> Scripts:
        """None."""
        return Scripts()

    @router.get("/cmd-flags", **look_up)  # type: ignore[arg-type]
    async def cmd_flags() -> Nothing:
        """None."""
        return Nothing()

    @router.get("/options", **look_up)  # type: ignore[arg-type]
    async def options() -> OptionsAnswer:
        """The default model."""
        return OptionsAnswer(sd_model_checkpoint=(await upscaler.models())[0].name)

    @router.post(
        "/options", openapi_extra=body_of(Options), responses=failures(SdError, *UPSCALING)
    )
    async def set_options(request: Request) -> Nothing:
        """Changes nothing: a request names its model as `upscaler_1`. A model that is not there is refused."""
        tenant_of(request.headers)
        given = await read_body(request, Options, settings.images.upload_bytes)
        names = [model.name for model in await upscaler.models()]
        asked = given.sd_model_checkpoint
        if asked is not None and asked not in names:
            raise InvalidParameter(
                f"sd_model_checkpoint: no model {asked!r}; allowed: {', '.join(names)}",
                field="sd_model_checkpoint",
                allowed=", ".join(names),
            )
        return Nothing()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _html(made: Sequence[Made]) -> str:
    return "".join(f"<p>{one.width} x {one.height} px</p>" for one in made)

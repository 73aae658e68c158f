"""The ingress: HTTP, gRPC and Ray handles in, one `Conductor.upscale()` call each."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from serve_app.api import create_api
from serve_app.api.jobs.desk import Desk
from serve_app.contracts import (
    DEFAULT_TENANT,
    ModelInfo,
    Priority,
    UpscaleParams,
    UpscaleRequest,
    UpscaleResult,
)
from serve_app.deployments.handles import RayDenoiser, RayFinisher, RayPreparer, RayPromptEmbedder
from serve_app.errors import InvalidParameter
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from serve_app.models.cost import StepCost
from serve_app.rpc.service import UpscalerService
from serve_app.settings import Settings
from serve_app.upscale import Conductor


@serve.ingress()
class Gateway:
    """Conducts requests; holds no pixel and no model.

    Args:
        settings: Of the whole application.
        model: The model that the denoisers hold.
        preprocess: Handle of `Preprocess`.
        prompts: Handle of `PromptEncoder`; None where the model takes no prompts.
        denoiser: Handle of `Denoiser`.
        postprocess: Handle of `Postprocess`.
        runner: Handle of `JobRunner`, which is never called: it is here to belong to the graph.
        cost: What the model's steps cost; None where nobody knows.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelInfo,
        preprocess: DeploymentHandle,
        prompts: DeploymentHandle | None,
        denoiser: DeploymentHandle,
        postprocess: DeploymentHandle,
        runner: DeploymentHandle | None = None,
        cost: StepCost | None = None,
    ) -> None:
        self._cost = cost
        self._settings = settings
        self._conductor = Conductor(
            [model],
            RayPreparer(preprocess),
            None if prompts is None else RayPromptEmbedder(prompts),
            RayDenoiser(denoiser),
            RayFinisher(postprocess),
            settings.requests,
        )
        self._service = UpscalerService(self._conductor)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        desk = self._desk() if self._settings.jobs.enabled else None
        parts = (self._conductor, self._settings)
        return create_api(*parts, stamps_request_id=False, desk=desk, cost=self._cost)

    def _desk(self) -> Desk:
        jobs = self._settings.jobs
        blobs = Blobs(jobs.blobs_url, jobs.blobs_options)
        most = jobs.most_attempts
        return Desk(lambda: Store.open(jobs.database_url, most_attempts=most), blobs, jobs)

    async def upscale(
        self,
        image: bytes,
        params: Mapping[str, Any] | None = None,
        control_images: Mapping[str, bytes] | None = None,
        priority: str = Priority.INTERACTIVE,
        tenant: str = DEFAULT_TENANT,
    ) -> UpscaleResult:
        """Upscales one picture for a caller with a Ray handle.

        Args:
            image: The encoded file.
            params: The fields of `UpscaleParams`, such as `{"scale": 2}`.
            control_images: Encoded pictures for controls that take the caller's, by the control's name.
            priority: `interactive` or `batch`.
            tenant: On whose behalf; tenants share the denoisers alike.

        Raises:
            TesseraError: any branch of the tree; Ray delivers it as the cause of a RayTaskError.
        """
        parsed = UpscaleParams.parse(params or {})
        try:
            request = UpscaleRequest(
                image=image,
                control_images=dict(control_images or {}),
                params=parsed,
                priority=Priority(priority),
                tenant=tenant,
                request_id=uuid.uuid4().hex,
            )
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            field = str(fault["loc"][0])
            raise InvalidParameter(f"{field}: {fault['msg']}", field=field) from None
        except ValueError as error:
            allowed = " or ".join(Priority)
            raise InvalidParameter(str(error), field="priority", allowed=allowed) from None
        return await self._conductor.upscale(request)

    async def models(self) -> list[ModelInfo]:
        """The models that can be asked for, the default first, for a caller with a Ray handle."""
        return await self._conductor.models()

    # Serve's gRPC proxy calls the methods of `tessera.proto` by their names there.

    async def Upscale(self, message: Any, grpc_context: RayServegRPCContext) -> Any:  # noqa: N802
        """See `rpc.service`."""
        return await self._service.upscale(message, grpc_context, _request_id(grpc_context))

    async def UpscaleWithProgress(  # noqa: N802
        self, message: Any, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """See `rpc.service`."""
        call = (message, grpc_context, _request_id(grpc_context))
        async with aclosing(self._service.upscale_with_progress(*call)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def Models(self, message: Any, grpc_context: RayServegRPCContext) -> Any:  # noqa: N802
        """See `rpc.service`."""
        return await self._service.models(message, grpc_context, _request_id(grpc_context))


def _request_id(context: RayServegRPCContext) -> str:
    """The caller's own, or the one that the proxy has drawn and sends back."""
    drawn = dict(context.trailing_metadata()).get("request_id")
    return str(context.request_id() or drawn or uuid.uuid4().hex)

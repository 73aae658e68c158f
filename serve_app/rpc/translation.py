"""Messages of `tessera.proto` to the contracts and back, and errors to status codes.

It refuses to know who calls, and how messages travel.
"""

from __future__ import annotations

from typing import Any

import grpc
from pydantic import ValidationError

from serve_app import errors
from serve_app.contracts import (
    DEFAULT_TENANT,
    ModelInfo,
    Priority,
    Progress,
    UpscaleParams,
    UpscaleRequest,
    UpscaleResult,
)
from serve_app.rpc import tessera_pb2 as pb

STATUS: dict[type[errors.TesseraError], grpc.StatusCode] = {
    errors.TesseraError: grpc.StatusCode.INTERNAL,
    errors.RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ReplicaLost: grpc.StatusCode.UNAVAILABLE,
}
"""An error has its own class's status, or its nearest ancestor's."""
_SHARED = ("media_type", "width", "height", "source_width", "source_height", "tiles")
_ALSO_SHARED = ("tiles_retried", "frames", "timings_s", "request_id")


def status_of(error: errors.TesseraError) -> grpc.StatusCode:
    """The status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def sentence_of(error: errors.TesseraError, request_id: str) -> str:
    """What a caller is told: what was wrong, what is allowed, when to try again, and the request's id."""
    if isinstance(error, errors.ConfigurationError):  # may name files of the server
        return f"The server is set up wrongly; its log has the reason (request {request_id})"
    told = error.detail
    if error.allowed is not None and error.allowed not in told:
        told = f"{told}; allowed: {error.allowed}"
    if error.retry_after_s is not None:
        told = f"{told}; try again in {error.retry_after_s:g} s"
    return f"{told} (request {request_id})"


def params_of(message: Any) -> UpscaleParams:
    """The parameters that are there; raises InvalidParameter."""
    return UpscaleParams.parse(_given(message))


def request_of(message: Any, request_id: str) -> UpscaleRequest:
    """A request in the contract's words.

    Raises:
        InvalidParameter: naming the field at fault.
    """
    params = params_of(message.params)
    priority = message.priority or Priority.INTERACTIVE.value
    if priority not in list(Priority):
        allowed = " or ".join(Priority)
        raise errors.InvalidParameter(
            f"priority: {priority!r} is not known", field="priority", allowed=allowed
        )
    try:
        return UpscaleRequest(
            image=message.image,
            control_images=dict(message.control_images),
            params=params,
            priority=Priority(priority),
            tenant=message.tenant or DEFAULT_TENANT,
            request_id=request_id,
            timeout_s=message.timeout_s if message.HasField("timeout_s") else None,
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = str(fault["loc"][0])
        raise errors.InvalidParameter(f"{field}: {fault['msg']}", field=field) from None


def result_message(result: UpscaleResult) -> Any:
    """A result as its message."""
    facts = {name: getattr(result, name) for name in (*_SHARED, *_ALSO_SHARED)}
    report = None
    if result.report is not None:
        names = [field.name for field in pb.FidelityReport.DESCRIPTOR.fields]
        report = pb.FidelityReport(**{name: getattr(result.report, name) for name in names})
    known = {field.name for field in pb.Params.DESCRIPTOR.fields}
    found = result.params.model_dump(mode="json", exclude_none=True)
    params = pb.Params(**{name: found[name] for name in known & found.keys() if name != "controls"})
    for control in found.get("controls", ()):
        names = [field.name for field in pb.Control.DESCRIPTOR.fields]
        params.controls.add(**{name: control[name] for name in names if name in control})
    return pb.UpscaleResult(image=result.image, params=params, report=report, **facts)


def progress_message(progress: Progress) -> Any:
    """Progress as its message."""
    return pb.Progress(**progress.model_dump())


def models_message(models: list[ModelInfo]) -> Any:
    """Models as their message."""
    names = ("name", "description", "license", "tile_px", "overlap_px", "takes_prompt", "loras")
    return pb.ModelsResult(
        models=[
            pb.Model(controls=list(model.controls), **{n: getattr(model, n) for n in names})
            for model in models
        ]
    )


def _given(message: Any) -> dict[str, Any]:
    """The fields of a message that were set, by name."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        found[field.name] = [_given(one) for one in value] if field.name == "controls" else value
    return found

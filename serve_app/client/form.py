"""What is asked for, as a form that the server reads. It refuses to know how it is sent."""

from __future__ import annotations

import json

from serve_app.contracts import Priority, UpscaleParams, UpscaleRequest


def files_of(request: UpscaleRequest) -> dict[str, tuple[str, bytes, str]]:
    """A request's pictures, as a form's files."""
    pictures = {f"control_image_{name}": data for name, data in request.control_images.items()}
    pictures["image"] = request.image
    return {name: (name, data, "application/octet-stream") for name, data in pictures.items()}


def fields_of(params: UpscaleParams, priority: Priority | None = None) -> dict[str, str]:
    """What is asked for, as a form's fields."""
    given = params.model_dump(mode="json", exclude_none=True)
    if priority is not None:
        given["priority"] = priority.value
    return {n: json.dumps(v) if isinstance(v, list) else str(v) for n, v in given.items()}

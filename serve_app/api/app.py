"""Puts the HTTP door together: `create_api(upscaler, settings)` is an ASGI application.

It refuses to know where the `Upscaler` runs, and builds none.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from serve_app import __version__
from serve_app.api.dialects import dialect_routes
from serve_app.api.edge import Edge
from serve_app.api.jobs.deliveries import delivery_routes
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.routes import file_routes, job_routes
from serve_app.api.metrics import metrics_routes
from serve_app.api.openapi import describe
from serve_app.api.plan import plan_routes
from serve_app.api.problems import Problems, install_problems
from serve_app.api.routes import catalogue_routes, operations_routes, upscale_routes
from serve_app.contracts import Upscaler
from serve_app.fetch.client import Fetcher
from serve_app.fetch.wire import Internet
from serve_app.models.cost import StepCost
from serve_app.settings import Settings

_DESCRIPTION = """\
Upscales a picture with a diffusion transformer and a ControlNet, and keeps its structure.

    curl -F image=@photo.jpg -F scale=4 http://localhost:8000/v1/upscale -o photo-4x.png

Errors are `application/problem+json` (RFC 9457): `field` names what to change, `allowed` to what.
"""


def create_api(
    upscaler: Upscaler,
    settings: Settings,
    *,
    stamps_request_id: bool = True,
    internet: Internet | None = None,
    desk: Desk | None = None,
    cost: StepCost | None = None,
) -> FastAPI:
    """Builds the HTTP application around an `Upscaler`.

    Args:
        upscaler: Makes the one call behind every route.
        settings: Its limits and waiting times are enforced and told here.
        stamps_request_id: False behind a proxy that adds `X-Request-Id` to every response itself, as
            Ray Serve's does; the header would otherwise be there twice.
        internet: What `image_url` reaches, for tests; None is the real one.
        desk: The way to jobs; None offers none.
        cost: What the model's steps cost; None where nobody knows.
    """
    app = FastAPIOffline(
        title="Tessera",
        version=__version__,
        summary="A picture upscaler that keeps a picture's structure.",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    problems = Problems(settings.requests.retry_after_s)
    install_problems(app, problems)
    app.add_middleware(Edge, problems=problems, stamps_request_id=stamps_request_id)
    fetcher = Fetcher(settings.fetch, internet)
    app.include_router(upscale_routes(upscaler, fetcher, settings, problems))
    app.include_router(plan_routes(upscaler, fetcher, desk, settings, cost))
    if desk is not None:
        app.include_router(job_routes(upscaler, desk, settings))
        app.include_router(file_routes(desk))
        app.include_router(delivery_routes(desk))
        app.include_router(metrics_routes(desk))
    app.include_router(catalogue_routes(upscaler, settings))
    app.include_router(operations_routes(upscaler, settings.home))
    for router in dialect_routes(upscaler, desk, settings, problems):
        app.include_router(router)
    describe(app)
    return app

"""A running Tessera server for Python programs, with httpx and pydantic alone: no Ray, no torch.

`Client` and `AsyncClient` are what programs use; `HttpUpscaler` is the same server as an `Upscaler`, and
`JobsClient` its jobs as the JSON that it sends. The room refuses to know the server's code.
"""

from serve_app.client.asynchronous import AsyncClient, AsyncJob
from serve_app.client.connection import ServerUnreachable
from serve_app.client.jobs import JobEvent, JobsClient, Json
from serve_app.client.pictures import Named, PictureLike, Upscaled
from serve_app.client.records import ENDED, Item, Job, Plan, Result
from serve_app.client.synchronous import Client, ClientJob
from serve_app.client.upload import Submission
from serve_app.client.upscaler import HttpUpscaler
from serve_app.contracts import Progress, UpscaleParams
from serve_app.errors import TesseraError

__all__ = [
    "ENDED",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ClientJob",
    "HttpUpscaler",
    "Item",
    "Job",
    "JobEvent",
    "JobsClient",
    "Json",
    "Named",
    "PictureLike",
    "Plan",
    "Progress",
    "Result",
    "ServerUnreachable",
    "Submission",
    "TesseraError",
    "UpscaleParams",
    "Upscaled",
]

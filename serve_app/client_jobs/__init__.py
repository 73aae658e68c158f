"""A running server's jobs over HTTP, for whoever writes a program around them; `cli` is one."""

from serve_app.client_jobs.client import ENDED, JobEvent, JobsClient, Json
from serve_app.client_jobs.upload import Submission

__all__ = ["ENDED", "JobEvent", "JobsClient", "Json", "Submission"]

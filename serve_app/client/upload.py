"""What becomes a job, and its body: files are read while they are sent, a piece at a time.

It refuses to know what is answered.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.client.form import fields_of
from serve_app.client.pictures import Named
from serve_app.contracts import Priority, UpscaleParams

_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Submission:
    """Pictures that become one job, in this order.

    Attributes:
        pictures: Their files, or their bytes with a name.
        params: Of all of them.
        control_images: Pictures of the caller's, by their control's name.
        priority: Of the job.
        key: Submitted twice under one key, it is one job.
        webhook_url: Told when it has ended.
    """

    pictures: Sequence[Path | Named]
    params: UpscaleParams = field(default_factory=UpscaleParams)
    control_images: Mapping[str, bytes] = field(default_factory=dict)
    priority: Priority = Priority.BATCH
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    webhook_url: str | None = None


async def body_of(submission: Submission, boundary: str) -> AsyncIterator[bytes]:
    """The `multipart/form-data` of a submission; raises OSError where a file cannot be read."""
    fields = fields_of(submission.params, submission.priority)
    if submission.webhook_url is not None:
        fields["webhook_url"] = submission.webhook_url
    for name, text in fields.items():
        yield _head(boundary, name) + text.encode() + b"\r\n"
    for name, data in submission.control_images.items():
        yield _head(boundary, f"control_image_{name}", name) + data + b"\r\n"
    for picture in submission.pictures:
        if isinstance(picture, Named):
            yield _head(boundary, "images", picture.name) + picture.data + b"\r\n"
            continue
        with await asyncio.to_thread(picture.open, "rb") as file:
            yield _head(boundary, "images", picture.name)
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _head(boundary: str, name: str, filename: str | None = None) -> bytes:
    """What stands before a part; names are escaped as browsers do."""
    told = {"name": name} if filename is None else {"name": name, "filename": filename}
    escapes = {ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"}
    words = "".join(f'; {key}="{value.translate(escapes)}"' for key, value in told.items())
    kind = "" if filename is None else "Content-Type: application/octet-stream\r\n"
    head = f"--{boundary}\r\nContent-Disposition: form-data{words}\r\n{kind}\r\n"
    return head.encode("utf-8", "replace")

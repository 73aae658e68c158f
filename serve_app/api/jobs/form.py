"""Collects a job's `multipart/form-data` as it arrives: one picture at a time in memory, an archive on a disk.

It refuses to know what the parts are for, and where pictures go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.api.multipart import CONTROL_IMAGE_PREFIX, Form, over_limit
from serve_app.errors import InvalidParameter, RequestError, TooLarge

IMAGE_FIELDS = ("image", "images")
ARCHIVE_FIELD = "archive"
TEXT_BYTES = 8 * 2**20
"""Bytes of all texts together: parameters for each of ten thousand pictures."""


@dataclass(frozen=True, slots=True)
class File:
    """A picture as it came: its part's name, its own, untrusted, and its bytes."""

    field: str
    filename: str
    data: bytes


class JobForm(Form):
    """The parts of one body.

    Args:
        limit_bytes: Of one picture.
        spool: Takes the archive's bytes.
    """

    def __init__(self, limit_bytes: int, spool: IO[bytes]) -> None:
        super().__init__(limit_bytes)
        self.spool = spool
        self.has_archive = False
        self.arrived: list[File] = []
        self._text_bytes = 0

    def on_headers_finished(self) -> None:
        """Opens a part; see `Form`."""
        disposition, self._disposition = self._disposition, b""
        _, options = parse_options_header(disposition)
        if b"name" not in options:
            raise RequestError("A part of the multipart body has no name.", field="body")
        name = options[b"name"].decode("utf-8", "replace")
        is_file = b"filename" in options or b"filename*=" in disposition.lower()
        if is_file is not _is_file(name):
            wanted = "a file, with a filename" if _is_file(name) else "a text"
            raise InvalidParameter(f"{name}: must be sent as {wanted}", field=name, allowed=wanted)
        if name in self.texts or (name == ARCHIVE_FIELD and self.has_archive):
            raise InvalidParameter(f"{name}: given twice", field=name, allowed="once")
        self.has_archive |= name == ARCHIVE_FIELD
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._name = name
        self._data = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Takes a piece of a part; raises TooLarge."""
        if self._name == ARCHIVE_FIELD:
            self.spool.write(data[start:end])
            return
        if not _is_file(self._name):
            self._text_bytes += end - start
            if self._text_bytes > TEXT_BYTES:
                raise TooLarge(
                    f"{self._name}: the texts are over {TEXT_BYTES} bytes", field=self._name
                )
        elif len(self._data) + end - start > self._limit_bytes:
            raise over_limit(self._limit_bytes, self._name)
        self._data += data[start:end]

    def on_part_end(self) -> None:
        """Closes a part."""
        if self._name == ARCHIVE_FIELD:
            return
        if not _is_file(self._name):
            super().on_part_end()
        elif self._data or self.filename:  # not an empty field of a page's form
            self.arrived.append(File(self._name, self.filename, bytes(self._data)))
        self._data = bytearray()

    async def read(self, chunks: AsyncIterator[bytes], content_type: str) -> AsyncIterator[File]:
        """Reads a body to its end, and gives each picture as soon as it is there; raises as `read_form`."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise RequestError("The multipart Content-Type has no boundary.", field="Content-Type")
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_header_field": self.on_header_field,
                    "on_header_value": self.on_header_value,
                    "on_header_end": self.on_header_end,
                    "on_headers_finished": self.on_headers_finished,
                    "on_part_data": self.on_part_data,
                    "on_part_end": self.on_part_end,
                    "on_end": self.on_end,
                },
            )
            async for chunk in chunks:
                parser.write(chunk)
                arrived, self.arrived = self.arrived, []
                for file in arrived:
                    yield file
        except FormParserError as error:
            raise RequestError(f"The multipart body is malformed: {error}.", field="body") from None
        if not self.ended:
            raise RequestError("The multipart body ends before its closing boundary.", field="body")


def _is_file(name: str) -> bool:
    return name in (*IMAGE_FIELDS, ARCHIVE_FIELD) or name.startswith(CONTROL_IMAGE_PREFIX)

"""Collects a `multipart/form-data` body as it arrives: pictures and some texts, all in memory.

Starlette's own form reading spools files to disk, passes over repeated names and knows no limit on a file;
here each fault names its field and a picture's limit acts while reading. It refuses to know what the
texts mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import InvalidParameter, RequestError, TooLarge

IMAGE_FIELD = "image"
CONTROL_IMAGE_PREFIX = "control_image_"
"""The rest of the part's name is the control's."""


class Form:
    """The parts of one body, filled by `read_form`.

    Attributes:
        files: The pictures by their part's name.
        filename: The name of `image` on the caller's side, as sent; untrusted.
        texts: The other parts by name.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.files: dict[str, bytes] = {}
        self.filename = ""
        self.texts: dict[str, str] = {}
        self.ended = False
        self._limit_bytes = limit_bytes
        self._disposition = b""
        self._header = b""
        self._value = b""
        self._name = ""
        self._data = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Takes a piece of a part header's name."""
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Takes a piece of a part header's value."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """Keeps the one header that matters."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        """Opens a part once its name is known.

        Raises:
            RequestError: a part without a name.
            InvalidParameter: a name seen before, or a file where a text belongs or the reverse.
        """
        disposition, self._disposition = self._disposition, b""
        _, options = parse_options_header(disposition)
        if b"name" not in options:
            raise RequestError("A part of the multipart body has no name.", field="body")
        name = options[b"name"].decode("utf-8", "replace")
        is_file = b"filename" in options or b"filename*=" in disposition.lower()
        if name in self.texts or name in self.files:
            raise InvalidParameter(f"{name}: given twice", field=name, allowed="once")
        if _is_picture(name) and not is_file:
            raise InvalidParameter(
                f"{name}: must be sent as a file, with a filename", field=name, allowed="one file"
            )
        if is_file and not _is_picture(name):
            raise InvalidParameter(
                f"{name}: a file was sent; only image and {CONTROL_IMAGE_PREFIX}NAME are files",
                field=name,
                allowed="a text",
            )
        if name == IMAGE_FIELD:
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._name = name
        self._data = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Takes a piece of a part.

        Raises:
            TooLarge: a picture is over its limit.
        """
        if _is_picture(self._name) and len(self._data) + end - start > self._limit_bytes:
            raise over_limit(self._limit_bytes, self._name)
        self._data += data[start:end]

    def on_part_end(self) -> None:
        """Closes a part.

        Raises:
            InvalidParameter: a text that is not UTF-8.
        """
        if _is_picture(self._name):
            self.files[self._name] = bytes(self._data)
        else:
            try:
                self.texts[self._name] = self._data.decode()
            except UnicodeDecodeError:
                raise InvalidParameter(
                    f"{self._name}: not UTF-8", field=self._name, allowed="a text in UTF-8"
                ) from None
        self._data = bytearray()

    def on_end(self) -> None:
        """Notes that the closing boundary was seen."""
        self.ended = True


async def read_form(
    chunks: AsyncIterator[bytes], content_type: str, limit_bytes: int, kind: type[Form] = Form
) -> Form:
    """Reads a whole multipart body.

    Args:
        chunks: The body as it arrives.
        content_type: The request's Content-Type, with its boundary.
        limit_bytes: The most that each picture may weigh.
        kind: Collects the parts.

    Raises:
        RequestError: the body is malformed or ends too early.
        InvalidParameter: a part is repeated or of the wrong kind.
        TooLarge: a picture is over `limit_bytes`.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestError("The multipart Content-Type has no boundary.", field="Content-Type")
    form = kind(limit_bytes)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
        async for chunk in chunks:
            parser.write(chunk)
    except FormParserError as error:
        raise RequestError(f"The multipart body is malformed: {error}.", field="body") from None
    if not form.ended:
        raise RequestError("The multipart body ends before its closing boundary.", field="body")
    return form


def over_limit(limit_bytes: int, field: str = IMAGE_FIELD) -> TooLarge:
    """The error for a picture that weighs too much."""
    return TooLarge(
        f"{field}: the upload is over {limit_bytes} bytes",
        field=field,
        allowed=f"at most {limit_bytes} bytes",
    )


def _is_picture(name: str) -> bool:
    return name == IMAGE_FIELD or name.startswith(CONTROL_IMAGE_PREFIX)

from __future__ import annotations

import pytest

from serve_app.contracts import OutputFormat
from serve_app.errors import InvalidParameter
from serve_app.imaging.formats import FORMATS, check_size, stored_bits


def test_every_format_is_written():
    assert set(FORMATS) == set(OutputFormat)


@pytest.mark.parametrize(
    ("kind", "height", "width", "others"),
    [
        (OutputFormat.WEBP, 12000, 15001, ("png", "tiff", "jpeg")),
        (OutputFormat.AVIF, 8000, 5001, ("png", "tiff", "jpeg", "webp", "jxl")),
        (OutputFormat.JXL, 12000, 10001, ("png", "tiff", "jpeg", "webp")),
    ],
)
def test_what_an_encoder_would_hold_whole_is_bounded(kind, height, width, others):
    with pytest.raises(InvalidParameter, match="pixels") as caught:
        check_size(kind, height, width)
    assert caught.value.field == "output_format"
    assert caught.value.allowed == "one of " + ", ".join(others)
    check_size(kind, height, width - 1)


@pytest.mark.parametrize(
    ("kind", "asked", "found", "bits"),
    [
        (OutputFormat.PNG, None, 16, 16),
        (OutputFormat.TIFF, 8, 16, 8),
        (OutputFormat.JPEG, None, 16, 8),
        (OutputFormat.AVIF, 8, 16, 8),
    ],
)
def test_bits(kind, asked, found, bits):
    assert stored_bits(kind, asked, found) == bits

"""Bent, cut and spliced files of every format: a picture or one of our errors, and nothing else.

TESSERA_FUZZ_EXAMPLES=5000 makes it run longer. The decoder works in its own process here, so that a crash is
told from an error.
"""

from __future__ import annotations

import os
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.errors import RequestError
from serve_app.imaging.worker import DecodeWorker
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import exif, noisy, saved, smooth

pillow_heif.register_heif_opener()
EXAMPLES = int(os.environ.get("TESSERA_FUZZ_EXAMPLES", "40"))
LIMITS = ImageLimits(source_pixels=10**6, decode_timeout_s=10)
RICH = {"xmp": b"<x/>" * 9}


def deep_tiff():
    file = BytesIO()
    samples = np.random.default_rng(0).integers(0, 65536, (20, 30, 4)).astype(np.uint16)
    tifffile.imwrite(
        file, samples, photometric="rgb", extrasamples=["unassalpha"], compression="deflate"
    )
    return file.getvalue()


FILES = {
    "png": saved(noisy(20, 30).convert("RGBA"), "PNG", exif=exif(6)),
    "palette": saved(noisy(20, 30).convert("P"), "PNG", transparency=3),
    "jpeg": saved(noisy(20, 30), "JPEG", exif=b"Exif\0\0" + exif(6), **RICH),
    "progressive": saved(noisy(20, 30).convert("CMYK"), "JPEG", progressive=True),
    "webp": saved(noisy(20, 30).convert("RGBA"), "WEBP", exif=exif(6), **RICH),
    "avif": saved(smooth().convert("RGBA"), "AVIF", exif=exif(6), **RICH),
    "heic": saved(smooth().convert("RGBA"), "HEIF", exif=exif(6), **RICH),
    "tiff": deep_tiff(),
    "bmp": saved(noisy(20, 30), "BMP"),
    "gif": saved(noisy(20, 30), "GIF", save_all=True, append_images=[smooth(20, 30)]),
}


@pytest.fixture(scope="module")
def worker():
    worker = DecodeWorker()
    yield worker
    worker.close()


@st.composite
def mutated(draw, data):
    """Overwritten bytes, most in the head where the structure is; then a cut, a hole or a repetition."""
    bent = bytearray(data)
    places = st.one_of(st.integers(0, min(200, len(bent) - 1)), st.integers(0, len(bent) - 1))
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        bent[place] = value
    start, stop = sorted((draw(places), draw(places)))
    kind = draw(st.sampled_from(["keep", "keep", "cut", "hole", "repeat"]))
    if kind == "cut":
        return bytes(bent[:stop])
    if kind == "hole":
        return bytes(bent[:start] + bent[stop:])
    return bytes(bent[:stop] + bent[start:] if kind == "repeat" else bent)


@pytest.mark.parametrize("name", FILES)
def test_a_picture_or_one_of_our_errors(worker, name):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=mutated(FILES[name]))
    def check(data):
        try:
            picture = worker.decode(data, LIMITS)
        except RequestError as error:
            refused = error
        else:
            assert picture.colour.shape == (picture.height, picture.width, 3)
            assert picture.height * picture.width <= LIMITS.source_pixels
            return
        assert refused.field == "image"
        assert refused.allowed
        assert "died" not in refused.detail
        assert "longer" not in refused.detail

    check()

"""Files through readers that share nothing with our writers."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.imaging.writers import tiff
from serve_app.imaging.writers.jpeg import JpegWriter
from serve_app.imaging.writers.png import PngWriter
from serve_app.imaging.writers.sheet import Portions, Sheet, Writer
from serve_app.imaging.writers.tiff import TiffWriter
from tests.unit.imaging.results import camera_exif


def sheet(samples: np.ndarray, **given) -> Sheet:
    height, width, channels = samples.shape
    bits = samples.itemsize * 8
    defaults = {"quality": 90, "icc": None, "exif": None, "xmp": None, "record": ""}
    shape = {"height": height, "width": width, "channels": channels, "bits": bits}
    return Sheet(software="Tessera", **shape | defaults | given)


def written(kind: type[Writer], samples: np.ndarray, cuts: list[int], **given) -> bytes:
    file = BytesIO()
    writer = kind(file, sheet(samples, **given))
    for part in np.split(samples, sorted(cuts)):
        if len(part):
            writer.rows(part)
    writer.end()
    return file.getvalue()


def random_samples(height: int, width: int, channels: int, bits: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (height, width, channels)).astype(f"u{bits // 8}")


def by_libvips(data: bytes) -> np.ndarray:
    image = pyvips.Image.new_from_buffer(data, "")
    return image.numpy().reshape(image.height, image.width, image.bands)


def by_opencv(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    found = found[:, :, None] if found.ndim == 2 else found
    order = {1: [0], 2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[found.shape[2]]
    return found[:, :, order]


def by_tifffile(data: bytes) -> np.ndarray:
    found = tifffile.imread(BytesIO(data))
    return found[:, :, None] if found.ndim == 2 else found


ALL_KINDS = [(channels, bits) for channels in (1, 2, 3, 4) for bits in (8, 16)]
sizes = {
    "height": st.integers(1, 70),
    "width": st.integers(1, 40),
    "cuts": st.lists(st.integers(0, 70), max_size=5),
    "kind": st.sampled_from(ALL_KINDS),
    "seed": st.integers(0, 99),
}


@settings(deadline=None, max_examples=60)
@given(**sizes)
def test_a_png_is_exact_and_the_same_whatever_the_bands(height, width, cuts, kind, seed):
    samples = random_samples(height, width, *kind, seed)
    data = written(PngWriter, samples, cuts)
    assert data == written(PngWriter, samples, [])
    np.testing.assert_array_equal(by_libvips(data), samples)
    if kind[0] != 2:  # OpenCV spreads gray with alpha to four channels
        np.testing.assert_array_equal(by_opencv(data), samples)


@settings(deadline=None, max_examples=60)
@given(order=st.sampled_from(["little", "big"]), big=st.booleans(), **sizes)
def test_a_tiff_is_exact_and_the_same_whatever_the_bands(
    height, width, cuts, kind, seed, order, big
):
    samples = random_samples(height, width, *kind, seed)
    exif = camera_exif() if order == "little" else b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff, "_STRIP_BYTES", 1500)
        patch.setattr(tiff, "_MOST_CLASSIC_BYTES", 0 if big else 10**9)
        data = written(TiffWriter, samples, cuts, exif=exif)
        assert data == written(TiffWriter, samples, [], exif=exif)
    assert data[:4] in ((b"II+\0", b"MM\0+") if big else (b"II*\0", b"MM\0*"))
    np.testing.assert_array_equal(by_libvips(data), samples)
    np.testing.assert_array_equal(by_tifffile(data), samples)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    channels=st.sampled_from([1, 3]),
    quality=st.sampled_from([40, 89, 90, 100]),
)
def test_a_jpeg_is_what_pillow_makes_of_the_whole(height, width, cuts, channels, quality):
    rng = np.random.default_rng(height)
    samples = (rng.random((height, width, channels)) * 80 + 60).astype(np.uint8)
    data = written(JpegWriter, samples, cuts, quality=quality)
    whole = BytesIO()
    flat = samples[:, :, 0] if channels == 1 else samples
    sampling = "4:4:4" if quality >= 90 else "4:2:0"
    Image.fromarray(flat).save(whole, "JPEG", quality=quality, subsampling=sampling)
    assert Image.open(BytesIO(data)).size == (width, height)
    np.testing.assert_array_equal(by_libvips(data), by_libvips(whole.getvalue()))
    np.testing.assert_array_equal(by_opencv(data), by_opencv(whole.getvalue()))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        found.append((kind, body))
        at += 12 + length
    return found


def test_a_pngs_chunks_are_whole_and_few():
    samples = random_samples(600, 400, 3, 8)
    data = written(PngWriter, samples, list(range(600)), record='{"seed":1}', exif=camera_exif())
    kinds = [kind for kind, _ in chunks(data)]
    assert kinds[:5] == [b"IHDR", b"sRGB", b"eXIf", b"iTXt", b"tEXt"]
    assert kinds[-1] == b"IEND"
    assert kinds.count(b"IDAT") == 3


def test_a_tiff_states_what_it_is():
    data = written(TiffWriter, random_samples(30, 20, 4, 16), [], icc=b"profile", xmp=b"<x/>")
    with tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages[0]
        assert page.compression.name == "ADOBE_DEFLATE"
        assert page.predictor.name == "HORIZONTAL"
        assert [kind.name for kind in page.extrasamples] == ["UNASSALPHA"]
        assert page.iccprofile == b"profile"
        assert page.tags[700].value == b"<x/>"
        assert page.tags["Orientation"].value == 1


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.integers(0, 50), max_size=6))
def test_portions_are_even_and_all_there(total, rows, cuts):
    taken: list[np.ndarray] = []
    samples = np.arange(total)[:, None, None].astype(np.uint16)
    portions = Portions(rows, total, taken.append)
    for part in np.split(samples, sorted(cuts)):
        portions.add(part)
    np.testing.assert_array_equal(np.concatenate(taken), samples)
    assert {len(part) for part in taken[:-1]} <= {rows}

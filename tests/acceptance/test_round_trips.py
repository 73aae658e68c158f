"""With denoisers that change nothing, what comes out is what went in, only larger: its colours, bits and facts.

The sources are made from known colours by other libraries than those that read them here, and the results are
read and turned to Lab by others again. The scaling alone is Tessera's own.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  makes Pillow read JPEG XL
import pytest
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab, xyz2lab

from serve_app.contracts import UpscaleParams, Upscaler, UpscaleRequest, UpscaleResult
from serve_app.imaging.alpha import resize_with_alpha
from serve_app.local import conduct
from serve_app.resample import resize
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL
from serve_app.testing_engine import identity_engine

Samples = NDArray[np.floating]

LOSSLESS = ["png", "tiff"]
WITH_ALPHA = [*LOSSLESS, "webp", "avif", "jxl"]
ALL = [*WITH_ALPHA, "jpeg"]
SCALE = 2
HEIGHT, WIDTH = 120, 150
MOST_DELTA_E = 1.0
# AVIF codes alpha as it does colour, with loss.
MOST_ALPHA = {"png": 1 / 255, "tiff": 1 / 255, "webp": 1 / 255, "jxl": 2 / 255, "avif": 8 / 255}
SEEN_ALPHA = 0.25  # where less is seen, a straight colour of 8 bits says little
P3 = bytes(pyvips.Image.profile_load("p3"))
CMYK = bytes(pyvips.Image.profile_load("cmyk"))
# Display P3 to XYZ under D65, from its primaries (SMPTE EG 432-1) and white. Source: CSS Color 4, sample code.
P3_TO_XYZ = np.array(
    [
        [0.4865709486, 0.2656676932, 0.1982172852],
        [0.2289745641, 0.6917385218, 0.0792869141],
        [0.0, 0.0451133819, 1.0439443689],
    ]
)
SRGB_TO_XYZ = np.array(
    [
        [0.4123907993, 0.3575843394, 0.1804807884],
        [0.2126390059, 0.7151686788, 0.0721923154],
        [0.0193308187, 0.1191947798, 0.9505321522],
    ]
)
GPS_TAG, ORIENTATION_TAG, MODEL_TAG, EXIF_TAG, PIXEL_WIDTH_TAG = (
    0x8825,
    0x0112,
    0x0110,
    0x8769,
    0xA002,
)


def picture() -> Samples:
    """Smooth colours that every profile here holds, (HEIGHT, WIDTH, 3), [0, 1], sRGB."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    planes = (0.3 + 0.35 * x, 0.35 + 0.25 * y, 0.45 + 0.15 * np.sin(3 * x + 4 * y))
    return np.stack(planes, axis=2)


def soft_alpha() -> Samples:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return np.clip(2.2 - 2 * np.hypot(y, x), 0, 1)


def linear(encoded: Samples) -> Samples:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def curved(light: Samples) -> Samples:
    low = np.clip(light, 0, 1)
    return np.where(low <= 0.0031308, low * 12.92, 1.055 * low ** (1 / 2.4) - 0.055)


def lab_of_p3(encoded: Samples) -> Samples:
    return xyz2lab(linear(encoded) @ P3_TO_XYZ.T)


def to_p3(encoded: Samples) -> Samples:
    return curved(linear(encoded) @ (np.linalg.inv(P3_TO_XYZ) @ SRGB_TO_XYZ).T)


# The sources: the file, and what is seen in it


def display_p3_tiff() -> tuple[bytes, Samples, Samples]:
    seen, alpha = picture(), soft_alpha()
    samples = np.rint(np.dstack([to_p3(seen), alpha]) * 65535).astype(np.uint16)
    file = io.BytesIO()
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"], "iccprofile": P3}
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue(), seen, alpha


def cmyk_jpeg() -> tuple[bytes, Samples]:
    """Its colours are those that littleCMS sees in the file, not those that it was made of."""
    inks, screen = ImageCms.ImageCmsProfile(io.BytesIO(CMYK)), ImageCms.createProfile("sRGB")
    rgb = Image.fromarray(np.rint(picture() * 255).astype(np.uint8))
    stored = ImageCms.profileToProfile(rgb, screen, inks, outputMode="CMYK")
    file = io.BytesIO()
    stored.save(file, "jpeg", quality=98, subsampling="4:4:4", icc_profile=CMYK)
    read = Image.open(io.BytesIO(file.getvalue()))
    seen = ImageCms.profileToProfile(
        read,
        inks,
        screen,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return file.getvalue(), np.asarray(seen) / 255


def phone_heic() -> tuple[bytes, Samples]:
    """Stored lying; the EXIF and, as phones write it, the file's own turn say how it is held."""
    upright = picture()
    lying = Image.fromarray(np.rint(np.rot90(upright) * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION_TAG], exif[MODEL_TAG] = 6, "Phone 9"
    exif.get_ifd(EXIF_TAG)[PIXEL_WIDTH_TAG] = lying.width
    exif.get_ifd(GPS_TAG).update({1: "N", 2: (48.0, 8.0, 0.0), 3: "E", 4: (11.0, 34.0, 0.0)})
    file = io.BytesIO()
    heif = pillow_heif.from_pillow(lying)
    heif.save(file, quality=100, chroma=444, exif=exif.tobytes())
    assert b"irot" in file.getvalue()
    seen = np.asarray(pillow_heif.open_heif(file.getvalue()).to_pillow()) / 255
    assert (
        np.abs(seen - upright).max() < 4 / 255
    )  # what coding it has cost, and that it stands upright
    return file.getvalue(), seen


def palette_png() -> tuple[bytes, Samples, Samples]:
    """Stripes of 16 colours, some of them half seen or not at all."""
    palette = np.rint(picture()[::8, ::10][:16, 5] * 255).astype(np.uint8)[:15]
    palette = np.vstack([palette, [[255, 0, 255]]]).astype(np.uint8)
    alphas = np.array([255] * 12 + [128, 128, 0, 0], np.uint8)
    index = np.repeat(np.arange(WIDTH) * 16 // WIDTH, 1)[None].repeat(HEIGHT, 0).astype(np.uint8)
    image = Image.fromarray(index)
    image = image.convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "png", transparency=alphas.tobytes())
    return file.getvalue(), palette[index] / 255, alphas[index] / 255


# The results


def enlarged(seen: Samples, alpha: Samples | None = None) -> tuple[Samples, Samples | None]:
    size = (SCALE * seen.shape[0], SCALE * seen.shape[1])
    if alpha is None:
        return resize(seen.astype(np.float32), *size), None
    return resize_with_alpha(seen.astype(np.float32), alpha.astype(np.float32), *size)


def samples_of(data: bytes, output_format: str) -> NDArray[Any]:
    """All channels as stored."""
    if output_format == "tiff":
        return tifffile.imread(io.BytesIO(data))
    if output_format == "png":
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        return np.dstack([stored[:, :, 2::-1], stored[:, :, 3:]])
    return np.asarray(Image.open(io.BytesIO(data)))


def in_unit(samples: NDArray[Any]) -> Samples:
    return samples / np.float64(np.iinfo(samples.dtype).max)


def differs(
    output_format: str, found: Samples, wanted: Samples, alpha: Samples | None = None
) -> float:
    """CIEDE2000 where something is seen: the 99th percentile; the mean where the format itself loses more."""
    differences = deltaE_ciede2000(wanted, found)
    seen = differences if alpha is None else differences[alpha > SEEN_ALPHA]
    return float(np.percentile(seen, 99) if output_format in LOSSLESS else seen.mean())


def exif_of(data: bytes) -> Image.Exif:
    return Image.open(io.BytesIO(data)).getexif()


@pytest.fixture
async def upscaler() -> AsyncIterator[Upscaler]:
    engine = identity_engine()
    yield conduct(FAKE_MODEL, engine, Settings())
    engine.close()


async def upscaled(upscaler: Upscaler, image: bytes, **params: Any) -> UpscaleResult:
    plain = {"scale": SCALE, "steps": 1, "fidelity": 0, "color_fix": "none", "quality": 97}
    asked = UpscaleParams.parse(plain | params)
    return await upscaler.upscale(UpscaleRequest(image=image, params=asked, request_id="r"))


@pytest.mark.parametrize("output_format", WITH_ALPHA)
async def test_a_display_p3_tiff_of_16_bits_with_alpha(upscaler, output_format):
    image, seen, alpha = display_p3_tiff()
    result = await upscaled(upscaler, image, output_format=output_format)
    samples = samples_of(result.image, output_format)
    assert samples.shape == (SCALE * HEIGHT, SCALE * WIDTH, 4)
    wanted, wanted_alpha = enlarged(seen, alpha)
    found = in_unit(samples)
    lab = rgb2lab(found[:, :, :3]) if output_format == "jxl" else lab_of_p3(found[:, :, :3])
    assert differs(output_format, lab, rgb2lab(wanted), wanted_alpha) < MOST_DELTA_E
    assert np.abs(found[:, :, 3] - wanted_alpha).max() < MOST_ALPHA[output_format]
    if output_format in LOSSLESS:
        assert samples.dtype == np.uint16
        assert len(np.unique(samples[:, :, 0])) > 256
    if output_format != "jxl":
        assert Image.open(io.BytesIO(result.image)).info["icc_profile"] == P3


@pytest.mark.parametrize("output_format", LOSSLESS)
async def test_colours_of_a_display_p3_tiff_in_srgb_if_asked(upscaler, output_format):
    image, seen, alpha = display_p3_tiff()
    asked = {"output_format": output_format, "color_profile": "srgb", "bit_depth": 8}
    result = await upscaled(upscaler, image, **asked)
    samples = samples_of(result.image, output_format)
    wanted, wanted_alpha = enlarged(seen, alpha)
    assert samples.dtype == np.uint8
    assert (
        differs(output_format, rgb2lab(in_unit(samples)[:, :, :3]), rgb2lab(wanted), wanted_alpha)
        < MOST_DELTA_E
    )
    assert Image.open(io.BytesIO(result.image)).info.get("icc_profile") != P3


@pytest.mark.parametrize("output_format", ALL)
async def test_a_cmyk_jpeg(upscaler, output_format):
    image, seen = cmyk_jpeg()
    result = await upscaled(upscaler, image, output_format=output_format)
    samples = samples_of(result.image, output_format)
    assert samples.shape == (SCALE * HEIGHT, SCALE * WIDTH, 3)
    assert (
        differs(output_format, rgb2lab(in_unit(samples)), rgb2lab(enlarged(seen)[0])) < MOST_DELTA_E
    )
    assert Image.open(io.BytesIO(result.image)).info.get("icc_profile") != CMYK


@pytest.mark.parametrize("output_format", ALL)
async def test_a_turned_phone_heic(upscaler, output_format):
    image, seen = phone_heic()
    result = await upscaled(upscaler, image, output_format=output_format)
    samples = samples_of(result.image, output_format)
    assert samples.shape == (SCALE * HEIGHT, SCALE * WIDTH, 3)
    assert (
        differs(output_format, rgb2lab(in_unit(samples)), rgb2lab(enlarged(seen)[0])) < MOST_DELTA_E
    )


@pytest.mark.parametrize("output_format", ALL)
@pytest.mark.parametrize("keep_gps", [False, True])
async def test_what_a_phone_heic_says_of_itself(upscaler, output_format, keep_gps):
    image, _ = phone_heic()
    result = await upscaled(upscaler, image, output_format=output_format, keep_gps=keep_gps)
    exif = exif_of(result.image)
    assert exif.get(ORIENTATION_TAG, 1) == 1
    assert exif[MODEL_TAG] == "Phone 9"
    assert exif.get_ifd(EXIF_TAG)[PIXEL_WIDTH_TAG] == SCALE * WIDTH
    place = exif.get_ifd(GPS_TAG)
    assert (place.get(2) == (48.0, 8.0, 0.0)) is keep_gps
    assert bool(place) is keep_gps


async def test_a_phone_heic_without_its_metadata(upscaler):
    result = await upscaled(upscaler, phone_heic()[0], output_format="jpeg", keep_metadata=False)
    assert MODEL_TAG not in exif_of(result.image)
    assert b"Phone 9" not in result.image


@pytest.mark.parametrize("output_format", WITH_ALPHA)
async def test_a_palette_png_with_transparency(upscaler, output_format):
    image, seen, alpha = palette_png()
    result = await upscaled(upscaler, image, output_format=output_format)
    samples = samples_of(result.image, output_format)
    assert samples.shape == (SCALE * HEIGHT, SCALE * WIDTH, 4)
    wanted, wanted_alpha = enlarged(seen, alpha)
    found = in_unit(samples)
    assert (
        differs(output_format, rgb2lab(found[:, :, :3]), rgb2lab(wanted), wanted_alpha)
        < MOST_DELTA_E
    )
    assert np.abs(found[:, :, 3] - wanted_alpha).max() < MOST_ALPHA[output_format]

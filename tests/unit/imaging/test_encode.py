from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_jxl  # noqa: F401
import pytest
import pyvips
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts import ColorProfile, OutputFormat
from serve_app.errors import Busy, InvalidParameter
from serve_app.imaging import profiles
from serve_app.imaging.codec import decode
from serve_app.imaging.encode import Encoder, encode
from serve_app.imaging.provenance import SOFTWARE, read_provenance
from serve_app.settings import ImageLimits
from tests.unit.imaging.results import (
    PROVENANCE,
    XMP,
    camera_exif,
    colours,
    gray_profile,
    look,
    p3,
    smooth,
    srgb,
)

DEEP = (OutputFormat.PNG, OutputFormat.TIFF)
ALL = tuple(OutputFormat)


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def samples(data: bytes) -> np.ndarray:
    """By libvips, which reads 16 bits where Pillow does not."""
    image = pyvips.Image.new_from_buffer(data, "")
    return image.numpy().reshape(image.height, image.width, image.bands)


def seen(data: bytes) -> np.ndarray:
    return np.asarray(opened(data).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("transparent", [False, True])
def test_each_format_holds_the_picture(kind, transparent):
    colour = smooth()
    alpha = np.tile(np.linspace(0, 1, 56, dtype=np.float32), (40, 1)) if transparent else None
    image = opened(encode(colour, alpha, look(kind)))
    assert image.format == kind.value.upper()
    assert image.size == (56, 40)
    assert image.mode == ("RGBA" if transparent and kind is not OutputFormat.JPEG else "RGB")
    if alpha is None:
        assert np.abs(np.asarray(image) - colour * 255).max() < 20
        assert np.abs(np.asarray(image) - colour * 255).mean() < 2
    elif image.mode == "RGBA":
        exact = np.floor(alpha * 255 + np.float32(0.5))
        lossy = kind in (OutputFormat.AVIF, OutputFormat.JXL)
        assert np.abs(np.asarray(image)[:, :, 3] - exact).max() <= (2 if lossy else 0)


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize(
    ("asked", "found", "bits"), [(None, 8, 8), (None, 16, 16), (8, 16, 8), (16, 8, 16)]
)
def test_the_depth_is_the_sources_unless_asked_for(kind, asked, found, bits):
    colour = colours()
    stored = samples(encode(colour, None, look(kind, bit_depth=asked, bit_depth_found=found)))
    assert stored.dtype.itemsize * 8 == bits
    np.testing.assert_array_equal(stored, np.floor(colour * (2**bits - 1) + np.float32(0.5)))


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in DEEP])
def test_other_formats_have_8_bits(kind):
    assert encode(smooth(), None, look(kind, bit_depth_found=16))
    with pytest.raises(InvalidParameter, match="png and tiff") as caught:
        encode(smooth(), None, look(kind, bit_depth=16))
    assert (caught.value.field, caught.value.allowed) == ("bit_depth", "8")


@pytest.mark.parametrize("depth", [8, 16])
def test_values_are_clipped_and_rounded_half_up(depth):
    top = 2**depth - 1
    values = [-0.5, 0.0, 0.49 / top, 0.5 / top, (top - 1.51) / top, (top - 0.5) / top, 1.0, 1.7]
    colour = np.repeat(np.array(values, np.float32)[None, :, None], 3, axis=2)
    stored = samples(encode(colour, None, look(bit_depth=depth)))[0, :, 0]
    assert stored.tolist() == [0, 0, 0, 1, top - 2, top, top, top]


@pytest.mark.parametrize("kind", [*DEEP, OutputFormat.JPEG, OutputFormat.AVIF, OutputFormat.JXL])
def test_gray_stays_gray(kind):
    colour = np.repeat(smooth()[:, :, :1], 3, axis=2)
    image = opened(encode(colour, None, look(kind, gray=True)))
    assert image.mode == "L"
    assert np.abs(np.asarray(image) - colour[:, :, 0] * 255).max() < 6


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("depth", [8, 16])
def test_gray_with_alpha_is_exact(kind, depth):
    plane = colours()[:, :, 0]
    colour, alpha = np.repeat(plane[:, :, None], 3, axis=2), plane[::-1]
    stored = samples(encode(colour, alpha, look(kind, gray=True, bit_depth=depth)))
    expected = np.floor(np.stack([plane, alpha], axis=2) * (2**depth - 1) + np.float32(0.5))
    np.testing.assert_array_equal(stored, expected)


def test_an_avif_holds_gray_with_alpha():
    plane, icc = 0.3 + 0.5 * smooth()[:, :, :1], gray_profile(2.2)
    data = encode(
        np.repeat(plane, 3, axis=2), plane[:, :, 0], look(OutputFormat.AVIF, gray=True, icc=icc)
    )
    assert opened(data).info["icc_profile"] == icc
    found = decode(data, ImageLimits())
    assert found.traits.gray
    assert found.traits.icc == icc
    assert np.abs(found.colour[:, :, 0] / 65535 - plane[:, :, 0]).max() < 6 / 255
    assert np.abs(found.alpha / 65535 - plane[:, :, 0]).max() < 6 / 255


def test_what_holds_no_gray_with_alpha_holds_it_as_colour():
    alpha, kind = np.full((40, 56), 0.5, np.float32), OutputFormat.WEBP
    image = opened(encode(smooth(), alpha, look(kind, gray=True, icc=gray_profile(2.2))))
    assert image.mode == "RGBA"
    assert "icc_profile" not in image.info


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 150), max_size=5),
    kind=st.sampled_from([*DEEP, OutputFormat.JPEG, OutputFormat.WEBP]),
    with_alpha=st.booleans(),
    icc=st.sampled_from([None, p3()]),
)
def test_a_file_is_the_same_whatever_the_bands(tmp_path_factory, cuts, kind, with_alpha, icc):
    colour = colours(150, 20)
    alpha = colour[:, :, 0] if with_alpha else None
    path = tmp_path_factory.mktemp("out") / "result"
    given = look(kind, bit_depth_found=16, icc=icc, provenance=PROVENANCE)
    with Encoder(path, 150, 20, with_alpha, given) as encoder:
        for top, bottom in zip([0, *sorted(cuts)], [*sorted(cuts), 150], strict=True):
            encoder.write(colour[top:bottom], None if alpha is None else alpha[top:bottom])
    assert path.read_bytes() == encode(colour, alpha, given)


def test_jpeg_lays_transparency_on_white():
    alpha = np.repeat(np.array([[0.0, 0.5, 1.0]], np.float32), 16, axis=1).repeat(16, axis=0)
    data = encode(np.zeros((16, 48, 3), np.float32), alpha, look(OutputFormat.JPEG, quality=95))
    assert np.abs(seen(data)[8, 8::16, 0] - [255, 128, 0]).max() <= 2


@pytest.mark.parametrize(("quality", "sampling"), [(89, (2, 2)), (90, (1, 1)), (100, (1, 1))])
def test_jpeg_keeps_colour_edges_at_high_quality(quality, sampling):
    image = opened(encode(smooth(), None, look(OutputFormat.JPEG, quality=quality)))
    assert image.layer[0][1:3] == sampling


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in DEEP])
def test_quality_is_heeded(kind):
    fine, coarse = (
        encode(colours(64, 64), None, look(kind, quality=quality)) for quality in (95, 40)
    )
    assert len(fine) > 1.5 * len(coarse)


@pytest.mark.parametrize(
    ("kind", "longest"),
    [(OutputFormat.WEBP, 16383), (OutputFormat.JPEG, 65500), (OutputFormat.AVIF, 32768)],
)
def test_a_side_longer_than_the_format_can_state(kind, longest, tmp_path):
    with pytest.raises(InvalidParameter, match=str(longest)) as caught:
        Encoder(tmp_path / "result", 1, longest + 1, False, look(kind))
    assert caught.value.field == "output_format"
    assert "png, tiff" in caught.value.allowed.replace("tiff, png", "png, tiff")
    assert list(tmp_path.iterdir()) == []
    fits = encode(np.zeros((1, longest, 3), np.float32), None, look(kind))
    assert opened(fits).width == longest


# Colours


def lab(data: bytes) -> np.ndarray:
    image = pyvips.Image.new_from_buffer(data, "")
    return image.icc_import(embedded=True, input_profile="srgb", pcs="lab").numpy()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not OutputFormat.JXL])
def test_the_sources_profile_is_kept_and_the_colours_with_it(kind):
    profile = p3()
    data = encode(smooth(), None, look(kind, icc=profile))
    assert opened(data).info["icc_profile"] == profile
    plain = encode(smooth(), None, look(kind))
    assert np.abs(seen(data) - seen(plain)).max() > 10  # other numbers
    assert np.abs(lab(data) - lab(plain)).mean() < 0.9  # for the same colours


def test_16_bits_keep_their_precision_in_a_profile():
    data = encode(smooth(), None, look(bit_depth=16, icc=p3()))
    apart = np.abs(lab(data) - lab(encode(smooth(), None, look(bit_depth=16))))
    assert apart.max() < 0.5
    assert apart.mean() < 0.02
    assert len(np.unique(samples(data))) > 1500


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_a_gray_profile_is_kept_for_gray(gamma):
    plane = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (4, 1))
    colour = np.repeat(plane[:, :, None], 3, axis=2)
    profile = gray_profile(gamma)
    data = encode(colour, None, look(gray=True, bit_depth=16, icc=profile))
    assert opened(data).info["icc_profile"] == profile
    light = np.where(plane <= 0.04045, plane / 12.92, ((plane + 0.055) / 1.055) ** 2.4)
    assert np.abs(samples(data)[:, :, 0] / 65535 - light ** (1 / gamma)).max() < 0.002


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "given",
    [
        {"icc": p3(), "color_profile": ColorProfile.SRGB},
        {"icc": b"no profile at all"},
        {"icc": p3()[:200]},
        {"icc": gray_profile(2.2)},
        {},
    ],
    ids=["asked for", "nonsense", "cut", "gray for colour", "none"],
)
def test_otherwise_it_is_srgb(kind, given):
    data = encode(smooth(), None, look(kind, **given))
    assert data == encode(smooth(), None, look(kind))
    if kind is OutputFormat.PNG:
        assert b"sRGB" in data[:60]
    if kind is not OutputFormat.JXL:  # whose reader states sRGB as a profile
        assert "icc_profile" not in opened(data).info


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"icc": p3()}, False),
        ({"icc": p3(), "color_profile": ColorProfile.SRGB}, False),
        ({}, False),
        ({"icc": p3()[:200]}, True),
        ({"icc": gray_profile(2.2)}, True),
    ],
    ids=["kept", "srgb asked for", "none", "cut", "gray for colour"],
)
def test_a_profile_that_is_not_kept_is_told(given, warned, tmp_path):
    encoder = Encoder(tmp_path / "result", 4, 4, False, look(**given))
    encoder.abort()
    assert bool(encoder.warnings) is warned


class _Converting:
    """In place of a conversion: does as often as it may, then raises."""

    def __init__(self, times: int, error: Exception) -> None:
        self._times, self._error = times, error

    def __call__(self, colour, icc, channels, limits):
        if self._times == 0:
            raise self._error
        self._times -= 1
        return colour[..., :channels] // 2


DEAD = InvalidParameter("color_profile: dead", field="color_profile", allowed="srgb")


def test_a_profile_that_kills_its_converter_at_once_leaves_srgb_and_a_warning(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(profiles, "convert_contained", _Converting(0, DEAD))
    with Encoder(tmp_path / "a", 40, 56, False, look(icc=p3())) as encoder:
        encoder.write(smooth(), None)
    assert len(encoder.warnings) == 1
    assert (tmp_path / "a").read_bytes() == encode(smooth(), None, look())


@pytest.mark.parametrize("error", [DEAD, Busy("none is free", retry_after_s=5)])
def test_a_profile_that_fails_in_mid_file_costs_the_result(error, monkeypatch, tmp_path):
    monkeypatch.setattr(profiles, "convert_contained", _Converting(2, error))
    encoder = Encoder(tmp_path / "a", 40, 56, False, look(icc=p3()))
    encoder.write(smooth()[:20], None)
    with pytest.raises(type(error)) as caught, encoder:
        encoder.write(smooth()[20:], None)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_without_a_free_converter_a_result_is_put_off_instead_of_being_another(
    monkeypatch, tmp_path
):
    """What a request gives depends on the request, not on what else runs."""
    monkeypatch.setattr(profiles, "convert_contained", _Converting(0, Busy("none is free")))
    with pytest.raises(Busy):
        Encoder(tmp_path / "a", 40, 56, False, look(icc=p3()))
    assert list(tmp_path.iterdir()) == []


def test_a_profile_of_colours_does_not_fit_a_gray_file():
    assert encode(smooth(), None, look(gray=True, icc=p3())) == encode(
        smooth(), None, look(gray=True)
    )


def test_a_profile_that_is_srgb_changes_no_bit():
    data = encode(colours(), None, look(bit_depth=16, icc=srgb()))
    assert opened(data).info["icc_profile"] == srgb()
    plain = encode(colours(), None, look(bit_depth=16))
    np.testing.assert_array_equal(samples(data), samples(plain))


# What the file says


def text_of(kind: OutputFormat, data: bytes) -> str:
    if kind is OutputFormat.JXL:  # its reader gives no XMP
        return data.decode("latin-1")
    found = opened(data).info.get("xmp") or opened(data).info["XML:com.adobe.xmp"]
    return found.decode() if isinstance(found, bytes) else found


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("keep_gps", [False, True])
def test_metadata_is_carried_over(kind, keep_gps):
    given = {"exif": camera_exif(), "xmp": XMP, "provenance": PROVENANCE, "keep_gps": keep_gps}
    data = encode(smooth(), None, look(kind, **given))
    exif = opened(data).getexif()
    assert (exif[0x010F], exif.get(0x0112, 1), exif[0x0131]) == ("Cam", 1, SOFTWARE)
    shot = exif.get_ifd(0x8769)
    assert (shot[0x9003], shot[0xA002], shot[0xA003]) == ("2020:01:01 00:00:00", 56, 40)
    assert (shot[0x829A], shot[0x9204]) == (1 / 250, -0.5)
    assert exif.get_ifd(0x8825) == ({1: "N", 2: (52.0, 31.0, 12.5)} if keep_gps else {})
    text = text_of(kind, data)
    assert "Ada &amp; Bob" in text
    for name in ("GPSLatitude", "GPSLongitude", "GpsLongtitude"):
        assert (name in text) is keep_gps
    assert b"secret" not in data
    assert read_provenance(data) == PROVENANCE


@pytest.mark.parametrize("kind", ALL)
def test_without_metadata_there_is_provenance_alone(kind):
    given = {"exif": camera_exif(), "xmp": XMP, "keep_metadata": False, "icc": p3()}
    data = encode(smooth(), None, look(kind, provenance=PROVENANCE, **given))
    assert dict(opened(data).getexif()).get(0x010F) is None
    assert b"Ada" not in data
    assert read_provenance(data) == PROVENANCE


@pytest.mark.parametrize("kind", ALL)
def test_broken_metadata_is_dropped(kind):
    data = encode(smooth(), None, look(kind, exif=b"II*\0\xff\xff\xff\xff", xmp=b"<x:xmpmeta"))
    assert data == encode(smooth(), None, look(kind))


def test_a_tiff_is_read_whole_by_tifffile():
    data = encode(
        smooth(),
        None,
        look(OutputFormat.TIFF, exif=camera_exif(), keep_gps=True, provenance=PROVENANCE),
    )
    with tifffile.TiffFile(BytesIO(data)) as file:
        tags = file.pages[0].tags
        assert tags["ExifTag"].value["DateTimeOriginal"] == "2020:01:01 00:00:00"
        assert tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert tags["Software"].value == SOFTWARE


@pytest.mark.parametrize("dpi", [None, 300])
def test_a_tiff_says_its_density_as_the_standard_demands(dpi):
    exif = Image.Exif()
    if dpi:
        exif[0x011A], exif[0x011B], exif[0x0128] = float(dpi), float(dpi), 2
    data = encode(smooth(), None, look(OutputFormat.TIFF, exif=exif.tobytes()[6:] if dpi else None))
    with tifffile.TiffFile(BytesIO(data)) as file:
        tags = file.pages[0].tags
        assert [tags[name].value for name in ("XResolution", "YResolution")] == 2 * [(dpi or 72, 1)]
        assert tags["ResolutionUnit"].value == 2


# Half files


def test_an_aborted_file_is_not_there(tmp_path: Path):
    path = tmp_path / "result.png"
    path.write_bytes(b"older")

    def interrupted() -> None:
        with Encoder(path, 40, 56, False, look()) as encoder:
            encoder.write(smooth()[:20], None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("result.png", b"older")]


def test_until_it_is_closed_nothing_is_there(tmp_path: Path):
    path = tmp_path / "result.png"
    encoder = Encoder(path, 40, 56, False, look())
    encoder.write(smooth(), None)
    assert not path.exists()
    encoder.close()
    encoder.abort()
    assert opened(path.read_bytes()).size == (56, 40)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_and_surplus_rows_are_mistakes(tmp_path: Path):
    encoder = Encoder(tmp_path / "result", 40, 56, False, look())
    with pytest.raises(ValueError, match="rows of 40 more"):
        encoder.write(smooth(41), None)
    encoder.write(smooth(39), None)
    with pytest.raises(ValueError, match="1 rows are missing"):
        encoder.close()
    assert list(tmp_path.iterdir()) == []


def written(path: Path, output_format: OutputFormat) -> None:
    noise = np.random.default_rng(1).random((400, 300, 3), np.float32)
    with Encoder(path, 400, 300, False, look(output_format)) as encoder:
        encoder.write(noise, None)
        encoder.close()


@pytest.mark.parametrize("output_format", list(OutputFormat))
def test_a_full_disk_asks_to_come_again(output_format: OutputFormat, tmp_path: Path):
    (tmp_path / ".result.part").symlink_to("/dev/full")
    with pytest.raises(Busy, match="no room is left"):
        written(tmp_path / "result", output_format)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow_leaves_none(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from serve_app.imaging.encode import Encoder\n"
        "from tests.unit.imaging.results import look\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "pixels = np.random.default_rng(1).random((400, 300, 3), np.float32)\n"
        "try:\n"
        "    with Encoder(Path(sys.argv[1]) / 'r.png', 400, 300, False, look()) as encoder:\n"
        "        encoder.write(pixels, None)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "File too large"
    assert list(tmp_path.iterdir()) == []

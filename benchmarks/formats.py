"""Time and memory of reading each format, by the libraries that could: for docs/measurements/formats.md.

    python -m benchmarks.formats [--megapixels 50]

Each case decodes once in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image


def picture(megapixels: float) -> pyvips.Image:
    """Something photograph-like: smooth structure and some noise, 16 bits."""
    width = int((megapixels * 1e6 * 1.5) ** 0.5)
    height = int(megapixels * 1e6 / width)
    noise = pyvips.Image.gaussnoise(width, height, sigma=600, seed=1)
    waves = [pyvips.Image.sines(width, height, hfreq=h, vfreq=3) for h in (2, 5, 9)]
    bands = [wave * 20000 + 32768 + noise for wave in waves]
    joined = bands[0].bandjoin(bands[1:]).cast("ushort")
    return joined.copy(interpretation="rgb16").copy_memory()


def files(megapixels: float, folder: Path) -> dict[str, Path]:
    """Writes one file of each case."""
    deep = picture(megapixels)
    plain = (deep >> 8).cast("uchar").copy(interpretation="srgb").copy_memory()
    made: dict[str, Path] = {}

    def keep(name: str, data: bytes) -> None:
        made[name] = folder / name.replace(" ", "_").replace("/", "-")
        made[name].write_bytes(data)

    keep("PNG, 8 bit", plain.pngsave_buffer(compression=1))
    keep("PNG, 16 bit", deep.pngsave_buffer(compression=1))
    keep("JPEG", plain.jpegsave_buffer(Q=90))
    keep("JPEG, progressive", plain.jpegsave_buffer(Q=90, interlace=True))
    keep("WebP", plain.webpsave_buffer(Q=80, effort=0))
    keep(
        "TIFF, 16 bit, deflate", deep.tiffsave_buffer(compression="deflate", predictor="horizontal")
    )
    keep("AVIF", plain.heifsave_buffer(compression="av1", effort=0, Q=60))
    file = BytesIO()
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.fromarray(plain.numpy()).save(file, "HEIF", quality=70)
    keep("HEIC", file.getvalue())
    return made


def with_pillow(data: bytes) -> object:
    """Pillow with its plugins."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(BytesIO(data)) as image:
        image.load()
        return np.asarray(image)


def with_vips(data: bytes) -> object:
    """A whole picture by libvips."""
    pyvips.concurrency_set(1)
    return pyvips.Image.new_from_buffer(data, "", access="sequential").numpy()


def with_tessera(data: bytes) -> object:
    """What Tessera does: levels, upright, sRGB."""
    from serve_app.imaging.codec import decode
    from serve_app.settings import ImageLimits

    return decode(data, ImageLimits(upload_bytes=2**40)).colour


WAYS: dict[str, Callable[[bytes], object]] = {
    "Pillow": with_pillow,
    "libvips": with_vips,
    "Tessera": with_tessera,
}


def run_one(way: str, path: Path) -> None:
    """Decodes one file and prints seconds, MiB above the start, and the samples' type."""
    data = path.read_bytes()
    WAYS[way](small())
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_kib()
    start = time.perf_counter()
    found = WAYS[way](data)
    seconds = time.perf_counter() - start
    print(f"{seconds:.2f} {(peak_kib() - before) / 1024:.0f} {getattr(found, 'dtype', '?')}")


def peak_kib() -> int:
    """The most memory that this process held since its peak was forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def small() -> bytes:
    """A tiny file, so that imports are not measured."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=50)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], Path(options.one[1]))
        return
    print("| file | MB | " + " | ".join(f"{way}: s, MiB, samples" for way in WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files(options.megapixels, Path(folder)).items():
            cells = [f"{path.stat().st_size / 1e6:.1f}"]
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.formats", "--one", way, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                cells.append(done.stdout.strip().replace(" ", ", ") or "cannot")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What writing a result costs: seconds, bytes and peak memory by format, depth and size.

Each row runs in a process of its own, since memory that was once taken does not come back. Rows are made as
they are written, a smooth picture with fine noise, so that nothing but the encoder holds a picture. Memory is
what the process took above what it had before the first row. Writes JSON lines to stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from serve_app.contracts import ColorProfile, OutputFormat
from serve_app.imaging.encode import Encoder, Look
from serve_app.imaging.traits import Traits
from serve_app.levels import Pixels

SIDES_PX = (5000, 10000)  # 25 and 100 MP
BAND_ROWS = 256
ARMS = [
    (OutputFormat.PNG, 8, ""),
    (OutputFormat.PNG, 16, ""),
    (OutputFormat.PNG, 16, "p3"),
    (OutputFormat.TIFF, 8, ""),
    (OutputFormat.TIFF, 16, ""),
    (OutputFormat.JPEG, 8, ""),
    (OutputFormat.WEBP, 8, ""),
    (OutputFormat.AVIF, 8, ""),
    (OutputFormat.JXL, 8, ""),
]


def band(top: int, rows: int, side: int) -> Pixels:
    """(rows, side, 3) of the picture, from row `top` on."""
    x = np.linspace(0, 1, side, dtype=np.float32)[None, :]
    y = (np.arange(top, top + rows, dtype=np.float32) / side)[:, None]
    noise = np.random.default_rng(top).random((rows, side), dtype=np.float32) * np.float32(0.02)
    planes = (x + 0 * y, y + 0 * x, np.abs(np.sin(20 * x * y)))
    return np.stack([plane * np.float32(0.98) + noise for plane in planes], axis=2)


def measure(kind: OutputFormat, bits: int, profile: str, side: int) -> dict[str, object]:
    """Writes one picture; returns what it cost."""
    import pyvips

    icc = pyvips.Operation.call("profile_load", profile) if profile else None
    traits = Traits(bit_depth=bits, icc=icc)
    look = Look(kind, 90, None, ColorProfile.SOURCE, True, False, traits, {"seed": 1})
    band(0, BAND_ROWS, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result"
        busy = 0.0
        encoder = Encoder(path, side, side, False, look)
        for top in range(0, side, BAND_ROWS):
            rows = band(top, min(BAND_ROWS, side - top), side)
            start = time.perf_counter()
            encoder.write(rows, None)
            busy += time.perf_counter() - start
        start = time.perf_counter()
        encoder.close()
        busy += time.perf_counter() - start
        size = path.stat().st_size
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "format": kind.value,
        "bits": bits,
        "profile": profile or "srgb",
        "megapixels": side * side // 10**6,
        "seconds": round(busy, 1),
        "megabytes": round(size / 1e6, 1),
        "memory_mib": round(taken / 1024),
    }


def main() -> None:
    """Measures all rows, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", nargs=4, metavar=("FORMAT", "BITS", "PROFILE", "SIDE"))
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES_PX, metavar="PX")
    options = parser.parse_args()
    if options.arm:
        kind, bits, profile, side = options.arm
        print(json.dumps(measure(OutputFormat(kind), int(bits), profile, int(side))))
        return
    for kind, bits, profile in ARMS:
        for side in options.sides:
            arm = ["--arm", kind.value, str(bits), profile, str(side)]
            command = [sys.executable, "-m", "benchmarks.formats_out", *arm]
            subprocess.run(command, check=True, timeout=600)


if __name__ == "__main__":
    main()

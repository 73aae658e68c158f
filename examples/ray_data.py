"""Upscales a folder with Ray Data through Tessera's handle, into pictures or into Parquet.

    python examples/ray_data.py FOLDER OUT --to parquet --at-once 8 --scale 2

It runs on the Ray cluster where Tessera is deployed (`RAY_ADDRESS`, or the one of this machine); with
`--start` it starts both here. At most `--at-once` pictures are in flight, and files are read no faster than
pictures are finished: that is the backpressure. A server that is full is asked again when it says. A picture
that fails is a row with an `error`, and the others go on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayTaskError

from serve_app.contracts import UpscaleResult
from serve_app.errors import Busy, TesseraError

SUFFIXES = ["png", "jpg", "jpeg", "webp", "avif", "heic", "tif", "tiff", "bmp", "gif"]
FACTS = ("width", "height", "source_width", "source_height", "tiles")
MOST_TRIES = 20


class Upscale:
    """Makes a row of a file a row of its result; one at a time, so there are as many as are in flight.

    Args:
        params: The fields of `UpscaleParams`.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params
        self._handle = serve.get_app_handle("tessera")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Upscales one picture."""
        told: dict[str, Any] = {"path": row["path"], "image": b"", "media_type": "", "error": ""}
        told |= dict.fromkeys(FACTS, 0) | {"seed": 0, "lr_psnr_db": 0.0}
        try:
            result = self._ask(row["bytes"])
        except TesseraError as error:
            return told | {"error": f"{error.title}: {error.detail}"}
        told |= {name: getattr(result, name) for name in (*FACTS, "image", "media_type")}
        psnr_db = result.report.lr_psnr_db if result.report else 0.0
        return told | {"seed": result.params.seed, "lr_psnr_db": psnr_db}

    def _ask(self, image: bytes) -> UpscaleResult:
        for tries in range(1, MOST_TRIES + 1):
            try:
                answer = self._handle.upscale.remote(image, self._params, priority="batch")
                found: UpscaleResult = answer.result()
                return found
            except RayTaskError as error:
                if not isinstance(error.cause, TesseraError):
                    raise
                if not isinstance(error.cause, Busy) or tries == MOST_TRIES:
                    raise error.cause from None
                time.sleep(error.cause.retry_after_s or 1.0)
        raise AssertionError("the last try returns or raises")


def upscaled(folder: str, params: dict[str, Any], at_once: int) -> ray.data.Dataset:
    """A dataset with a row for each picture of a folder; nothing runs before it is read.

    Args:
        folder: A path or URL that Ray Data reads.
        params: The fields of `UpscaleParams`, such as `{"scale": 2}`.
        at_once: Pictures in flight.
    """
    files = ray.data.read_binary_files(folder, include_paths=True, file_extensions=SUFFIXES)
    # A block is what is handed on whole: one picture each, so that the first is out before the last is read.
    rows = files.repartition(target_num_rows_per_block=1)
    return rows.map(
        Upscale,
        fn_constructor_kwargs={"params": params},
        concurrency=at_once,
        num_cpus=0.01,  # it waits, and does nothing else
    )


def write_pictures(rows: ray.data.Dataset, folder: Path) -> int:
    """Writes each result as a file, as they come; gives the number of pictures that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for row in rows.iter_rows():
        if row["error"]:
            failed += 1
            print(f"{row['path']}: {row['error']}")
            continue
        suffix = row["media_type"].split("/")[1]
        (folder / f"{Path(row['path']).stem}.{suffix}").write_bytes(row["image"])
    return failed


def main() -> int:
    """Reads the command line and runs the pipeline; 1 when a picture failed."""
    parser = argparse.ArgumentParser(description="Upscales a folder with Ray Data.")
    parser.add_argument("folder", help="a folder, or a URL that Ray Data reads")
    parser.add_argument("out", type=Path)
    parser.add_argument("--to", choices=("pictures", "parquet"), default="pictures")
    parser.add_argument("--at-once", type=int, default=4, help="pictures in flight")
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--start", action="store_true", help="start Ray and Tessera here")
    options = parser.parse_args()
    if options.start:
        from serve_app.app import APP_NAME, build_app
        from serve_app.settings import Settings

        ray.init(address="local", include_dashboard=False)
        serve.run(build_app(Settings.parse({"jobs": {"enabled": False}})), name=APP_NAME)
    rows = upscaled(options.folder, {"scale": options.scale}, options.at_once)
    if options.to == "pictures":
        return int(write_pictures(rows, options.out) > 0)
    made = rows.materialize()
    made.write_parquet(str(options.out.resolve()))
    return int(made.filter(lambda row: bool(row["error"])).count() > 0)


if __name__ == "__main__":
    raise SystemExit(main())

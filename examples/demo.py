"""Upscale one photograph through the running application, and show what it gained.

Run by ``make demo IMAGE=photo.jpg OUT=folder``. Talks to the application at ``--host``/``--port``; if nothing
answers there, it starts one on a free port and ends it afterwards. Writes into the folder: ``result.png``,
``before-after.png`` (bicubic left, Tessera right) and ``timings.json``. It knows only Tessera's HTTP routes.
"""

import argparse
import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

START_LIMIT_S = 240.0
REQUEST_LIMIT_S = 900.0
STOP_LIMIT_S = 60.0
PANEL_WIDTH_PX = 484
CROP_HEIGHT_PX = 340
MARGIN_PX = 12
LABEL_HEIGHT_PX = 30


def main() -> int:
    """Do what the module says; returns the exit status."""
    parser = argparse.ArgumentParser(description="Upscale one photograph and show what it gained.")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--config", default="configs/local.yaml")
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.image.is_file():
        print(f"demo: there is no picture at {options.image}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with application(options.host, options.port, options.config, options.out) as url:
            result, timings = upscale(url, options.image, options.scale, options.seed)
    except (RuntimeError, httpx.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    (options.out / "result.png").write_bytes(result)
    (options.out / "timings.json").write_text(json.dumps(timings, indent=2) + "\n")
    with Image.open(options.image) as source, Image.open(io.BytesIO(result)) as upscaled:
        sheet = before_after(opaque(ImageOps.exif_transpose(source)), opaque(upscaled))
    sheet.save(options.out / "before-after.png", optimize=True)
    print(json.dumps(timings, indent=2))
    print(f"demo: wrote result.png, before-after.png and timings.json into {options.out}")
    return 0


@contextlib.contextmanager
def application(host: str, port: int, config: str, out: Path) -> Iterator[str]:
    """Yield the address of a ready application: the running one, or one that lives as long as the block."""
    url = f"http://{host}:{port}"
    if is_tessera(url):
        print(f"demo: using the application at {url}")
        wait_until_ready(url)
        yield url
        return
    url = f"http://127.0.0.1:{free_port()}"
    log_path = out / "server.log"
    print(
        f"demo: nothing answers at {host}:{port}; starting the application at {url} (log: {log_path})"
    )
    with log_path.open("w") as log:
        command = [sys.executable, "-m", "serve_app.app", "--config", config]
        command += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(url, process)
            yield url
        finally:
            stop(process)


def is_tessera(url: str) -> bool:
    """Whether the thing at this address, if any, has Tessera's routes."""
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code in (200, 503)
    except httpx.HTTPError:
        return False


def wait_until_ready(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Return when `/readyz` says 200.

    Raises:
        RuntimeError: the process ended, or the time limit passed.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(
                f"the application ended with status {process.returncode}; see its log"
            )
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        time.sleep(0.5)
    raise RuntimeError(f"{url} was not ready within {START_LIMIT_S:.0f} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the application as Ctrl-C would, and harder if it does not listen."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)


def free_port() -> int:
    """A TCP port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def upscale(url: str, image: Path, scale: float, seed: int) -> tuple[bytes, dict[str, Any]]:
    """Post one picture.

    Returns:
        The encoded result, and what is worth knowing of how it was made (times in ms unless named otherwise).

    Raises:
        RuntimeError: the application refused; the message is its own.
    """
    content = image.read_bytes()
    started = time.monotonic()
    response = httpx.post(
        f"{url}/v1/upscale",
        files={"image": (image.name, content)},
        data={"scale": f"{scale:g}", "seed": str(seed), "output_format": "png"},
        headers={"Accept": "image/*"},
        timeout=REQUEST_LIMIT_S,
    )
    wall_s = time.monotonic() - started
    if response.status_code != 200:
        raise RuntimeError(f"the application answered {response.status_code}: {response.text}")
    return response.content, {
        "source": {"file": image.name, "bytes": len(content), **size_of(content)},
        "result": {"bytes": len(response.content), **size_of(response.content)},
        "scale": scale,
        "seed": int(response.headers["X-Seed"]),
        "request_id": response.headers["X-Request-Id"],
        "wall_s": round(wall_s, 3),
        "server_timing_ms": server_timing(response.headers.get("Server-Timing", "")),
    }


def size_of(content: bytes) -> dict[str, int]:
    """Height and width of an encoded picture as it is shown, px."""
    with Image.open(io.BytesIO(content)) as image:
        shown = ImageOps.exif_transpose(image)
        return {"height": shown.height, "width": shown.width}


def server_timing(header: str) -> dict[str, float]:
    """Read `prepare;dur=12.5, denoise;dur=840` as names and milliseconds."""
    parts = [entry.strip().split(";dur=") for entry in header.split(",") if ";dur=" in entry]
    return {name.strip(): float(value.split(";")[0]) for name, value in parts}


def opaque(image: Image.Image) -> Image.Image:
    """The picture as RGB, transparency laid on white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def before_after(source: Image.Image, result: Image.Image) -> Image.Image:
    """Draw the sheet: the whole pictures above, the liveliest detail at 100 % below."""
    plain = source.resize(result.size, Image.Resampling.BICUBIC)
    whole = (PANEL_WIDTH_PX, round(PANEL_WIDTH_PX * result.height / result.width))
    crop = liveliest(result, min(PANEL_WIDTH_PX, result.width), min(CROP_HEIGHT_PX, result.height))
    x_right = 2 * MARGIN_PX + PANEL_WIDTH_PX
    y_crop = MARGIN_PX + LABEL_HEIGHT_PX + whole[1] + MARGIN_PX
    height = y_crop + LABEL_HEIGHT_PX + (crop[3] - crop[1]) + MARGIN_PX
    sheet = Image.new("RGB", (x_right + PANEL_WIDTH_PX + MARGIN_PX, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for x, name, picture in ((MARGIN_PX, "Bicubic", plain), (x_right, "Tessera", result)):
        draw.text((x, MARGIN_PX + 3), f"{name}, {sizes(source, result)}", "black", font)
        small = picture.resize(whole, Image.Resampling.LANCZOS)
        sheet.paste(small, (x, MARGIN_PX + LABEL_HEIGHT_PX))
        draw.text((x, y_crop + 3), f"{name}, detail at 100 %", "black", font)
        sheet.paste(picture.crop(crop), (x, y_crop + LABEL_HEIGHT_PX))
    return sheet


def sizes(source: Image.Image, result: Image.Image) -> str:
    """Both sizes in words, width first as photographers write it."""
    return f"{source.width} x {source.height} to {result.width} x {result.height} px"


def liveliest(image: Image.Image, width: int, height: int) -> tuple[int, int, int, int]:
    """The window of this size with the most edges, as Pillow's box (left, top, right, bottom)."""
    eighth = image.convert("L").filter(ImageFilter.FIND_EDGES).reduce(8)
    mean = eighth.filter(ImageFilter.BoxBlur((width / 16, height / 16)))
    values = mean.tobytes()
    best = (-1, 0, 0)
    for y in range((image.height - height) // 8 + 1):
        for x in range((image.width - width) // 8 + 1):
            row, column = (
                min(y + height // 16, mean.height - 1),
                min(x + width // 16, mean.width - 1),
            )
            best = max(best, (values[row * mean.width + column], 8 * x, 8 * y))
    _, left, top = best
    return left, top, left + width, top + height


if __name__ == "__main__":
    sys.exit(main())

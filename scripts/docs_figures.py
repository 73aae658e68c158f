"""Draws the figures of docs/concepts.md from real runs: `python scripts/docs_figures.py [FOLDER]`.

Pictures come from the embedded model, the engine's turns from a real engine whose runner is paced as a GPU
would be. It refuses to know what the pages say of them.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from serve_app.contracts import Priority, UpscaleParams, UpscaleRequest, UpscaleResult, resolve
from serve_app.engine.engine import Engine
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.task import Kind, TileInputs, TileTask
from serve_app.local import local_upscaler
from serve_app.models.catalog import find_model, read_model_info
from serve_app.resample import resize
from serve_app.settings import EngineSettings, Settings
from serve_app.testing_engine import RooflineRunner, Turn
from serve_app.tiling.fields import noise
from serve_app.tiling.geometry import Size, Tile
from serve_app.tiling.grid import make_plan

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SEED = 7
LATENT_PX = 8  # pixels of a side for one latent of the embedded model
COLOURS = ("#2b6cb0", "#dd8452", "#55a868")
FONT = ImageFont.load_default(17)


async def enlarged(name: str, **wanted: Any) -> UpscaleResult:
    """Upscales an example with the embedded model."""
    async with local_upscaler(Settings()) as upscaler:
        params = UpscaleParams(scale=4, seed=SEED, **wanted)
        picture = (EXAMPLES / name).read_bytes()
        return await upscaler.upscale(UpscaleRequest(image=picture, params=params, request_id=name))


def opened(result: UpscaleResult) -> Image.Image:
    """A result as a picture."""
    return Image.open(BytesIO(result.image)).convert("RGB")


def tiles_over(picture: Image.Image) -> Image.Image:
    """The plan's tiles over a result; where they overlap it is lighter."""
    model = read_model_info(find_model("mini"))
    size = Size(picture.height, picture.width)
    plan = make_plan(size, model.tile_px, model.overlap_px, model.align_px)
    shared = np.zeros((plan.canvas.height, plan.canvas.width), np.uint8)
    for tile in plan.tiles:
        shared[tile.rows, tile.columns] += 1
    mask = Image.fromarray(((shared > 1) * 120).astype(np.uint8)[: size.height, : size.width])
    drawn = Image.composite(Image.new("RGB", picture.size, "white"), picture, mask)
    pen = ImageDraw.Draw(drawn)
    for number, tile in enumerate(plan.tiles):
        corners = (tile.left, tile.top, tile.right - 1, tile.bottom - 1)
        pen.rectangle(corners, outline=COLOURS[number % 2], width=3)
        middle = ((tile.left + tile.right) / 2, (tile.top + tile.bottom) / 2)
        pen.text(
            middle,
            str(number),
            "white",
            ImageFont.load_default(44),
            "mm",
            stroke_width=3,
            stroke_fill="black",
        )
    return drawn


def field_and_crops(picture: Image.Image) -> Image.Image:
    """The noise and the control picture as fields, and below each the crops of two neighbouring tiles."""
    model = read_model_info(find_model("mini"))
    plan = make_plan(
        Size(picture.height, picture.width), model.tile_px, model.overlap_px, model.align_px
    )
    two = plan.tiles[:2]
    width, height = two[1].right, two[0].bottom
    whole = Tile(0, 0, height, width).shrunk(LATENT_PX)
    source = np.asarray(Image.open(EXAMPLES / "photo.jpg").convert("RGB"), np.float32) / 255
    control = Image.fromarray(
        (resize(source, picture.height, picture.width).clip(0, 1) * 255).astype(np.uint8)
    )
    gap, head = 24, 30
    sheet = Image.new("RGB", (2 * width + gap, 2 * (head + height) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    fields = (shown(noise(SEED, whole, 3)), control.crop((0, 0, width, height)))
    for column, field in enumerate(fields):
        left = column * (width + gap)
        name = ("the noise (3 of its 16 channels)", "the control picture")[column]
        pen.text((left, 4), f"Field: {name}", "black", FONT)
        sheet.paste(field, (left, head))
        pen.text(
            (left, head + height + gap - 4),
            "Crops of tiles 0 and 1: equal where they overlap",
            "black",
            FONT,
        )
        for number, tile in enumerate(two):
            crop = field.crop((tile.left, 0, tile.right, height))
            if column == 0:  # each tile draws its own crop of the field, as an engine does
                crop = shown(noise(SEED, tile.shrunk(LATENT_PX), 3))
            side = width // 2 - 6
            at = (left + number * (side + 12), 2 * head + height + gap)
            sheet.paste(crop.resize((side, side), Image.Resampling.NEAREST), at)
            overlap = round(side * plan.overlap_px / plan.tile_px)
            edge = at[0] + (side - overlap if number == 0 else 0)
            pen.rectangle((edge, at[1], edge + overlap, at[1] + side), outline=COLOURS[1], width=3)
            corners = (left + tile.left, head, left + tile.right - 1, head + height - 1)
            pen.rectangle(corners, outline=COLOURS[number], width=3)
    return sheet.crop((0, 0, sheet.width, 2 * head + height + gap + width // 2))


def shown(values: np.ndarray) -> Image.Image:
    """Normal values as colours, a latent as large as the pixels that it stands for."""
    levels = ((values / 5 + 0.5).clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    large = np.kron(levels, np.ones((LATENT_PX, LATENT_PX, 1), np.uint8))
    return Image.fromarray(large)


async def record() -> list[Turn]:
    """What an engine really did: a batch request, and amid it two interactive ones that overlap."""
    turns: list[Turn] = []
    loop = asyncio.get_running_loop()
    arrivals = {2: asyncio.Event(), 4: asyncio.Event()}  # by the steps done before

    def on_turn(turn: Turn) -> None:
        turns.append(turn)
        arrival = arrivals.get(sum(done.kind is Kind.STEP for done in turns))
        if arrival is not None:
            loop.call_soon_threadsafe(arrival.set)

    settings = EngineSettings(max_batch=4)
    engine = Engine(RooflineRunner(512, settings, pace=0.5, on_turn=on_turn), Scheduler(settings))
    model = read_model_info(find_model("mini"))
    side = model.tile_px
    crop = np.zeros((side, side, 3), np.uint16)

    async def one(name: str, index: int, steps: int, priority: Priority) -> None:
        params = resolve(UpscaleParams(steps=steps), model, drawn_seed=0)
        task = TileTask(name, index, Tile(0, 0, side, side), params, priority)
        async with aclosing(engine.denoise(task, TileInputs([crop]))) as events:
            async for _ in events:
                pass

    async def late(after: int, name: str, steps: int) -> None:
        await arrivals[after].wait()
        await one(name, 0, steps, Priority.INTERACTIVE)

    first = (one("first", index, 6, Priority.BATCH) for index in range(2))
    await asyncio.gather(*first, late(2, "second", 6), late(4, "third", 3))
    await asyncio.to_thread(engine.close)
    return turns


def chart(turns: list[Turn]) -> str:
    """The turns as SVG: a column for each, a row for each tile."""
    tiles = sorted({tile for turn in turns for tile in turn.tiles})
    cell, left, top = 30, 150, 64
    width, height = left + cell * len(turns) + 20, top + 34 * len(tiles) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-size="12" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(10, 22, "What an engine did, turn by turn: e encodes, a number is a step, d decodes"),
        _text(10, 44, f"{len(turns)} turns; tiles in one column were computed together"),
    ]
    done: dict[tuple[str, int], int] = {}
    for column, turn in enumerate(turns):
        for tile in turn.tiles:
            x, y = left + column * cell, top + tiles.index(tile) * 34
            said = {Kind.ENCODE: "e", Kind.DECODE: "d"}.get(turn.kind)
            if said is None:
                done[tile] = done.get(tile, 0) + 1
                said = str(done[tile])
            colour = COLOURS[("first", "second", "third").index(tile[0])]
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 2}" height="28" rx="3" fill="{colour}"/>'
            )
            parts.append(_text(x + cell / 2 - 1, y + 19, said, "white", "middle"))
    for row, (name, index) in enumerate(tiles):
        parts.append(_text(10, top + row * 34 + 19, f"{name} request, tile {index}"))
    parts.append(_text(left, height - 12, "time, one column a turn →"))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, said: str, fill: str = "#222", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}" text-anchor="{anchor}">{escape(said)}</text>'


def before_and_after(free: UpscaleResult, tied: UpscaleResult) -> Image.Image:
    """A result without and with its ties, and below each what it lacks of its source, 20 times as strong."""
    source = np.asarray(Image.open(EXAMPLES / "astronaut.jpg").convert("RGB"), np.float32) / 255
    side, head = 400, 30
    sheet = Image.new("RGB", (2 * side + 16, 2 * (side + head)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (result, name) in enumerate(
        ((free, "as the network made it"), (tied, "tied to its source"))
    ):
        picture = opened(result)
        pixels = np.asarray(picture, np.float32) / 255
        lack = (resize(pixels, *source.shape[:2]) - source) * 20 + 0.5
        difference = Image.fromarray((lack.clip(0, 1) * 255).astype(np.uint8))
        left = column * (side + 16)
        if result.report is None:
            raise ValueError("a result without a report")
        sheet.paste(picture.crop((280, 60, 280 + side, 60 + side)), (left, head))
        pen.text((left, 4), f"{name}: LR-PSNR {result.report.lr_psnr_db:.1f} dB", "black", FONT)
        pen.text(
            (left, side + head + 4),
            "scaled down, less its source, x20; grey is equal",
            "black",
            FONT,
        )
        sheet.paste(
            difference.resize((side, side), Image.Resampling.NEAREST), (left, side + 2 * head)
        )
    return sheet


async def main(folder: Path) -> None:
    """Draws all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = opened(await enlarged("photo.jpg"))
    tiles_over(picture).save(folder / "concept-tiles.jpg", quality=88)
    field_and_crops(picture).save(folder / "concept-fields.png", optimize=True)
    (folder / "concept-engine.svg").write_text(chart(await record()))
    free = await enlarged("astronaut.jpg", fidelity=0, color_fix="none", output_format="png")
    tied = await enlarged("astronaut.jpg", output_format="png")
    before_and_after(free, tied).save(folder / "concept-fidelity.jpg", quality=88)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "images"))

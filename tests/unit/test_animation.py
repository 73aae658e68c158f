"""Frames go the way of still pictures, a few at once; what is told of them is told of all together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from serve_app import tiles
from serve_app.animation import FRAMES_AT_ONCE, Enlarged, together
from serve_app.contracts import (
    ModelInfo,
    OutputFormat,
    Progress,
    ResolvedParams,
    UpscaleParams,
    UpscaleRequest,
)
from serve_app.engine.task import TileTask
from serve_app.errors import Busy, DeadlineExceeded, GarbageTile, ReplicaLost, TileFailed
from serve_app.imaging.frames import Frames
from serve_app.parts import Prepared
from serve_app.settings import RequestSettings
from serve_app.stages.finish import Finished
from serve_app.stages.prepare import Faces, Outline
from serve_app.testing import FAKE_MODEL
from serve_app.testing_engine import IdentityDenoiser
from serve_app.upscale import Conductor
from tests.unit.test_upscale import PLAN, REPORT, SOURCE, STEPS, TILES, Ends

FRAMES = Frames([b"one", b"two", b"three"], (0, 1, 0, 2), (10, 20, 30, 40), plays=2, gray=False)


class Reel(Ends):
    """Ends of a conductor to which every picture moves; a frame's file is `<picture>`."""

    def __init__(self, frames: Frames | None = FRAMES) -> None:
        super().__init__()
        self.frames = frames
        self.split_calls = 0
        self.joined: list[tuple[Frames, ResolvedParams]] = []
        self.prepared: list[tuple[bytes, ResolvedParams]] = []
        self.open = self.most_open = 0

    async def split(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Frames | None:
        self.split_calls += 1
        return self.frames

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        self.prepared.append((request.image, params))
        return Prepared(Outline(SOURCE, PLAN), Faces(), request.image, [])

    def begin(self, prepared: Prepared, params: ResolvedParams, model: ModelInfo) -> Any:
        return _Making(self, prepared.source)

    async def join(self, frames: Frames, params: ResolvedParams, model: ModelInfo) -> bytes:
        self.joined.append((frames, params))
        return b" ".join(frames.pictures[at] for at in frames.shown)


class _Making:
    """One frame's result in the making."""

    def __init__(self, reel: Reel, picture: bytes) -> None:
        self._reel, self._picture = reel, picture

    async def __aenter__(self) -> _Making:
        self._reel.open += 1
        self._reel.most_open = max(self._reel.most_open, self._reel.open)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reel.open -= 1

    async def add(self, tiles: Any) -> None:
        await asyncio.sleep(0)

    async def end(self) -> Finished:
        return Finished(self._picture, REPORT)

    async def keep(self) -> Finished:
        return Finished(b"<" + self._picture + b">", REPORT)


def conductor(reel: Reel, denoiser: IdentityDenoiser | None = None, **settings: Any) -> Conductor:
    asked = RequestSettings(**settings)
    return Conductor([FAKE_MODEL], reel, None, denoiser or IdentityDenoiser(), reel, asked)


def request(timeout_s: float | None = None, **params: Any) -> UpscaleRequest:
    given = {"steps": STEPS, "animated": True, "seed": 5} | params
    return UpscaleRequest(
        image=b"film", params=UpscaleParams(**given), request_id="r-1", timeout_s=timeout_s
    )


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_FIRST_RETRY_S", 0)


async def test_frames_go_through_and_are_joined_as_they_are_shown():
    reel, denoiser = Reel(), IdentityDenoiser()
    result = await conductor(reel, denoiser).upscale(request())
    assert result.image == b"<one> <two> <one> <three>"
    assert sorted(image for image, _ in reel.prepared) == [b"one", b"three", b"two"]
    assert (result.frames, result.tiles) == (4, 3 * TILES)
    assert (result.width, result.height) == (800, 400)
    assert result.timings_s.keys() == {"prepare", "denoise", "finish"}
    [(frames, params)] = reel.joined
    assert (frames.durations_ms, frames.plays) == ((10, 20, 30, 40), 2)
    assert params == result.params
    assert {task.params.seed for task in denoiser.tasks} == {5}
    assert {task.request_id for task in denoiser.tasks} == {"r-1"}


async def test_without_being_asked_for_a_picture_does_not_move():
    reel = Reel()
    result = await conductor(reel).upscale(request(animated=False))
    assert (result.image, result.frames, reel.split_calls) == (b"film", 1, 0)


async def test_a_still_picture_is_a_still_picture():
    reel = Reel(frames=None)
    result = await conductor(reel).upscale(request(output_format="jpeg"))
    assert (result.image, result.frames, result.tiles) == (b"film", 1, TILES)
    assert reel.joined == []


async def test_frames_for_other_formats_are_made_without_loss():
    reel = Reel()
    result = await conductor(reel).upscale(request(output_format="webp"))
    assert result.media_type == "image/webp"
    assert {params.output_format for _, params in reel.prepared} == {OutputFormat.PNG}
    assert reel.joined[0][1].output_format is OutputFormat.WEBP


async def test_a_few_frames_are_in_the_works_at_once():
    many = Frames([b"%d" % at for at in range(9)], tuple(range(9)), (1,) * 9, 0, gray=False)
    reel = Reel(many)
    await conductor(reel).upscale(request())
    assert reel.most_open == FRAMES_AT_ONCE


async def test_progress_is_of_all_frames_together():
    reports: list[Progress] = []
    await conductor(Reel()).upscale(request(), reports.append)
    for before, after in pairwise(reports):
        assert after.tiles_done >= before.tiles_done
        assert after.steps_done >= before.steps_done
    assert {report.tiles_total for report in reports} == {3 * TILES}
    assert {report.steps_total for report in reports} == {3 * TILES * STEPS}
    assert [report.stage for report in reports[-2:]] == ["denoise", "finish"]
    assert reports[-1].tiles_done == 3 * TILES


async def test_a_moving_picture_takes_one_place():
    gate = asyncio.Event()

    async def hold(_: TileTask) -> None:
        await gate.wait()

    service = conductor(Reel(), IdentityDenoiser(hold), pictures_at_once=1)
    running = asyncio.create_task(service.upscale(request()))
    await asyncio.sleep(0.01)
    with pytest.raises(Busy):
        await service.upscale(request())
    gate.set()
    assert (await running).frames == 4
    assert (await service.upscale(request())).frames == 4


async def test_all_frames_share_one_deadline():
    async def hold(_: TileTask) -> None:
        await asyncio.Event().wait()

    reel = Reel()
    with pytest.raises(DeadlineExceeded):
        await conductor(reel, IdentityDenoiser(hold)).upscale(request(timeout_s=0.05))
    assert reel.open == 0


async def test_the_first_failure_ends_the_others():
    async def fail(task: TileTask) -> None:
        raise TileFailed("no")

    reel = Reel()
    with pytest.raises(TileFailed):
        await conductor(reel, IdentityDenoiser(fail)).upscale(request())
    assert (reel.open, reel.joined) == (0, [])


@pytest.mark.parametrize("stage", ["split", "join"])
@pytest.mark.parametrize("times", [2, 4])
async def test_a_stage_that_dies_is_asked_again(stage: str, times: int):
    reel, left = Reel(), [times]
    work: Callable[..., Any] = getattr(reel, stage)

    async def dying(*given: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ReplicaLost("gone")
        return await work(*given)

    setattr(reel, stage, dying)
    running = conductor(reel, tile_retries=3).upscale(request())
    if times > 3:
        with pytest.raises(ReplicaLost):
            await running
        return
    assert (await running).image == b"<one> <two> <one> <three>"


async def test_garbage_is_told_with_its_frame():
    async def spoil(task: TileTask) -> None:
        if task.index == 1:
            raise GarbageTile("tile 1 is flat")

    result = await conductor(Reel(), IdentityDenoiser(spoil)).upscale(request())
    assert result.report is not None
    assert result.tiles_retried == result.report.tiles_retried == 3 * 2
    assert result.report.tiles_replaced == 3
    begins = [warning[:15] for warning in result.report.warnings]
    assert begins == ["frame 0: tile 1", "frame 1: tile 1", "frame 3: tile 1"]


def test_each_number_is_that_of_the_worst_frame():
    changes: list[dict[str, float]] = [
        {"lr_psnr_db": 30, "seam_energy": 0.9, "fidelity": 0.5},
        {"color_error_mean": 3, "noise": 0.2, "tiles_retried": 2, "fidelity": 0.2},
        {"color_error_p99": 9, "edge_agreement": 0.1, "tiles_retried": 1, "blocking": 0.3},
    ]
    reports = [REPORT.model_copy(update=change) for change in changes]
    made = [Enlarged(Outline(SOURCE, PLAN), b"", report, 6) for report in reports]
    found = together(FRAMES, made, b"all")
    assert found.report.model_dump() == {
        "lr_psnr_db": 30,
        "color_error_mean": 3,
        "color_error_p99": 9,
        "edge_agreement": 0.1,
        "seam_energy": 1,
        "fidelity": 0.2,
        "noise": 0.2,
        "blocking": 0.3,
        "tiles_retried": 3,
        "tiles_replaced": 0,
        "faces": 0,
        "warnings": (),
    }
    assert (found.image, found.tiles, found.frames) == (b"all", 18, 4)

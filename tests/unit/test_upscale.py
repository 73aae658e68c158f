"""The story holds: bounded, retried, cancelled and reported, whatever the three parts do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from serve_app import tiles
from serve_app.contracts import (
    MAX_SEED,
    FidelityReport,
    ModelInfo,
    Progress,
    ResolvedParams,
    UpscaleParams,
    UpscaleRequest,
    UpscaleResult,
)
from serve_app.engine.task import TileTask
from serve_app.errors import (
    Busy,
    DeadlineExceeded,
    GarbageTile,
    InvalidParameter,
    ReplicaLost,
    TileFailed,
)
from serve_app.parts import Prepared
from serve_app.settings import RequestSettings
from serve_app.stages.finish import Finished
from serve_app.stages.prepare import Faces, Outline
from serve_app.testing import FAKE_MODEL
from serve_app.testing_engine import IdentityDenoiser
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan
from serve_app.upscale import Conductor

SOURCE = Size(100, 200)
PLAN = make_plan(Size(400, 800), tile_px=256, overlap_px=32, align_px=16)
TILES, STEPS = PLAN.count, 3
TALL = make_plan(Size(2000, 400), tile_px=256, overlap_px=32, align_px=16)  # nine rows
REPORT = FidelityReport(
    lr_psnr_db=41,
    color_error_mean=0.4,
    color_error_p99=2,
    edge_agreement=0.01,
    seam_energy=1,
    fidelity=0.5,
    noise=0,
    blocking=0,
    tiles_retried=0,
    tiles_replaced=0,
)


class Ends:
    """A preparer and a finisher that only carry: crop n is the text "crop n"."""

    def __init__(self, error: Exception | None = None, plan: Plan = PLAN) -> None:
        self.error = error
        self.plan = plan
        self.strips: list[int] = []
        self.faces = Faces()

    async def prepare(
        self, request: UpscaleRequest, params: ResolvedParams, model: ModelInfo
    ) -> Prepared:
        if self.error is not None:
            raise self.error
        return Prepared(Outline(SOURCE, self.plan), self.faces, "source", [])

    async def strip(
        self, prepared: Prepared, params: ResolvedParams, row: int
    ) -> list[tuple[str, ...]]:
        self.strips.append(row)
        across = len(self.plan.lefts)
        return [(f"crop {n}",) for n in range(row * across, (row + 1) * across)]

    @asynccontextmanager
    async def begin(
        self, prepared: Prepared, params: ResolvedParams, model: ModelInfo
    ) -> AsyncIterator[Ends]:
        self.tiles: list[Any] = []
        self.given_up = True
        yield self
        self.given_up = False

    async def add(self, tiles: Sequence[Any]) -> None:
        assert len(tiles) == len(self.plan.lefts)
        self.tiles += tiles

    async def end(self) -> Finished:
        return Finished(" ".join(self.tiles).encode(), REPORT)


class Embedder:
    """Remembers the texts that it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def embed(self, text: str) -> str:
        self.texts.append(text)
        return f"<{text}>"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_FIRST_RETRY_S", 0)


def conductor(
    denoiser: IdentityDenoiser,
    *models: ModelInfo,
    preparer: Ends | None = None,
    finisher: Ends | None = None,
    embedder: Embedder | None = None,
    **settings: Any,
) -> Conductor:
    return Conductor(
        models or [FAKE_MODEL],
        preparer or Ends(),
        embedder,
        denoiser,
        finisher or Ends(),
        RequestSettings(**settings),
    )


def request(timeout_s: float | None = None, **params: Any) -> UpscaleRequest:
    return UpscaleRequest(
        image=b"picture",
        params=UpscaleParams(**{"steps": STEPS} | params),
        request_id="r-1",
        timeout_s=timeout_s,
    )


class Gate(IdentityDenoiser):
    """Holds every tile after its steps until it is opened; knows how many are held and cancelled."""

    def __init__(self) -> None:
        super().__init__(on_tile=self._hold)
        self.opened = asyncio.Event()
        self.held: set[int] = set()
        self.most_held = 0
        self.cancelled: set[int] = set()

    async def _hold(self, task: TileTask) -> None:
        self.held.add(task.index)
        self.most_held = max(self.most_held, len(self.held))
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.add(task.index)
            raise
        finally:
            self.held.discard(task.index)

    async def holds(self, count: int) -> None:
        while len(self.held) < count:
            await asyncio.sleep(0)


# The result


async def test_the_result_tells_what_was_done():
    result = await conductor(IdentityDenoiser()).upscale(request(seed=5, output_format="webp"))
    assert isinstance(result, UpscaleResult)
    assert result.image == b" ".join(b"crop %d" % n for n in range(TILES))
    assert (result.width, result.height) == (800, 400)
    assert (result.source_width, result.source_height) == (200, 100)
    assert (result.tiles, result.tiles_retried) == (TILES, 0)
    assert result.media_type == "image/webp"
    assert (result.params.seed, result.params.steps, result.params.scale) == (5, STEPS, 4)
    assert result.timings_s.keys() == {"prepare", "denoise", "finish"}
    assert result.request_id == "r-1"


async def test_each_tile_is_sent_once_with_its_place_and_parameters():
    denoiser = IdentityDenoiser()
    result = await conductor(denoiser).upscale(request(timeout_s=50))
    sent = sorted(denoiser.tasks, key=lambda task: task.index)
    assert [(task.index, task.tile) for task in sent] == list(enumerate(PLAN.tiles))
    assert {task.request_id for task in sent} == {"r-1"}
    assert {task.params for task in sent} == {result.params}
    assert all(0 < (task.time_left_s or 0) <= 50 for task in sent)


async def test_texts_are_embedded_once_and_travel_with_every_tile():
    denoiser, embedder = IdentityDenoiser(), Embedder()
    given: list[Sequence[Any]] = []
    denoise = denoiser.denoise

    async def spy(task: TileTask, crops: Any, prompts: Sequence[Any], on_steps: Any) -> Any:
        given.append(prompts)
        return await denoise(task, crops, prompts, on_steps)

    denoiser.denoise = spy  # type: ignore[method-assign]
    taking = FAKE_MODEL.model_copy(update={"takes_prompt": True, "takes_true_cfg": True})
    service = conductor(denoiser, taking, embedder=embedder)
    await service.upscale(request(prompt="a", negative_prompt="b", true_cfg_scale=2))
    assert embedder.texts == ["a", "b"]
    assert given == [["<a>", "<b>"]] * TILES
    # without true CFG a negative prompt does not act
    await service.upscale(request(prompt="a", negative_prompt="b"))
    assert embedder.texts == ["a", "b", "a"]


async def test_an_absent_seed_is_drawn_and_reported():
    service = conductor(IdentityDenoiser())
    seeds = {(await service.upscale(request())).params.seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


async def test_the_same_seed_is_the_same_work():
    denoiser = IdentityDenoiser()
    service = conductor(denoiser)
    for _ in range(2):
        await service.upscale(request(seed=MAX_SEED))
    tasks = [replace(task, time_left_s=None) for task in denoiser.tasks]
    tasks.sort(key=lambda task: task.index)
    assert tasks[0::2] == tasks[1::2]


# Progress


def assert_monotone_and_complete(reports: list[Progress]) -> None:
    stages = ("prepare", "denoise", "finish")
    for before, after in pairwise(reports):
        assert after.tiles_done >= before.tiles_done
        assert after.steps_done >= before.steps_done
        assert stages.index(after.stage) >= stages.index(before.stage)
    totals = {(report.tiles_total, report.steps_total) for report in reports}
    assert totals == {(TILES, TILES * STEPS)}
    assert (reports[0].tiles_done, reports[0].steps_done) == (0, 0)
    assert (reports[-1].tiles_done, reports[-1].steps_done) == (TILES, TILES * STEPS)


async def test_progress_rises_and_ends_complete():
    reports: list[Progress] = []
    await conductor(IdentityDenoiser()).upscale(request(), reports.append)
    assert_monotone_and_complete(reports)
    assert {report.steps_done for report in reports} == set(range(TILES * STEPS + 1))
    assert reports[-1].stage == "finish"


async def test_no_progress_is_reported_after_the_end():
    denoiser, reports = Gate(), []
    running = asyncio.create_task(conductor(denoiser).upscale(request(), reports.append))
    await denoiser.holds(TILES)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    count = len(reports)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(reports) == count


# Retries


async def test_a_lost_tile_is_sent_again():
    left = [2]

    async def lose(task: TileTask) -> None:
        if task.index == 2 and left[0]:
            left[0] -= 1
            raise ReplicaLost("gone")

    reports: list[Progress] = []
    service = conductor(IdentityDenoiser(lose), tile_retries=2)
    result = await service.upscale(request(), reports.append)
    assert result.tiles_retried == 2
    assert result.image == b" ".join(b"crop %d" % n for n in range(TILES))
    assert_monotone_and_complete(reports)


async def test_a_tile_that_stays_garbage_is_the_plain_resize_and_said_to_be():
    async def spoil(task: TileTask) -> None:
        if task.index == 2:
            raise GarbageTile("tile 2 is flat")

    result = await conductor(IdentityDenoiser(spoil)).upscale(request(seed=5))
    assert result.image == b" ".join(b"crop %d" % n for n in range(TILES))
    assert result.params.seed == 5
    assert result.report is not None
    assert (result.tiles_retried, result.report.tiles_retried) == (2, 2)
    assert result.report.tiles_replaced == 1
    [warning] = result.report.warnings
    assert "tile 2" in warning


@pytest.mark.parametrize("stage", ["prepare", "strip", "end"])
@pytest.mark.parametrize("times", [2, 4])
async def test_a_cpu_stage_that_dies_is_asked_again(stage: str, times: int):
    ends, left = Ends(), [times]
    work = getattr(ends, stage)

    async def dying(*given: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ReplicaLost("gone")
        return await work(*given)

    setattr(ends, stage, dying)
    service = conductor(IdentityDenoiser(), preparer=ends, finisher=ends, tile_retries=3)
    running = service.upscale(request())
    if times > 3:
        with pytest.raises(ReplicaLost):
            await running
        return
    result = await running
    assert result.image == b" ".join(b"crop %d" % n for n in range(TILES))
    assert result.tiles_retried == 0


# Bounds


async def test_only_the_next_row_of_tiles_is_cut_ahead():
    denoiser, ends = Gate(), Ends(plan=TALL)
    service = conductor(denoiser, preparer=ends, finisher=ends, tiles_at_once=1)
    running = asyncio.create_task(service.upscale(request()))
    await denoiser.holds(1)
    for _ in range(200):
        await asyncio.sleep(0)
    assert ends.strips == [0, 1]
    denoiser.opened.set()
    await running
    assert ends.strips == list(range(len(TALL.tops)))


async def test_rows_that_nobody_joins_hold_the_denoisers_back():
    class Slow(Ends):
        async def add(self, tiles: Sequence[Any]) -> None:
            await joined.wait()
            await super().add(tiles)

    joined, denoiser, tall = asyncio.Event(), IdentityDenoiser(), Slow(plan=TALL)
    service = conductor(denoiser, preparer=tall, finisher=tall, tiles_at_once=1)
    running = asyncio.create_task(service.upscale(request()))
    for _ in range(1000):
        await asyncio.sleep(0)
    # a row that is being joined, two that wait for it, and one whose tiles are out but find no room
    sent = len(denoiser.tasks) // len(TALL.lefts)
    joined.set()
    assert (await running).tiles == TALL.count
    assert sent == 4


@pytest.mark.parametrize("failing", ["add", "end"])
async def test_a_result_that_fails_is_given_up(failing: str):
    ends = Ends()

    async def fail(*_: Any) -> Any:
        raise OSError("disk full")

    setattr(ends, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        await conductor(IdentityDenoiser(), finisher=ends).upscale(request())
    assert ends.given_up


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_only_so_many_tiles_are_under_way(most: int):
    denoiser = Gate()
    running = asyncio.create_task(conductor(denoiser, tiles_at_once=most).upscale(request()))
    await denoiser.holds(min(most, TILES))
    for _ in range(20):
        await asyncio.sleep(0)
    assert denoiser.most_held == len(denoiser.tasks) == min(most, TILES)
    denoiser.opened.set()
    assert (await running).tiles == TILES
    assert denoiser.most_held <= most


async def test_one_picture_too_many_is_refused_until_a_place_is_free():
    denoiser = Gate()
    service = conductor(denoiser, pictures_at_once=2, retry_after_s=7)
    running = [asyncio.create_task(service.upscale(request())) for _ in range(2)]
    await denoiser.holds(TILES)
    with pytest.raises(Busy) as caught:
        await service.upscale(request())
    assert caught.value.retry_after_s == 7
    denoiser.opened.set()
    await asyncio.gather(*running)
    assert (await service.upscale(request())).tiles == TILES


async def test_failed_and_cancelled_pictures_give_their_places_back():
    denoiser = Gate()
    ends = Ends(error=InvalidParameter("bad", field="image"))
    service = conductor(denoiser, preparer=ends, pictures_at_once=1)
    for _ in range(2):
        with pytest.raises(InvalidParameter):
            await service.upscale(request())
    ends.error = None
    with pytest.raises(DeadlineExceeded):
        await service.upscale(request(timeout_s=0.01))
    running = asyncio.create_task(service.upscale(request()))
    await denoiser.holds(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    denoiser.opened.set()
    assert (await service.upscale(request())).tiles == TILES


# Endings before the end


@pytest.mark.parametrize(("own_s", "limit"), [(0.02, r"0\.02 s"), (None, r"0\.03 s")])
async def test_a_request_ends_with_its_own_time_or_the_settings(own_s: float | None, limit: str):
    denoiser = Gate()
    with pytest.raises(DeadlineExceeded, match=limit):
        await conductor(denoiser, timeout_s=0.03).upscale(request(timeout_s=own_s))
    assert not denoiser.held


async def test_cancelling_cancels_all_tiles():
    denoiser = Gate()
    running = asyncio.create_task(conductor(denoiser, tiles_at_once=5).upscale(request()))
    await denoiser.holds(5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(denoiser.cancelled) == 5
    assert not denoiser.held
    assert len(denoiser.tasks) == 5  # the tiles that waited for a place were never sent


async def test_the_first_failure_cancels_the_other_tiles():
    class FailsLate(Gate):
        async def _hold(self, task: TileTask) -> None:
            if task.index == TILES - 1:
                await self.holds(TILES - 1)
                raise TileFailed("tile 7 came out as NaN")
            await super()._hold(task)

    denoiser = FailsLate()
    with pytest.raises(TileFailed, match="tile 7"):
        await conductor(denoiser).upscale(request())
    assert denoiser.cancelled == set(range(TILES - 1))


async def test_a_failing_finish_reaches_the_caller():
    class Broken(Ends):
        async def end(self) -> Finished:
            raise InvalidParameter("output_format: too long", field="output_format")

    with pytest.raises(InvalidParameter, match="output_format"):
        await conductor(IdentityDenoiser(), finisher=Broken()).upscale(request())


# Models


SECOND = FAKE_MODEL.model_copy(update={"name": "second", "takes_prompt": True})


async def test_the_first_model_is_the_default():
    service = conductor(IdentityDenoiser(), FAKE_MODEL, SECOND, embedder=Embedder())
    assert (await service.upscale(request())).params.model == "fake"
    assert (await service.upscale(request(model="second", prompt="a"))).params.model == "second"
    assert await service.models() == [FAKE_MODEL, SECOND]


async def test_an_unknown_model_names_the_known_ones():
    service = conductor(IdentityDenoiser(), FAKE_MODEL, SECOND)
    with pytest.raises(InvalidParameter) as caught:
        await service.upscale(request(model="third"))
    assert (caught.value.field, caught.value.allowed) == ("model", "fake, second")


async def test_what_the_model_does_not_take_is_refused_before_anything_starts():
    denoiser = IdentityDenoiser()
    with pytest.raises(InvalidParameter) as caught:
        await conductor(denoiser).upscale(request(prompt="a house"))
    assert caught.value.field == "prompt"
    assert denoiser.tasks == []


@pytest.mark.parametrize("is_ready", [True, False])
async def test_it_is_ready_when_its_denoiser_is(is_ready: bool):
    class Denoiser(IdentityDenoiser):
        async def ready(self) -> bool:
            return is_ready

    assert await conductor(Denoiser()).ready() is is_ready

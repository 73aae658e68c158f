"""A tile is sent again where its replica dies and tried with other seeds where it is garbage, a few times."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from serve_app import tiles
from serve_app.contracts import (
    MAX_SEED,
    Priority,
    Progress,
    UpscaleParams,
    UpscaleRequest,
    resolve,
)
from serve_app.engine.task import TileTask
from serve_app.errors import Busy, GarbageTile, ReplicaLost, TileFailed
from serve_app.ledger import Ledger
from serve_app.testing import FAKE_MODEL
from serve_app.testing_engine import IdentityDenoiser
from serve_app.tiles import Job, TileSender, derived_seed
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import make_plan

PLAN = make_plan(Size(400, 800), tile_px=256, overlap_px=32, align_px=16)
INDEX, STEPS, SEED = 2, 3, 5
CROPS = ["plain", "edges"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_FIRST_RETRY_S", 0)


def failing(*errors: Exception) -> Callable[[TileTask], Awaitable[None]]:
    """Raises them one after another; then all is well."""
    left = list(errors)

    async def on_tile(_: TileTask) -> None:
        if left:
            raise left.pop(0)

    return on_tile


class Computing(IdentityDenoiser):
    """Gives "computed" back, not a crop, and keeps what it was given."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(failing(*errors))
        self.given: list[tuple[Sequence[Any], Sequence[Any]]] = []

    async def denoise(
        self, task: TileTask, crops: Sequence[Any], prompts: Sequence[Any], on_steps: Any
    ) -> str:
        self.given.append((crops, prompts))
        await super().denoise(task, crops, prompts, on_steps)
        return "computed"

    @property
    def seeds(self) -> list[int]:
        return [task.params.seed for task in self.tasks]


class Sent:
    """One tile sent.

    Attributes:
        reports: The progress that was told.
        ledger: What was counted.
    """

    def __init__(
        self,
        denoiser: IdentityDenoiser,
        most_retries: int = 3,
        gentle: frozenset[int] = frozenset(),
    ) -> None:
        self._gentle = gentle
        self.reports: list[Progress] = []
        self.ledger = Ledger(PLAN.count, STEPS, self.reports.append)
        self._denoiser = denoiser
        self._most_retries = most_retries

    async def pixels(self) -> Any:
        asked = UpscaleParams(steps=STEPS, seed=SEED)
        request = UpscaleRequest(
            image=b"picture",
            params=asked,
            request_id="r-1",
            priority=Priority.BATCH,
            tenant="t",
        )
        deadline = asyncio.get_running_loop().time() + 50
        job = Job(request, resolve(asked, FAKE_MODEL, drawn_seed=0), FAKE_MODEL, deadline)
        sender = TileSender(
            self._denoiser, job, ["<a>"], self.ledger, self._most_retries, self._gentle
        )
        return await sender.send(INDEX, PLAN.tiles[INDEX], CROPS)

    def assert_told_to_the_end(self) -> None:
        steps = [report.steps_done for report in self.reports]
        assert steps == sorted(steps)
        assert steps[-1] == STEPS
        assert [report.tiles_done for report in self.reports] == [0] * (len(steps) - 1) + [1]


LOST, GARBAGE = ReplicaLost("gone"), GarbageTile("tile 2 is flat")


async def test_a_tile_is_computed_once_from_its_crops_and_texts():
    denoiser = Computing()
    sent = Sent(denoiser)
    assert await sent.pixels() == "computed"
    assert denoiser.given == [(CROPS, ["<a>"])]
    assert (sent.ledger.retried, sent.ledger.replaced) == (0, [])
    sent.assert_told_to_the_end()


async def test_its_task_carries_its_place_its_class_its_tenant_and_the_time_that_is_left():
    denoiser = Computing(LOST)
    await Sent(denoiser).pixels()
    places = {(task.request_id, task.index, task.tile) for task in denoiser.tasks}
    assert places == {("r-1", INDEX, PLAN.tiles[INDEX])}
    assert {(task.priority, task.tenant) for task in denoiser.tasks} == {(Priority.BATCH, "t")}
    first, second = [task.time_left_s or 0 for task in denoiser.tasks]
    assert 0 < second < first <= 50


async def test_after_the_deadline_no_time_is_left():
    params = resolve(UpscaleParams(), FAKE_MODEL, drawn_seed=0)
    request = UpscaleRequest(image=b"picture", request_id="r-1")
    job = Job(request, params, FAKE_MODEL, asyncio.get_running_loop().time() - 1)
    assert job.task(0, PLAN.tiles[0]).time_left_s == 0


# Replicas that die


async def test_a_lost_tile_is_the_same_work_sent_again():
    denoiser = Computing(LOST, LOST)
    sent = Sent(denoiser)
    assert await sent.pixels() == "computed"
    assert denoiser.seeds == [SEED] * 3
    assert (sent.ledger.retried, sent.ledger.replaced) == (2, [])
    sent.assert_told_to_the_end()


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_a_tile_is_sent_again_only_so_often(most: int):
    denoiser = Computing(*[LOST] * 99)
    with pytest.raises(ReplicaLost):
        await Sent(denoiser, most).pixels()
    assert len(denoiser.tasks) == most + 1


@pytest.mark.parametrize("error", [TileFailed("bug"), Busy("full"), ValueError("a bug")], ids=repr)
async def test_other_failures_are_final(error: Exception):
    denoiser = Computing(error)
    with pytest.raises(type(error)) as caught:
        await Sent(denoiser).pixels()
    assert caught.value is error
    assert len(denoiser.tasks) == 1


# Garbage


@pytest.mark.parametrize("times", [1, 2])
async def test_a_garbage_tile_is_tried_with_another_seed(times: int):
    denoiser = Computing(*[GARBAGE] * times)
    sent = Sent(denoiser)
    assert await sent.pixels() == "computed"
    assert denoiser.seeds == [SEED, *(derived_seed(SEED, INDEX, n) for n in range(1, times + 1))]
    assert len(set(denoiser.seeds)) == times + 1
    assert (sent.ledger.retried, sent.ledger.replaced) == (times, [])
    sent.assert_told_to_the_end()


async def test_for_a_tile_that_stays_garbage_its_plain_resize_stands_in():
    denoiser = Computing(*[GARBAGE] * 99)
    sent = Sent(denoiser)
    assert await sent.pixels() == CROPS[0]
    assert len(denoiser.tasks) == 3
    assert (sent.ledger.retried, sent.ledger.replaced) == (2, [INDEX])
    sent.assert_told_to_the_end()


async def test_a_replica_lost_under_another_seed_is_that_seed_sent_again():
    denoiser = Computing(GARBAGE, LOST)
    sent = Sent(denoiser)
    assert await sent.pixels() == "computed"
    assert denoiser.seeds == [SEED] + [derived_seed(SEED, INDEX, 1)] * 2
    assert sent.ledger.retried == 2


def test_derived_seeds_are_seeds_and_differ():
    seeds = [derived_seed(s, n, k) for s in (0, 1, MAX_SEED) for n in range(20) for k in (1, 2)]
    assert Counter(seeds).most_common(1)[0][1] == 1
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert derived_seed(7, 3, 1) == derived_seed(7, 3, 1) != derived_seed(7, 1, 3)


# Faces


@pytest.mark.parametrize(("gentle", "strength"), [({INDEX}, 0.5), ({INDEX + 1}, 1), ((), 1)])
async def test_a_tile_that_shows_a_face_is_drawn_with_half_the_strength(
    gentle: Any, strength: float
):
    denoiser = Computing(GARBAGE, LOST)
    await Sent(denoiser, gentle=frozenset(gentle)).pixels()
    assert [task.params.strength for task in denoiser.tasks] == [strength] * 3
    assert denoiser.seeds == [SEED] + [derived_seed(SEED, INDEX, 1)] * 2

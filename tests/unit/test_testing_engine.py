"""The fakes for the engine do what they are told, and only that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from serve_app.engine.task import Entry, Kind
from serve_app.errors import TileFailed
from serve_app.settings import EngineSettings
from serve_app.testing_engine import (
    IdentityDenoiser,
    IdentityRunner,
    PacedRunner,
    RooflineRunner,
    Turn,
    identity_engine,
    roofline_s,
)
from tests.unit.engine.entries import crop, entry, inputs, task


def encoded(runner: IdentityRunner, *numbers: int) -> list[Entry]:
    entries = [entry(number) for number in numbers]
    runner.encode(entries, [inputs(number) for number in numbers], len(numbers))
    return entries


def test_the_identity_runner_gives_the_crops_back():
    runner = IdentityRunner()
    entries = encoded(runner, 0, 1)
    runner.step(entries, 2)
    assert [one is runner.rows[number] for number, one in enumerate(runner.decode(entries, 2))] == [
        True
    ] * 2
    runner.drop(0)
    runner.drop(0)
    assert runner.rows.keys() == {1}


def test_a_step_of_what_was_never_encoded_is_an_error():
    with pytest.raises(KeyError):
        IdentityRunner().step([entry(0)], 1)


def test_the_paced_runner_logs_its_turns():
    runner = PacedRunner()
    entries = encoded(runner, 3, 4)
    runner.step(entries, 2)
    runner.decode(entries[:1], 1)
    assert runner.turns == [(Kind.ENCODE, (3, 4)), (Kind.STEP, (3, 4)), (Kind.DECODE, (3,))]


def test_the_paced_runner_fails_at_the_tile_and_step_that_it_was_told():
    runner = PacedRunner(fail_at=[(1, 1)])
    entries = encoded(runner, 0, 1)
    runner.step(entries, 2)
    entries[1].steps_done = 1
    runner.step(entries[:1], 1)
    with pytest.raises(RuntimeError, match="step 1"):
        runner.step(entries, 2)


def test_a_tile_that_was_spoilt_stays_spoilt_until_it_is_dropped():
    runner = PacedRunner(nan_at=[(1, 0)])
    entries = encoded(runner, 0, 1)
    runner.step(entries, 2)
    good, bad = runner.decode(entries, 2)
    assert good is runner.rows[0]
    assert isinstance(bad, TileFailed)
    runner.drop(1)
    (again,) = encoded(runner, 1)
    assert not isinstance(runner.decode([again], 1)[0], TileFailed)


def test_what_a_hook_raises_fails_the_turn():
    def refuse(kind: Kind, entries: object) -> None:
        raise OSError(kind.name)

    with pytest.raises(OSError, match="ENCODE"):
        encoded(PacedRunner(on_turn=refuse), 0)


def test_the_roofline_is_the_published_table():
    """Seconds of 28 steps at 790 TFLOP/s for tiles of 512 (where two fill the card), 768 and 1024 px."""
    assert 28 * roofline_s(512, 2) == pytest.approx(2 * 0.83, rel=0.02)
    assert 28 * roofline_s(768, 1) == pytest.approx(1.62, rel=0.02)
    assert 28 * roofline_s(1024, 1) == pytest.approx(2.88, rel=0.02)
    assert roofline_s(512, 2) / roofline_s(512, 1) == pytest.approx(1.25, rel=0.01)
    assert roofline_s(1024, 8) == pytest.approx(8 * roofline_s(1024, 1))


def test_the_roofline_runner_tells_its_costs_and_its_turns():
    told: list[Turn] = []
    runner = RooflineRunner(1024, EngineSettings(max_batch=4, vae_batch=2), 1e-3, told.append)
    costs = runner.open()
    assert costs[Kind.STEP, 4] == pytest.approx(1e-3 * roofline_s(1024, 4))
    assert {size for kind, size in costs if kind is Kind.DECODE} == {1, 2}
    entries = encoded(runner, 3, 4)
    runner.step(entries, 4)
    assert [(turn.kind, turn.size, turn.tiles) for turn in told] == [
        (Kind.ENCODE, 2, (("request", 3), ("request", 4))),
        (Kind.STEP, 4, (("request", 3), ("request", 4))),
    ]
    assert told[1].took_s == costs[Kind.STEP, 4]
    assert told[1].started_s >= told[0].started_s + told[0].took_s
    assert runner.decode(entries, 2)[0] is runner.rows[3]


async def test_the_identity_denoiser_reports_every_step_and_gives_the_crop_back():
    denoiser, steps, picture = IdentityDenoiser(), [], crop(1)
    assert await denoiser.denoise(task(1, steps=3), [picture], [], steps.append) is picture
    assert steps == [1, 2, 3]
    assert denoiser.tasks == [task(1, steps=3)]
    assert await denoiser.ready()


def test_the_identity_engine_can_be_closed():
    engine = identity_engine()
    assert engine.alive
    engine.close()
    assert not engine.alive


def test_the_fakes_need_no_torch():
    script = "import sys, serve_app.testing_engine; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)

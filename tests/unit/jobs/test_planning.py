"""Costs from headers."""

from pathlib import Path

import pytest

from serve_app.contracts import ControlInfo, UpscaleParams, resolve
from serve_app.errors import InvalidParameter, TooLarge, UnsupportedImage
from serve_app.jobs.planning import Seen, check_control_names, look, model_of, plan_of, step_seconds
from serve_app.jobs.records import NewItem, NewJob, ResultRecord
from serve_app.jobs.store import Store
from serve_app.settings import ImageLimits
from serve_app.testing import FAKE_MODEL, photo_like, png_bytes
from serve_app.tiling.geometry import Size

LIMITS = ImageLimits()


def test_a_header_is_looked_at() -> None:
    assert look(png_bytes(photo_like(6, 8, seed=1)), LIMITS) == Seen(Size(6, 8), 1)
    with pytest.raises(UnsupportedImage):
        look(b"no picture", LIMITS)


def test_a_plan() -> None:
    params = resolve(UpscaleParams(scale=4), FAKE_MODEL, 0)
    plan, frames = plan_of(Seen(Size(100, 200), 9), params, FAKE_MODEL, LIMITS)
    assert (plan.result, plan.count, frames) == (Size(400, 800), 2 * 4, 1)
    moving = resolve(UpscaleParams(scale=4, animated=True), FAKE_MODEL, 0)
    assert plan_of(Seen(Size(100, 200), 9), moving, FAKE_MODEL, LIMITS)[1] == 9
    tight = ImageLimits(result_pixels=400 * 800)
    assert plan_of(Seen(Size(100, 200), 9), params, FAKE_MODEL, tight)[1] == 1
    with pytest.raises(TooLarge):
        plan_of(Seen(Size(100, 200), 9), moving, FAKE_MODEL, tight)


def test_models_by_name() -> None:
    other = FAKE_MODEL.model_copy(update={"name": "other"})
    assert model_of(UpscaleParams(), [FAKE_MODEL, other]) is FAKE_MODEL
    assert model_of(UpscaleParams(model="other"), [FAKE_MODEL, other]) is other
    with pytest.raises(InvalidParameter):
        model_of(UpscaleParams(model="none"), [FAKE_MODEL])


def test_control_pictures_by_name() -> None:
    controls = {**FAKE_MODEL.controls, "pose": ControlInfo(picture="given")}
    model = FAKE_MODEL.model_copy(update={"controls": controls})
    plain = resolve(UpscaleParams(), model, 0)
    posed = resolve(UpscaleParams.parse({"controls": [{"name": "pose"}]}), model, 0)
    check_control_names([], plain, model)
    check_control_names(["pose"], posed, model)
    for given, params in (([], posed), (["pose"], plain), (["pose", "x"], posed)):
        with pytest.raises(InvalidParameter):
            check_control_names(given, params, model)


async def test_the_pace_of_what_was_finished(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path}/jobs.db")
    try:
        assert await step_seconds(store, "t") is None
        await store.submit(NewJob("t"), [NewItem("a", {}), NewItem("b", {}), NewItem("c", {})])
        for reused, denoise in ((0, 8.0), (2, 8.0), (4, 8.0)):
            (lease,) = await store.claim("r", 60, 1)
            facts = {"tiles": 4, "tiles_reused": reused, "params": {"steps": 2}}
            details = facts | {"timings_s": {"denoise": denoise}}
            await store.succeed(lease, ResultRecord("r" * 64, "image/png", 1, 1, 1, details))
        assert (
            await step_seconds(store, "t") == 1.5
        )  # of 1 and 2; what was all reused tells nothing
        assert await step_seconds(store, "other") is None
    finally:
        await store.close()

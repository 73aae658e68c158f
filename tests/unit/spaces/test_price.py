"""What a picture costs: the page's plan and the seconds that a GPU is asked for."""

from pathlib import Path

import pytest
from choice import EMBEDDED
from price import BEGIN_S, Price

from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.errors import TooLarge
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.cost import StepCost
from serve_app.settings import ImageLimits, ModelSettings, Settings
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

PICTURE = png_bytes(photo_like(200, 300))


def price(lent: bool, limits: ImageLimits | None = None) -> Price:
    chosen = ModelSettings(source=EMBEDDED)
    info = read_model_info(find_model(EMBEDDED, None))
    settings = Settings(images=limits or ImageLimits())
    return Price(info, StepCost.read(chosen), settings, lent)


async def test_a_plan_has_its_work_and_where_the_gpu_is_lent_its_seconds(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(PICTURE)
    plan = await price(lent=False).plan(path, UpscaleParams(scale=2), "")
    assert (plan.height, plan.width, plan.estimated_s) == (400, 600, None)
    lent = await price(lent=True).plan(path, UpscaleParams(scale=2), "")
    assert lent.tflop == plan.tflop
    assert lent.estimated_s is not None
    assert lent.estimated_s > BEGIN_S


def test_the_work_grows_with_tiles_and_steps():
    one, more, longer = (
        price(lent=True).of(PICTURE, params).tflop or 0
        for params in (
            UpscaleParams(scale=2, steps=2),
            UpscaleParams(scale=4, steps=2),
            UpscaleParams(scale=2, steps=4),
        )
    )
    assert more > one
    assert longer == pytest.approx(2 * one)


def test_a_bad_picture_asks_for_the_least():
    bad = UpscaleRequest(image=b"bad", request_id="r")
    good = UpscaleRequest(image=PICTURE, request_id="r")
    assert price(lent=True).seconds(bad) == BEGIN_S < price(lent=True).seconds(good)


def test_limits_hold_in_the_plan():
    with pytest.raises(TooLarge):
        price(lent=True, limits=ImageLimits(result_pixels=1000)).of(PICTURE, UpscaleParams())


async def test_the_time_is_told_once_a_picture_was_made():
    found, params = price(lent=False), UpscaleParams(scale=2, steps=2)
    made = await FakeUpscaler().upscale(UpscaleRequest(image=PICTURE, request_id="r"))
    work = made.tiles * made.params.steps
    found.heard(made.model_copy(update={"timings_s": {"denoise": 3.0 * work}}))
    plan = found.of(PICTURE, params)
    assert plan.estimated_s == pytest.approx(3 * plan.tiles * plan.steps)

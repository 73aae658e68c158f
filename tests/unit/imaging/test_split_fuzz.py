"""Bent, cut and spliced files that move: frames or one of our errors, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from serve_app.errors import RequestError
from serve_app.imaging import errands
from serve_app.imaging.inspect import FIELD, inspect
from serve_app.imaging.motion import count_frames
from serve_app.imaging.worker import DecodeWorker
from tests.unit.imaging.moving import STORY, apng, gif, webp
from tests.unit.imaging.pictures import saved, smooth
from tests.unit.imaging.test_codec_fuzz import EXAMPLES, LIMITS, mutated

EVEN = [part for part in STORY if part.left % 2 == part.top % 2 == 0]
FILES = {
    "gif": gif(STORY, loop=3),
    "png": apng(STORY),
    "hidden": apng(STORY, hidden=True),
    "webp": webp(EVEN),
    "avif": saved(smooth(), "AVIF", save_all=True, append_images=[smooth().rotate(180)] * 2),
}


@pytest.fixture(scope="module")
def worker():
    worker = DecodeWorker()
    yield worker
    worker.close()


@pytest.mark.parametrize("name", FILES)
def test_frames_or_one_of_our_errors(worker, name):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=mutated(FILES[name]))
    def check(data):
        try:
            count = count_frames(data, inspect(data, LIMITS), LIMITS)
            if count < 2:
                return
            found = worker.run(errands.frames(data, LIMITS, FIELD, count))
        except RequestError as error:
            refused = error
        else:
            assert len(found.shown) == len(found.durations_ms) == count
            assert all(picture.startswith(b"\x89PNG") for picture in found.pictures)
            return
        assert refused.field == FIELD
        assert refused.allowed
        assert "died" not in refused.detail
        assert "longer" not in refused.detail

    check()

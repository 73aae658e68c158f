from __future__ import annotations

import pytest

from serve_app.imaging.names import profile_name
from serve_app.imaging.worker import profile_name_contained
from serve_app.settings import ImageLimits
from tests.unit.imaging.pictures import saved, smooth
from tests.unit.imaging.results import p3


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (saved(smooth(), "PNG"), "sRGB"),
        (saved(smooth(), "JPEG", icc_profile=p3()), "sP3C"),
        (saved(smooth(), "JPEG", icc_profile=b"no profile at all"), None),
        (saved(smooth(), "PNG")[:20], None),
    ],
    ids=["none", "P3", "broken", "cut"],
)
def test_a_profile_has_the_name_that_it_states(data, name):
    assert profile_name(data) == name


def test_it_is_the_same_from_the_other_process():
    data = saved(smooth(), "PNG", icc_profile=p3())
    assert profile_name_contained(data, ImageLimits()) == profile_name(data)

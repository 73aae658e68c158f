"""What the page says."""

import pytest

from serve_app.errors import Busy
from serve_app.ui.backend import Item, Job, Plan, Result
from serve_app.ui.words import (
    error_words,
    items_table,
    link,
    plan_words,
    progress_words,
    report_words,
    seconds,
)

PLAN = Plan(model="m", source_width=3, source_height=2, width=12, height=8, tiles=1, steps=4)
REPORT = {
    "lr_psnr_db": 50.0,
    "color_error_mean": 0.2,
    "color_error_p99": 1.0,
    "edge_agreement": 0.0,
    "seam_energy": 1.0,
    "fidelity": 1.0,
    "noise": 0.0,
    "tiles_replaced": 0,
    "warnings": ["Beware <it>."],
}


@pytest.mark.parametrize(
    ("value", "said"), [(0.1, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_times_are_said_as_people_do(value: float, said: str):
    assert seconds(value) == said


def test_a_plan_tells_size_tiles_time_and_queue():
    told = plan_words(PLAN.model_copy(update={"estimated_s": 8.0, "queue_position": 2}))
    assert "<b>12 &times; 8 px</b>" in told
    assert "1 tile<" in told
    assert "about 8 s" in told
    assert "2 pictures wait before it" in told
    assert "not known" in plan_words(PLAN)


def test_progress_tells_tiles_and_the_rest_and_shows_the_preview():
    told = progress_words("At work", 3, 15, 7.4, b"jpeg")
    assert "At work: 3 of 15 tiles, about 7 s left" in told
    assert "data:image/jpeg;base64," in told
    assert "value=" not in progress_words("Waiting")


def test_errors_tell_the_request_and_are_escaped():
    told = error_words({"title": "No", "detail": "<b>", "request_id": "abc"})
    assert "&lt;b&gt; (request abc)" in told
    assert 'role="alert"' in told
    assert "Busy" in error_words(Busy("All places are taken."))


def test_a_report_judges_in_words_and_numbers():
    result = Result(media_type="image/png", width=12, height=8, details={"report": REPORT})
    told = report_words(result)
    assert "nobody sees a difference" in told
    assert "50.0 dB" in told
    assert "Beware &lt;it&gt;." in told
    poor = Result(
        media_type="image/png",
        width=1,
        height=1,
        details={"report": REPORT | {"lr_psnr_db": 20, "seam_energy": 2, "tiles_replaced": 3}},
    )
    said = report_words(poor)
    assert "differs visibly" in said
    assert "edges are stronger" in said
    assert "3 tiles failed" in said
    assert "no report" in report_words(Result(media_type="image/png", width=1, height=1))


def test_a_table_tells_states_and_faults():
    job = Job(id="job_1", status="failed", counts={"total": 2, "succeeded": 1, "failed": 1})
    done = Item(
        number=0,
        name="<a>",
        status="succeeded",
        result=Result(media_type="image/png", width=12, height=8),
    )
    bad = Item(number=1, name="b", status="failed", error={"detail": "broken"})
    told = items_table(job, [done, bad])
    assert "1 succeeded, 1 failed" in told
    assert "&lt;a&gt;" in told
    assert "broken" in told
    assert 'value="2" max="2"' in told


def test_a_link_escapes():
    assert link('a"b', "Download", "n") == (
        '<a class="download" href="a&quot;b" download="n">Download</a>'
    )

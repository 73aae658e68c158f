"""Where results are kept for browsers."""

import os
from pathlib import Path

import pytest

from serve_app.ui.files import Shelf, result_name, url_of


def test_names_stay_inside_the_folder(tmp_path: Path):
    place = Shelf(10, tmp_path).place("../job", "../../etc/pass<wd")
    assert place == tmp_path / "___job" / "pass_wd"
    assert place.parent.is_dir()


def test_old_files_go_when_new_ones_come(tmp_path: Path):
    shelf = Shelf(10, tmp_path)
    old = shelf.place("job_1", "a.png")
    os.utime(old.parent, (0, 0))
    shelf.place("job_2", "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["job_2"]


@pytest.mark.parametrize(
    ("source", "name"), [("a.jpg", "a-upscaled.png"), ("", "picture-upscaled.png")]
)
def test_a_result_is_named_after_its_source(source: str, name: str):
    assert result_name(source, "image/png") == name


def test_files_are_served_relative_to_the_page():
    assert url_of("/a/b.png") == "gradio_api/file=/a/b.png"

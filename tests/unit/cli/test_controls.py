"""The short spelling of controls and adapters, alone and through the whole command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from serve_app.api import create_api
from serve_app.cli import main
from serve_app.cli.controls import Control, read_control, read_lora, read_pictures
from serve_app.cli.exits import UsageError
from serve_app.contracts import ControlInfo, ControlParams, Priority
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes
from tests.unit.api.live import serving_in_thread

PNG = png_bytes(photo_like(6, 8, seed=1))
POSE = png_bytes(photo_like(6, 8, seed=2))
MODEL = FAKE_MODEL.model_copy(
    update={
        "controls": FAKE_MODEL.controls
        | {"canny": ControlInfo(picture="canny"), "pose": ControlInfo(picture="given", scale=0.9)},
        "loras": ("turbo",),
    }
)


@pytest.mark.parametrize(
    ("text", "fields", "file"),
    [
        ("canny", {"name": "canny"}, None),
        ("canny:0.5", {"name": "canny", "scale": "0.5"}, None),
        ("a-b:0.5:0:.8", {"name": "a-b", "scale": "0.5", "start": "0", "end": ".8"}, None),
        ("pose@p.png", {"name": "pose"}, "p.png"),
        ("pose:0.6@C:\\a@b.png", {"name": "pose", "scale": "0.6"}, "C:\\a@b.png"),
    ],
)
def test_spellings_of_a_control(text: str, fields: dict[str, str], file: str | None) -> None:
    assert read_control(text) == Control(fields, None if file is None else Path(file))


@pytest.mark.parametrize("text", ["", ":0.5", "canny:", "canny:1:0", "canny:1:0:1:2", "pose@"])
def test_anything_else_is_told_the_syntax(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="NAME"):
        read_control(text)


def test_spellings_of_an_adapter() -> None:
    assert read_lora("turbo") == {"lora": "turbo"}
    assert read_lora("turbo:0.8") == {"lora": "turbo", "lora_scale": "0.8"}
    for text in ("", "turbo:", ":1", "a:1:2"):
        with pytest.raises(argparse.ArgumentTypeError, match="NAME"):
            read_lora(text)


def test_pictures_are_read_by_the_controls_name(tmp_path: Path) -> None:
    file = tmp_path / "p.png"
    file.write_bytes(POSE)
    assert read_pictures([read_control("canny"), read_control(f"pose@{file}")]) == {"pose": POSE}
    with pytest.raises(UsageError, match=r"--control: .*gone\.png: No such file"):
        read_pictures([read_control(f"pose@{tmp_path}/gone.png")])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "pose.png").write_bytes(POSE)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_all_of_it_reaches_a_server() -> None:
    upscaler = FakeUpscaler(models=[MODEL])
    options = ["--control", "canny:0.5:0:0.8", "--control", "pose:0.6@pose.png"]
    options += ["--lora", "turbo:0.75", "--priority", "batch"]
    with serving_in_thread(create_api(upscaler, Settings())) as url:
        assert main(["upscale", "a.png", "-o", "b.png", "--server", url, *options]) == 0
    (request,) = upscaler.requests
    assert request.params.controls == (
        ControlParams(name="canny", scale=0.5, start=0, end=0.8),
        ControlParams(name="pose", scale=0.6),
    )
    assert (request.params.lora, request.params.lora_scale) == ("turbo", 0.75)
    assert (request.control_images, request.priority) == ({"pose": POSE}, Priority.BATCH)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--control", "canny:9"], "--control: controls.0.scale: "),
        (["--control", "pose@gone.png"], "--control: gone.png: No such file"),
        (["--lora", "turbo:9"], "--lora: lora_scale: "),
    ],
)
def test_mistakes_are_usage_errors_by_the_options_name(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", "a.png", "-o", "b.png", *options]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--control", "x:"], ["--lora", "x:"], ["--priority", "now"]])
def test_a_wrong_spelling_ends_before_anything_is_read(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["upscale", "a.png", "-o", "b.png", *options])
    assert caught.value.code == 2


def test_models_tells_controls_and_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    with serving_in_thread(create_api(FakeUpscaler(models=[MODEL]), Settings())) as url:
        assert main(["models", "--server", url]) == 0
    told: Any = capsys.readouterr().out
    assert "control canny: scale 0.6 from 0 to 1; made from the source: canny" in told
    assert "control pose: scale 0.9 from 0 to 1; your picture" in told
    assert "adapters turbo" in told
    assert "upscale" not in told

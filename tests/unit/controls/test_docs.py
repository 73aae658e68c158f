"""What docs/controls.md shows can be used as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from serve_app.cli.controls import read_control
from serve_app.contracts import ControlParams, ModelInfo
from serve_app.controls import canny
from serve_app.models.source import check_components

PAGE = (Path(__file__).parents[3] / "docs/controls.md").read_text()


def test_the_model_description_is_valid():
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    model = ModelInfo.model_validate_json(block)
    check_components(model)
    assert {control.picture for control in model.controls.values()} == {
        "source",
        "canny",
        "depth",
        "given",
    }
    assert {control.component for control in model.controls.values()} <= {
        "controlnet",
        *model.components,
    }


def test_the_spellings_are_read():
    options = re.findall(r"--control (\S+)", PAGE)
    assert len(options) == 3
    for option in options:
        fields = read_control(option).fields
        assert ControlParams.model_validate(fields).name == fields["name"]
    (form,) = re.findall(r"-F 'controls=(.*?)'", PAGE)
    assert [ControlParams(**given).name for given in json.loads(form)] == ["canny", "pose"]


def test_the_thresholds_are_the_codes():
    assert f"thresholds {canny.LOW_THRESHOLD} and {canny.HIGH_THRESHOLD}" in PAGE

import math
from pathlib import Path
from typing import Any

import pytest

from serve_app.contracts import ModelInfo, UpscaleParams, resolve
from serve_app.errors import ConfigurationError, InvalidParameter
from serve_app.presets import SHIPPED, with_preset
from serve_app.settings import Settings

MINI = ModelInfo.model_validate_json(Path("serve_app/models/mini/tessera.json").read_text())
OTHER = ModelInfo.model_validate(
    {"name": "x", "description": "", "license": "", "tile_px": 64, "overlap_px": 16, "align_px": 16}
)


def params(**given: Any) -> UpscaleParams:
    return UpscaleParams(**given)


def test_the_shipped_names() -> None:
    assert set(SHIPPED) == {"photo", "art", "text", "faithful", "creative"}


@pytest.mark.parametrize("model", [MINI, OTHER], ids=lambda model: str(model.name))
@pytest.mark.parametrize("name", SHIPPED)
def test_every_model_takes_every_shipped_preset(name: str, model: ModelInfo) -> None:
    found = resolve(with_preset(params(preset=name), SHIPPED), model, drawn_seed=1)
    assert found.preset == name
    for field, value in SHIPPED[name].model_dump(exclude_none=True).items():
        assert getattr(found, field) == value


@pytest.mark.parametrize("preset", [None, ""])
def test_without_a_preset_nothing_changes(preset: str | None) -> None:
    assert with_preset(params(preset=preset, steps=3), SHIPPED) == params(preset=preset, steps=3)


def test_what_is_given_wins_and_falsehoods_are_given() -> None:
    presets = {"a": params(fidelity=1, denoise=0.5, keep_metadata=True, prompt="cat", steps=4)}
    asked = params(preset="a", fidelity=0, keep_metadata=False, prompt="")
    assert with_preset(asked, presets) == params(
        preset="a", fidelity=0, denoise=0.5, keep_metadata=False, prompt="", steps=4
    )


@pytest.mark.parametrize("size", [{"scale": 2}, {"width": 90}, {"height": 90}])
@pytest.mark.parametrize("own", [{"scale": 3}, {"width": 10, "height": 10}])
def test_a_size_of_the_callers_replaces_the_presets(
    size: dict[str, int], own: dict[str, int]
) -> None:
    found = with_preset(params(preset="a", **size), {"a": params(steps=2, **own)})
    assert found == params(preset="a", steps=2, **size)
    assert with_preset(params(preset="a"), {"a": params(**own)}) == params(preset="a", **own)


@pytest.mark.parametrize(
    ("own", "given"),
    [
        ({"control_end": 0.6}, {"control_start": 0.8}),
        ({"control_start": 0.5}, {"control_end": 0.5}),
    ],
)
def test_an_end_of_control_that_the_caller_contradicts_gives_way(
    own: dict[str, float], given: dict[str, float]
) -> None:
    found = with_preset(params(preset="a", **given), {"a": params(**own)})
    assert found == params(preset="a", **given)


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(InvalidParameter) as caught:
        with_preset(params(preset="nope"), SHIPPED)
    assert caught.value.field == "preset"
    assert caught.value.allowed == "one of photo, art, text, faithful, creative"
    with pytest.raises(InvalidParameter):
        with_preset(params(preset="photo"), {})


class TestSettings:
    def test_an_operator_adds_changes_and_removes(self) -> None:
        given = {"mine": {"scale": 2}, "photo": {"fidelity": 0.9}, "art": None}
        found = Settings.parse({"requests": {"presets": given}}).requests.presets
        assert list(found) == ["photo", "text", "faithful", "creative", "mine"]
        assert found["photo"] == params(fidelity=0.9)
        assert found["text"] == SHIPPED["text"]
        assert Settings().requests.presets == SHIPPED

    @pytest.mark.parametrize(
        ("presets", "field"),
        [
            ({"mine": {"fidelity": 2}}, "requests.presets.mine.fidelity"),
            ({"mine": {"fidelty": 1}}, "requests.presets.mine.fidelty"),
            ({"mine": {"scale": math.nan}}, "requests.presets.mine.scale"),
            ({"mine": {"scale": 2, "width": 9}}, "requests.presets.mine"),
            ({"mine": {"preset": "photo"}}, "requests.presets.mine"),
            ({"mine": 3}, "requests.presets.mine"),
            ({"My own": {}}, "requests.presets.My own"),
            ([], "requests.presets"),
        ],
    )
    def test_a_fault_is_named_at_start(self, presets: object, field: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings.parse({"requests": {"presets": presets}})
        assert (caught.value.field or "").startswith(field)

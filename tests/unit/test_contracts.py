import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.contracts import (
    MAX_SEED,
    ControlParams,
    Limits,
    ModelInfo,
    OutputFormat,
    Progress,
    UpscaleParams,
    UpscaleRequest,
    allowed_range,
)
from serve_app.errors import InvalidParameter

BASE: dict[str, Any] = {
    "name": "m",
    "description": "A model.",
    "license": "Apache-2.0",
    "tile_px": 256,
    "overlap_px": 32,
    "align_px": 16,
}
MODEL = ModelInfo(**BASE)
PROMPTED = ModelInfo(**BASE, takes_prompt=True, takes_true_cfg=True)
TINY = math.ulp(1.0) * 8

# name, lowest, highest, just below, just above, in words
RANGES: list[tuple[str, float, float, float, float, str]] = [
    ("scale", 1, 8, 1 - TINY, 8 + TINY * 8, "1 to 8"),
    ("width", 1, 65535, 0, 65536, "1 to 65535"),
    ("height", 1, 65535, 0, 65536, "1 to 65535"),
    ("steps", 1, 100, 0, 101, "1 to 100"),
    ("strength", 1e-9, 1, 0, 1 + TINY, "above 0 to 1"),
    ("guidance_scale", 0, 30, -1e-9, 30.001, "0 to 30"),
    ("control_scale", 0, 2, -1e-9, 2.001, "0 to 2"),
    ("control_start", 0, 1, -1e-9, 1 + TINY, "0 to 1"),
    ("control_end", 0, 1, -1e-9, 1 + TINY, "0 to 1"),
    ("lora_scale", 0, 2, -1e-9, 2.001, "0 to 2"),
    ("true_cfg_scale", 1, 20, 1 - TINY, 20.001, "1 to 20"),
    ("seed", 0, MAX_SEED, -1, MAX_SEED + 1, f"0 to {MAX_SEED}"),
    ("quality", 1, 100, 0, 101, "1 to 100"),
    ("fidelity", 0, 1, -1e-9, 1 + TINY, "0 to 1"),
    ("denoise", 0, 1, -1e-9, 1 + TINY, "0 to 1"),
    ("max_pixels", 1, 2**40, 0, 2**40 + 1, f"1 to {2**40}"),
]
NUMBERS = [found[0] for found in RANGES]
TEXTS = {"model": 200, "lora": 200, "prompt": 4000, "negative_prompt": 4000, "preset": 50}
CHOICES = {
    "output_format": ("webp", "bmp", "one of png, jpeg, webp, avif, tiff, jxl"),
    "color_fix": ("none", "adain", "one of none, wavelet"),
    "color_profile": ("srgb", "cmyk", "one of source, srgb"),
    "bit_depth": ("16", "10", "8 or 16"),
    "keep_metadata": ("false", "perhaps", "true or false"),
    "keep_gps": ("true", "2", "true or false"),
    "animated": ("true", "gif", "true or false"),
    "face_safe": ("true", "smile", "true or false"),
}


def refused(raw: dict[str, Any], name: str) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        UpscaleParams.parse(raw)
    assert caught.value.field == name
    assert caught.value.detail.startswith(f"{name}: ")
    return caught.value


def test_every_field_is_covered_here() -> None:
    assert {*NUMBERS, *TEXTS, *CHOICES, "controls"} == set(UpscaleParams.model_fields)


class TestRanges:
    @pytest.mark.parametrize(("name", "low", "high", "below", "above", "words"), RANGES)
    def test_both_ends(
        self, name: str, low: float, high: float, below: float, above: float, words: str
    ) -> None:
        for value in (low, high):
            assert getattr(UpscaleParams.parse({name: value}), name) == value
            assert getattr(UpscaleParams.parse({name: repr(value)}), name) == value
        for value in (below, above):
            assert refused({name: value}, name).allowed == words
            assert refused({name: repr(value)}, name).allowed == words
        assert allowed_range(UpscaleParams, name) == words

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize(
        "value",
        [
            math.nan,
            math.inf,
            -math.inf,
            "nan",
            "inf",
            "-Infinity",
            True,
            False,
            "",
            "x",
            "1,5",
            [1],
            {},
        ],
        ids=repr,
    )
    def test_what_is_no_number(self, name: str, value: object) -> None:
        error = refused({name: value}, name)
        assert error.allowed == allowed_range(UpscaleParams, name)

    @pytest.mark.parametrize("name", ["width", "height", "steps", "seed", "quality"])
    @pytest.mark.parametrize("value", [1.5, "1.5", "1e1"])
    def test_whole_numbers_are_whole(self, name: str, value: object) -> None:
        refused({name: value}, name)

    def test_the_largest_seed_is_exact(self) -> None:
        assert UpscaleParams.parse({"seed": str(2**63 - 1)}).seed == 2**63 - 1

    @pytest.mark.parametrize(("name", "longest"), TEXTS.items())
    def test_texts(self, name: str, longest: int) -> None:
        assert getattr(UpscaleParams.parse({name: "ü" * longest}), name) == "ü" * longest
        words = f"a text of at most {longest} characters"
        assert refused({name: "ü" * (longest + 1)}, name).allowed == words
        assert refused({name: 5}, name).allowed == words
        assert refused({name: "\ud800"}, name).allowed == words

    def test_formats(self) -> None:
        for kind in ("png", "jpeg", "webp", "avif", "tiff", "jxl"):
            found = UpscaleParams.parse({"output_format": kind}).output_format
            assert found is OutputFormat(kind)
            assert found.media_type == f"image/{kind}"
        for kind in ("gif", "PNG", "", 1):
            error = refused({"output_format": kind}, "output_format")
            assert error.allowed == "one of png, jpeg, webp, avif, tiff, jxl"

    @pytest.mark.parametrize("name", CHOICES)
    def test_choices(self, name: str) -> None:
        taken, refused_text, words = CHOICES[name]
        assert getattr(UpscaleParams.parse({name: taken}), name) is not None
        assert refused({name: refused_text}, name).allowed == words

    @pytest.mark.parametrize("name", UpscaleParams.model_fields)
    def test_none_is_absent(self, name: str) -> None:
        assert UpscaleParams.parse({name: None}) == UpscaleParams() == UpscaleParams.parse({})


class TestRules:
    def test_an_unknown_field_is_named_with_the_known(self) -> None:
        error = refused({"stepz": 3}, "stepz")
        assert error.allowed == "one of " + ", ".join(UpscaleParams.model_fields)

    @pytest.mark.parametrize("other", ["width", "height"])
    def test_scale_or_a_box(self, other: str) -> None:
        refused({"scale": 2, other: 100}, "scale")

    def test_a_box_of_both(self) -> None:
        found = UpscaleParams.parse({"width": 10, "height": 20})
        assert (found.width, found.height, found.scale) == (10, 20, None)

    def test_control_has_a_span(self) -> None:
        refused({"control_start": 0.5, "control_end": 0.5}, "control_start")
        refused({"control_start": 0.6, "control_end": 0.5}, "control_start")
        assert UpscaleParams.parse({"control_start": 0.4, "control_end": 0.5}).control_start == 0.4
        assert UpscaleParams.parse({"control_start": 1}).control_start == 1

    def test_parameters_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            UpscaleParams().steps = 3  # type: ignore[misc]

    def test_every_field_is_described(self) -> None:
        for field in UpscaleParams.model_fields.values():
            assert field.description is not None
            assert field.description.endswith(".")


class TestControls:
    def test_a_form_sends_the_list_as_json(self) -> None:
        listed = [{"name": "canny", "scale": 0.5}, {"name": "pose", "start": 0.1, "end": 0.9}]
        expected = (
            ControlParams(name="canny", scale=0.5),
            ControlParams(name="pose", start=0.1, end=0.9),
        )
        assert UpscaleParams.parse({"controls": listed}).controls == expected
        assert UpscaleParams.parse({"controls": json.dumps(listed)}).controls == expected

    @pytest.mark.parametrize(
        ("wrong", "place"),
        [
            ("canny", "controls"),
            ("[" * 5000, "controls"),
            ({"name": "canny"}, "controls"),
            (["canny"], "controls.0"),
            ([{}], "controls.0.name"),
            ([{"name": ""}], "controls.0.name"),
            ([{"name": "a"}, {"name": "b", "scale": 2.1}], "controls.1.scale"),
            ([{"name": "a", "scale": True}], "controls.0.scale"),
            ([{"name": "a", "end": -0.1}], "controls.0.end"),
            ([{"name": "a", "strength": 1}], "controls.0.strength"),
            ([{"name": "a"}] * 9, "controls"),
        ],
        ids=str,
    )
    def test_what_is_no_list_of_them_is_told_where(self, wrong: Any, place: str) -> None:
        with pytest.raises(InvalidParameter) as caught:
            UpscaleParams.parse({"controls": wrong})
        assert (caught.value.field, caught.value.allowed) == (
            "controls",
            "a list of at most 8 objects",
        )
        assert caught.value.detail.startswith(f"{place}: ")

    @pytest.mark.parametrize("controls", [{}, {"upscale": {"picture": "canny"}}])
    def test_every_model_has_upscale(self, controls: Any) -> None:
        with pytest.raises(ValidationError, match="upscale"):
            ModelInfo(**BASE, controls=controls)


class TestModelInfo:
    def test_reads_its_own_writing(self, tmp_path: Path) -> None:
        info = ModelInfo(**BASE, limits=Limits(steps=(1, 16)), components={"vae": "a/b@main"})
        assert ModelInfo.model_validate_json(info.model_dump_json()) == info

    @pytest.mark.parametrize(
        "wrong",
        [
            {"tile_px": 250},
            {"overlap_px": 33},
            {"overlap_px": 96},
            {"tile_px": 0},
            {"align_px": 0},
            {"name": "../up"},
            {"name": ""},
            {"native_scale": 9},
            {"defaults": {"steps": 0}},
            {"limits": {"step": [1, 2]}},
            {"colour": "red"},
        ],
    )
    def test_what_cannot_be(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            ModelInfo(**{**BASE, **wrong})

    def test_an_overlap_of_a_third_of_a_tile_is_the_most(self) -> None:
        assert ModelInfo(**{**BASE, "overlap_px": 80}).overlap_px == 80


class TestRequest:
    def test_a_picture_is_not_printed(self) -> None:
        pictures: dict[str, Any] = {"image": b"secret", "control_images": {"pose": b"secret"}}
        assert "secret" not in repr(UpscaleRequest(**pictures, request_id="r"))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"request_id": ""},
            {"request_id": "x" * 201},
            {"timeout_s": 0},
            {"priority": "urgent"},
            {"tenant": ""},
            {"tenant": "a b"},
            {"tenant": "x" * 65},
            {"control_images": {"pose": 7}},
        ],
    )
    def test_what_cannot_be(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            UpscaleRequest(**{"image": b"x", "request_id": "r", **wrong})

    def test_it_crosses_a_process_border(self) -> None:
        request = UpscaleRequest(
            image=b"\x00\xff", params=UpscaleParams(steps=3), request_id="r", timeout_s=2
        )
        assert pickle.loads(pickle.dumps(request)) == request
        progress = Progress(
            stage="denoise", tiles_done=1, tiles_total=2, steps_done=3, steps_total=4
        )
        assert pickle.loads(pickle.dumps(progress)) == progress

"""The controls: what is left alone is not sent."""

from typing import Any

import gradio as gr
import pytest

from serve_app.errors import InvalidParameter
from serve_app.params import UpscaleParams
from serve_app.presets import SHIPPED
from serve_app.testing import FAKE_MODEL
from serve_app.ui.backend import Offer
from serve_app.ui.form import BY_SIZE, NO_PRESET, Form

OFFER = Offer(models=(FAKE_MODEL,), presets=SHIPPED)


def form(offer: Offer = OFFER) -> Form:
    with gr.Blocks(analytics_enabled=False):
        return Form(offer)


def told(made: Form, **given: Any) -> list[Any]:
    """The values as the browser sends them, some of them changed."""
    return [given.get(name, component.value) for name, component in made.made.items()]


def test_nothing_touched_is_nothing_sent():
    made = form()
    assert made.read(told(made)) == UpscaleParams()


def test_what_was_touched_is_sent():
    made = form()
    found = made.read(told(made, scale=2, seed="7", output_format="webp"))
    assert found == UpscaleParams(scale=2, seed=7, output_format="webp")


def test_faces_are_spared_where_a_person_or_a_preset_says_so():
    made = form()
    assert made.read(told(made, face_safe=True)) == UpscaleParams(face_safe=True)
    presets = {"people": UpscaleParams(face_safe=True)}
    made = form(Offer(models=(FAKE_MODEL,), presets=presets))
    assert True in made.moved("people")
    given = told(made, preset="people", face_safe=False)
    assert made.read(given) == UpscaleParams(preset="people", face_safe=False)


def test_a_target_size_takes_the_scales_place():
    made = form()
    assert made.read(told(made, scale=2, width=800, by=BY_SIZE)) == UpscaleParams(width=800)
    # A browser's empty field says 0.
    assert made.read(told(made, width=800, height=0, by=BY_SIZE)) == UpscaleParams(width=800)
    assert made.read(told(made, width=0, height=0)) == UpscaleParams()


def test_a_bad_value_is_named():
    made = form()
    with pytest.raises(InvalidParameter, match="seed"):
        made.read(told(made, seed="dice"))


def test_the_controls_are_the_models():
    made = form().made
    assert made["preset"].choices[1:] == [(name, name) for name in SHIPPED]
    assert made["steps"].maximum == FAKE_MODEL.limits.steps[1]
    assert made["steps"].value == FAKE_MODEL.defaults.steps
    assert made["prompt"].visible is False
    reads = FAKE_MODEL.model_copy(update={"takes_prompt": True})
    assert form(Offer(models=(reads,))).made["prompt"].visible is True


def test_a_preset_moves_the_controls_and_only_what_differs_from_it_is_sent():
    made = form()
    assert SHIPPED["art"].fidelity in made.moved("art")
    assert made.moved(NO_PRESET) != made.moved("art")
    chosen = {
        "preset": "art",
        "fidelity": SHIPPED["art"].fidelity,
        "denoise": SHIPPED["art"].denoise,
    }
    assert made.read(told(made, **chosen)) == UpscaleParams(preset="art")
    assert made.read(told(made, **chosen | {"denoise": 1})) == UpscaleParams(
        preset="art", denoise=1
    )

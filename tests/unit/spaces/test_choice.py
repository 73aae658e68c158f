"""Which model a Space runs, and what it says of it."""

import pytest
from choice import EMBEDDED, FLUX, choose


@pytest.mark.parametrize(
    ("environ", "gpu", "model", "said"),
    [
        ({}, False, EMBEDDED, "has not a GPU"),
        ({"HF_TOKEN": "t"}, False, EMBEDDED, "has not a GPU"),
        ({}, True, EMBEDDED, "has not a token"),
        ({"HF_TOKEN": "t"}, True, FLUX, "non-commercial"),
        ({"TESSERA_MODEL": "/models/own"}, False, "/models/own", "owner chose"),
    ],
)
def test_flux_runs_where_it_can(environ: dict[str, str], gpu: bool, model: str, said: str):
    found = choose(environ, gpu, lent=False)
    assert (found.model, said in found.words) == (model, True)
    assert found.settings.prompts.device == "cpu"


def test_where_the_gpu_is_lent_the_text_encoders_go_with_it():
    assert choose({"HF_TOKEN": "t"}, gpu=True, lent=True).settings.prompts.device == "cuda"

import pickle

from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.cost import StepCost
from serve_app.models.flops import image_tokens, step_flop
from serve_app.models.memory import read_config
from serve_app.settings import ModelSettings


def test_a_step_is_counted_with_its_controls_and_passes() -> None:
    cost: StepCost = pickle.loads(pickle.dumps(StepCost.read(ModelSettings())))
    folder = find_model("mini")
    transformer = read_config(folder / "transformer")
    place = image_tokens(128, 128, 8), 7
    bare = step_flop(transformer, [], *place)
    assert cost.flop((128, 128), [], 7, 1) == bare
    assert cost.flop((128, 128), [], 7, 2) == 2 * bare
    control = read_config(folder / "controlnet")
    assert cost.flop(
        (128, 128), [next(iter(read_model_info(folder).controls))], 7, 2
    ) == bare + step_flop(transformer, [control], *place)

"""`tessera models`: what can be asked for, from a server or from what is installed here.

No weight is loaded for it, and for a server's models nothing that only a server needs.
"""

from __future__ import annotations

import argparse
import json

from serve_app.cli.exits import Exit
from serve_app.client import HttpUpscaler
from serve_app.contracts import UPSCALE, ControlInfo, ModelInfo
from serve_app.settings import Settings


async def list_models(arguments: argparse.Namespace) -> Exit:
    """Prints the models, the default first.

    Raises:
        ServerUnreachable: the server cannot be reached.
        ConfigurationError: a shipped model's description is broken.
    """
    if arguments.server is None:
        models = _shipped()
    else:
        async with HttpUpscaler(arguments.server) as server:
            models = await server.models()
    if arguments.json:
        print(json.dumps([model.model_dump(mode="json") for model in models]))
    else:
        for model in models:
            print(_summary(model))
    return Exit.DONE


def _shipped() -> list[ModelInfo]:
    from serve_app.models.catalog import DESCRIPTION_FILE, SHIPPED, read_model_info

    found = [read_model_info(path.parent) for path in SHIPPED.glob(f"*/{DESCRIPTION_FILE}")]
    default = Settings().model.source
    return sorted(found, key=lambda model: (model.name != default, model.name))


def _summary(model: ModelInfo) -> str:
    defaults = model.defaults
    others = {name: control for name, control in model.controls.items() if name != UPSCALE}
    return (
        f"{model.name}: {model.description}\n"
        f"    licence {model.license}; tiles of {model.tile_px} px; "
        f"scale {defaults.scale:g}, {defaults.steps} steps, strength {defaults.strength:g}; "
        f"{'takes' if model.takes_prompt else 'no'} prompts"
        + "".join(f"\n    control {_told(name, control)}" for name, control in others.items())
        + (f"\n    adapters {', '.join(model.loras)}" if model.loras else "")
    )


def _told(name: str, control: ControlInfo) -> str:
    picture = (
        "your picture" if control.picture == "given" else f"made from the source: {control.picture}"
    )
    return f"{name}: scale {control.scale:g} from {control.start:g} to {control.end:g}; {picture}"

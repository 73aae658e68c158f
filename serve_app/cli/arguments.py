"""The arguments of each command.

The options of an upscale are made from `UpscaleParams`, so a new parameter appears by itself, and their
values are judged by it alone. Controls and adapters have a shorter spelling of their own (`cli.controls`).
This module refuses to know what the commands do.
"""

from __future__ import annotations

import argparse
from typing import Any

from serve_app import __version__
from serve_app.cli.controls import CONTROL_SYNTAX, LORA_SYNTAX, read_control, read_lora
from serve_app.cli.exits import Exit, UsageError
from serve_app.cli.job_arguments import add_jobs
from serve_app.cli.models import list_models
from serve_app.cli.upscale import upscale_all
from serve_app.contracts import Priority, UpscaleParams, allowed_range
from serve_app.errors import InvalidParameter

_SPELLED_SHORT = {"controls": "--control", "lora": "--lora", "lora_scale": "--lora"}
_EXITS = "exit codes: 0 all done, 1 some failed, 2 usage, 3 server not reachable or not ready, 130 interrupted"


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser; each command's function is in `command`, its parameters' reader in `params`."""
    parser = argparse.ArgumentParser(
        prog="tessera",
        description="Upscales pictures and keeps their structure.",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tessera {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_upscale(commands)
    models = commands.add_parser(
        "models", help="list the models and their defaults", epilog=_EXITS, allow_abbrev=False
    )
    _add_common(models)
    models.set_defaults(command=list_models)
    _add_inspect(commands)
    add_jobs(commands, _EXITS, _add_parameters)
    return parser


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="tell what a picture's file says of itself, and how to make it again",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    inspect.add_argument("file", metavar="FILE", help="a picture, at most 1 GiB")
    inspect.add_argument("--json", action="store_true", help="write JSON to stdout")
    inspect.set_defaults(command=_inspect, spell=option_of)


async def _inspect(arguments: argparse.Namespace) -> Exit:
    """Imported late: the client alone can do the rest."""
    from serve_app.cli.inspect import inspect_file

    return await inspect_file(arguments)


def _add_upscale(commands: Any) -> None:
    upscale = commands.add_parser(
        "upscale",
        help="upscale pictures and folders of pictures",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    upscale.add_argument("inputs", nargs="+", metavar="IN", help="a picture, or a folder of them")
    upscale.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file (one picture), whose suffix tells the format; or a folder, created if missing",
    )
    _add_common(upscale)
    upscale.add_argument(
        "-r", "--recursive", action="store_true", help="descend into folders below a folder"
    )
    upscale.add_argument(
        "--report",
        action="store_true",
        help="write how faithful each result is, and what was run, beside it as OUT.json",
    )
    upscale.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    upscale.add_argument(
        "-j",
        "--concurrency",
        type=_positive,
        metavar="N",
        help="pictures at once; 2 with --server, else 1; downloads at once where a job is made of them",
    )
    upscale.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress on stderr; only on a terminal if absent",
    )
    _add_parameters(upscale)
    upscale.set_defaults(command=upscale_all)


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parameters = parser.add_argument_group("parameters", "An absent one takes the model's default.")
    for name, field in UpscaleParams.model_fields.items():
        if name in _SPELLED_SHORT:
            continue
        parameters.add_argument(
            option_of(name),
            dest=name,
            metavar=name.rsplit("_", 1)[-1].upper(),
            help=f"{field.description} ({allowed_range(UpscaleParams, name)})".replace("%", "%%"),
        )
    _add_short(parameters)
    parser.set_defaults(params=read_params)


def _add_short(parameters: Any) -> None:
    told = {name: UpscaleParams.model_fields[name].description for name in _SPELLED_SHORT}
    parameters.add_argument(
        "--control",
        dest="controls",
        action="append",
        default=[],
        type=read_control,
        metavar=CONTROL_SYNTAX,
        help=f"{told['controls']} FILE is the picture of a control that needs one of yours. Repeat for more.",
    )
    parameters.add_argument(
        "--lora",
        type=read_lora,
        default={},
        metavar=LORA_SYNTAX,
        help=f"{told['lora']} {told['lora_scale']}",
    )
    parameters.add_argument(
        "--priority",
        choices=list(Priority),
        help="batch lets others pass; batch for a job, else interactive, if absent",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", metavar="URL", help="ask a running server instead of computing in this process"
    )
    parser.add_argument("--json", action="store_true", help="write JSON to stdout")


def option_of(name: str) -> str:
    """The option that sets a parameter: `true_cfg_scale` is `--true-cfg-scale`."""
    return "--" + name.replace("_", "-")


def read_params(arguments: argparse.Namespace) -> UpscaleParams:
    """Reads the parameters among the arguments.

    Raises:
        UsageError: naming the option at fault and what is allowed.
    """
    given: dict[str, Any] = {
        name: text
        for name in UpscaleParams.model_fields
        if name not in _SPELLED_SHORT and (text := getattr(arguments, name)) is not None
    }
    if arguments.controls:
        given["controls"] = [control.fields for control in arguments.controls]
    try:
        return UpscaleParams.parse(given | arguments.lora)
    except InvalidParameter as error:
        name = error.field or ""
        raise UsageError(f"{_SPELLED_SHORT.get(name) or option_of(name)}: {error.detail}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)

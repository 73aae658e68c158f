"""The short spelling of a control and of an adapter on the command line.

Values are left as texts for `UpscaleParams` to judge. This module refuses to know which names exist.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.cli.exits import UsageError

CONTROL_SYNTAX = "NAME[:SCALE[:START:END]][@FILE]"
LORA_SYNTAX = "NAME[:SCALE]"

_VALUE = "[^:@]+"
_CONTROL = re.compile(
    rf"(?P<name>{_VALUE})(:(?P<scale>{_VALUE})(:(?P<start>{_VALUE}):(?P<end>{_VALUE}))?)?(@(?P<file>.+))?"
)
_LORA = re.compile(r"(?P<lora>[^:]+)(:(?P<lora_scale>[^:]+))?")


@dataclass(frozen=True)
class Control:
    """One `--control`: the fields of `ControlParams` as texts, and the file of its picture."""

    fields: dict[str, str]
    file: Path | None


def read_control(text: str) -> Control:
    """Reads `canny`, `canny:0.5`, `canny:0.5:0:0.8` or `pose:0.6@pose.png`, for argparse.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    found = _matched(_CONTROL, text, CONTROL_SYNTAX)
    file = found.pop("file", None)
    return Control(found, None if file is None else Path(file))


def read_lora(text: str) -> dict[str, str]:
    """Reads `turbo` or `turbo:0.8`, for argparse: as the parameters `lora` and `lora_scale`.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    return _matched(_LORA, text, LORA_SYNTAX)


def read_pictures(controls: Sequence[Control]) -> dict[str, bytes]:
    """Reads the files of controls, by the control's name.

    Raises:
        UsageError: a file cannot be read.
    """
    files = {c.fields["name"]: c.file for c in controls if c.file is not None}
    try:
        return {name: file.read_bytes() for name, file in files.items()}
    except OSError as error:
        raise UsageError(f"--control: {error.filename}: {error.strerror}") from None


def _matched(pattern: re.Pattern[str], text: str, syntax: str) -> dict[str, str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {syntax}")
    return {name: value for name, value in match.groupdict().items() if value is not None}

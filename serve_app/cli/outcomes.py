"""What became of each picture of a command: told as it happens, counted for the exit code.

It refuses to know how pictures are enlarged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from serve_app.cli.exits import Exit
from serve_app.cli.files import Picture
from serve_app.errors import TesseraError


class Outcomes:
    """Tells of pictures, and counts those that failed.

    Args:
        say: Writes a line without tearing what shows progress.
        as_json: True writes JSON lines to stdout.
    """

    def __init__(self, say: Callable[[str, TextIO], None], as_json: bool) -> None:
        self._say = say
        self._as_json = as_json
        self._failed: set[Path] = set()

    def success(self, facts: Mapping[str, Any]) -> None:
        """Tells of a result; `facts` are those of `told_of`."""
        self._failed.discard(Path(facts["input"]))
        line = json.dumps(facts)
        if not self._as_json:
            size, seed = f"{facts['width']}x{facts['height']}", facts["params"]["seed"]
            line = f"{facts['input']} -> {facts['output']} ({size}, seed {seed})"
        self._say(line, sys.stdout)

    def failure(self, picture: Picture, reason: str) -> None:
        """Tells why a picture has no result, once."""
        if picture.source in self._failed:
            return
        self._failed.add(picture.source)
        self._say(f"tessera: {picture.source}: {reason}", sys.stderr)
        if self._as_json:
            self._say(json.dumps({"input": str(picture.source), "error": reason}), sys.stdout)

    def unsupported(self, picture: Picture, reason: str) -> None:
        """Tells of a file of a kind that is not read: a failure only where it was named."""
        if picture.in_folder:
            self._say(f"tessera: {picture.source}: skipped, {reason}", sys.stderr)
        else:
            self.failure(picture, reason)

    def exit(self, pictures: int) -> Exit:
        """Sums up, and gives the exit code."""
        if self._failed:
            print(f"tessera: {len(self._failed)} of {pictures} failed", file=sys.stderr)
        return Exit.FAILED if self._failed else Exit.DONE


def told_of(picture: Picture, target: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a result: its fidelity report and all that was run, without the picture."""
    return {"input": str(picture.source), "output": str(target), **facts}


def reason_of(error: TesseraError | OSError) -> str:
    """A sentence for a person."""
    if isinstance(error, TesseraError):
        return error.detail
    return f"{error.strerror}: {error.filename}" if error.strerror else str(error)

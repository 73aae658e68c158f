"""Which pictures to read, and which file each becomes.

Outputs are decided before anything runs, so that a mistake costs no computing. This module refuses to know
what happens between reading and writing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from serve_app.cli.exits import UsageError
from serve_app.contracts import OutputFormat
from serve_app.imaging.containers import recognise

_SUFFIXES = {
    ".png": OutputFormat.PNG,
    ".jpg": OutputFormat.JPEG,
    ".jpeg": OutputFormat.JPEG,
    ".webp": OutputFormat.WEBP,
    ".avif": OutputFormat.AVIF,
    ".tif": OutputFormat.TIFF,
    ".tiff": OutputFormat.TIFF,
    ".jxl": OutputFormat.JXL,
}

_SNIFFED_BYTES = 16


@dataclass(frozen=True)
class Picture:
    """One picture to read.

    Attributes:
        source: The file.
        relative: Its path below the output folder, with the source's own suffix.
        in_folder: True where it was found in a folder rather than named.
    """

    source: Path
    relative: Path
    in_folder: bool


def find_pictures(inputs: Sequence[str], recursive: bool) -> tuple[list[Picture], list[Path]]:
    """Lists the pictures to read, and the files in folders that are none.

    Args:
        inputs: Files, taken as they are, and folders.
        recursive: True descends into folders below a folder.
    """
    pictures: list[Picture] = []
    skipped: list[Path] = []
    for path in map(Path, inputs):
        if not path.is_dir():
            pictures.append(Picture(path, Path(path.name), in_folder=False))
            continue
        for found in sorted(path.rglob("*") if recursive else path.iterdir()):
            if found.is_file() and _is_picture(found):
                pictures.append(Picture(found, found.relative_to(path), in_folder=True))
            elif found.is_file():
                skipped.append(found)
    return pictures, skipped


def _is_picture(path: Path) -> bool:
    """By its first bytes alone: one that does not decode is to be reported, not passed over."""
    with path.open("rb") as file:
        return recognise(file.read(_SNIFFED_BYTES)) is not None


def is_file_target(output: str, inputs: Sequence[str]) -> bool:
    """True where OUT names a file: one input, not a folder, and a suffix on OUT.

    Raises:
        UsageError: OUT is a file, or looks like one, but the inputs need a folder.
    """
    path = Path(output)
    if output.endswith(("/", os.sep)) or path.is_dir() or (not path.suffix and not path.exists()):
        return False
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        if path.exists() or path.suffix.lower() in _SUFFIXES:
            raise UsageError(f"{output}: several pictures need a folder, not a file")
        return False
    return True


def format_of(output: str, asked: OutputFormat | None) -> OutputFormat:
    """The format that an output file's suffix tells.

    Raises:
        UsageError: an unknown suffix, or one that contradicts `--output-format`.
    """
    suffix = Path(output).suffix.lower()
    found = _SUFFIXES.get(suffix)
    if found is None:
        known = ", ".join(_SUFFIXES)
        raise UsageError(f"{output}: the suffix must be one of {known}; a folder ends with /")
    if asked is not None and asked is not found:
        raise UsageError(f"{output}: the suffix contradicts --output-format {asked}")
    return found


def place_in_folder(
    pictures: Sequence[Picture], folder: Path, output_format: OutputFormat
) -> list[Path]:
    """Gives each picture its file below `folder`.

    `a.jpg` becomes `a.png`; where two sources would become the same file, they keep their suffixes:
    `a.jpg.png`, `a.webp.png`. Two inputs of the very same name are told apart by a number.
    """
    suffix = f".{output_format}"
    short = [folder / found.relative.with_suffix(suffix) for found in pictures]
    shared = Counter(short)
    taken: set[Path] = set()
    return [
        _free(path if shared[path] == 1 else path.with_name(found.relative.name + suffix), taken)
        for path, found in zip(short, pictures, strict=True)
    ]


def _free(path: Path, taken: set[Path]) -> Path:
    numbered = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(2, len(taken) + 3))
    chosen = next(option for option in chain([path], numbered) if option not in taken)
    taken.add(chosen)
    return chosen


def sidecar_of(target: Path) -> Path:
    """Where `--report` writes what is told of a result."""
    return target.with_name(f"{target.name}.json")


def check_target(
    target: Path, sources: Collection[Path], *, overwrite: bool, with_report: bool
) -> None:
    """Refuses to write over an input, and over what is there unless that is wanted.

    Args:
        target: What shall be written.
        sources: All inputs, resolved.
        overwrite: True replaces what is there.
        with_report: True looks for its sidecar, too.

    Raises:
        FileExistsError: it says why.
    """
    if target.resolve() in sources:
        raise FileExistsError(f"{target} is itself an input")
    for path in (target, sidecar_of(target))[: 1 + with_report]:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; --overwrite replaces it")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name first, so that `path` is never half written.

    Raises:
        OSError: as the file system says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

"""Open the pictures that :mod:`training.photographs` names, wherever they are packed.

Debian packages are fetched with ``apt-get download`` and unpacked without installing; GCompris
keeps its pictures in Qt bundles; scikit-image and scikit-learn ship theirs as package data. No
other download happens.
"""

import importlib.util
import io
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.photographs import PACKAGES, SCIKIT_IMAGE, SCIKIT_LEARN, Source, source_of
from training.rcc import read_bundle

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FLAT_BACKGROUND = (214, 214, 208)


class MissingPackagesError(RuntimeError):
    """Photographs are not on this machine and cannot be fetched here."""


@dataclass(frozen=True)
class Picture:
    """One picture that can be opened.

    Attributes:
        name: ``package:path``, stable across machines.
        source: the source that it belongs to.
        content: the encoded file.
    """

    name: str
    source: Source
    content: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """Decode to RGB, shape (height, width, 3); transparency goes onto a flat grey."""
        with Image.open(io.BytesIO(self.content)) as image:
            if image.mode not in ("RGBA", "LA", "P", "PA"):
                return np.asarray(image.convert("RGB"))
            rgba = image.convert("RGBA")
        flat = Image.new("RGBA", rgba.size, (*_FLAT_BACKGROUND, 255))
        flat.alpha_composite(rgba)
        return np.asarray(flat.convert("RGB"))


def fetch_packages(work: Path, debs: Path | None = None) -> Path:
    """Download and unpack the Debian packages; a package that is already there is left alone.

    Args:
        work: folder of the training's data; packages are unpacked under ``work/photos``.
        debs: folder that already holds ``.deb`` files, or None to download into ``work/debs``.

    Returns:
        The folder with one unpacked tree per package.

    Raises:
        MissingPackagesError: a package is missing and ``apt-get`` or ``dpkg-deb`` is not available,
            or the download failed.
    """
    photos, store = work / "photos", debs or work / "debs"
    missing = [name for name in PACKAGES if not (photos / name / "usr").is_dir()]
    if not missing:
        return photos
    store.mkdir(parents=True, exist_ok=True)
    photos.mkdir(parents=True, exist_ok=True)  # dpkg-deb makes one folder, not its parents
    to_download = [name for name in missing if not list(store.glob(f"{name}_*.deb"))]
    if shutil.which("dpkg-deb") is None or (to_download and shutil.which("apt-get") is None):
        raise MissingPackagesError(
            "training needs Debian's apt-get and dpkg-deb to fetch its photographs; "
            f"on another system put the .deb files of {', '.join(missing)} into {store}"
        )
    if to_download:
        _run(["apt-get", "download", *to_download], cwd=store)
    for name in missing:
        deb = sorted(store.glob(f"{name}_*.deb"))[-1]
        _run(["dpkg-deb", "-x", str(deb), str(photos / name)], cwd=store)
    return photos


def pictures(photos: Path) -> list[Picture]:
    """List every picture that training or evaluation uses, sorted by name.

    Args:
        photos: the folder that :func:`fetch_packages` returned.

    Returns:
        The pictures, with the sources' limits applied.
    """
    groups: dict[Source, list[Picture]] = defaultdict(list)
    for package, path, content in _candidates(photos):
        source = source_of(package, path)
        if source is not None and _shorter_side(content) >= source.min_side_px:
            groups[source].append(Picture(f"{package}:{path}", source, content))
    chosen: list[Picture] = []
    for source, group in groups.items():
        group.sort(key=lambda picture: picture.name)
        keep = len(group) if source.limit is None else min(source.limit, len(group))
        chosen += [group[index * len(group) // keep] for index in range(keep)]
    return sorted(chosen, key=lambda picture: picture.name)


def _candidates(photos: Path) -> Iterator[tuple[str, str, bytes]]:
    for package in PACKAGES:
        root = photos / package
        for file in sorted(root.rglob("*")):
            if file.is_symlink() or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            if file.suffix == ".rcc":
                for inner, content in read_bundle(file.read_bytes()):
                    if inner.lower().endswith(_SUFFIXES):
                        yield package, f"{file.name}:{inner}", content
            elif file.suffix.lower() in _SUFFIXES and source_of(package, path):
                yield package, path, file.read_bytes()
    for package, module, folder in (
        (SCIKIT_IMAGE, "skimage", "data"),
        (SCIKIT_LEARN, "sklearn", "datasets/images"),
    ):
        for file in sorted((_package_folder(module) / folder).iterdir()):
            if file.suffix in _SUFFIXES and source_of(package, file.name):
                yield package, file.name, file.read_bytes()


def _package_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackagesError(f"training needs the Python package {module}")
    return Path(spec.origin).parent


def _shorter_side(content: bytes) -> int:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return min(image.size)
    except OSError:
        return 0


def _run(command: list[str], cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        raise MissingPackagesError(f"{' '.join(command)} failed: {result.stderr.strip()[-400:]}")

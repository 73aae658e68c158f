"""Copies the files of a folder from any fsspec URL to this node: once for all processes, whole or not at all.

A copy is made beside its place and renamed into it when every file has arrived with the size that the source
lists and is on the disk; a process that is killed leaves nothing that looks like a copy. A manifest keeps each
file's size, SHA-256 and time of change. Sizes and times are compared whenever the copy is used, which costs
nothing; a file whose time has moved is hashed again. So every write to a copy is caught without reading 30 GB
at each start. What it refuses to know: models, and what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from serve_app.errors import ConfigurationError

_MANIFEST = ".tessera-copy.json"
_FILES_AT_ONCE = 4
_ATTEMPTS = 3
_VERSION_FIELDS = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "Last-Modified",
    "LastModified",
    "mtime",
)
_logger = logging.getLogger("tessera.models")


def copy_once(
    url: str, cache: Path, wanted: Sequence[str] = ("*",), origin: str | None = None
) -> Path:
    """Copies a folder into the cache unless this version of it is already there.

    What the source lists (names, sizes, versions) is part of the copy's name, so a folder whose content
    changes becomes another copy and the old one stays for those who read it.

    Args:
        url: The folder, as fsspec knows it.
        cache: Where copies lie.
        wanted: Patterns of the files to take; subfolders are never taken.
        origin: What the copy says that it is of; `url` where not given.

    Returns:
        The copy.

    Raises:
        ConfigurationError: if the source cannot be listed or read.
    """
    origin = origin or url
    try:
        files, root = fsspec.url_to_fs(url)
        listed = _list(files, root.rstrip("/"), wanted)
    except Exception as error:  # each of fsspec's drivers raises its own
        raise _unreadable(url, error) from error
    if not listed:
        raise _unreadable(url, f"it has no files like {', '.join(wanted)}")
    copy = cache / _name(origin, listed)
    if is_intact(copy):
        return copy
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{copy}.lock"):
            if not is_intact(copy):
                _logger.info("models.copy", extra={"origin": origin, "copy": str(copy)})
                _replace(copy, origin, files, root.rstrip("/"), listed)
    except OSError as error:
        detail = f"model: {origin} cannot be copied to {cache}: {error}"
        raise ConfigurationError(detail, field="model.cache_dir") from error
    return copy


def _name(origin: str, listed: dict[str, list[Any]]) -> str:
    """For people the folder's own name, and a digest of where it is from and what it holds."""
    digest = hashlib.sha256(json.dumps([origin, listed]).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", origin.rstrip("/").rpartition("/")[2])
    return f"{name}-{digest}"


def origin_of(folder: Path) -> str | None:
    """Where a copy came from; None for a folder that is no copy."""
    manifest = _read_manifest(folder / _MANIFEST)
    return None if manifest is None else str(manifest["origin"])


def is_intact(copy: Path) -> bool:
    """Whether a copy is there and every file is as it was written."""
    manifest = _read_manifest(copy / _MANIFEST)
    return manifest is not None and not changed_files(copy, manifest["files"])


def changed_files(folder: Path, recorded: dict[str, dict[str, Any]]) -> list[str]:
    """The files that are missing, of another size, or changed since `record` saw them."""
    return [name for name, facts in recorded.items() if not _is_unchanged(folder / name, facts)]


def record(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `changed_files` compares: each file's size, SHA-256 and time of change."""
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return dict(pool.map(lambda name: (name, _facts(folder / name)), names))


def _list(files: Any, root: str, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Each file's path below the root, with its size and whatever tells its version."""
    files.invalidate_cache()
    found = files.find(root, maxdepth=1, detail=True)
    listed = {}
    for path, facts in sorted(found.items()):
        name = path.removeprefix(f"{root}/")
        if "/" in name or not any(fnmatchcase(name, pattern) for pattern in wanted):
            continue  # an HTTP index also links to its parent and to other sortings of itself
        known = facts if facts.get("size") is not None else files.info(path)
        versions = [str(known[field]) for field in _VERSION_FIELDS if known.get(field)]
        listed[name] = [known.get("size"), *versions]
    return listed


def _replace(copy: Path, origin: str, files: Any, root: str, listed: dict[str, list[Any]]) -> None:
    """Makes the copy anew; the caller holds its lock."""
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for copied in [
            pool.submit(_copy_file, files, f"{root}/{name}", partial / name, facts[0])
            for name, facts in listed.items()
        ]:
            copied.result()
    manifest = {"origin": origin, "files": record(partial, listed)}
    _write_durably(partial / _MANIFEST, json.dumps(manifest))
    shutil.rmtree(copy, ignore_errors=True)
    partial.rename(copy)


def _copy_file(files: Any, source: str, target: Path, size: int | None) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            files.get_file(source, str(target))
            if size in (None, target.stat().st_size):
                break
            fault: Exception | str = f"{target.stat().st_size} of {size} bytes arrived"
        except Exception as error:  # each of fsspec's drivers raises its own
            fault = error
        _logger.warning(
            "models.copy_failed", extra={"source": source, "fault": str(fault), "attempt": attempt}
        )
    else:
        raise _unreadable(source, fault)
    with target.open("rb") as written:
        os.fsync(written.fileno())


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return manifest


def _facts(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256_of(path)}


def _is_unchanged(path: Path, facts: dict[str, Any]) -> bool:
    try:
        found = path.stat()
        if found.st_size != facts["size"]:
            return False
        same_time: bool = found.st_mtime_ns == facts["mtime_ns"]
        return same_time or sha256_of(path) == facts["sha256"]
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(url: str, why: Exception | str) -> ConfigurationError:
    return ConfigurationError(f"model: {url} cannot be fetched: {why!s}", field="model.source")
